//! ACLs on real mounts: who may do what, what is inherited, and what programs make of them. Needs root,
//! /dev/fuse, and a temporary directory on a file system with ACLs; fails without.
//!
//! | file | job |
//! |---|---|
//! | `user.rs` | somebody, and what he does |
//! | `lists.rs` | ACLs as the kernel takes them |
//! | `oracle.rs` | random changes beside the disk's own file system |

#[path = "acl/lists.rs"]
mod lists;
#[path = "acl/oracle.rs"]
mod oracle;
mod place;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../../tests/support/random.rs"]
mod random;
#[path = "acl/user.rs"]
mod user;

use lists::{ACCESS, DEFAULT, GROUP, OTHERS, OWNER, acl, for_user};
use oracle::random_changes_are_answered_as_the_disk_does;
use place::{Medium, Place, on_each_medium};
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use user::{ALICE, BOB, NOBODY, ROOT};

on_each_medium!(
    random_changes_are_answered_as_the_disk_does,
    an_acl_lets_in_whom_it_names_and_outlives_the_mount,
    what_is_made_inherits_whoever_makes_it,
    put_and_keys_inherit,
);

fn number_from(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text:?}")))
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("a clock after 1970").as_nanos() as u64 % 1_000_000_000
}

/// A mount to which everybody has a way.
fn mounted(medium: Medium, words: &[&str]) -> Place {
    let place = Place::new(medium);
    std::fs::set_permissions(place.root(), Permissions::from_mode(0o755)).unwrap();
    place.mount(words).silently();
    place
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn can_read(user: user::User, path: &Path) -> bool {
    user.does(0, || File::open(path).is_ok())
}

fn an_acl_lets_in_whom_it_names_and_outlives_the_mount(medium: Medium) {
    let place = mounted(medium, &[]);
    let file = place.dir.join("file");
    std::fs::write(&file, "secret").unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert!(!can_read(ALICE, &file) && !can_read(NOBODY, &file));
    let value = for_user(6, ALICE.uid, 4, 0, 4, 0);
    xattr::set(&file, ACCESS, &value).unwrap();
    assert_eq!(mode(&file), 0o640, "the mask is the group's bits, at once");
    assert!(can_read(ALICE, &file) && !can_read(NOBODY, &file));
    // The group's bits are the mask: without it nobody who is named gets in.
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
    assert!(!can_read(ALICE, &file));
    assert_eq!(xattr::get(&file, ACCESS).unwrap().unwrap(), for_user(6, ALICE.uid, 4, 0, 0, 0));
    std::fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
    assert!(can_read(ALICE, &file));
    place.umounts();
    place.mount(&[]).silently();
    assert!(can_read(ALICE, &file) && !can_read(BOB, &file));
    assert_eq!((mode(&file), xattr::get(&file, ACCESS).unwrap().unwrap()), (0o640, value));
    xattr::remove(&file, ACCESS).unwrap();
    assert!(!can_read(ALICE, &file));
    assert_eq!((mode(&file), xattr::get(&file, ACCESS).unwrap()), (0o640, None));
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}

fn what_is_made_inherits_whoever_makes_it(medium: Medium) {
    let place = mounted(medium, &[]);
    let dir = place.dir.join("dir");
    std::fs::create_dir(&dir).unwrap();
    std::fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    for umask in [0, 0o022, 0o077, 0o777] {
        let name = |what: &str| dir.join(format!("{what}-{umask:o}"));
        xattr::remove(&dir, DEFAULT).unwrap();
        BOB.does(umask, || File::create(name("plain"))).unwrap();
        assert_eq!(mode(&name("plain")), 0o666 & !umask);
        xattr::set(&dir, DEFAULT, &for_user(7, ALICE.uid, 6, 5, 7, 0)).unwrap();
        BOB.does(umask, || File::create(name("file"))).unwrap();
        BOB.does(umask, || std::fs::create_dir(name("below"))).unwrap();
        assert_eq!(mode(&name("file")), 0o660);
        assert_eq!(xattr::get(name("file"), ACCESS).unwrap().unwrap(), for_user(6, ALICE.uid, 6, 5, 6, 0));
        assert_eq!(xattr::get(name("below"), DEFAULT).unwrap(), xattr::get(&dir, DEFAULT).unwrap());
        assert!(can_read(ALICE, &name("file")) && !can_read(NOBODY, &name("file")));
        assert_eq!(std::fs::metadata(name("file")).unwrap().uid(), BOB.uid);
    }
    // A directory that hands its group down hands down both.
    chown(&dir, None, Some(3000)).unwrap();
    std::fs::set_permissions(&dir, Permissions::from_mode(0o2777)).unwrap();
    BOB.does(0o077, || std::fs::create_dir(dir.join("setgid"))).unwrap();
    let made = std::fs::metadata(dir.join("setgid")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.gid()), (0o2770, 3000));
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}

