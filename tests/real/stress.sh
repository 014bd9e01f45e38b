#!/usr/bin/env bash
# stress-ng on a real mount: many processes that create, rename, link, list, remove, lock, map and cut
# files at once, each of which looks whether it found what it left there. How much they do is bounded,
# not how long; what is not done after KIVAFS_PATIENCE seconds has failed.
#
#   tests/real/stress.sh [file|bucket]      what the store lies on
#
# STRESS_SCALE (usual: 1) multiplies what is done.

. "$(dirname "$0")/place.sh"
. "$root/tests/need.sh"

# all STRESSOR:OPERATIONS...: at once, each in so many processes.
all() {
    local pair words=()
    for pair in "$@"; do
        words+=("--${pair%:*}" "$instances" "--${pair%:*}-ops" $((${pair#*:} * scale)))
    done
    rm -rf "$mnt/stress"
    mkdir "$mnt/stress"
    timeout --kill-after=30 "$KIVAFS_PATIENCE" \
        stress-ng --temp-path "$mnt/stress" --verify "${sizes[@]}" "${words[@]}"
    # They remove what they made; and none may have found that it can do nothing here.
    [ -z "$(ls -A "$mnt/stress")" ]
    rmdir "$mnt/stress"
    ! grep -iE 'skipp|not (supported|implemented)' "$place/output"
    remount
    [ -z "$(ls -A "$mnt")" ]
}

scale=${STRESS_SCALE:-1}
instances=4
export KIVAFS_PATIENCE=${KIVAFS_PATIENCE:-1800}
# What one operation takes: the usual directories have many thousand entries.
sizes=(--chdir-dirs 256 --dirdeep-inodes 2000 --fallocate-bytes 16M
    --hdd-bytes 16M --iomix-bytes 16M --seek-size 16M --sync-file-bytes 4M --dentries 512
    --mmap-bytes 4M --sendfile-size 4M)
need stress-ng:stress-ng
begin stress "$@"
try "stress-ng: names" all dentry:1000 dir:500 dirdeep:2000 dirmany:500 filename:300 getdent:300 mknod:300 rename:20000 \
    chdir:500 touch:5000 open:3000
try "stress-ng: links" all link:4 symlink:2 rename:20000 touch:5000
try "stress-ng: attributes" all access:100 chmod:50 chown:2000 fstat:1000 utime:5000 xattr:50
try "stress-ng: contents" all copy-file:20 fallocate:20 fsize:50 hdd:300 iomix:300 mmap:20 seek:2000 sendfile:300 \
    sync-file:10
try "stress-ng: locks and watches" all fcntl:2000 flock:20000 lease:300 locka:5000 lockf:2000 lockofd:5000 inotify:5 \
    dnotify:20
finish
