//! What the kernel holds stays within bounds. Needs root and /dev/fuse; fails without.

mod place;

use place::{Medium, Place, on_each_medium, until};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

on_each_medium!(
    the_kernel_holds_no_more_than_the_limit_and_everything_is_readable,
    what_is_in_use_survives,
    names_that_change_meanwhile_are_right,
);

const LIMIT: usize = 100;
const DIRS: usize = 10;
const FILES: usize = 500;

/// With a log that tells how many nodes are held.
struct Limited {
    place: Place,
    log: PathBuf,
}

impl Limited {
    fn new(medium: Medium) -> Limited {
        let place = Place::new(medium);
        let log = place.root().join("log");
        place.mount(&["-o", &format!("inodes={LIMIT},log={}:debug", log.display())]).silently();
        Limited { place, log }
    }

    /// How many nodes were held each time that the kernel had let go of enough.
    fn held(&self) -> Vec<usize> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let told = log.lines().filter_map(|line| line.split_once("the kernel holds ")?.1.split_once(" nodes, "));
        told.filter(|(_, rest)| rest.contains("before")).map(|(number, _)| number.parse().unwrap()).collect()
    }

    /// Something is looked up, and then no more than the limit is held. (What is written after a
    /// number may have come before it: only the second number is of later.)
    fn falls_to_the_limit(&self) {
        let told = self.held().len();
        self.stat_all(DIRS, FILES);
        until("the kernel lets go", || self.held().len() > told);
        assert!(self.held().iter().all(|held| *held <= LIMIT), "{:?}", self.held());
    }

    fn stat_all(&self, dirs: usize, files: usize) {
        for dir in 0..dirs {
            for file in 0..files {
                let metadata = std::fs::metadata(self.file(dir, file)).unwrap();
                assert_eq!(metadata.len(), content(dir, file).len() as u64);
            }
        }
    }

    fn file(&self, dir: usize, file: usize) -> PathBuf {
        self.place.dir.join(format!("dir-{dir}/file-{file}"))
    }

    fn fill(&self) {
        for dir in 0..DIRS {
            std::fs::create_dir(self.place.dir.join(format!("dir-{dir}"))).unwrap();
            for file in 0..FILES {
                std::fs::write(self.file(dir, file), content(dir, file)).unwrap();
            }
        }
    }
}

/// Some in the entry that names them, some in records of their own.
fn content(dir: usize, file: usize) -> Vec<u8> {
    let length = if file.is_multiple_of(50) { 5000 } else { 20 };
    format!("{dir}/{file} ").into_bytes().into_iter().cycle().take(length).collect()
}

fn the_kernel_holds_no_more_than_the_limit_and_everything_is_readable(medium: Medium) {
    let limited = Limited::new(medium);
    limited.fill();
    limited.falls_to_the_limit();
    for dir in 0..DIRS {
        for file in 0..FILES {
            assert_eq!(std::fs::read(limited.file(dir, file)).unwrap(), content(dir, file));
        }
    }
    // With attributes, by readdir; several programs at once.
    let mut listing: Vec<_> = (0..4)
        .map(|_| Command::new("ls").args(["-lR"]).arg(&limited.place.dir).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    for _ in 0..3 {
        limited.stat_all(DIRS, FILES);
    }
    while let Some(listing) = listing.pop() {
        let output = listing.wait_with_output().unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8(output.stdout).unwrap().matches("file-").count(), DIRS * FILES);
    }
    limited.falls_to_the_limit();
    limited.place.umounts();
}

fn what_is_in_use_survives(medium: Medium) {
    let limited = Limited::new(medium);
    limited.fill();
    let dir = limited.place.dir.as_path();
    let mut open: Vec<File> =
        (0..30).map(|file| File::options().read(true).write(true).open(limited.file(3, file)).unwrap()).collect();
    std::fs::remove_file(limited.file(3, 29)).unwrap();
    std::fs::rename(limited.file(3, 28), dir.join("moved")).unwrap();
    std::fs::hard_link(limited.file(3, 0), dir.join("linked")).unwrap();
    let entries = std::fs::read_dir(dir.join("dir-4")).unwrap();
    // A shell whose working directory it is, and a file system mounted below another.
    let mut shell = Command::new("sh")
        .args(["-c", "read line; /bin/pwd -P; cat file-7"])
        .current_dir(dir.join("dir-5"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::fs::create_dir(dir.join("dir-6/mounted")).unwrap();
    let mounted = dir.join("dir-6/mounted");
    assert!(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(&mounted).status().unwrap().success());
    std::fs::write(mounted.join("file"), "there").unwrap();

    let told = limited.held().len();
    for round in 0..3 {
        limited.stat_all(3, FILES);
        until("the kernel lets go", || limited.held().len() > told + round);
    }

    for (number, file) in open.iter_mut().enumerate() {
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert_eq!(read, content(3, number));
        file.write_all(b"more").unwrap();
        let links = [2, 1, 0][usize::from(number > 0) + usize::from(number == 29)];
        assert_eq!(file.metadata().unwrap().nlink(), links, "{number}");
        let shown = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))).unwrap();
        assert_eq!(shown.to_str().unwrap().ends_with("(deleted)"), number == 29, "{shown:?}");
    }
    assert_eq!(std::fs::metadata(dir.join("moved")).unwrap().len(), content(3, 28).len() as u64 + 4);
    assert_eq!(entries.count(), FILES);
    shell.stdin.take().unwrap().write_all(b"now\n").unwrap();
    let said = shell.wait_with_output().unwrap().stdout;
    let at = format!("{}\n", dir.join("dir-5").display());
    assert_eq!(said, [at.as_bytes(), &content(5, 7)].concat(), "{}", String::from_utf8_lossy(&said));
    assert_eq!(std::fs::read(mounted.join("file")).unwrap(), b"there");
    assert!(Command::new("umount").arg(&mounted).status().unwrap().success());
    drop(open);
    limited.place.umounts();
}

fn names_that_change_meanwhile_are_right(medium: Medium) {
    let limited = Limited::new(medium);
    limited.fill();
    let paths = |from: usize, to: usize| -> (PathBuf, PathBuf) { (limited.file(0, from), limited.file(1, to)) };
    std::thread::scope(|scope| {
        let limited = &limited;
        scope.spawn(move || limited.stat_all(DIRS, FILES));
        for file in 0..FILES {
            // The stats above may find either: both directories keep all their names.
            let (a, b) = paths(file, file);
            exchange(&a, &b);
            exchange(&a, &b);
        }
    });
    limited.falls_to_the_limit();
    limited.place.umount(&[]).silently();
    limited.place.on_store("check", &[]).silently();
}

/// Swaps two files of one length.
fn exchange(a: &Path, b: &Path) {
    nix::fcntl::renameat2(nix::fcntl::AT_FDCWD, a, nix::fcntl::AT_FDCWD, b, nix::fcntl::RenameFlags::RENAME_EXCHANGE)
        .unwrap();
}
