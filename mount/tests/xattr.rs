//! Extended attributes on real mounts: all namespaces, and the limits. Needs root and /dev/fuse; fails
//! without.

mod place;
#[path = "acl/user.rs"]
mod user;

use place::{Medium, Place, on_each_medium};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io::Result;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use user::{ALICE, BOB, NOBODY, ROOT, User};

on_each_medium!(what_is_set_is_there_also_after_a_remount, values_and_lists_have_their_limits);

const VALUE_MAX: usize = 64 << 10;

fn mounted(medium: Medium) -> Place {
    let place = Place::new(medium);
    std::fs::set_permissions(place.root(), Permissions::from_mode(0o755)).unwrap();
    place.mount(&[]).silently();
    place
}

/// The errno; 0: it worked.
fn errno<T>(done: Result<T>) -> i32 {
    done.err().map_or(0, |error| error.raw_os_error().expect("the system's error"))
}

/// setxattr(2) with flags.
fn set_with(path: &Path, name: &str, value: &[u8], flags: i32) -> i32 {
    let (path, name) = (CString::new(path.as_os_str().as_bytes()).unwrap(), CString::new(name).unwrap());
    // SAFETY: both names end with a NUL, and all three outlive the call.
    let done = unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    if done == 0 { 0 } else { errno::<()>(Err(std::io::Error::last_os_error())) }
}

/// getxattr(2) with room for so many bytes: how many there are, or the errno.
fn get_with(path: &Path, name: &str, room: usize) -> std::result::Result<usize, i32> {
    let (path, name) = (CString::new(path.as_os_str().as_bytes()).unwrap(), CString::new(name).unwrap());
    let mut buffer = vec![0u8; room];
    // SAFETY: both names end with a NUL, the buffer has that room, and all three outlive the call.
    let got = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.as_mut_ptr().cast(), room) };
    usize::try_from(got).map_err(|_| errno::<()>(Err(std::io::Error::last_os_error())))
}

fn names(user: User, path: &Path) -> BTreeSet<String> {
    let list = user.does(0, || xattr::list(path).unwrap().collect::<Vec<_>>());
    list.into_iter().map(|name| name.into_string().unwrap()).collect()
}

fn what_is_set_is_there_also_after_a_remount(medium: Medium) {
    let place = mounted(medium);
    let (file, dir, link) = (place.dir.join("file"), place.dir.join("dir"), place.dir.join("link"));
    File::create(&file).unwrap();
    std::fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("file", &link).unwrap();
    let all = [
        ("user.text", b"a value".to_vec()),
        ("user.empty", Vec::new()),
        ("user.binary", vec![0, 255, 0]),
        ("user.long", vec![b'x'; VALUE_MAX]),
        ("trusted.overlay.opaque", b"y".to_vec()),
        // A capability of a file: version 2, effective, CAP_NET_BIND_SERVICE.
        ("security.capability", [&[1, 0, 0, 2, 0, 4][..], &[0; 14]].concat()),
        ("security.selinux", b"system_u:object_r:etc_t:s0\0".to_vec()),
    ];
    for path in [&file, &dir] {
        for (name, value) in &all {
            xattr::set(path, name, value).unwrap();
        }
    }
    xattr::set(&link, "trusted.of.link", b"1").unwrap();
    for round in 0..2 {
        for path in [&file, &dir] {
            for (name, value) in &all {
                assert_eq!(xattr::get(path, name).unwrap().as_ref(), Some(value), "{name}, round {round}");
            }
            let expected = all.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(names(ROOT, path), expected);
        }
        assert_eq!(xattr::get(&link, "trusted.of.link").unwrap().unwrap(), b"1");
        place.umounts();
        place.on_store("check", &["--data"]).silently();
        place.mount(&[]).silently();
    }
    place.umounts();
}

