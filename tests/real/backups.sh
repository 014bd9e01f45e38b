#!/usr/bin/env bash
# Programs for backups, and large trees, on a real mount: each verifies its own store after a remount,
# and gives back what it was given.
#
#   tests/real/backups.sh [file|bucket]     what the store lies on

. "$(dirname "$0")/place.sh"
. "$root/tests/need.sh"

# tree DIR DIRECTORIES FILES: so many directories of so many files, of the sizes that sources have.
tree() {
    mkdir -p "$1"
    awk -v dir="$1" -v directories="$2" -v files="$3" 'BEGIN {
        srand(1)
        for (d = 0; d < directories; d++) {
            path = sprintf("%s/%d/%d", dir, d % 37, d)
            system("mkdir -p " path)
            for (f = 0; f < files; f++) {
                name = sprintf("%s/file-%d.c", path, f)
                lines = int(exp(rand() * 6))
                for (line = 0; line < lines; line++)
                    printf "%d: %d, the line %d of %s;\n", line, int(rand() * 1000000), line, name >name
                close(name)
            }
        }
    }'
    # Times that are not all of now.
    find "$1" -name 'file-1*' -exec touch -h -d '2011-02-03 04:05:06.789 UTC' {} +
    ln "$1/0/0/file-0.c" "$1/0/linked"
    ln -s 0/file-0.c "$1/0/symlink"
}

# It changes a little between backups.
change() {
    local round=$1
    date >>"$plain/tree/1/1/file-$round.c"
    rm "$plain/tree/2/2/file-$round.c"
    mv "$plain/tree/3/3/file-$round.c" "$plain/tree/3/renamed-$round.c"
    head -c 300K /dev/urandom >"$plain/tree/new-$round"
}

with_restic() {
    local snapshot round
    export RESTIC_PASSWORD=kivafs RESTIC_REPOSITORY=$mnt/restic RESTIC_CACHE_DIR=$place/restic-cache
    restic init
    for round in 1 2 3; do
        change "$round"
        (cd "$plain" && restic backup --quiet tree)
        restic check --read-data
        remount
    done
    restic check --read-data
    [ "$(restic snapshots --json | grep -o '"short_id"' | wc -l)" = 3 ]
    (cd "$place" && restic restore latest --target "$plain/restic")
    same "$plain/tree" "$plain/restic/tree"
    snapshot=$(restic snapshots --json latest | grep -o '"short_id":"[^"]*"' | cut -d'"' -f4)
    restic forget --prune "$snapshot"
    remount
    restic check --read-data
}

with_borg() {
    local round
    export BORG_REPO=$mnt/borg BORG_BASE_DIR=$place/borg BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes
    borg init --encryption=none
    for round in 4 5 6; do
        change "$round"
        (cd "$plain" && borg create "::round-$round" tree)
        borg check --verify-data
        remount
    done
    borg check --verify-data
    mkdir "$plain/borg"
    (cd "$plain/borg" && borg extract --numeric-ids ::round-6)
    same "$plain/tree" "$plain/borg/tree"
    borg delete ::round-4
    borg compact
    remount
    borg check --verify-data
}

# Each round is a directory in which what has not changed is a hard link to the one before.
with_rsnapshot() {
    local round snapshots=$mnt/rsnapshot before
    printf '%s\t%s\t%s\n' config_version 1.2 '' snapshot_root "$snapshots/" '' cmd_rsync "$(command -v rsync)" '' \
        cmd_cp "$(command -v cp)" '' cmd_rm "$(command -v rm)" '' retain round 4 lockfile "$place/rsnapshot.pid" '' \
        rsync_short_args -aHAX '' rsync_long_args '--delete --numeric-ids --relative' '' \
        backup "$plain/tree/" here/ | sed 's/\t$//' >"$place/rsnapshot.conf"
    for round in 7 8 9 10 11 12; do
        change "$round"
        rsnapshot -c "$place/rsnapshot.conf" round
        same "$plain/tree" "$snapshots/round.0/here$plain/tree"
        remount
    done
    same "$plain/tree" "$snapshots/round.0/here$plain/tree"
    [ "$(ls "$snapshots")" = "$(printf 'round.%d\n' 0 1 2 3)" ]
    [ "$snapshots/round.0/here$plain/tree/4/4/file-4.c" -ef "$snapshots/round.3/here$plain/tree/4/4/file-4.c" ]
    [ "$(stat -c %h "$snapshots/round.0/here$plain/tree/4/4/file-4.c")" = 4 ]
    [ ! "$snapshots/round.0/here$plain/tree/1/1/file-12.c" -ef "$snapshots/round.1/here$plain/tree/1/1/file-12.c" ]
    [ -e "$snapshots/round.1/here$plain/tree/2/2/file-12.c" ]
    before=$(cd "$snapshots" && find . -type f -printf '%i %n %P\n' | sort | sha256sum)
    remount
    [ "$(cd "$snapshots" && find . -type f -printf '%i %n %P\n' | sort | sha256sum)" = "$before" ]
}

# As many files as the sources of a kernel have directories times ten.
large_tree() {
    tree "$plain/large" 1000 30
    tar -C "$plain" -cf "$plain/large.tar" large
    tar -C "$mnt" -xpf "$plain/large.tar"
    same "$plain/large" "$mnt/large"
    remount
    same "$plain/large" "$mnt/large"
    tar -C "$mnt" -c large | tar -C "$plain" -d
    cp -al "$mnt/large" "$mnt/links"
    rm -r "$mnt/large"
    mv "$mnt/links" "$mnt/large"
    remount
    same "$plain/large" "$mnt/large"
    rm -r "$mnt/large"
    [ ! -e "$mnt/large" ]
    rm -r "$plain/large" "$plain/large.tar"
}

export KIVAFS_PATIENCE=${KIVAFS_PATIENCE:-1800}
need rsync:rsync tar:tar restic:restic borg:borgbackup rsnapshot:rsnapshot
begin backups "$@"
tree "$plain/tree" 100 20
try "restic: backups, check --read-data, restore, prune" with_restic
try "borg: archives, check --verify-data, extract, compact" with_borg
try "rsnapshot: six rounds of hard links" with_rsnapshot
try "a tree of 30,000 files: tar, links, rm" large_tree
finish
