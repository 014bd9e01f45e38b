#!/usr/bin/env bash
# A store in a bucket: made, mounted, written, unmounted, and mounted once more as if by another
# machine. Every command that matters is printed before it runs. Doing it again changes nothing but
# the key. Which server, which region and whose credentials, is in the environment, as for AWS's tools:
#
#   export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=... AWS_REGION=eu-north-1
#   export AWS_ENDPOINT_URL=http://127.0.0.1:7480      # if it is not Amazon's
#   examples/s3.sh s3://BUCKET/PREFIX [DIR]            # DIR (default: ~/kivafs/s3) is the mount point

set -euo pipefail
store=${1:?usage: examples/s3.sh s3://BUCKET/PREFIX [DIR]}
dir=$(realpath -m "${2:-$HOME/kivafs/s3}")
cd "$(dirname "$0")/.."
. tests/need.sh
need_kivafs

echo "# The mount; the store is made, if there is none"
run mkdir -p "$dir"
if mountpoint -q "$dir"; then
    echo "something is mounted at $dir: unmount it first" >&2
    exit 1
fi
run "$kivafs" mount --create "$store" "$dir"

echo "# A key is a file, its value is the content"
echo "\$ echo 'hello, world' > $dir/greeting"
echo 'hello, world' >"$dir/greeting"

echo "# Durable, whatever happens to this machine, once this returns (fsync): one PUT"
run sync "$dir/greeting"

echo "# Who has it, and what it takes"
run "$kivafs" info "$store"
run "$kivafs" umount "$dir"

echo "# Nothing is on this machine: this could as well be another one"
run "$kivafs" mount "$store" "$dir"
run cat "$dir/greeting"
run "$kivafs" umount "$dir"

echo "# Without a mount"
run "$kivafs" get "$store" /greeting

echo "# What all of this has cost so far"
run "$kivafs" info --cost "$store"
