//! renameat2 with its flags.

use crate::place::{Medium, Place, on_each_medium, until};
use crate::{ends_whole, remount};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

on_each_medium!(
    no_replace_replaces_nothing,
    exchange_swaps_whatever_it_is,
    a_whiteout_stays_under_the_old_name,
    flags_that_contradict_are_refused,
    overlayfs_takes_it_as_its_upper_layer,
);

const NO_REPLACE: RenameFlags = RenameFlags::RENAME_NOREPLACE;
const EXCHANGE: RenameFlags = RenameFlags::RENAME_EXCHANGE;
const WHITEOUT: RenameFlags = RenameFlags::RENAME_WHITEOUT;

fn rename(from: &Path, to: &Path, flags: RenameFlags) -> nix::Result<()> {
    renameat2(AT_FDCWD, from, AT_FDCWD, to, flags)
}

/// All that can have a name: in its directory's entry or in a record of its own.
const KINDS: [&str; 7] = ["small", "large", "linked", "symlink", "fifo", "dir", "full"];

fn make(path: &Path, kind: &str) {
    match kind {
        "small" => std::fs::write(path, kind).unwrap(),
        "large" => std::fs::write(path, kind.repeat(5000)).unwrap(),
        "linked" => {
            std::fs::write(path, kind).unwrap();
            std::fs::hard_link(path, path.with_extension("link")).unwrap();
        }
        "symlink" => symlink(kind, path).unwrap(),
        "fifo" => nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        "dir" => std::fs::create_dir(path).unwrap(),
        "full" => {
            std::fs::create_dir(path).unwrap();
            std::fs::write(path.join("in it"), kind).unwrap();
        }
        kind => panic!("{kind}"),
    }
}

/// Is that what `make` made?
fn must_be(path: &Path, kind: &str) {
    let meta = std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let content = || std::fs::read_to_string(path).unwrap();
    let is_it = match kind {
        "small" => meta.nlink() == 1 && content() == kind,
        "large" => content() == kind.repeat(5000),
        "linked" => meta.nlink() == 2 && content() == kind,
        "symlink" => std::fs::read_link(path).unwrap() == Path::new(kind),
        "fifo" => meta.file_type().is_fifo(),
        "dir" => meta.nlink() == 2 && std::fs::read_dir(path).unwrap().count() == 0,
        "full" => std::fs::read_to_string(path.join("in it")).unwrap() == kind,
        "whiteout" => meta.file_type().is_char_device() && meta.rdev() == 0 && meta.permissions().mode() & 0o7777 == 0,
        kind => panic!("{kind}"),
    };
    assert!(is_it, "{} is no {kind}: {meta:?}", path.display());
}

fn is_dir(kind: &str) -> bool {
    matches!(kind, "dir" | "full")
}

/// Does something with each pair of kinds, in two directories of its own; then all is as it should be,
/// also after a remount. `act` answers what is under the first name and the second.
fn for_each_pair(medium: Medium, act: impl Fn(&Path, &str, &Path, &str) -> (&'static str, &'static str)) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let mut expected = Vec::new();
    for first in KINDS {
        for second in KINDS {
            let dir = place.dir.join(format!("{first}-{second}"));
            let (a, b) = (dir.join("a"), dir.join("b"));
            for parent in [&dir, &a, &b] {
                std::fs::create_dir(parent).unwrap();
            }
            let (from, to) = (a.join("from"), b.join("to"));
            make(&from, first);
            make(&to, second);
            let there = act(&from, first, &to, second);
            expected.push(([from, to], [there.0, there.1]));
        }
    }
    for _ in 0..2 {
        for (paths, kinds) in &expected {
            for (path, kind) in paths.iter().zip(kinds) {
                must_be(path, kind);
                let parent = std::fs::metadata(path.parent().unwrap()).unwrap();
                assert_eq!(parent.nlink(), 2 + u64::from(is_dir(kind)), "{}", path.display());
            }
        }
        remount(&place, &[]);
    }
    ends_whole(&place);
}

fn named(kind: &str) -> &'static str {
    KINDS.into_iter().find(|known| *known == kind).unwrap()
}

fn no_replace_replaces_nothing(medium: Medium) {
    for_each_pair(medium, |from, first, to, second| {
        assert_eq!(rename(from, to, NO_REPLACE), Err(Errno::EEXIST));
        assert_eq!(rename(from, to, NO_REPLACE | WHITEOUT), Err(Errno::EEXIST));
        let (away, here) = (to.with_file_name("away"), from.with_file_name("here"));
        rename(to, &away, NO_REPLACE).unwrap();
        rename(from, to, NO_REPLACE).unwrap();
        rename(&away, &here, NO_REPLACE).unwrap();
        rename(&here, from, NO_REPLACE).unwrap();
        (named(second), named(first))
    });
}

