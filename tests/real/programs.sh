#!/usr/bin/env bash
# More programs that people use, on a real mount: those that say themselves whether what they find is
# whole. Each case looks once more after a remount.
#
#   tests/real/programs.sh [file|bucket]    what the store lies on

. "$(dirname "$0")/place.sh"
. "$root/tests/need.sh"

# A directory with all kinds of files, on the disk: links, attributes of users and of root, ACLs, times,
# modes.
make_tree() {
    local tree=$1 number
    mkdir -p "$tree/some/deep/directory" "$tree/setgid" "$tree/empty"
    for number in $(seq 200); do
        head -c $((number * number)) /dev/urandom >"$tree/some/file $number"
    done
    ln "$tree/some/file 7" "$tree/some/deep/hard link"
    ln "$tree/some/file 200" "$tree/some/deep/directory/hard link"
    ln -s 'some/file 7' "$tree/symlink"
    mkfifo "$tree/fifo"
    mknod "$tree/null" c 1 3
    chmod 2775 "$tree/setgid"
    chmod 4755 "$tree/some/file 9"
    chown 1234:4321 "$tree/some/file 10" "$tree/setgid"
    truncate -s 10M "$tree/sparse"
    echo end >>"$tree/sparse"
    touch -d '1969-12-31 23:59:59.5 UTC' "$tree/some/file 11"
    touch -d '2100-01-01 00:00:00.000000001 UTC' "$tree/some/file 12"
    setfattr -n user.kivafs -v 'a value' "$tree/some/file 1" "$tree/setgid"
    setfattr -n user.long -v "$(printf 'v%.0s' {1..2000})" "$tree/some/file 150"
    setfattr -n trusted.kivafs -v 'of root' "$tree/some/file 2"
    setcap cap_net_raw+ep "$tree/some/file 3"
    setfacl -m u:1234:rw,g:4321:r,m:rw "$tree/some/file 4" "$tree/some/file 200"
    setfacl -m u:1234:rwx,d:u:1234:rwx,d:g::r-x "$tree/setgid" "$tree/some/deep"
}

rsync_of_everything() {
    rsync -aHAX --numeric-ids "$plain/tree" "$mnt/rsync/"
    same "$plain/tree" "$mnt/rsync/tree"
    as_before "$mnt/rsync"
    same "$plain/tree" "$mnt/rsync/tree"
    # Once more: there is nothing to do.
    [ -z "$(rsync -aHAXi --numeric-ids "$plain/tree" "$mnt/rsync/")" ]
    getcap "$mnt/rsync/tree/some/file 3" | grep -q cap_net_raw=ep
}

tar_of_everything() {
    mkdir "$mnt/tar" "$plain/tar"
    tar --acls --xattrs --xattrs-include='*' --sparse -C "$plain" -cf "$mnt/tree.tar" tree
    tar --acls --xattrs --xattrs-include='*' -C "$mnt/tar" -xpf "$mnt/tree.tar"
    same "$plain/tree" "$mnt/tar/tree"
    [ "$(du -k "$mnt/tar/tree/sparse" | cut -f1)" -lt 100 ]
    remount
    same "$plain/tree" "$mnt/tar/tree"
    tar --acls --xattrs --xattrs-include='*' -C "$mnt/tar" -c tree |
        tar --acls --xattrs --xattrs-include='*' -C "$plain/tar" -xp
    same "$plain/tree" "$plain/tar/tree"
}

used() {
    sync "$mnt"
    df --output=used --block-size=1K "$mnt" | tail -n 1
}

# A copy within the store takes next to no room, and is one of its own. (What is in use is counted by whole
# segments, of 16 MiB: the next one may have been begun meanwhile.)
copy_without_copying() {
    local before
    head -c 64M /dev/urandom >"$plain/big"
    cp "$plain/big" "$mnt/big"
    before=$(used)
    cp --reflink=auto "$mnt/big" "$mnt/copy"
    [ $(($(used) - before)) -le 16384 ] || fail "a copy of 64 MiB takes $(($(used) - before)) KiB"
    cmp "$plain/big" "$mnt/copy"
    echo changed | dd of="$mnt/copy" bs=1 seek=1000000 conv=notrunc status=none
    remount
    cmp "$plain/big" "$mnt/big"
    rm "$mnt/big"
    echo changed | dd of="$plain/big" bs=1 seek=1000000 conv=notrunc status=none
    cmp "$plain/big" "$mnt/copy"
    rm "$mnt/copy" "$plain/big"
}

# Processes that write to one database at once, by its shared memory and its locks.
many_writers() {
    local file=$mnt/shared.sqlite writers=4 each=100 writer before
    sqlite3 -bail "$file" "PRAGMA journal_mode=wal; CREATE TABLE entries(writer, number, value);
        CREATE TABLE totals(writer PRIMARY KEY, sum); CREATE UNIQUE INDEX by_number ON entries(writer, number);"
    for writer in $(seq $writers); do
        {
            echo ".timeout 120000"
            echo "INSERT INTO totals VALUES ($writer, 0);"
            for number in $(seq $each); do
                echo "BEGIN IMMEDIATE; INSERT INTO entries VALUES ($writer, $number, randomblob($number * 13));"
                echo "UPDATE totals SET sum = sum + $number; COMMIT;"
            done
        } >"$plain/writer-$writer.sql"
    done
    writing=()
    for writer in $(seq $writers); do
        sqlite3 -bail "$file" <"$plain/writer-$writer.sql" &
        writing+=($!)
    done
    for writer in "${writing[@]}"; do
        wait "$writer"
    done
    before=$(sqlite3 "$file" .dump | sha256sum)
    for _ in before after; do
        [ "$(sqlite3 "$file" 'PRAGMA integrity_check')" = ok ]
        [ "$(sqlite3 "$file" 'SELECT count(*), sum(number) FROM entries')" = \
            "$((writers * each))|$((writers * each * (each + 1) / 2))" ]
        [ "$(sqlite3 "$file" 'SELECT max(sum) <= sum(number) FROM totals, entries')" = 1 ]
        [ "$(sqlite3 "$file" .dump | sha256sum)" = "$before" ]
        remount
    done
}

