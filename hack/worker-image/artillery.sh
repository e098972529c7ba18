#!/bin/sh
# The image's `artillery`.

# The kernel keeps from process 1 every signal that it has no handler for, and node has none for SIGTERM until Artillery
# begins a run: a pod deleted while Artillery loads would live through its grace period. So a shell is process 1.
node='' stopped=''
if [ $$ = 1 ]; then
  trap 'stopped=TERM; [ -z "$node" ] || kill -TERM "$node"' TERM
  trap 'stopped=INT; [ -z "$node" ] || kill -INT "$node"' INT
fi

# Node reads its compile cache from a folder named after the user's id, which the image cannot foresee: a link in /tmp
# gives any user the folder. Where /tmp cannot be written, Artillery starts without the cache, only slower.
cache=/opt/artillery/compile-cache uid=$(id -u)
here=/tmp/.compile-cache-$uid
for folder in "$cache"/*-0; do
  mine=${folder##*/} mine=${mine%-0}-$uid
  if [ ! -e "$cache/$mine" ] && mkdir -p "$here" 2>/dev/null && { [ -e "$here/$mine" ] || ln -s "$folder" "$here/$mine" 2>/dev/null; }; then
    export NODE_COMPILE_CACHE="$here"
  fi
done

# oclif asks the system for the user's shell, and fails for a user who is not in /etc/passwd.
export SHELL="${SHELL:-/bin/sh}" HOME="${HOME:-/tmp}"

run=/opt/artillery/node_modules/artillery/bin/run
[ $$ = 1 ] || exec node "$run" "$@"
node "$run" "$@" <&0 &
node=$!
[ -z "$stopped" ] || kill -"$stopped" "$node"
# A signal ends `wait` early; node is only gone once it cannot be found.
code=0
while kill -0 "$node" 2>/dev/null; do
  wait "$node" && code=0 || code=$?
done
exit "$code"
