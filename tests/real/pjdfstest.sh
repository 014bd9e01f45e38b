#!/usr/bin/env bash
# The crate pjdfstest on a real mount: what POSIX asks of each call. All tests must pass, but for the
# ones that FUSE has no answer for, which are named below.

. "$(dirname "$0")/place.sh"

# _PC_LINK_MAX has no value on FUSE; the test passes itself over.
PASSED_OVER="link::link_count_max"

# mount(8), which some tests call to remount, finds its helper in /sbin: in a mount namespace of our
# own that is a copy with ours added, so that the machine keeps what it has.
if [ "${1:-}" != in-namespace ]; then
    exec unshare --mount --propagation private "$0" in-namespace
fi

add_mount_helpers() {
    local sbin
    sbin=$(readlink -f /sbin)
    cp -a "$sbin" "$place/sbin"
    for helper in mount.kivafs mount.fuse.kivafs umount.kivafs umount.fuse.kivafs; do
        ln -sf "$KIVAFS" "$place/sbin/$helper"
    done
    mount --bind "$place/sbin" "$sbin"
}

run() {
    local summary skipped
    # It prints colours, terminal or not.
    "$pjdfstest" -c "$place/config.toml" -p "$mnt" -s "$secondary" 2>&1 | sed 's/\x1b\[[0-9;]*m//g' >"$place/results" || {
        grep -A 4 'FAILED$' "$place/results"
        tail -n 1 "$place/results"
        return 1
    }
    summary=$(grep '^Summary:' "$place/results")
    echo "$summary"
    # Nothing was passed over but what is named above, and something was done.
    skipped=$(sed -n 's/ *skipped$//p' "$place/results" | LC_ALL=C sort | paste -sd ' ')
    [ "$skipped" = "$PASSED_OVER" ] || fail "passed over: '$skipped', and not '$PASSED_OVER'"
    grep -q '^Summary: 0 failed, 1 skipped, 397 passed, 0 expected failures, 398 total$' <<<"$summary"
}

pjdfstest=$(crate pjdfstest)
begin pjdfstest
# rename and link must refuse to cross file systems: another one is needed.
secondary=$place/other
mkdir "$secondary"
mount -t tmpfs none "$secondary"
add_mount_helpers
cat >"$place/config.toml" <<'END'
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = true
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
END
# Its users must get in.
chmod 755 "$place"
try "pjdfstest: 397 tests" run
if [ "$failed" = 0 ]; then grep '^Summary:' "$place/results"; fi
finish
