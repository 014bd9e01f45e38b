//! `-o uid=`, `gid=`, `umask=` on real mounts: whose files are shown to be, and what that changes. Needs
//! root and /dev/fuse; fails without.

#[allow(dead_code, reason = "shared with the tests of ACLs, which use all of it")]
#[path = "acl/lists.rs"]
mod lists;
mod place;
#[allow(dead_code, reason = "shared with the tests of ACLs, which use all of it")]
#[path = "acl/user.rs"]
mod user;

use lists::{ACCESS, DEFAULT, for_user};
use place::{Medium, Place, on_each_medium};
use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};
use std::path::Path;
use user::{ALICE, BOB, NOBODY};

on_each_medium!(what_is_shown_is_not_what_is_stored);

fn shown(path: &Path) -> (u32, u32, u32) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// With files of several owners.
fn stored(medium: Medium) -> Place {
    let place = Place::new(medium);
    std::fs::set_permissions(place.root(), Permissions::from_mode(0o755)).unwrap();
    place.mount(&[]).silently();
    std::fs::create_dir(place.dir.join("dir")).unwrap();
    for (name, mode, owner) in [("file", 0o664, 7), ("dir/other", 0o4755, 8)] {
        std::fs::write(place.dir.join(name), name).unwrap();
        chown(place.dir.join(name), Some(owner), Some(owner)).unwrap();
        std::fs::set_permissions(place.dir.join(name), Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::symlink("file", place.dir.join("link")).unwrap();
    place.umounts();
    place
}

fn what_is_shown_is_not_what_is_stored(medium: Medium) {
    let place = stored(medium);
    place.mount(&["-o", "uid=1000,gid=3000,umask=027"]).silently();
    let at = |name: &str| place.dir.join(name);
    assert_eq!(shown(&place.dir), (1000, 3000, 0o750));
    assert_eq!(shown(&at("file")), (1000, 3000, 0o640));
    assert_eq!(shown(&at("dir/other")), (1000, 3000, 0o4750));
    assert_eq!(shown(&at("link")), (1000, 3000, 0o777));
    // As a listing has it, which no lookup came before.
    assert_eq!(std::fs::read_dir(at("dir")).unwrap().count(), 1);
    // What is shown is what counts: alice is the owner, bob is in no group of it.
    ALICE.does(0o022, || std::fs::write(at("file"), "by alice").unwrap());
    assert!(BOB.does(0, || File::open(at("file"))).is_err());
    ALICE.does(0o022, || File::create(at("new")).unwrap());
    assert_eq!(shown(&at("new")), (1000, 3000, 0o640));
    // Whose it is can be set to what it is shown as.
    chown(at("file"), Some(1000), Some(3000)).unwrap();
    chown(at("file"), None, Some(3000)).unwrap();
    lchown(at("link"), Some(1000), None).unwrap();
    for (uid, gid) in [(Some(7), None), (None, Some(7)), (Some(1000), Some(7)), (Some(0), Some(0))] {
        let error = chown(at("file"), uid, gid).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{uid:?} {gid:?}");
    }
    // chmod stores what it is given, and shows what it may.
    ALICE.does(0, || std::fs::set_permissions(at("file"), Permissions::from_mode(0o767))).unwrap();
    assert_eq!(shown(&at("file")), (1000, 3000, 0o740));
    std::fs::create_dir(at("made")).unwrap();
    place.umounts();
    place.mount(&[]).silently();
    assert_eq!(shown(&at("file")), (7, 7, 0o767));
    assert_eq!(shown(&at("dir/other")), (8, 8, 0o4755));
    assert_eq!(shown(&at("new")), (1000, 1000, 0o644), "whoever makes it is who owns it");
    assert_eq!(shown(&at("made")), (0, 0, 0o755));
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}

/// The kernel goes by the ACL where there is one.
#[test]
fn a_umask_takes_from_acls_too() {
    let place = stored(Medium::File);
    place.mount(&[]).silently();
    let file = place.dir.join("file");
    xattr::set(&file, ACCESS, &for_user(7, NOBODY.uid, 6, 6, 7, 4)).unwrap();
    xattr::set(place.dir.join("dir"), DEFAULT, &for_user(7, NOBODY.uid, 6, 6, 7, 4)).unwrap();
    let reads = || NOBODY.does(0, || File::open(&file).is_ok());
    let writes = || NOBODY.does(0, || File::options().write(true).open(&file).is_ok());
    assert!(reads() && writes());
    place.umounts();
    place.mount(&["-o", "umask=022"]).silently();
    assert!(reads() && !writes());
    assert_eq!(shown(&file), (7, 7, 0o754));
    assert_eq!(xattr::get(&file, ACCESS).unwrap().unwrap(), for_user(7, NOBODY.uid, 6, 6, 5, 4));
    assert_eq!(
        xattr::get(place.dir.join("dir"), DEFAULT).unwrap().unwrap(),
        for_user(7, NOBODY.uid, 6, 6, 7, 4),
        "which permits nothing by itself"
    );
    place.umounts();
    place.mount(&["-o", "uid=5,umask=077"]).silently();
    assert!(!reads());
    place.umounts();
    place.mount(&[]).silently();
    assert!(reads() && writes());
    place.umounts();
}

#[test]
fn owners_are_numbers() {
    let place = Place::new(Medium::File);
    for (option, words) in [
        ("uid=alice", &["uid=alice", "not a number"][..]),
        ("gid=-1", &["gid=-1", "not a number"]),
        ("gid=4294967295", &["gid=4294967295", "no user or group"]),
        ("umask=rwx", &["umask=rwx", "octal"]),
        ("umask=1000", &["umask=1000", "octal"]),
    ] {
        place.mount(&["-o", option]).fails(2, words);
    }
    assert_eq!(place.mounted(), None);
}