fn put_and_keys_inherit(medium: Medium) {
    let place = mounted(medium, &[]);
    xattr::set(&place.dir, DEFAULT, &for_user(7, ALICE.uid, 6, 5, 7, 0)).unwrap();
    place.umounts();
    place.put("put", b"content").silently();
    let socket = place.root().join("socket");
    place.mount(&["-o", &format!("kvlds={}", socket.display())]).silently();
    let key = ["put", "--kvlds", socket.to_str().unwrap(), "key", "/dev/null"];
    place::kivafs(key).silently();
    for name in ["put", "key"] {
        let path = place.dir.join(name);
        assert_eq!(mode(&path), 0o660, "{name}");
        assert_eq!(xattr::get(&path, ACCESS).unwrap().unwrap(), for_user(6, ALICE.uid, 6, 5, 6, 0), "{name}");
        assert!(can_read(ALICE, &path) && !can_read(NOBODY, &path));
    }
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}

#[test]
fn only_directories_have_default_acls_and_symlinks_have_none() {
    let place = mounted(Medium::File, &[]);
    let (file, link) = (place.dir.join("file"), place.dir.join("link"));
    File::create(&file).unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    let value = for_user(7, 1, 7, 7, 7, 7);
    let errno = |done: std::io::Result<()>| done.unwrap_err().raw_os_error().unwrap();
    assert_eq!(errno(xattr::set(&file, DEFAULT, &value)), libc::EACCES);
    assert_eq!(errno(xattr::set(&link, ACCESS, &value)), libc::EOPNOTSUPP);
    assert_eq!(errno(xattr::set(&file, ACCESS, &value[..20])), libc::EINVAL);
    assert_eq!(errno(xattr::set(&file, ACCESS, &[1, 0, 0, 0])), libc::EOPNOTSUPP);
    assert_eq!(errno(NOBODY.does(0, || xattr::set(&file, ACCESS, &value))), libc::EPERM);
    assert_eq!(xattr::list(&file).unwrap().count(), 0);
    // Three entries are a mode.
    let none = u32::MAX;
    xattr::set(&file, ACCESS, &acl(&[(OWNER, 7, none), (GROUP, 1, none), (OTHERS, 2, none)])).unwrap();
    assert_eq!((mode(&file), xattr::list(&file).unwrap().count()), (0o712, 0));
    place.umounts();
}

/// Who is in the group keeps setgid, by whichever of his groups; who is not loses it, as with chmod.
#[test]
fn setgid_falls_if_who_sets_an_acl_is_not_in_the_group() {
    let place = mounted(Medium::File, &[]);
    let file = place.dir.join("file");
    let cases = [(ALICE, 1000, true), (ALICE, 3000, true), (ALICE, 1001, false), (BOB, 1000, true), (ROOT, 77, true)];
    for (user, group, stays) in cases {
        File::create(&file).unwrap();
        chown(&file, Some(user.uid), Some(group)).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o2755)).unwrap();
        user.does(0, || xattr::set(&file, ACCESS, &for_user(7, 5, 7, 5, 7, 5))).unwrap();
        assert_eq!(mode(&file), if stays { 0o2775 } else { 0o775 }, "{user:?}, group {group}");
        std::fs::remove_file(&file).unwrap();
    }
    place.umounts();
}

#[test]
fn chown_without_an_owner_takes_setuid_away_if_root_or_the_owner_asks() {
    let place = mounted(Medium::File, &[]);
    let file = place.dir.join("file");
    File::create(&file).unwrap();
    chown(&file, Some(ALICE.uid), None).unwrap();
    for (user, falls) in [(BOB, false), (ALICE, true), (ROOT, true)] {
        std::fs::set_permissions(&file, Permissions::from_mode(0o6755)).unwrap();
        let _ = user.does(0, || chown(&file, None, None));
        assert_eq!(mode(&file), if falls { 0o755 } else { 0o6755 }, "{user:?}");
    }
    place.umounts();
}

/// Without group execution, too, which otherwise has it mark mandatory locking.
#[test]
fn chown_takes_setgid_away_if_who_asks_is_not_in_the_group() {
    let place = mounted(Medium::File, &[]);
    let file = place.dir.join("file");
    File::create(&file).unwrap();
    for (group, user, mode_then) in
        [(0, ALICE, 0o645), (ALICE.gid, ALICE, 0o2645), (ALICE.groups[0], ALICE, 0o2645), (0, ROOT, 0o2645)]
    {
        chown(&file, Some(ALICE.uid), Some(group)).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o2645)).unwrap();
        user.does(0, || chown(&file, None, Some(group))).unwrap();
        assert_eq!(mode(&file), mode_then, "group {group}, {user:?}");
    }
    place.umounts();
}

/// The kernel may not check whether he may, but there is nothing to be made there anyway.
#[test]
fn who_works_in_a_directory_that_was_removed_is_told_so() {
    let place = mounted(Medium::File, &[]);
    let dir = place.dir.join("dir");
    std::fs::create_dir(&dir).unwrap();
    chown(&dir, Some(ALICE.uid), None).unwrap();
    let open = File::open(&dir).unwrap();
    std::fs::remove_dir(&dir).unwrap();
    let inside = format!("/proc/self/fd/{}/new", std::os::fd::AsRawFd::as_raw_fd(&open));
    assert_eq!(File::create(inside).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    drop(open);
    place.umounts();
}
