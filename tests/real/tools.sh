#!/usr/bin/env bash
# Programs that people use, on a real mount: each case compares what is there with where it came
# from, then unmounts, mounts again, and compares once more.
#
#   tests/real/tools.sh [file|bucket]       what the store lies on

. "$(dirname "$0")/place.sh"

# Whatever the machine has, so that the trees are large enough to be worth it.
documentation() {
    rsync -aHAX --numeric-ids /usr/share/doc "$mnt/"
    same /usr/share/doc "$mnt/doc"
    remount
    same /usr/share/doc "$mnt/doc"
    [ "$(find "$mnt/doc" -type f | wc -l)" = "$(find /usr/share/doc -type f | wc -l)" ]
}

# A tree of thousands of small files even where /usr/share/doc was left out.
many_files() {
    local directory number
    mkdir "$plain/many"
    for directory in $(seq 40); do
        mkdir "$plain/many/$directory"
        for number in $(seq 50); do
            head -c $((directory * number * 7 % 5000)) /dev/urandom >"$plain/many/$directory/file $number"
        done
    done
    rsync -a "$plain/many" "$mnt/"
    same "$plain/many" "$mnt/many"
    # And again with changes: rsync writes a temporary file and renames it over the old one.
    for directory in $(seq 1 7 40); do
        date >>"$plain/many/$directory/file 1"
        rm "$plain/many/$directory/file 2"
        mv "$plain/many/$directory/file 3" "$plain/many/$directory/renamed"
    done
    rsync -a --delete "$plain/many" "$mnt/"
    same "$plain/many" "$mnt/many"
    remount
    same "$plain/many" "$mnt/many"
}

tar_in_and_out() {
    mkdir "$mnt/tar" "$plain/tar"
    tar -C "$plain" -cf "$plain/many.tar" many
    tar -C "$mnt/tar" -xpf "$plain/many.tar"
    same "$plain/many" "$mnt/tar/many"
    tar -C "$mnt/tar" -cf "$mnt/again.tar" many
    remount
    same "$plain/many" "$mnt/tar/many"
    tar -C "$plain/tar" -xpf "$mnt/again.tar"
    same "$plain/many" "$plain/tar/many"
}

# All kinds of files, names, modes, times and attributes, copied within the store.
copy_everything() {
    local from=$mnt/kinds
    mkdir "$from" "$from/directory" "$from/sticky" "$from/setgid"
    echo small >"$from/small"
    : >"$from/empty"
    head -c 70000 /dev/urandom >"$from/large"
    ln "$from/small" "$from/hard link"
    ln "$from/large" "$from/directory/hard link of large"
    ln -s small "$from/symlink"
    ln -s /nowhere/at/all "$from/dangling"
    mkfifo "$from/fifo"
    mknod "$from/null" c 1 3
    chmod 1777 "$from/sticky"
    chmod 2755 "$from/setgid"
    chmod 4711 "$from/small"
    chown 1234:4321 "$from/large"
    chown -h 77:88 "$from/dangling"
    touch -d '1901-01-01 00:00:00.123456789 UTC' "$from/empty"
    touch -d '2200-02-03 04:05:06.987654321 UTC' "$from/directory"
    setfattr -n user.kivafs -v 'a value' "$from/small"
    setfattr -n user.binary -v 0x00ff00 "$from/directory"
    touch "$from/"$'new\nline' "$from/"$'not \xff\xfe UTF-8' "$from/100%" "$from/a%2Fb" "$from/%(25)%" "$from/-rf" "$from/ " \
        "$from/$(printf 'n%.0s' $(seq 255))"
    cp -a "$from" "$mnt/copy of kinds"
    same "$from" "$mnt/copy of kinds"
    cp -a "$from" "$plain/kinds"
    as_before "$from"
    same "$from" "$mnt/copy of kinds"
    [ "$(getfattr --only-values -n user.kivafs "$from/hard link")" = 'a value' ]
}

# A tree with ACLs of all kinds, also inherited ones, made twice.
make_acls() {
    local top=$1
    mkdir "$top" "$top/shared" "$top/setgid"
    setfacl -m u:nobody:rwx,g:daemon:rx,d:u:nobody:rw,d:g:daemon:r,d:o::- "$top/shared"
    chmod 2770 "$top/setgid"
    setfacl -m d:u::rwx,d:g::rx,d:o::- "$top/setgid"
    for mask in 000 022 077; do
        (
            umask $mask
            for directory in . shared setgid; do
                mkdir -p "$top/$directory/below $mask/deeper"
                echo text >"$top/$directory/file $mask"
                head -c 100000 /dev/zero >"$top/$directory/below $mask/large"
                mkfifo "$top/$directory/below $mask/deeper/fifo"
            done
        )
    done
    setfacl -m u:1234:r,u:nobody:-,m::rwx "$top/file 022"
    chmod g-w "$top/shared/file 022"
    setfacl -x u:nobody "$top/shared/file 000"
    setfacl -b "$top/shared/file 077"
    setfacl -k "$top/shared/below 077"
    setfattr -n user.kivafs -v 'a value' "$top/shared/file 022"
    ln -s 'file 022' "$top/shared/link"
    find "$top" -print0 | xargs -0 touch -h -d '2020-01-01 00:00:00 UTC'
}

