#!/bin/sh
# The command `artillery` of the worker image.

# Process 1 ignores signals that it does not handle, and node does not handle SIGTERM until Artillery begins a run: a pod that
# is deleted while Artillery loads would live through its grace period. Therefore process 1 is this shell, which forwards signals.
node='' stopped=''
if [ $$ = 1 ]; then
  trap 'stopped=TERM; [ -z "$node" ] || kill -TERM "$node"' TERM
  trap 'stopped=INT; [ -z "$node" ] || kill -INT "$node"' INT
fi

# Node reads its compile cache from a folder named after the user ID, which is unknown when the image is built. A link in /tmp
# gives every user this folder. If /tmp is read-only, Artillery starts without the cache, only slower.
cache=/opt/artillery/compile-cache uid=$(id -u)
here=/tmp/.compile-cache-$uid
for folder in "$cache"/*-0; do
  mine=${folder##*/} mine=${mine%-0}-$uid
  if [ ! -e "$cache/$mine" ] && mkdir -p "$here" 2>/dev/null && { [ -e "$here/$mine" ] || ln -s "$folder" "$here/$mine" 2>/dev/null; }; then
    export NODE_COMPILE_CACHE="$here"
  fi
done

# oclif looks up the user's shell, and fails for a user who is not in /etc/passwd.
export SHELL="${SHELL:-/bin/sh}" HOME="${HOME:-/tmp}"

run=/opt/artillery/node_modules/artillery/bin/run
[ $$ = 1 ] || exec node "$run" "$@"
node "$run" "$@" <&0 &
node=$!
[ -z "$stopped" ] || kill -"$stopped" "$node"
# A signal interrupts `wait`, so wait until the process no longer exists.
code=0
while kill -0 "$node" 2>/dev/null; do
  wait "$node" && code=0 || code=$?
done
exit "$code"
