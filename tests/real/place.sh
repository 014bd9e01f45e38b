# Sourced by the scripts beside it: a new store, mounted, that goes away with the script; cases that
# are counted; crates that are installed once.
#
# A script: source this; `begin NAME [MEDIUM]`; `try WHAT FUNCTION [WORD...]`...; `finish`. MEDIUM is
# what the store lies on: `file` (usual), or `bucket`: one of the S3 server of ceph.sh. `ceiling`: there is
# no store; the file system in memory of `kivafs bench mount` is mounted.
# KIVAFS names the binary to test (else the release build), KIVAFS_KEEP=1 keeps the store.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
KIVAFS=${KIVAFS:-$target/release/kivafs}
passed=0
failed=0

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# A place of its own: $place, with the store ($store), the mount point ($mnt), and the disk's own
# file system for comparison ($plain). Mounted.
begin() {
    local medium=${2:-file}
    name="$1, in a $medium"
    KIVAFS=$(realpath "$KIVAFS")
    [ "$(id -u)" = 0 ] || fail "$name: needs root: it mounts"
    [ -c /dev/fuse ] || fail "$name: /dev/fuse is missing: real mounts can't be tested here"
    [ -x "$KIVAFS" ] || fail "$name: $KIVAFS is missing: run cargo build --release --workspace"
    place=$(mktemp -d "${TMPDIR:-/var/tmp}/kivafs-$1.XXXXXX")
    mnt=$place/mnt plain=$place/plain
    trap end EXIT
    trap 'exit 1' INT TERM HUP
    mkdir "$mnt" "$plain"
    case $medium in
    file) store=$place/store ;;
    bucket)
        "$root/tests/real/ceph.sh" start >/dev/null
        eval "$("$root/tests/real/ceph.sh" env)"
        # What is stored stays there until the server is wiped, so that no name is used twice.
        store=s3://kivafs-test/$(date +%s)-$(basename "$place")
        ;;
    ceiling) store= ;;
    *) fail "$1: no medium: $medium" ;;
    esac
    [ -z "$store" ] || "$KIVAFS" create "$store"
    mount_it
    echo "== $name: $mnt"
}

end() {
    local status=$?
    set +e
    if is_mounted; then
        "$KIVAFS" umount --force "$mnt" >"$place/end" 2>&1
    fi
    # Its server has been told; one that is stuck must not outlive the test.
    if [ -s "$place/server" ] && ! timeout 10 tail --pid="$(<"$place/server")" -f /dev/null; then
        kill -9 "$(<"$place/server")"
    fi
    mounts_below "$place" | tac | while IFS= read -r mount; do umount -l "$mount"; done
    if [ "$status" != 0 ] && [ -s "$place/log" ]; then
        echo "-- the end of the log of kivafs:"
        tail -n 30 "$place/log"
    fi >&2
    if [ "${KIVAFS_KEEP:-0}" = 1 ]; then
        echo "kept: $place" >&2
    elif [ -n "$(mounts_below "$place")" ]; then
        # rm would walk into what is mounted there.
        echo "still mounted, so not removed: $place" >&2
    else
        rm -rf --one-file-system "$place"
    fi
    exit "$status"
}

# Where anything is mounted at or below a directory, in the order it was.
mounts_below() {
    awk -v dir="$1" '$5 == dir || index($5, dir "/") == 1 { print $5 }' /proc/self/mountinfo
}

# In a mount namespace of one's own: what others have mounted must not stay mounted because it is seen
# from here.
leave_others() {
    awk '$0 ~ / - fuse\.kivafs / { print $5 }' /proc/self/mountinfo | tac | while IFS= read -r dir; do
        umount -i -l "$(printf %b "$dir")"
    done
}

is_mounted() {
    [ -n "$(mounts_below "$mnt")" ]
}

# mount_it [OPTIONS]
mount_it() {
    if [ -z "$store" ]; then
        mount_ceiling
        return
    fi
    "$KIVAFS" mount -o "log=$place/log${1:+,$1}" "$store" "$mnt"
    is_mounted || fail "$name: kivafs mount returned, but nothing is mounted at $mnt"
    "$KIVAFS" info "$store" | sed -n 's/^held by *pid \([0-9]*\)[ ,].*/\1/p' >"$place/server"
    [ -s "$place/server" ] || fail "$name: kivafs info does not name the process that serves $mnt"
}