# acls DIR: all that getfacl tells of what is below.
acls() {
    (cd "$1" && find . ! -type l -print0 | LC_ALL=C sort -z | xargs -0 getfacl --numeric --)
}

same_acls() {
    diff <(acls "$1") <(acls "$2") || fail "$1 and $2 have other ACLs"
    same "$1" "$2"
}

# tar_all DIR NAME TO: what is in DIR under that name, with all that there is of it.
tar_all() {
    local all=(--acls --xattrs --xattrs-include='*')
    tar -C "$1" "${all[@]}" -cf - "$2" | tar -C "$3" "${all[@]}" -xpf -
}

access_control_lists() {
    local there=$plain/acls here=$mnt/acls copies=$mnt/copies copy
    make_acls "$there"
    make_acls "$here"
    [ "$(acls "$there" | grep -c '^default:user:65534:')" -gt 5 ] || fail "$plain has no ACLs: there is nothing to compare with"
    same_acls "$there" "$here"
    mkdir "$copies" "$copies/tar" "$copies/rsync" "$plain/back" "$plain/back/tar"
    cp -a "$here" "$copies/cp"
    same_acls "$there" "$copies/cp"
    tar_all "$plain" acls "$copies/tar"
    same_acls "$there" "$copies/tar/acls"
    rsync -aAX "$there/" "$copies/rsync/"
    same_acls "$there" "$copies/rsync"
    remount
    for copy in ../acls cp tar/acls rsync; do
        same_acls "$there" "$copies/$copy"
    done
    # And back.
    cp -a "$here" "$plain/back/cp"
    rsync -aAX "$copies/tar/acls/" "$plain/back/rsync/"
    tar_all "$copies" cp "$plain/back/tar"
    for copy in cp rsync tar/cp; do
        same_acls "$there" "$plain/back/$copy"
    done
    # All taken away, and put back from a list.
    acls "$here" >"$place/acls"
    setfacl --recursive --physical --remove-all "$here"
    [ -z "$(getfacl --recursive --physical --skip-base "$here")" ] || fail "ACLs are left"
    (cd "$here" && setfacl --restore="$place/acls")
    diff "$place/acls" <(acls "$here")
}

clone_and_fsck() {
    local repository=$mnt/clone
    # Nobody's settings: the checkout may belong to somebody else, and nobody may have set a name.
    export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=$plain/gitconfig
    git config --global safe.directory '*'
    git config --global user.name kivafs
    git config --global user.email kivafs@localhost
    git -C "$root" rev-parse --verify --quiet HEAD || fail "$root is no git checkout: there is nothing to clone"
    git clone --no-hardlinks "$root" "$repository"
    git -C "$repository" fsck --full --strict
    [ "$(git -C "$repository" rev-parse HEAD)" = "$(git -C "$root" rev-parse HEAD)" ]
    [ -z "$(git -C "$repository" status --porcelain)" ]
    for number in $(seq 20); do
        echo "$number" >"$repository/number"
        git -C "$repository" add number
        git -C "$repository" commit --quiet -m "Number $number"
    done
    as_before "$repository"
    git -C "$repository" fsck --full --strict
    git -C "$repository" gc --quiet --prune=now
    remount
    git -C "$repository" fsck --full --strict
    [ -z "$(git -C "$repository" status --porcelain)" ]
    [ "$(cat "$repository/number")" = 20 ]
}

