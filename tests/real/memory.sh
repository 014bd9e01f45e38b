#!/usr/bin/env bash
# Memory, on a real mount: the serving process stays within cache= + what is on its way + 128 MiB, whatever
# the size of what is copied and the number of files. Prints the most that each step took, beside the bound.
#
#   tests/real/memory.sh [file|bucket]
#
# MEMORY_SIZE (10G) is the large file's, MEMORY_FILES (1000000) the number of small ones, MEMORY_CACHE (64M)
# the cache. For a quick look: MEMORY_SIZE=256M MEMORY_FILES=20000.

export KIVAFS_PATIENCE=${KIVAFS_PATIENCE:-14400}
. "$(dirname "$0")/place.sh"

size=$(($(numfmt --from=iec "${MEMORY_SIZE:-10G}") >> 20))
files=${MEMORY_FILES:-1000000}
cache=${MEMORY_CACHE:-64M}
# Most that is accepted and not stored yet, in MiB: by a disk 8, by a bucket 64 under way; 32 wait for that; and
# values lie in the log alone, until a checkpoint has placed them.
on_its_way=64
bound=$(($(numfmt --from=iec "$cache") / 1048576 + on_its_way + 128))
writers=16
inodes=100000
a_directory=1000

mount_with_limits() {
    "$KIVAFS" umount "$mnt"
    mount_it "cache=$cache,inodes=$inodes"
}

# field NAME: MiB, rounded up, of the serving process.
field() {
    awk -v name="$1:" '$1 == name { print int(($2 + 1023) / 1024) }' "/proc/$(<"$place/server")/status"
}

# metric SERIES: its value.
metric() {
    awk -v name="$1" '$1 == name { print $2 }' "$mnt/.kivafs/metrics"
}

# measured WHAT COMMAND...: a step, and a line of the table. Its peak is of this step alone.
measured() {
    local what=$1 peak now
    shift
    echo 5 >"/proc/$(<"$place/server")/clear_refs"
    "$@"
    peak=$(field VmHWM) now=$(field VmRSS)
    printf '%-44s %7d %7d %7d\n' "$what" "$peak" "$now" "$bound" >>"$place/table"
    [ "$peak" -le "$bound" ] || fail "$what: $peak MiB at most, and the bound is $bound MiB"
}

copy_in() {
    head -c "${size}M" /dev/urandom | tee >(sha256sum >"$place/sum") | dd of="$mnt/large" bs=1M iflag=fullblock conv=fsync status=none
}

copy_out() {
    sha256sum <"$mnt/large" | cmp - "$place/sum"
}

# Removed is what has no name; and then in steps what it was made of.
delete() {
    rm "$mnt/large"
    echo >"$mnt/.kivafs/sync"
    nothing_deferred
}

nothing_deferred() {
    local since=$SECONDS
    until [ "$(metric kivafs_deferred_work)" = 0 ]; do
        [ $((SECONDS - since)) -lt 600 ] || fail "removals still have something to do after ten minutes"
        sleep 0.2
    done
}

make_files() {
    local made dir count
    for ((made = 0; made < files; made += a_directory)); do
        dir=$mnt/small/$((made / a_directory))
        count=$((files - made < a_directory ? files - made : a_directory))
        mkdir -p "$dir"
        seq "$count" | split -l 1 -a 3 -d - "$dir/file-"
    done
}

list_files() {
    [ "$(find "$mnt/small" -type f -printf '%s %m %T@\n' | wc -l)" = "$files" ]
    [ "$(ls -lR "$mnt/small" | grep -c file-)" = "$files" ]
}

# The kernel is asked to let go of the others, and does so a little later.
few_are_held() {
    local since=$SECONDS
    until [ "$(metric kivafs_held_nodes)" -le "$inodes" ]; do
        [ $((SECONDS - since)) -lt 60 ] || fail "the kernel holds $(metric kivafs_held_nodes) nodes"
        stat "$mnt/small" >/dev/null
        sleep 0.2
    done
}

look_at_files() {
    list_files
    few_are_held
}

remove_files() {
    rm -r "$mnt/small"
    nothing_deferred
}

write_in_parallel() {
    local writer pids=() each=$((size / writers > 256 ? 256 : size / writers > 0 ? size / writers : 1))
    for writer in $(seq $writers); do
        dd if=/dev/urandom of="$mnt/writer-$writer" bs=1M count="$each" conv=fsync status=none &
        pids+=($!)
    done
    for writer in "${pids[@]}"; do wait "$writer"; done
}

# A disk that fills up would be full for all who use it.
free=$(df --output=avail -B1M "${TMPDIR:-/var/tmp}" | tail -n 1)
[ "$free" -ge $((size * 5 / 4 + 4096)) ] ||
    fail "memory: $free MiB of disk are free in ${TMPDIR:-/var/tmp}, too few for a file of $size MiB: set MEMORY_SIZE"

begin memory "${1:-file}"
printf '%-44s %7s %7s %7s\n' "MiB (cache=$cache, inodes=$inodes)" peak after bound >"$place/table"
try "mounted with limits" mount_with_limits
try "a file of $size MiB is copied in" measured "copied in, $size MiB" copy_in
try "mounted again" mount_with_limits
try "it is copied out" measured "copied out, $size MiB" copy_out
try "it is deleted" measured "deleted, $size MiB" delete
try "$writers writers at once" measured "$writers writers at once" write_in_parallel
try "$files files are made" measured "made, $files files" make_files
try "mounted again, with all these files" mount_with_limits
try "they are listed, twice" measured "listed with attributes, $files files" look_at_files
try "they are removed" measured "removed, $files files" remove_files
cat "$place/table"
finish
