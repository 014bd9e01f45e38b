//! The README's table "What is promised", line by line: what is durable once a call has returned, what a
//! crash may leave, what readers see. Nothing becomes durable by itself here (`commit=3600`), and a server
//! is killed before anybody else could have asked for it. Needs root and /dev/fuse; fails without.

mod place;

use nix::sys::mman::{MapFlags, MsFlags, ProtFlags, mmap, msync, munmap};
use nix::sys::signal::{Signal, kill};
use place::{Medium, Place, on_each_medium, until};
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

on_each_medium!(
    fsync_makes_everything_durable_that_came_before,
    fdatasync_makes_everything_durable_that_came_before,
    a_synchronous_write_makes_everything_durable_that_came_before,
    fsync_of_a_directory_makes_everything_durable_that_came_before,
    msync_makes_everything_durable_that_came_before,
    with_sync_every_change_is_durable,
    with_dirsync_every_change_of_names_is_durable,
    of_what_nobody_synced_a_kill_leaves_a_prefix,
    a_file_that_is_renamed_over_is_old_or_new_and_whole_after_a_kill,
    what_has_returned_is_seen_by_everybody,
    who_has_a_file_open_keeps_it,
    a_name_that_is_renamed_over_is_always_there_and_whole,
    what_is_appended_by_several_is_all_there,
);

fn mounted(medium: Medium, options: &str) -> Place {
    let place = Place::new(medium);
    place.mount(&["-o", options]).silently();
    place
}

/// Takes the server away in the midst of what it does, and mounts again.
fn kill_and_mount(place: &Place) {
    kill(place.server().unwrap(), Signal::SIGKILL).unwrap();
    until("the mount is dead", || fs::metadata(&place.dir).is_err());
    // It says that it has detached a dead mount.
    assert_eq!(place.mount(&[]).code(), 0);
}

/// Changes of every kind; answers nothing that would make them durable.
fn change_everything(dir: &Path) {
    fs::write(dir.join("small"), "small").unwrap();
    fs::write(dir.join("large"), vec![7; 300_000]).unwrap();
    fs::create_dir_all(dir.join("a/b")).unwrap();
    fs::write(dir.join("a/old"), "moved").unwrap();
    fs::rename(dir.join("a/old"), dir.join("a/b/new")).unwrap();
    fs::hard_link(dir.join("small"), dir.join("linked")).unwrap();
    symlink("small", dir.join("symlink")).unwrap();
    fs::write(dir.join("removed"), "gone").unwrap();
    fs::remove_file(dir.join("removed")).unwrap();
    fs::create_dir(dir.join("removed directory")).unwrap();
    fs::remove_dir(dir.join("removed directory")).unwrap();
    fs::write(dir.join("cut"), vec![1; 10_000]).unwrap();
    OpenOptions::new().write(true).open(dir.join("cut")).unwrap().set_len(5000).unwrap();
    fs::set_permissions(dir.join("cut"), Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(dir.join("cut"), Some(12), Some(34)).unwrap();
}

fn assert_everything_is_changed(dir: &Path) {
    assert_eq!(fs::read(dir.join("small")).unwrap(), b"small");
    assert_eq!(fs::read(dir.join("large")).unwrap(), vec![7; 300_000]);
    assert_eq!(fs::read(dir.join("a/b/new")).unwrap(), b"moved");
    assert!(!dir.join("a/old").exists());
    assert_eq!(fs::metadata(dir.join("linked")).unwrap().ino(), fs::metadata(dir.join("small")).unwrap().ino());
    assert_eq!(fs::read_link(dir.join("symlink")).unwrap(), Path::new("small"));
    assert!(!dir.join("removed").exists() && !dir.join("removed directory").exists());
    let cut = fs::metadata(dir.join("cut")).unwrap();
    assert_eq!((cut.len(), cut.mode() & 0o7777, cut.uid(), cut.gid()), (5000, 0o640, 12, 34));
}

/// Changes everything, has `barrier` make something else durable, and kills the server.
fn assert_barrier(medium: Medium, barrier: impl FnOnce(&Path)) {
    let place = mounted(medium, "commit=3600");
    change_everything(&place.dir);
    barrier(&place.dir);
    kill_and_mount(&place);
    assert_everything_is_changed(&place.dir);
}

fn fsync_makes_everything_durable_that_came_before(medium: Medium) {
    assert_barrier(medium, |dir| File::create(dir.join("other")).unwrap().sync_all().unwrap());
}

fn fdatasync_makes_everything_durable_that_came_before(medium: Medium) {
    assert_barrier(medium, |dir| {
        let mut file = File::create(dir.join("other")).unwrap();
        file.write_all(b"more").unwrap();
        file.sync_data().unwrap();
    });
}

fn a_synchronous_write_makes_everything_durable_that_came_before(medium: Medium) {
    for flag in [libc::O_SYNC, libc::O_DSYNC] {
        assert_barrier(medium, |dir| {
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).truncate(false).custom_flags(flag).open(dir.join("other"));
            file.unwrap().write_all(b"more").unwrap();
        });
    }
}