# database MODE: some thousand rows in many transactions, with that journal.
database() {
    local file=$mnt/database-$1.sqlite before
    {
        echo "PRAGMA journal_mode=$1; PRAGMA synchronous=FULL;"
        echo "CREATE TABLE pairs(key INTEGER PRIMARY KEY, word TEXT, value BLOB);"
        echo "CREATE INDEX words ON pairs(word);"
        for batch in $(seq 100); do
            echo "BEGIN;"
            echo "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200)"
            echo "INSERT INTO pairs(word,value) SELECT hex(randomblob(8)), randomblob(abs(random()) % 800) FROM n;"
            echo "UPDATE pairs SET value=randomblob(50) WHERE key % 97 = $batch % 97;"
            echo "DELETE FROM pairs WHERE key % 1009 = $batch;"
            echo "COMMIT;"
        done
    } >"$plain/load.sql"
    sqlite3 -bail "$file" <"$plain/load.sql"
    [ "$(sqlite3 "$file" 'PRAGMA integrity_check')" = ok ]
    before=$(sqlite3 "$file" .dump | sha256sum)
    remount
    [ "$(sqlite3 "$file" 'PRAGMA integrity_check')" = ok ]
    [ "$(sqlite3 "$file" .dump | sha256sum)" = "$before" ]
    [ "$(sqlite3 "$file" 'SELECT count(*) > 10000 FROM pairs')" = 1 ]
    # The database as a file, seen by another file system.
    cp "$file" "$plain/copy.sqlite"
    [ "$(sqlite3 "$plain/copy.sqlite" .dump | sha256sum)" = "$before" ]
}

big_file() {
    local sum
    sum=$(head -c 300M /dev/urandom | tee "$mnt/big" | sha256sum)
    [ "$(stat -c %s "$mnt/big")" = $((300 << 20)) ]
    [ "$(sha256sum <"$mnt/big")" = "$sum" ]
    remount
    [ "$(sha256sum <"$mnt/big")" = "$sum" ]
    [ "$(dd if="$mnt/big" bs=1M iflag=direct status=none | sha256sum)" = "$sum" ]
    # Parts of it anew, in place.
    cp "$mnt/big" "$plain/big"
    for part in 0 7 150 299; do
        head -c 1M /dev/urandom >"$plain/part"
        dd if="$plain/part" of="$plain/big" bs=1M seek=$part conv=notrunc status=none
        dd if="$plain/part" of="$mnt/big" bs=1M seek=$part conv=notrunc,fsync status=none
    done
    remount
    cmp "$mnt/big" "$plain/big"
    rm "$mnt/big" "$plain/big"
}

sparse_file() {
    local file
    for file in "$mnt/sparse" "$plain/sparse"; do
        truncate -s 1G "$file"
        echo begin | dd of="$file" conv=notrunc status=none
        echo middle | dd of="$file" bs=1 seek=$((600 << 20 | 12345)) conv=notrunc status=none
        echo end | dd of="$file" bs=1 seek=$(((1 << 30) - 4)) conv=notrunc status=none
    done
    cmp "$mnt/sparse" "$plain/sparse"
    remount
    cmp "$mnt/sparse" "$plain/sparse"
    [ "$(stat -c %s "$mnt/sparse")" = $((1 << 30)) ]
    [ "$(du -k "$mnt/sparse" | cut -f1)" -lt 1024 ] || fail "a sparse file takes $(du -k "$mnt/sparse" | cut -f1) KiB"
    # cp finds the holes by itself.
    cp --sparse=auto "$mnt/sparse" "$mnt/copy of sparse"
    cmp "$mnt/copy of sparse" "$plain/sparse"
    [ "$(du -k "$mnt/copy of sparse" | cut -f1)" -lt 1024 ]
    rm "$mnt/sparse" "$mnt/copy of sparse"
}

# What users are told to do in the README.
keys_as_files() {
    echo hello >"$mnt/greeting"
    [ "$(cat "$mnt/greeting")" = hello ]
    "$KIVAFS" umount "$mnt"
    [ "$("$KIVAFS" get "$store" /greeting)" = hello ]
    echo 'from stdin' | "$KIVAFS" put "$store" /put
    "$KIVAFS" ls "$store" / | grep -qx put
    "$KIVAFS" rm "$store" /greeting
    mount_it
    [ "$(cat "$mnt/put")" = 'from stdin' ]
    [ ! -e "$mnt/greeting" ]
    local status=0
    "$KIVAFS" rm "$store" /put || status=$?
    [ "$status" = 3 ] || fail "rm in a store that is mounted: exit code $status, not 3"
    "$KIVAFS" info "$store"
}

begin tools "$@"
try "keys as files: echo, cat, get, put, ls, rm" keys_as_files
try "rsync -a /usr/share/doc" documentation
try "rsync of 2000 small files, twice" many_files
try "tar in and out" tar_in_and_out
try "cp -a of all kinds of files" copy_everything
try "ACLs: setfacl, getfacl, cp -a, tar, rsync" access_control_lists
try "git clone, commits, gc, git fsck" clone_and_fsck
try "sqlite3 with a rollback journal" database delete
try "sqlite3 with a write-ahead log" database wal
try "a file of 300 MiB" big_file
try "a sparse file of 1 GiB" sparse_file
finish
