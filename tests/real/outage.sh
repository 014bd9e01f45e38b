#!/usr/bin/env bash
# Outages of the S3 server, on a real mount: one that ends in time is not noticed; in a longer one
# everybody who needs storage is told, and nothing is left behind.

. "$(dirname "$0")/place.sh"

# A server of our own, beside the one that others may be using, and gone when the rest has ended.
if [ "${1:-}" != with-server ]; then
    export KIVAFS_CEPH_PORT=$((${KIVAFS_CEPH_PORT:-7481} + 1))
    unset KIVAFS_CEPH_DIR KIVAFS_TEST_S3
    trap '"$root/tests/real/ceph.sh" wipe' EXIT
    "$0" with-server
    exit
fi

# (Programs are told of it as of one that somebody else runs.)
server() {
    env -u KIVAFS_TEST_S3 "$root/tests/real/ceph.sh" "$1"
}

size() {
    stat -c %s "$1"
}

# fails COMMAND...: whatever it says.
fails() {
    if "$@"; then
        fail "done, though there is no server: $*"
    fi
}

# fails_with_eio COMMAND...: as it does when storage does not answer in time.
fails_with_eio() {
    local said
    if said=$("$@" 2>&1); then
        fail "done, though there is no server: $*"
    fi
    grep 'Input/output error' <<<"$said"
}

# within SECONDS COMMAND...: and no longer.
within() {
    local most=$1 since=$SECONDS
    shift
    "$@"
    [ $((SECONDS - since)) -le "$most" ] || fail "$((SECONDS - since)) s, not $most: $*"
}

# not_all_durable COMMAND...: an unmount that says so.
not_all_durable() {
    local said status=0
    said=$("$@" 2>&1) || status=$?
    [ "$status" = 1 ] || fail "exit code $status, not 1: $*"
    grep 'not everything is durable' <<<"$said"
}

# The answers may come from kivafs's memory, but not from the kernel's.
reads_go_on() {
    [ "$(dd if="$mnt/small" iflag=direct status=none)" = small ]
    [ ! -e "$mnt/absent $RANDOM" ]
    ls -l "$mnt"
    df "$mnt"
}

# Neither the mount, nor its server, nor who worked there. (A process of which one thread is stuck in
# the kernel would still be there.)
nothing_is_left() {
    local since=$SECONDS
    [ -z "$(mounts_below "$mnt")" ]
    while [ -e "/proc/$(<"$place/server")" ] || pgrep -fa "$mnt"; do
        [ $((SECONDS - since)) -lt 5 ] || fail "there is still a process of $mnt"
        sleep 0.1
    done
}

copy_goes_on() {
    local copy copied
    head -c 300M /dev/urandom >"$plain/big"
    : >"$mnt/big"
    cp "$plain/big" "$mnt/big" &
    copy=$!
    until [ "$(size "$mnt/big")" -gt $((30 << 20)) ]; do
        sleep 0.05
    done
    server stop
    copied=$(size "$mnt/big")
    sleep 60
    echo "copied when the server went: $((copied >> 20)) MiB, a minute later: $(($(size "$mnt/big") >> 20)) MiB"
    [ "$(size "$mnt/big")" -lt "$(size "$plain/big")" ]
    server start
    wait "$copy"
    cmp "$plain/big" "$mnt/big"
    remount
    cmp "$plain/big" "$mnt/big"
}

timeout_is_kept() {
    local writers=() writer
    "$KIVAFS" umount "$mnt"
    mount_it timeout=10
    echo small >"$mnt/small"
    sync "$mnt/small"
    server stop
    # One that waits for its commit, and one that waits for room.
    within 20 fails_with_eio dd if=/dev/urandom of="$mnt/synced" bs=64K count=1 conv=fsync &
    writers+=($!)
    within 40 fails_with_eio dd if=/dev/urandom of="$mnt/large" bs=1M count=400 &
    writers+=($!)
    for _ in $(seq 5); do
        sleep 1
        reads_go_on
    done
    for writer in "${writers[@]}"; do
        wait "$writer"
    done
    reads_go_on
    within 30 not_all_durable "$KIVAFS" umount "$mnt"
    nothing_is_left
    server start
    mount_it
    reads_go_on
    cmp "$plain/big" "$mnt/big"
}

force_is_at_once() {
    local writer
    fails dd if=/dev/urandom of="$mnt/large" bs=1M count=400 &
    writer=$!
    until [ "$(size "$mnt/large")" -gt $((10 << 20)) ]; do
        sleep 0.05
    done
    server stop
    reads_go_on
    within 5 not_all_durable "$KIVAFS" umount --force "$mnt"
    wait "$writer"
    nothing_is_left
    server start
    mount_it
    reads_go_on
    cmp "$plain/big" "$mnt/big"
}

# The end of a mount is noted in the bucket, too, but nobody's data depends on that.
durable_is_durable() {
    echo more >"$mnt/more"
    sync "$mnt/more"
    server stop
    within 5 "$KIVAFS" umount --force "$mnt"
    nothing_is_left
    server start
    mount_it
    [ "$(<"$mnt/more")" = more ]
}

begin outage bucket
try "a copy goes on after a minute without a server" copy_goes_on
try "without a server for longer than timeout=, errors" timeout_is_kept
try "without a server, umount --force ends at once" force_is_at_once
try "without a server, what was durable is told to be" durable_is_durable
finish
