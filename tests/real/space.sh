#!/usr/bin/env bash
# Space, on a real mount: what is overwritten or deleted comes free, and a full disk refuses what it
# cannot hold, lets everything be deleted, and goes on.

. "$(dirname "$0")/place.sh"

mib=1024

# Ten times the same file: the store stays below live data x 1.5 + 64 MiB.
overwritten() {
    local round occupied
    head -c "${mib}M" /dev/urandom >"$plain/random"
    for round in $(seq 10); do
        dd if="$plain/random" of="$mnt/file" bs=1M conv=notrunc,fsync status=none
        occupied=$(du -m "$store" | cut -f1)
        echo "round $round: $occupied MiB"
        [ "$occupied" -le $((mib * 3 / 2 + 64)) ]
    done
    cmp "$plain/random" "$mnt/file"
    remount
    cmp "$plain/random" "$mnt/file"
}

# What was deleted is given back to the disk, with nothing else going on.
deleted() {
    local occupied since=$SECONDS
    rm "$mnt/file"
    sync "$mnt"
    until occupied=$(du -m "$store" | cut -f1) && [ "$occupied" -le 64 ]; do
        [ $((SECONDS - since)) -lt 60 ] || fail "still $occupied MiB a minute after everything was removed"
        sleep 0.2
    done
}

# A disk of 160 MiB under the store.
full_disk() {
    local disk=$place/disk status=0 before since
    mkdir "$disk"
    mount -t tmpfs -o size=160m tmpfs "$disk"
    "$KIVAFS" umount "$mnt"
    mv "$store" "$place/other"
    "$KIVAFS" create "$disk/store"
    ln -s "$disk/store" "$store"
    mount_it
    echo kept >"$mnt/small"
    dd if=/dev/urandom of="$mnt/large" bs=1M count=400 2>"$place/dd" || status=$?
    [ "$status" != 0 ]
    grep -q 'No space left on device' "$place/dd"
    sync "$mnt/large"
    before=$(sha256sum <"$mnt/large")
    remount
    [ "$(sha256sum <"$mnt/large")" = "$before" ]
    [ "$(cat "$mnt/small")" = kept ]
    # Full, deleting works, and there is space again soon.
    rm "$mnt/large"
    sync "$mnt"
    since=$SECONDS
    until dd if=/dev/urandom of="$mnt/next" bs=1M count=60 conv=fsync status=none; do
        [ $((SECONDS - since)) -lt 60 ] || fail "no space a minute after everything was removed"
        rm -f "$mnt/next"
        sleep 0.2
    done
    [ "$(cat "$mnt/small")" = kept ]
    "$KIVAFS" umount "$mnt"
    "$KIVAFS" check --data "$disk/store"
    umount "$disk"
    rm "$store"
    mv "$place/other" "$store"
    mount_it
}

begin space
try "a file of $mib MiB, overwritten ten times" overwritten
try "what is deleted comes free" deleted
try "a full disk" full_disk
finish
