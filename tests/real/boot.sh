#!/usr/bin/env bash
# Living with mount(8), fstab and packages, as an administrator does: on this machine's own programs, in
# a mount namespace where what they change (/usr, /etc, dpkg's list) lies on an overlay.

. "$(dirname "$0")/place.sh"

if [ "${1:-}" != in-namespace ]; then
    exec unshare --mount --propagation private "$0" in-namespace "$@"
fi
shift

# overlay DIR...: what is changed there is seen in this namespace only.
overlay() {
    local dir upper
    for dir in "$@"; do
        dir=$(readlink -f "$dir")
        upper=$place/overlay$dir
        mkdir -p "$upper/up" "$upper/work"
        mount -t overlay -o "lowerdir=$dir,upperdir=$upper/up,workdir=$upper/work" overlay "$dir"
    done
}

# A device that users may open, as udev makes it; containers often leave it to root.
fuse_for_users() {
    mknod -m 666 "$place/fuse" c 10 229
    mount --bind "$place/fuse" /dev/fuse
}

# refused CODE WORD COMMAND...: ends with that code, and one line that has the word in it.
refused() {
    local code=$1 word=$2 status=0
    shift 2
    "$@" >"$place/said" 2>&1 || status=$?
    cat "$place/said"
    [ "$status" = "$code" ]
    [ "$(wc -l <"$place/said")" = 1 ]
    grep -qF -e "$word" "$place/said"
}

# silent COMMAND...: done, without a word.
silent() {
    "$@" >"$place/said" 2>&1
    [ ! -s "$place/said" ]
}

shows() {
    findmnt -n -o "$2" --mountpoint "$1"
}

user() {
    setpriv --reuid=daemon --regid=daemon --clear-groups env "HOME=$place" "$@"
}

installed() {
    "$KIVAFS" install --prefix /usr
    for name in mount.kivafs mount.fuse.kivafs umount.kivafs umount.fuse.kivafs; do
        [ "$(readlink -f "/sbin/$name")" = "$(readlink -f /usr/bin/kivafs)" ]
    done
    "$KIVAFS" install --prefix /usr >"$place/again"
    ! grep -v ': is there$' "$place/again"
}

uninstalled() {
    "$KIVAFS" uninstall --prefix /usr >"$place/gone"
    cat "$place/gone"
    ! grep -vE ': removed$' "$place/gone"
    ! command -v mount.kivafs
    [ ! -e /etc/kivafs ]
}

fstab() {
    mkdir -p "$a" "$b" "$place/with space"
    "$KIVAFS" create "$place/a.kiva"
    "$KIVAFS" create "$place/b.kiva"
    "$KIVAFS" create "$place/c d.kiva"
    cat >/etc/fstab <<END
$place/a.kiva $a kivafs _netdev,nofail,x-systemd.automount,x-systemd.device-timeout=5s,commit=3 0 0
$place/b.kiva $b fuse.kivafs noauto,ro,user 0 0
$place/c\\040d.kiva $place/with\\040space kivafs defaults 0 0
END
    silent mount -a
    [ "$(shows "$a" SOURCE,FSTYPE)" = "$place/a.kiva fuse.kivafs" ]
    shows "$a" OPTIONS | grep -q '^rw,nosuid,nodev,.*allow_other'
    mountpoint -q "$place/with space"
    ! mountpoint -q "$b"
    echo content >"$a/file"
    silent mount -a
    silent umount "$place/with space"
    silent mount "$b"
    shows "$b" OPTIONS | grep -q '^ro,nosuid,nodev,noexec,'
    refused 32 already mount "$b"
    silent umount "$place/b.kiva"
    ! mountpoint -q "$b"
    # What umount has returned for is stored.
    silent umount "$a"
    [ "$("$KIVAFS" get "$place/a.kiva" /file)" = content ]
    silent mount "$a"
}

remounted() {
    silent mount -o remount,ro -t kivafs "$place/a.kiva" "$a"
    shows "$a" OPTIONS | grep -q '^ro,'
    ! touch "$a/new"
    silent mount -o remount,rw,noexec -t kivafs "$place/a.kiva" "$a"
    shows "$a" OPTIONS | grep -q '^rw,nosuid,nodev,noexec,'
    touch "$a/new"
    # With all that fstab says: commit= is not changed by that.
    mount -o remount,ro "$a" 2>"$place/said"
    grep -q 'a remount does not change' "$place/said"
    shows "$a" OPTIONS | grep -q '^ro,'
    mount -o remount,rw "$a" 2>"$place/said"
    [ "$(cat "$a/file")" = content ]
}

open_files() {
    local status=0
    exec 9>"$a/open"
    umount "$a" || status=$?
    [ "$status" = 32 ]
    silent umount -f "$a"
    ! mountpoint -q "$a"
    ! echo late >&9
    exec 9>&-
    silent mount "$a"
    exec 9>"$a/open"
    silent umount -l "$a"
    ! mountpoint -q "$a"
    echo late >&9
    exec 9>&-
    silent mount "$a"
    [ "$(cat "$a/open")" = late ]
}