# unpacked VERSION: what the package holds is there, as dpkg sees it.
unpacked() {
    [ "$(dpkg-query --admindir="$mnt/root/var/lib/dpkg" -W -f '${Status} ${Version}' kivafs-test)" = "install ok installed $1" ]
    [ -z "$(dpkg --root="$mnt/root" --verify kivafs-test)" ]
    # (dpkg leaves a directory with the time at which it changed it.)
    diff -r "$plain/package-$1/usr" "$mnt/root/usr"
    [ "$mnt/root/usr/share/kivafs-test/9" -ef "$mnt/root/usr/share/kivafs-test/linked" ]
}

# Two versions of a package, one installed over the other, and removed.
packages() {
    local version tree number
    for version in 1 2; do
        tree=$plain/package-$version
        mkdir -p "$tree/DEBIAN" "$tree/usr/share/kivafs-test"
        printf '%s\n' "Package: kivafs-test" "Version: $version" "Architecture: all" "Maintainer: nobody <nobody@localhost>" \
            "Description: files" >"$tree/DEBIAN/control"
        for number in $(seq "$version" 300); do
            echo "$version $number" >"$tree/usr/share/kivafs-test/$number"
        done
        ln "$tree/usr/share/kivafs-test/9" "$tree/usr/share/kivafs-test/linked"
        dpkg-deb --root-owner-group --build "$tree" "$mnt/package-$version.deb"
    done
    mkdir -p "$mnt/root/var/lib/dpkg"/{info,updates}
    : >"$mnt/root/var/lib/dpkg/status"
    for version in 1 2; do
        dpkg --root="$mnt/root" --install "$mnt/package-$version.deb"
        unpacked $version
        remount
        unpacked $version
    done
    [ ! -e "$mnt/root/usr/share/kivafs-test/1" ]
    dpkg-deb -x "$mnt/package-1.deb" "$mnt/extracted"
    same "$plain/package-1/usr" "$mnt/extracted/usr"
    dpkg --root="$mnt/root" --purge kivafs-test
    [ ! -e "$mnt/root/usr/share/kivafs-test" ]
}

# build HOW: cargo's word for each of the packages, one of which runs a program of its own making.
build() {
    (cd "$mnt/crate" && cargo build --offline --verbose 2>"$place/cargo.log") || { cat "$place/cargo.log"; return 1; }
    grep -oE '^ +(Compiling|Fresh|Dirty)' "$place/cargo.log" | sort | uniq -c | tr -s ' \n' ' '
    [ "$(grep -cE "^ +$1 (crate|part) " "$place/cargo.log")" = 2 ]
    [ "$(grep -cE '^ +(Compiling|Fresh) ' "$place/cargo.log")" = 2 ]
    [ "$("$mnt/crate/target/debug/crate")" = "$2" ]
}

# What was built is taken for new as long as nothing changed, by the times of files.
crate_is_built_once() {
    local crate=$mnt/crate
    mkdir -p "$crate/src" "$crate/part/src"
    printf '%s\n' '[package]' 'name = "crate"' 'version = "0.1.0"' 'edition = "2021"' '[workspace]' \
        '[dependencies]' 'part = { path = "part" }' >"$crate/Cargo.toml"
    printf '%s\n' '[package]' 'name = "part"' 'version = "0.1.0"' 'edition = "2021"' >"$crate/part/Cargo.toml"
    printf '%s\n' 'fn main() {' 'let path = std::path::Path::new(&std::env::var("OUT_DIR").unwrap()).join("word.rs");' \
        'std::fs::write(path, "pub const WORD: &str = \"built\";").unwrap();' \
        'println!("cargo:rerun-if-changed=build.rs");' '}' >"$crate/part/build.rs"
    echo 'include!(concat!(env!("OUT_DIR"), "/word.rs"));' >"$crate/part/src/lib.rs"
    echo 'fn main() { println!("{}", part::WORD); }' >"$crate/src/main.rs"
    unset CARGO_TARGET_DIR
    build Compiling built
    build Fresh built
    remount
    build Fresh built
    sed -i 's/built/again/' "$crate/part/build.rs"
    build Compiling again
}

need rsync:rsync tar:tar setfattr:attr setfacl:acl setcap:libcap2-bin sqlite3:sqlite3 dpkg-deb:dpkg cc:gcc
need_rust
begin programs "$@"
make_tree "$plain/tree"
try "rsync -aHAX of everything" rsync_of_everything
try "tar --acls --xattrs of everything" tar_of_everything
try "cp --reflink=auto shares what is stored" copy_without_copying
try "sqlite3 with a write-ahead log, four writers at once" many_writers
try "dpkg: install, upgrade, verify, purge" packages
try "cargo build, and what is not built again" crate_is_built_once
finish
