#!/usr/bin/env bash
# A full disk under a store, on a real mount: what does not fit is refused with ENOSPC, and with nothing
# else; deleting, mounting and unmounting work; the store stays whole, and goes on when there is space.
#
# The disk is a small file system of its own: ext4 on a loop device, and tmpfs.

. "$(dirname "$0")/place.sh"

# new_disk SIZE_MIB: an empty one at $disk.
new_disk() {
    disk=$place/disk
    mkdir -p "$disk"
    # A case that failed leaves its own.
    ! mountpoint -q "$here" || umount -l "$here"
    ! mountpoint -q "$disk" || umount -l "$disk"
    rm -f "$place/image"
    case $kind in
    tmpfs) mount -t tmpfs -o "size=${1}m" tmpfs "$disk" ;;
    ext4)
        truncate -s "${1}M" "$place/image"
        mkfs.ext4 -q -F -m 0 "$place/image"
        mount -o loop "$place/image" "$disk"
        ;;
    esac
}

no_disk() {
    local since=$SECONDS
    # The store's server ends a moment after it has told that everything is durable.
    until umount "$disk"; do
        [ $((SECONDS - since)) -lt 10 ] || fail "the disk is still in use 10 seconds after the store was unmounted"
        sleep 0.1
    done
    rm -f "$place/image"
}

# Until not one block more fits.
fill() {
    local part
    for part in 1M 4K; do
        ! dd if=/dev/zero bs=$part oflag=append conv=notrunc of="$disk/filler" status=none 2>/dev/null
    done
    [ "$(df -B4K --output=avail "$disk" | tail -n 1)" -le 1 ]
}

on_disk() {
    "$KIVAFS" mount -o "log=$place/log" "$disk/store" "$here"
}

# no_space COMMAND...: fails, with ENOSPC as what it says.
no_space() {
    ! LC_ALL=C "$@" >"$place/said" 2>&1
    cat "$place/said"
    grep -qi 'no space left' "$place/said"
}

# A file of that many MiB that nothing compresses.
random() {
    head -c "$2M" /dev/urandom >"$1"
}

create_on_a_full_disk() {
    new_disk 10
    ! "$KIVAFS" create "$disk/store" 2>"$place/said"
    cat "$place/said"
    grep -qi 'space' "$place/said"
    [ "$(wc -l <"$place/said")" = 1 ]
    [ ! -e "$disk/store" ]
    no_disk
}

# Somebody else fills the disk while the store is mounted, and while it is not.
filled_by_others() {
    local before number
    new_disk 160
    "$KIVAFS" create "$disk/store"
    on_disk
    echo kept >"$here/kept"
    random "$here/large" 40
    mkdir "$here/many"
    for number in $(seq 500); do echo "$number" >"$here/many/$number"; done
    sync "$here/large"
    before=$(sha256sum <"$here/large")
    fill
    no_space dd if=/dev/urandom of="$here/new" bs=1M count=200 conv=fsync
    [ "$(sha256sum <"$here/large")" = "$before" ]
    "$KIVAFS" umount "$here"
    "$KIVAFS" check --data "$disk/store"
    # Whatever came free meanwhile.
    fill
    on_disk
    [ "$(sha256sum <"$here/large")" = "$before" ]
    [ "$(cat "$here/kept")" = kept ]
    rm "$here/many/1"
    sync "$here/many"
    kill -9 "$("$KIVAFS" info "$disk/store" | sed -n 's/^held by *pid \([0-9]*\)[ ,].*/\1/p')"
    until ! stat "$here/kept" >/dev/null 2>&1; do :; done
    umount -l "$here"
    fill
    on_disk
    [ ! -e "$here/many/1" ]
    # All of it can be deleted.
    rm -r "$here/many" "$here/large" "$here/new"
    sync "$here"
    [ "$(ls "$here")" = kept ]
    "$KIVAFS" umount "$here"
    "$KIVAFS" check --data "$disk/store"
    fill
    no_space "$KIVAFS" put "$disk/store" /put <"$place/noise"
    "$KIVAFS" rm "$disk/store" /kept
    rm "$disk"/filler*
    on_disk
    random "$here/next" 40
    sync "$here/next"
    "$KIVAFS" umount "$here"
    "$KIVAFS" check --data "$disk/store"
    no_disk
}

# Small changes without an end: checkpoints, too, find no space. Nothing but ENOSPC is ever said, and what
# fsync has returned for is there.
checkpoints() {
    local round number refusals=0 said=$place/refusal
    new_disk 96
    "$KIVAFS" create "$disk/store"
    on_disk
    mkdir "$here/small"
    fill
    for round in $(seq 8); do
        for number in $(seq 300); do
            # 900 bytes that nothing compresses: in the tree itself.
            if ! LC_ALL=C dd if="$place/noise" of="$here/small/$round-$number" bs=900 count=1 skip=$((round * 300 + number)) \
                status=none 2>"$said"; then
                refusals=$((refusals + 1))
                grep -q 'No space left on device' "$said" || fail "round $round: $(cat "$said")"
                rm -f "$here/small/$round-$number"
            fi
        done
        # Deleting always works; every other round all goes.
        if [ $((round % 2)) = 0 ]; then
            rm -rf "$here/small"
            mkdir "$here/small"
        fi
        sync "$here/small"
    done
    echo "$refusals refusals"
    manifest "$here" >"$place/before"
    "$KIVAFS" umount "$here"
    "$KIVAFS" check --data "$disk/store"
    fill
    on_disk
    manifest "$here" >"$place/after"
    diff "$place/before" "$place/after"
    rm "$disk"/filler*
    echo again >"$here/again"
    sync "$here/again"
    "$KIVAFS" umount "$here"
    "$KIVAFS" check --data "$disk/store"
    no_disk
}