mount_ceiling() {
    local word
    mkfifo "$place/ready"
    "$KIVAFS" bench ceiling "$mnt" >"$place/ready" &
    echo "$!" >"$place/server"
    read -r word <"$place/ready" || fail "$name: kivafs bench ceiling ended at once"
    rm "$place/ready"
    [ "$word" = ready ] && is_mounted || fail "$name: kivafs bench ceiling says $word, and is not mounted"
}

# What was written must be found by another process, from what is stored.
remount() {
    "$KIVAFS" umount "$mnt"
    mount_it
}

# try WHAT FUNCTION [WORD...]: one case, in a shell of its own that ends with the first command
# that fails. Its output is shown if it does. What takes longer than KIVAFS_PATIENCE seconds gets
# errors: the mount is taken away.
try() {
    local what=$1 start=$SECONDS status patience=${KIVAFS_PATIENCE:-300} watch
    shift
    (
        sleep "$patience" >/dev/null 2>&1 &
        trap 'kill "$!"; exit' TERM
        wait "$!"
        echo "not done after $patience s: taking the mount away" >&2
        kill -9 "$(<"$place/server")"
    ) &
    watch=$!
    set +e
    (
        set -eEuo pipefail
        trap - EXIT
        trap 'echo "line $LINENO: exit code $?: $BASH_COMMAND"' ERR
        "$@"
    ) >"$place/output" 2>&1
    status=$?
    kill "$watch" 2>/dev/null
    wait "$watch" 2>/dev/null
    set -e
    if [ "$status" = 0 ]; then
        passed=$((passed + 1))
        echo "ok: $what ($((SECONDS - start)) s)"
    else
        failed=$((failed + 1))
        echo "FAILED: $name: $what (exit code $status)"
        tail -n 40 "$place/output" | sed 's/^/    /'
        # Later cases need a mount, whatever this one left.
        [ -e "$mnt/." ] || umount -l "$mnt"
        is_mounted || mount_it
    fi
}

# Unmounts, checks every stored byte, and counts.
finish() {
    try "unmount${store:+, kivafs check --data}" unmount_and_check
    echo "$name: $passed passed, $failed failed"
    [ "$failed" = 0 ]
}

unmount_and_check() {
    if [ -z "$store" ]; then
        umount "$mnt"
        return
    fi
    "$KIVAFS" umount "$mnt"
    "$KIVAFS" check --data "$store"
}

# same A B: the same names, types, modes, owners, times, links, attributes and contents.
same() {
    local differences
    differences=$(rsync -naicHAX --numeric-ids --delete "$1/" "$2/")
    if [ -n "$differences" ]; then
        echo "$1 and $2 differ:"
        head -n 30 <<<"$differences"
        return 1
    fi
}

# manifest DIR: all that stat and read tell of what is below, one line each.
manifest() {
    (
        cd "$1"
        find . -printf '%P\0%y %m %U %G %n %T@ %l\0' | tr '\0\n' '\n?' | paste - - | LC_ALL=C sort
        find . -type f -printf '%P %s\n' | LC_ALL=C sort
        find . -type f -print0 | LC_ALL=C sort -z | xargs -0 -r sha256sum
    )
}

# as_before DIR: fails unless its manifest outlives a remount.
as_before() {
    local before=$place/before after=$place/after
    manifest "$1" >"$before"
    remount
    manifest "$1" >"$after"
    diff "$before" "$after"
}

# crate NAME: the path of that crate's program, of the version that is tested with, installed below
# target/ once.
crate() {
    local version tools
    case $1 in
    fsx) version=0.3.2 ;;
    pjdfstest) version=0.2.2 ;;
    *) fail "no version of $1 is known" ;;
    esac
    tools=$target/tools/$1-$version
    if [ ! -x "$tools/bin/$1" ]; then
        echo "installing $1 $version" >&2
        cargo install --quiet --locked --version "$version" --root "$tools" "$1" >&2
    fi
    echo "$tools/bin/$1"
}