fn fsync_of_a_directory_makes_everything_durable_that_came_before(medium: Medium) {
    assert_barrier(medium, |dir| {
        fs::create_dir(dir.join("other")).unwrap();
        File::open(dir.join("other")).unwrap().sync_all().unwrap();
    });
}

fn msync_makes_everything_durable_that_came_before(medium: Medium) {
    const LENGTH: NonZero<usize> = NonZero::new(8192).unwrap();
    let place = mounted(medium, "commit=3600");
    let path = place.dir.join("mapped");
    fs::write(&path, vec![0; LENGTH.get()]).unwrap();
    change_everything(&place.dir);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let (read_write, shared) = (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED);
    // SAFETY: a new mapping of a file that is as long and that nobody cuts; it ends below, after its last use.
    unsafe {
        let mapping = mmap(None, LENGTH, read_write, shared, &file, 0).unwrap();
        mapping.as_ptr().cast::<u8>().add(5000).write(9);
        msync(mapping, LENGTH.get(), MsFlags::MS_SYNC).unwrap();
        kill_and_mount(&place);
        // The mapping is the dead mount's; what it holds is not asked for any more.
        munmap(mapping, LENGTH.get()).unwrap();
    }
    assert_everything_is_changed(&place.dir);
    assert_eq!(fs::read(&path).unwrap()[5000], 9);
}

fn with_sync_every_change_is_durable(medium: Medium) {
    let place = mounted(medium, "sync,commit=3600");
    change_everything(&place.dir);
    kill_and_mount(&place);
    assert_everything_is_changed(&place.dir);
    let place = mounted(medium, "sync,commit=3600");
    fs::write(place.dir.join("written"), "written").unwrap();
    kill_and_mount(&place);
    assert_eq!(fs::read(place.dir.join("written")).unwrap(), b"written");
}

fn with_dirsync_every_change_of_names_is_durable(medium: Medium) {
    let place = mounted(medium, "dirsync,commit=3600");
    fs::write(place.dir.join("a"), "content").unwrap();
    fs::rename(place.dir.join("a"), place.dir.join("b")).unwrap();
    kill_and_mount(&place);
    // What was written before the rename is older than that.
    assert_eq!(fs::read(place.dir.join("b")).unwrap(), b"content");
    assert!(!place.dir.join("a").exists());
}

fn of_what_nobody_synced_a_kill_leaves_a_prefix(medium: Medium) {
    let place = mounted(medium, "commit=3600");
    fs::write(place.dir.join("synced"), "x").unwrap();
    File::open(place.dir.join("synced")).unwrap().sync_all().unwrap();
    let name = |number: usize| place.dir.join(format!("file-{number}"));
    for number in 0..1000 {
        fs::write(name(number), vec![number as u8; 3000]).unwrap();
    }
    kill_and_mount(&place);
    assert!(place.dir.join("synced").exists());
    let left = (0..1000).take_while(|number| fs::read(name(*number)).is_ok_and(|read| read.len() == 3000)).count();
    // Behind the first that is not whole there may be one that was made and not yet written.
    assert!(!name(left).exists() || fs::read(name(left)).unwrap().is_empty(), "file {left}");
    let later = (left + 1..1000).find(|number| name(*number).exists());
    assert_eq!(later, None, "it is there, though file {left} is not");
    assert!((0..left).all(|number| fs::read(name(number)).unwrap() == vec![number as u8; 3000]));
}

/// No fsync before the rename: not needed.
fn a_file_that_is_renamed_over_is_old_or_new_and_whole_after_a_kill(medium: Medium) {
    const LENGTH: usize = 50_000;
    let place = mounted(medium, "commit=1");
    let target = place.dir.join("target");
    let replaced = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in 1_u64.. {
                let temporary = place.dir.join(format!("temporary-{}", version % 2));
                let mut content = version.to_le_bytes().to_vec();
                content.resize(LENGTH, version as u8);
                let done = fs::write(&temporary, content).and_then(|()| fs::rename(&temporary, &target));
                if done.is_err() {
                    return;
                }
                replaced.store(version > 20, Ordering::SeqCst);
            }
        });
        until("it was replaced often", || replaced.load(Ordering::SeqCst));
        // Once: that one is durable, and no later state is without it.
        File::open(&target).unwrap().sync_all().unwrap();
        kill(place.server().unwrap(), Signal::SIGKILL).unwrap();
    });
    until("the mount is dead", || fs::metadata(&place.dir).is_err());
    assert_eq!(place.mount(&[]).code(), 0);
    let found = fs::read(&target).unwrap();
    let version = u64::from_le_bytes(found[..8].try_into().unwrap());
    assert!(version > 20, "version {version}");
    assert!(found.len() == LENGTH && found[8..].iter().all(|byte| *byte == version as u8), "version {version}");
}

