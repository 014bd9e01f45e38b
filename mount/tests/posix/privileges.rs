//! When set-user-id and set-group-id bits fall: for everybody but root, whatever changes the content;
//! for all when the owner changes. Modes are asked for with stat(1), which the kernel may answer from
//! what it keeps.

use crate::ends_whole;
use crate::place::{Medium, Place, Said, on_each_medium};
use nix::libc;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

on_each_medium!(what_others_change_loses_them, a_new_owner_takes_them_away);

/// `$0` is the file; each succeeds.
const CHANGES: [&str; 10] = [
    "echo more >> $0",
    "echo anew > $0",
    "truncate -s 5 $0",
    "truncate -s +0 $0",
    "fallocate -l 100000 $0",
    "fallocate -l 10 $0",
    "fallocate -n -l 100 $0",
    "fallocate -p -l 100 $0",
    "fallocate -z -l 100000 $0",
    "dd if=/dev/zero of=$0 bs=4096 count=1 conv=notrunc oflag=direct status=none",
];

fn mode(path: &Path) -> u32 {
    let text = Said(Command::new("stat").args(["-c", "%a"]).arg(path).output().unwrap()).silently().text();
    u32::from_str_radix(text.trim(), 8).unwrap()
}

/// A file of everybody's with these bits, in its directory's entry or in pieces.
fn make(path: &Path, length: usize, mode: u32) {
    std::fs::write(path, vec![b'x'; length]).unwrap();
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn what_others_change_loses_them(medium: Medium) {
    let place = Place::new(medium);
    std::fs::set_permissions(place.root(), PermissionsExt::from_mode(0o755)).unwrap();
    place.mount(&[]).silently();
    let path = place.dir.join("file");
    for length in [600, 100_000] {
        for change in CHANGES {
            for (user, before, after) in [
                (0, 0o6777, 0o6777),
                (65534, 0o6777, 0o777),
                // Without execution by the group it does not mean its privileges.
                (65534, 0o6767, 0o2767),
            ] {
                make(&path, length, before);
                let said = Command::new("sh").args(["-c", change]).arg(&path).uid(user).gid(user).output().unwrap();
                Said(said).silently();
                assert_eq!(
                    format!("{:o}", mode(&path)),
                    format!("{after:o}"),
                    "{change}, by {user}, of {length} bytes"
                );
            }
        }
    }
    // They are kept, or gone, also in the store.
    place.umounts();
    place.mount(&[]).silently();
    assert_eq!(mode(&path), 0o2767);
    ends_whole(&place);
}

fn a_new_owner_takes_them_away(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let (path, dir) = (place.dir.join("file"), place.dir.join("dir"));
    std::fs::create_dir(&dir).unwrap();
    const NOBODY: u32 = u32::MAX;
    let chown = |path: &Path, user: u32, group: u32| {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the string ends with a NUL, and lives until the call returns.
        assert_eq!(unsafe { libc::chown(path.as_ptr(), user, group) }, 0);
    };
    for length in [5, 100_000] {
        // Also a chown to nobody, which changes no owner.
        for (user, group) in [(7, NOBODY), (NOBODY, 7), (0, 0), (NOBODY, NOBODY)] {
            make(&path, length, 0o6777);
            chown(&path, user, group);
            assert_eq!(mode(&path), 0o777, "{user}:{group}");
            make(&path, length, 0o6767);
            chown(&path, user, group);
            assert_eq!(mode(&path), 0o2767, "{user}:{group}");
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o6777)).unwrap();
            chown(&dir, user, group);
            assert_eq!(mode(&dir), 0o6777, "of a directory it means something else");
        }
    }
    assert_eq!(std::fs::metadata(&path).unwrap().uid(), 0);
    ends_whole(&place);
}
