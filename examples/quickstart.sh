#!/usr/bin/env bash
# From a checkout to a key that is a file: installs what is missing, builds, makes a store, mounts
# it, writes a key and reads it. Every command that matters is printed before it runs. Doing it
# again changes nothing but the key.
#
#   examples/quickstart.sh [PLACE]     PLACE (default: ~/kivafs) gets the store and the mount point

set -euo pipefail
place=$(realpath -m "${1:-$HOME/kivafs}")
cd "$(dirname "$0")/.."
. tests/need.sh
need_kivafs

echo "# A store, which is one file, and a directory to mount it at"
run mkdir -p "$place/keys"
if [ -e "$place/store" ]; then
    echo "($place/store is there already)"
else
    run "$kivafs" create "$place/store"
fi

echo "# The mount"
if mountpoint -q "$place/keys"; then
    echo "(it stands already)"
else
    run "$kivafs" mount "$place/store" "$place/keys"
fi

echo "# A key is a file, its value is the content"
echo "\$ echo 'hello, world' > $place/keys/greeting"
echo 'hello, world' >"$place/keys/greeting"
run cat "$place/keys/greeting"
run ls -l "$place/keys"

echo "# Durable, whatever happens next, once this returns (fsync)"
run sync "$place/keys/greeting"

cat <<END

It is mounted at $place/keys: use it like any directory.
The store is $place/store. When you are done:

  $kivafs umount $place/keys     # returns when everything is durable
  $kivafs mount $place/store $place/keys     # and it is back
END