fn values_and_lists_have_their_limits(medium: Medium) {
    let place = mounted(medium);
    let file = place.dir.join("file");
    File::create(&file).unwrap();
    assert_eq!(errno(xattr::set(&file, "user.a", &vec![1; VALUE_MAX + 1])), libc::E2BIG);
    xattr::set(&file, "user.a", b"four").unwrap();
    assert_eq!(get_with(&file, "user.a", 0), Ok(4));
    assert_eq!(get_with(&file, "user.a", 3), Err(libc::ERANGE));
    assert_eq!(get_with(&file, "user.a", 4), Ok(4));
    assert_eq!(get_with(&file, "user.none", 100), Err(libc::ENODATA));
    assert_eq!(errno(xattr::remove(&file, "user.none")), libc::ENODATA);
    assert_eq!(set_with(&file, "user.a", b"x", libc::XATTR_CREATE), libc::EEXIST);
    assert_eq!(set_with(&file, "user.none", b"x", libc::XATTR_REPLACE), libc::ENODATA);
    assert_eq!(set_with(&file, "user.a", b"x", libc::XATTR_REPLACE), 0);
    assert_eq!(set_with(&file, "user.b", b"x", libc::XATTR_CREATE), 0);
    let longest = format!("user.{}", "n".repeat(250));
    assert_eq!(set_with(&file, &longest, b"x", 0), 0);
    assert_eq!(set_with(&file, &format!("{longest}n"), b"x", 0), libc::ERANGE);
    for (name, expected) in [
        ("", libc::ERANGE),
        ("user.", libc::EINVAL),
        ("user", libc::EOPNOTSUPP),
        ("none.a", libc::EOPNOTSUPP),
        ("system.a", libc::EOPNOTSUPP),
    ] {
        assert_eq!(set_with(&file, name, b"x", 0), expected, "{name}");
    }
    // Names until their list has 64 KiB: no more could be listed.
    let full = place.dir.join("full");
    File::create(&full).unwrap();
    let name = |number: usize| format!("user.{number:0250}");
    let most = VALUE_MAX / 256;
    for number in 0..most {
        xattr::set(&full, name(number), b"").unwrap();
    }
    assert_eq!(errno(xattr::set(&full, "user.more", b"")), libc::ENOSPC);
    assert_eq!(names(ROOT, &full).len(), most);
    // Not even an ACL, but one that is no more than a mode.
    let acl = |entries: &[[u8; 2]]| {
        let entries = entries.iter().flat_map(|[tag, perm]| [*tag, 0, *perm, 0, 255, 255, 255, 255]);
        [2, 0, 0, 0].into_iter().chain(entries).collect::<Vec<u8>>()
    };
    let access = "system.posix_acl_access";
    assert_eq!(errno(xattr::set(&full, access, &acl(&[[1, 6], [4, 4], [16, 4], [32, 0]]))), libc::ENOSPC);
    xattr::set(&full, access, &acl(&[[1, 6], [4, 4], [32, 0]])).unwrap();
    assert_eq!(std::fs::metadata(&full).unwrap().permissions().mode() & 0o777, 0o640);
    xattr::set(&full, name(0), b"overwritten").unwrap();
    xattr::remove(&full, name(1)).unwrap();
    xattr::set(&full, "user.more", b"").unwrap();
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}

/// trusted.* is root's; others neither read nor write it, nor hear that there is any.
#[test]
fn who_is_not_root_sees_nothing_of_what_is_trusted() {
    let place = mounted(Medium::File);
    let file = place.dir.join("file");
    File::create(&file).unwrap();
    std::os::unix::fs::chown(&file, Some(ALICE.uid), None).unwrap();
    xattr::set(&file, "trusted.a", b"1").unwrap();
    xattr::set(&file, "user.a", b"2").unwrap();
    assert_eq!(names(ALICE, &file), BTreeSet::from(["user.a".to_owned()]));
    assert_eq!(names(ROOT, &file).len(), 2);
    assert_eq!(ALICE.does(0, || get_with(&file, "trusted.a", 10)), Err(libc::ENODATA));
    assert_eq!(errno(ALICE.does(0, || xattr::set(&file, "trusted.a", b"x"))), libc::EPERM);
    assert_eq!(errno(ALICE.does(0, || xattr::set(&file, "security.a", b"x"))), libc::EPERM);
    assert_eq!(errno(ALICE.does(0, || xattr::set(&file, "user.a", b"x"))), 0);
    // What user.* says goes by the file's permissions: 0644.
    for user in [BOB, NOBODY] {
        assert_eq!(user.does(0, || get_with(&file, "user.a", 10)), Ok(1));
        assert_eq!(errno(user.does(0, || xattr::set(&file, "user.a", b"y"))), libc::EACCES);
    }
    place.umounts();
}

/// A symlink and a fifo have no user.* attributes.
#[test]
fn only_files_and_directories_have_attributes_of_users() {
    let place = mounted(Medium::File);
    let link = place.dir.join("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    assert_eq!(errno(xattr::set(&link, "user.a", b"x")), libc::EPERM);
    assert_eq!(errno(xattr::set(&link, "trusted.a", b"x")), 0);
    place.umounts();
}
