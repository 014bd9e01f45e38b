//! Times of access: as the options say, and never at the cost of a commit.

use crate::place::{Medium, Place, on_each_medium, until};
use crate::{ends_whole, remount};
use nix::libc;
use nix::sys::stat::{UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
use std::path::Path;

on_each_medium!(
    reading_changes_no_time_as_usual,
    relatime_tells_of_the_first_read_after_a_change,
    a_time_of_access_costs_no_commit_and_is_stored_with_the_next_change,
    times_of_access_go_along_at_the_end,
    directories_and_symlinks_are_read_too,
);

const OLD: i64 = 1_000_000_000;

/// Sets both times, long ago; who wrote it last has done so just now (ctime).
fn age(path: &Path) {
    let old = TimeSpec::new(OLD, 0);
    utimensat(nix::fcntl::AT_FDCWD, path, &old, &old, UtimensatFlags::NoFollowSymlink).unwrap();
}

fn atime(path: &Path) -> (i64, i64) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.atime(), meta.atime_nsec())
}

fn ctime(path: &Path) -> (i64, i64) {
    let meta = std::fs::symlink_metadata(path).unwrap();
    (meta.ctime(), meta.ctime_nsec())
}

/// Reads it until that is later than its last change (a clock has its ticks).
fn read_later(path: &Path) {
    until("the read is later than the change", || {
        std::fs::read(path).unwrap();
        atime(path) > ctime(path)
    });
}

fn place(medium: Medium, options: &str) -> Place {
    let place = Place::new(medium);
    place.mount(&["-o", options]).silently();
    place
}

fn reading_changes_no_time_as_usual(medium: Medium) {
    for options in ["rw", "noatime", "relatime,noatime"] {
        let place = place(medium, options);
        assert!(place.mounted().unwrap().line.contains("noatime"));
        let path = place.dir.join("file");
        std::fs::write(&path, "content").unwrap();
        age(&path);
        std::fs::read(&path).unwrap();
        std::fs::read_dir(&place.dir).unwrap().for_each(drop);
        assert_eq!(atime(&path), (OLD, 0));
        ends_whole(&place);
    }
}

fn relatime_tells_of_the_first_read_after_a_change(medium: Medium) {
    let place = place(medium, "relatime");
    assert!(place.mounted().unwrap().line.contains("relatime"));
    for (name, length) in [("small", 10), ("large", 300_000)] {
        let path = place.dir.join(name);
        std::fs::write(&path, vec![b'x'; length]).unwrap();
        age(&path);
        // The kernel has all of its pages.
        let mut quiet = File::options().read(true).custom_flags(libc::O_NOATIME).open(&path).unwrap();
        quiet.read_to_end(&mut Vec::new()).unwrap();
        assert_eq!(atime(&path), (OLD, 0), "O_NOATIME");
        drop(File::options().write(true).open(&path).unwrap());
        assert_eq!(atime(&path), (OLD, 0), "not read");
        read_later(&path);
        let first = atime(&path);
        std::fs::read(&path).unwrap();
        assert_eq!(atime(&path), first, "it was read since its last change");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        read_later(&path);
        let second = atime(&path);
        assert!(second > first);
        // What somebody sets counts.
        age(&path);
        assert_eq!(atime(&path), (OLD, 0));
        read_later(&path);
    }
    ends_whole(&place);
}

/// What has been committed so far.
fn commits(place: &Place) -> serde_json::Value {
    let sequence = place.info()["sequence"].clone();
    assert!(sequence.is_number());
    sequence
}

fn a_time_of_access_costs_no_commit_and_is_stored_with_the_next_change(medium: Medium) {
    // Whatever is changed is committed at once.
    let options = "relatime,commit=0";
    let place = place(medium, options);
    let paths = ["one", "two"].map(|name| place.dir.join(name));
    for path in &paths {
        std::fs::write(path, "content").unwrap();
        age(path);
    }
    let sync = || File::open(&place.dir).unwrap().sync_all().unwrap();
    sync();
    let before = commits(&place);
    paths.iter().for_each(|path| read_later(path));
    std::fs::read_dir(&place.dir).unwrap().for_each(drop);
    sync();
    assert_eq!(commits(&place), before);
    let read = atime(&paths[0]);
    std::fs::set_permissions(&paths[0], std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    sync();
    remount(&place, &["-o", options]);
    assert_eq!(atime(&paths[0]), read, "it was stored with the change");
    assert_eq!(atime(&paths[1]), (OLD, 0), "that would have been a commit for this alone");
    ends_whole(&place);
}

fn times_of_access_go_along_at_the_end(medium: Medium) {
    let options = "relatime,commit=3600";
    let place = place(medium, options);
    let paths: Vec<_> = (0..600).map(|number| place.dir.join(number.to_string())).collect();
    for path in &paths {
        std::fs::write(path, "content").unwrap();
        age(path);
    }
    paths.iter().for_each(|path| read_later(path));
    let read: Vec<_> = paths.iter().map(|path| atime(path)).collect();
    remount(&place, &["-o", options]);
    for (path, read) in paths.iter().zip(&read) {
        assert_eq!(atime(path), *read, "{}", path.display());
    }
    ends_whole(&place);
}

fn directories_and_symlinks_are_read_too(medium: Medium) {
    for options in ["relatime", "relatime,nodiratime"] {
        let place = place(medium, options);
        let (dir, link) = (place.dir.join("dir"), place.dir.join("link"));
        std::fs::create_dir(&dir).unwrap();
        symlink("dir", &link).unwrap();
        age(&dir);
        age(&link);
        std::fs::read_dir(&dir).unwrap().for_each(drop);
        assert_eq!(atime(&dir) != (OLD, 0), options == "relatime", "{options}");
        std::fs::read_link(&link).unwrap();
        assert_ne!(atime(&link), (OLD, 0));
        ends_whole(&place);
    }
}
