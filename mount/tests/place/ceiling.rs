//! The file system in memory of `kivafs bench mount`, mounted, and what is tried on it beside a store.

use super::{Medium, Place};
use nix::mount::{MntFlags, umount2};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The file system in memory, mounted.
pub struct Ceiling {
    pub process: Child,
    pub dir: PathBuf,
}

impl Ceiling {
    pub fn start(dir: PathBuf) -> Ceiling {
        std::fs::create_dir(&dir).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_kivafs"))
            .args(["bench", "ceiling"])
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n");
        Ceiling { process, dir }
    }
}

impl Drop for Ceiling {
    fn drop(&mut self) {
        let _ = umount2(&self.dir, MntFlags::MNT_DETACH);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Both, and who serves each.
pub fn on_both(try_it: impl Fn(&Path, Pid)) {
    let place = Place::new(Medium::File);
    place.mount(&[]).silently();
    try_it(&place.dir, place.server().unwrap());
    let ceiling = Ceiling::start(place.root().join("ceiling"));
    try_it(&ceiling.dir, Pid::from_raw(ceiling.process.id() as i32));
    drop(ceiling);
    place.umounts();
}
