//! A mount to measure: this very program, started as a user would.

use crate::life::place::Place;
use kivafs::backend::Usage;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A store and a directory to mount it at.
pub struct Mounted {
    store: String,
    options: String,
    /// Where it is mounted.
    pub dir: PathBuf,
    marks: u32,
}

impl Mounted {
    /// Not mounted yet.
    pub fn new(store: String, options: String, dir: PathBuf) -> io::Result<Mounted> {
        std::fs::create_dir_all(&dir)?;
        Ok(Mounted { store, options, dir, marks: 0 })
    }

    /// Mounts it; returns when it is usable.
    pub fn mount(&self, words: &[&str]) -> io::Result<()> {
        let mut all: Vec<&OsStr> = vec!["mount".as_ref(), self.store.as_ref(), self.dir.as_os_str()];
        if !self.options.is_empty() {
            all.extend([OsStr::new("-o"), self.options.as_ref()]);
        }
        all.extend(words.iter().map(OsStr::new));
        run(&all).map(drop)
    }

    /// Unmounts it; answers what was said: the requests of this mount.
    pub fn umount(&self) -> io::Result<String> {
        let output = run(&["umount".as_ref(), self.dir.as_os_str()])?;
        Ok([output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
    }

    /// Makes a commit, and answers the requests over the life of the store up to just before it.
    pub fn mark(&mut self, place: &Place) -> Result<Usage, String> {
        self.marks += 1;
        durable(&self.dir.join(format!("mark-{}", self.marks)), b"x").map_err(|error| error.to_string())?;
        let info = place.info().map_err(|error| error.to_string())?;
        info.bucket.map(|bucket| bucket.usage).ok_or_else(|| "not a store in a bucket".into())
    }

    /// The process that serves.
    pub fn pid(&self, place: &Place) -> Result<u32, String> {
        let info = place.info().map_err(|error| error.to_string())?;
        info.holder.map(|holder| holder.pid).ok_or_else(|| "nobody serves the store".into())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // In vain if it was unmounted, as it should.
        drop(run(&["umount".as_ref(), "--force".as_ref(), self.dir.as_os_str()]));
    }
}

/// Writes a file and syncs it.
pub fn durable(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Makes everything so far durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn run(words: &[&OsStr]) -> io::Result<Output> {
    // Not in our group: a mount that Ctrl-C has cut off may stand after all when it was looked for.
    let output = Command::new(std::env::current_exe()?).args(words).process_group(0).output()?;
    match output.status.success() {
        true => Ok(output),
        false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_string())),
    }
}