fn exchange_swaps_whatever_it_is(medium: Medium) {
    for_each_pair(medium, |from, first, to, second| {
        assert_eq!(rename(from, &to.with_file_name("nothing"), EXCHANGE), Err(Errno::ENOENT));
        rename(from, to, EXCHANGE).unwrap();
        if first == "full" {
            assert_eq!(rename(to, &to.join("in it"), EXCHANGE), Err(Errno::EINVAL), "with what lies in it");
        }
        (named(second), named(first))
    });
}

fn a_whiteout_stays_under_the_old_name(medium: Medium) {
    for_each_pair(medium, |from, first, to, second| match rename(from, to, WHITEOUT) {
        Ok(()) => {
            assert_eq!(is_dir(first), is_dir(second));
            must_be(from, "whiteout");
            ("whiteout", named(first))
        }
        Err(errno) => {
            let expected = match (is_dir(first), is_dir(second)) {
                (true, true) => Errno::ENOTEMPTY,
                (true, false) => Errno::ENOTDIR,
                _ => Errno::EISDIR,
            };
            assert_eq!(errno, expected, "{first} to {second}");
            assert!(expected != Errno::ENOTEMPTY || second == "full");
            let free = to.with_file_name("free");
            rename(from, &free, WHITEOUT | NO_REPLACE).unwrap();
            must_be(&free, first);
            if is_dir(first) { std::fs::remove_dir_all(&free) } else { std::fs::remove_file(&free) }.unwrap();
            ("whiteout", named(second))
        }
    });
}

fn flags_that_contradict_are_refused(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let (a, b) = (place.dir.join("a"), place.dir.join("b"));
    make(&a, "small");
    make(&b, "large");
    for flags in [NO_REPLACE | EXCHANGE, WHITEOUT | EXCHANGE, RenameFlags::from_bits_retain(8)] {
        assert_eq!(rename(&a, &b, flags), Err(Errno::EINVAL), "{flags:?}");
    }
    std::fs::create_dir_all(place.dir.join("c/d/e")).unwrap();
    let (c, e) = (place.dir.join("c"), place.dir.join("c/d/e"));
    for flags in [RenameFlags::empty(), EXCHANGE, WHITEOUT] {
        assert_eq!(rename(&c, &e, flags), Err(Errno::EINVAL), "{flags:?}: into itself");
    }
    ends_whole(&place);
}

fn overlayfs_takes_it_as_its_upper_layer(medium: Medium) {
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| place.dir.join(name));
    let merged = place.root().join("merged");
    for dir in [&lower, &upper, &work, &merged, &lower.join("dir"), &lower.join("dir/sub")] {
        std::fs::create_dir(dir).unwrap();
    }
    for name in ["kept", "changed", "removed", "renamed", "dir/sub/file"] {
        std::fs::write(lower.join(name), name).unwrap();
    }
    let layers = format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let mount = || {
        let done = Command::new("mount").args(["-t", "overlay", "none", "-o", &layers]).arg(&merged).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    // Another test's child holds what is open here, between its fork and its exec.
    let umount = || {
        until("nothing is open there", || match nix::mount::umount(&merged) {
            Err(Errno::EBUSY) => false,
            done => {
                done.unwrap();
                true
            }
        });
    };
    mount();
    std::fs::write(merged.join("changed"), "anew").unwrap();
    std::fs::remove_file(merged.join("removed")).unwrap();
    std::fs::rename(merged.join("renamed"), merged.join("dir/sub/there")).unwrap();
    std::fs::remove_dir_all(merged.join("dir/sub")).unwrap();
    std::fs::create_dir(merged.join("dir/sub")).unwrap();
    std::fs::write(merged.join("dir/sub/new"), "new").unwrap();
    let look = || {
        let mut names: Vec<_> = std::fs::read_dir(&merged).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["changed", "dir", "kept"]);
        let sub: Vec<_> =
            std::fs::read_dir(merged.join("dir/sub")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(sub, ["new"], "what was there before is hidden");
        assert_eq!(std::fs::read_to_string(merged.join("changed")).unwrap(), "anew");
        assert_eq!(std::fs::read_to_string(merged.join("kept")).unwrap(), "kept");
    };
    look();
    umount();
    let whiteout = std::fs::symlink_metadata(upper.join("removed")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    let whiteout = std::fs::symlink_metadata(upper.join("renamed")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    remount(&place, &[]);
    mount();
    look();
    umount();
    ends_whole(&place);
}