# create --size: the same, with room on the disk.
bounded() {
    local size=$((64 << 20)) before since
    new_disk 160
    ! "$KIVAFS" create --size 32M "$disk/store"
    "$KIVAFS" create --size 64M "$disk/store"
    on_disk
    [ "$(df -B1 --output=size "$here" | tail -n 1)" -le "$size" ]
    no_space dd if=/dev/urandom of="$here/large" bs=1M count=100
    [ "$(du -B1 "$disk/store" | cut -f1)" -le "$size" ]
    sync "$here/large"
    before=$(sha256sum <"$here/large")
    "$KIVAFS" umount "$here"
    "$KIVAFS" check --data "$disk/store"
    on_disk
    [ "$(sha256sum <"$here/large")" = "$before" ]
    rm "$here/large"
    sync "$here"
    since=$SECONDS
    until dd if=/dev/urandom of="$here/next" bs=1M count=20 conv=fsync status=none; do
        [ $((SECONDS - since)) -lt 60 ] || fail "no space a minute after everything was removed"
        rm -f "$here/next"
        sleep 0.2
    done
    [ "$(du -B1 "$disk/store" | cut -f1)" -le "$size" ]
    "$KIVAFS" umount "$here"
    "$KIVAFS" check --data "$disk/store"
    no_disk
}

# Filled to the brim, and then every other file is deleted: what is left of each segment is moved together. Of what
# compresses, too.
deleted_all_over() {
    local what number full available again=0
    for what in noise text; do
        new_disk 160
        "$KIVAFS" create "$disk/store"
        on_disk
        number=0
        while part "$what" "$number" >"$here/$number" 2>/dev/null; do number=$((number + 1)); done
        rm -f "$here/$number"
        full=$number
        [ "$(df -BM --output=avail "$here" | tail -n 1 | tr -d ' M')" -le 8 ]
        for number in $(seq 0 2 $((full - 1))); do rm "$here/$number"; done
        sync "$here"
        available=$(df -BK --output=avail "$here" | tail -n 1 | tr -d ' K')
        again=0
        for number in $(seq 0 2 $((full - 1))); do
            if part "$what" "$number" >"$here/$number" 2>/dev/null; then
                again=$((again + 1))
            else
                rm -f "$here/$number"
            fi
        done
        echo "$what: $full files of 200 kB, $again of $(((full + 1) / 2)) again; $available kB told"
        [ "$again" -ge $((full / 2 * 3 / 4)) ]
        sync "$here"
        for number in $(seq 1 2 $((full - 1))); do part "$what" "$number" | cmp - "$here/$number"; done
        "$KIVAFS" umount "$here"
        "$KIVAFS" check --data "$disk/store"
        no_disk
    done
}

# part WHAT NUMBER: 200 kB, other ones for each number (of 40).
part() {
    dd if="$place/$1" bs=200000 skip=$(($2 % 40)) count=1 status=none
}

# A file that changes in place, again and again: what lives is moved out of segments that are mostly dead. Without
# that hardly one of them comes free: as much again is written here as the store has, and it would be full.
changed_in_place() {
    local round
    new_disk 300
    "$KIVAFS" create --size 200M "$disk/store"
    on_disk
    random "$here/file" 120
    cp --reflink=never "$here/file" "$place/expected"
    for round in $(seq 2400); do
        # One of its 1920 parts, and what it becomes.
        printf '%s %s\n' $((RANDOM % 1920)) $((RANDOM % 128))
    done | while read -r part noise; do
        dd if="$place/noise" skip="$noise" of="$here/file" seek="$part" bs=64K count=1 conv=notrunc status=none
        dd if="$place/noise" skip="$noise" of="$place/expected" seek="$part" bs=64K count=1 conv=notrunc status=none
    done
    sync "$here/file"
    cmp "$here/file" "$place/expected"
    grep -q 'cleaned  *[1-9]' "$here/.kivafs/stats"
    "$KIVAFS" umount "$here"
    "$KIVAFS" check --data "$disk/store"
    on_disk
    cmp "$here/file" "$place/expected"
    rm "$place/expected"
    "$KIVAFS" umount "$here"
    no_disk
}

command -v mkfs.ext4 >/dev/null || fail "full: mkfs.ext4 is missing: install the package e2fsprogs"
begin full
here=$place/here
mkdir "$here"
random "$place/noise" 8
head -c 2M "$place/noise" | base64 -w 63 | sed 'p;p' >"$place/text"
for kind in ${KINDS:-ext4 tmpfs}; do
    try "$kind: no store is made on a full disk" create_on_a_full_disk
    try "$kind: a disk that others fill" filled_by_others
    try "$kind: checkpoints on a full disk" checkpoints
    try "$kind: a store of bounded size" bounded
    try "$kind: what is deleted all over a full store" deleted_all_over
    try "$kind: a store of bounded size that changes in place" changed_in_place
done
finish
