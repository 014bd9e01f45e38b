#!/usr/bin/env bash
# The crate pjdfstest on a real mount: what POSIX asks of each call. All of its 398 tests must pass,
# but for one that passes itself over: _PC_LINK_MAX has no value on FUSE.
#
#   tests/real/pjdfstest.sh [file|bucket|ceiling]
#
# file, bucket: what the store lies on. ceiling: the file system in memory that `kivafs bench mount` measures
# beside: one that left out what POSIX asks for would be no measure. mount(8) cannot remount that.

. "$(dirname "$0")/place.sh"

# mount(8), which some tests call to remount, finds its helper in /sbin: in a mount namespace of our
# own that is a copy with ours added, so that the machine keeps what it has.
if [ "${1:-}" != in-namespace ]; then
    exec unshare --mount --propagation private "$0" in-namespace "$@"
fi
shift

add_mount_helpers() {
    local sbin
    sbin=$(readlink -f /sbin)
    cp -a "$sbin" "$place/sbin"
    for helper in mount.kivafs mount.fuse.kivafs umount.kivafs umount.fuse.kivafs; do
        ln -sf "$KIVAFS" "$place/sbin/$helper"
    done
    mount --bind "$place/sbin" "$sbin"
}

# run ALLOW_REMOUNT EXPECTED [PATTERN]
run() {
    local summary
    settings "$1" >"$place/config.toml"
    # It prints colours, terminal or not.
    "$pjdfstest" -c "$place/config.toml" -p "$mnt" -s "$secondary" ${3:+"$3"} 2>&1 |
        sed 's/\x1b\[[0-9;]*m//g' >"$place/results" || {
        grep -A 4 'FAILED$' "$place/results"
        tail -n 1 "$place/results"
        return 1
    }
    summary=$(sed -n 's/^Summary: //p' "$place/results")
    [ "$summary" = "$2" ] || fail "$summary; expected: $2"
}

# What is passed over is what is known to be, and was not passed over for another reason.
passed_over() {
    local names
    names=$(sed -n 's/ *skipped$//p' "$place/results" | grep -v '::erofs_')
    [ "$names" = link::link_count_max ] || fail "passed over: $names"
}

settings() {
    cat <<END
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = $1
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
END
}

pjdfstest=$(crate pjdfstest)
leave_others
begin pjdfstest "$@"
# rename and link must refuse to cross file systems: another one is needed.
secondary=$place/other
mkdir "$secondary"
mount -t tmpfs none "$secondary"
add_mount_helpers
# Its users must get in.
chmod 755 "$place"
# Those of a read-only file system go by themselves: after the others, files that these left open keep
# any file system (ext4, too) from becoming read-only.
try "pjdfstest, all but erofs" run false "0 failed, 14 skipped, 384 passed, 0 expected failures, 398 total"
try "pjdfstest, only LINK_MAX is passed over" passed_over
[ -z "$store" ] || try "pjdfstest, erofs" run true "0 failed, 0 skipped, 13 passed, 0 expected failures, 13 total" erofs
finish
