#!/bin/sh
# Adds Playwright and Chromium to the worker image's root: rootfs.sh APP ROOT, where APP has this folder's files and `npm ci` has
# been run in it. build.sh and the Dockerfile both run it, so both make the same image. It needs no root.
set -eu
umask 022
app=$(cd "$1" && pwd) root=$2
chromium=/usr/lib/chromium

echo "copying Playwright" >&2
wanted=$(sed -n 's/.*"playwright": "\(.*\)".*/\1/p' "$root/opt/artillery/node_modules/artillery/package.json")
found=$(sed -n 's/^  "version": "\(.*\)".*/\1/p' "$app/node_modules/playwright/package.json")
[ "$wanted" = "$found" ] || { echo "rootfs.sh: Artillery needs Playwright $wanted, but browser/package.json has $found" >&2 && exit 1; }
rm -rf "$app/node_modules/.bin" "$app/node_modules/.package-lock.json"
cp -R "$app/node_modules" "$root/opt/artillery/"
# As in Artillery's own image: scripts in any folder find @playwright/test.
ln -s opt/artillery/node_modules "$root/node_modules"
cd "$root/opt/artillery/node_modules"
# Playwright's recorder and viewers, and its types.
rm -rf playwright-core/lib/vite playwright-core/bin playwright/lib/agents
find playwright playwright-core @playwright -type f \( -name '*.map' -o -name '*.ts' -o -name '*.md' \) -delete

echo "copying Chromium, its libraries and fonts" >&2
mkdir -p "$root$chromium" "$root/usr/share/fonts/truetype" "$root/etc/fonts"
for file in chromium-headless-shell icudtl.dat headless_command_resources.pak headless_lib_data.pak headless_lib_strings.pak \
  v8_context_snapshot.bin libEGL.so libGLESv2.so libvk_swiftshader.so libvulkan.so.1 vk_swiftshader_icd.json; do
  cp -L "$chromium/$file" "$root$chromium/$file"
done
# ldd does not list the libraries that NSS loads at run time.
libraries=$(ldd "$chromium/chromium-headless-shell" "$chromium"/lib*.so | sed -n 's|.* => \(/[^ ]*\).*|\1|p' | sort -u)
nss=$(echo "$libraries" | grep 'libnss3\.so')
for library in $libraries "${nss%/*}"/libsoftokn3.so "${nss%/*}"/libfreebl3.so "${nss%/*}"/libfreeblpriv3.so "${nss%/*}"/libnssckbi.so; do
  if [ -e "$library" ] && [ ! -e "$root$library" ]; then
    mkdir -p "$root${library%/*}"
    cp -L "$library" "$root$library"
  fi
done
cp -RL /usr/share/fonts/truetype/liberation "$root/usr/share/fonts/truetype/"
cp -RL /etc/fonts/fonts.conf /etc/fonts/conf.d "$root/etc/fonts/"

# Playwright expects its own build of this revision at this path (EXECUTABLE_PATHS in playwright-core).
revision=$(sed -n '/"chromium-headless-shell"/,/revision/s/.*"revision": "\(.*\)".*/\1/p' playwright-core/browsers.json)
case $(uname -m) in
x86_64) path=chrome-headless-shell-linux64/chrome-headless-shell ;;
*) path=chrome-linux/headless_shell ;;
esac
path=$root/opt/playwright/chromium_headless_shell-$revision/$path
mkdir -p "${path%/*}"
ln -s "$chromium/chromium-headless-shell" "$path"