flags() {
    silent umount "$a"
    silent mount --fake -t kivafs "$place/a.kiva" "$a"
    ! mountpoint -q "$a"
    [ "$(mount -v -t kivafs "$place/a.kiva" "$a")" = "kivafs: $place/a.kiva mounted at $a" ]
    umount -v "$a" >"$place/said" 2>&1
    grep -q unmounted "$place/said"
    silent mount -n -s -o bogus=7,also -t kivafs "$place/a.kiva" "$a"
    silent umount -n "$a"
    refused 1 "'bogus=7'" mount -o bogus=7 -t kivafs "$place/a.kiva" "$a"
    refused 32 'no such store' mount -o nofail -t kivafs "$place/none" "$a"
    silent mount -r -t fuse.kivafs "$place/a.kiva" "$a"
    shows "$a" OPTIONS | grep -q '^ro,'
    silent umount "$a"
    silent mount -o X-mount.mkdir -t kivafs "$place/a.kiva" "$place/made/here"
    silent umount "$place/made/here"
    mount.kivafs -V
    umount.fuse.kivafs --help | grep -q '^usage: '
    silent mount "$a"
}

twice() {
    silent mount --bind "$a" "$b"
    silent umount "$a"
    [ "$(cat "$b/file")" = content ]
    silent umount "$b"
    [ "$("$KIVAFS" get "$place/a.kiva" /file)" = content ]
}

all_at_once() {
    silent mount -a
    silent mount "$b"
    silent umount -a -t fuse.kivafs
    [ -z "$(findmnt -n -t fuse.kivafs)" ]
    "$KIVAFS" check "$place/a.kiva"
}

users() {
    local home=$place/home
    mkdir -p "$home/dir" "$home/open"
    chown -R daemon "$home"
    # They may not get at where it was built.
    cp "$KIVAFS" "$home/kivafs"
    user "$home/kivafs" create "$home/store"
    cat >/etc/fstab <<END
$home/store $home/dir kivafs noauto,user 0 0
$home/store $home/open kivafs noauto,user,allow_other 0 0
END
    silent user mount "$home/dir"
    user touch "$home/dir/file"
    # Root is another user, too.
    ! ls "$home/dir"
    shows "$home/dir" OPTIONS | grep -q 'nosuid,nodev,noexec,.*user_id=1,'
    refused 32 'only root may remount' user mount -o remount,ro "$home/dir"
    silent user umount "$home/dir"
    refused 32 user_allow_other user mount "$home/open"
    echo user_allow_other >>/etc/fuse.conf
    silent user mount "$home/open"
    ls "$home/open/file"
    silent user umount "$home/open"
    # Root may end what a user mounts.
    silent user mount "$home/dir"
    silent umount "$home/dir"
    "$KIVAFS" check --data "$home/store"
}

package() {
    local page
    KIVAFS=$KIVAFS "$root/packaging/deb" "$place"
    mv "$place"/kivafs_*.deb "$place/first.deb"
    KIVAFS=$KIVAFS "$root/packaging/deb" "$place"
    cmp "$place/first.deb" "$place"/kivafs_*.deb
    dpkg -i "$place/first.deb"
    kivafs --version
    silent mount -t kivafs "$place/a.kiva" "$a"
    for page in kivafs kivafs-mount kivafs-bench-s3 mount.kivafs umount.kivafs; do
        man --warnings=w "$page" 2>&1 >"$place/page" | tee "$place/warnings"
        [ ! -s "$place/warnings" ]
        grep -q 'SEE ALSO' "$place/page"
    done
    bash -n /usr/share/bash-completion/completions/kivafs
    zsh -n /usr/share/zsh/vendor-completions/_kivafs
    fish --no-execute /usr/share/fish/vendor_completions.d/kivafs.fish
    cp /etc/kivafs/example.conf /etc/kivafs/notes.conf
    systemd-analyze verify 'kivafs@notes.service' 2>&1 | tee "$place/warnings"
    ! grep -i kivafs "$place/warnings"
    # A mount outlives its program's removal, as it outlives an update.
    echo '# mine' >>/etc/kivafs/example.conf
    dpkg -r kivafs
    [ ! -e /usr/bin/kivafs ]
    [ ! -L /usr/sbin/mount.kivafs ]
    grep -q mine /etc/kivafs/example.conf
    [ "$(cat "$a/file")" = content ]
    dpkg -i "$place/first.deb"
    grep -q mine /etc/kivafs/example.conf
    silent umount "$a"
    dpkg -P kivafs
    [ -e /etc/kivafs/notes.conf ]
    [ ! -e /etc/kivafs/example.conf ]
    [ ! -e /usr/share/man/man8/mount.kivafs.8.gz ]
}

for program in dpkg man zsh fish systemd-analyze setpriv findmnt fusermount3; do
    command -v "$program" >/dev/null || fail "boot: $program is missing: install it, or run tests/run.sh, which does"
done
leave_others
begin boot
a=$place/a b=$place/b
chmod 755 "$place"
overlay /usr /etc /var/lib/dpkg
[ -L /sbin ] || overlay /sbin
fuse_for_users
try "kivafs install" installed
try "fstab, mount -a, mount DIR, umount" fstab
try "mount -o remount" remounted
try "umount, -f and -l, with files open" open_files
try "the flags of mount(8)" flags
try "mounted twice" twice
try "umount -a" all_at_once
mount_it
try "users" users
try "kivafs uninstall" uninstalled
try "a Debian package" package
finish