/// What another process finds there.
fn seen(command: &str, path: &Path) -> String {
    let output = Command::new("sh").args(["-c", command, "sh"]).arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn what_has_returned_is_seen_by_everybody(medium: Medium) {
    let place = mounted(medium, "commit=3600");
    let path = place.dir.join("file");
    let before = fs::write(&path, "one").and_then(|()| File::open(&path)).unwrap();
    assert_eq!(seen("cat \"$1\"", &path), "one");
    let mut file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all(b"three").unwrap();
    // Not closed, not synced.
    assert_eq!(seen("cat \"$1\"; stat -c ' %s' \"$1\"", &path), "three 5\n");
    let mut content = [0; 5];
    before.read_exact_at(&mut content, 0).unwrap();
    assert_eq!(&content, b"three", "also by who had it open before");
    fs::rename(&path, place.dir.join("renamed")).unwrap();
    assert_eq!(seen("ls \"$1\"", &place.dir), "renamed\n");
    fs::remove_file(place.dir.join("renamed")).unwrap();
    assert_eq!(seen("ls \"$1\"", &place.dir), "");
}

fn who_has_a_file_open_keeps_it(medium: Medium) {
    let place = mounted(medium, "commit=3600");
    let (removed, replaced) = (place.dir.join("removed"), place.dir.join("replaced"));
    let mut open = Vec::new();
    for (path, content) in [(&removed, vec![1; 200_000]), (&replaced, vec![2; 200_000])] {
        fs::write(path, &content).unwrap();
        open.push((File::open(path).unwrap(), content));
    }
    fs::remove_file(&removed).unwrap();
    fs::write(place.dir.join("new"), "new").unwrap();
    fs::rename(place.dir.join("new"), &replaced).unwrap();
    assert_eq!(fs::read(&replaced).unwrap(), b"new");
    for (mut file, expected) in open {
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == expected);
        assert_eq!(file.metadata().unwrap().nlink(), 0);
    }
}

fn a_name_that_is_renamed_over_is_always_there_and_whole(medium: Medium) {
    const VERSIONS: u8 = 200;
    let place = mounted(medium, "commit=3600");
    let target = place.dir.join("target");
    fs::write(&target, vec![0; 30_000]).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while !done.load(Ordering::SeqCst) {
                let content = fs::read(&target).expect("there is always one");
                assert!(content.len() == 30_000 && content.iter().all(|byte| *byte == content[0]));
                assert!(content[0] >= last, "version {} after {last}", content[0]);
                last = content[0];
            }
        });
        for version in 1..=VERSIONS {
            let temporary = place.dir.join("temporary");
            fs::write(&temporary, vec![version; 30_000]).unwrap();
            fs::rename(&temporary, &target).unwrap();
        }
        done.store(true, Ordering::SeqCst);
        reader.join().unwrap();
    });
    assert_eq!(fs::read(&target).unwrap()[0], VERSIONS);
}

fn what_is_appended_by_several_is_all_there(medium: Medium) {
    let place = mounted(medium, "commit=3600");
    let path = place.dir.join("log");
    let script = "for line in $(seq 300); do echo \"$2 $line\" >>\"$1\"; done";
    let mut writers: Vec<_> = (0..4)
        .map(|writer| {
            let words = [path.as_os_str(), OsStr::new(["a", "b", "c", "d"][writer])];
            Command::new("sh").args(["-c", script, "sh"]).args(words).spawn().unwrap()
        })
        .collect();
    assert!(writers.iter_mut().all(|writer| writer.wait().unwrap().success()));
    let log = fs::read_to_string(&path).unwrap();
    for writer in ["a", "b", "c", "d"] {
        let lines: Vec<&str> = log.lines().filter_map(|line| line.strip_prefix(writer)).collect();
        let expected: Vec<String> = (1..=300).map(|line| format!(" {line}")).collect();
        assert_eq!(lines, expected, "{writer}: each line once, in order");
    }
    assert_eq!(log.lines().count(), 1200);
}
