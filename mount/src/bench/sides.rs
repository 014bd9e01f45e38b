//! What is measured beside each other: a mount, the ceiling, the disk.

use crate::bench::clients::Sample;
use crate::bench::figures::{Answer, text};
use crate::bench::mounted::Mounted;
use crate::bench::work::{self, Job};
use crate::life::{detach, written};
use kivafs::store::Activity;
use nix::unistd::syncfs;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Kivafs,
    Ceiling,
    Disk,
}

pub const SIDES: [Side; 3] = [Side::Kivafs, Side::Ceiling, Side::Disk];

/// What the kernel knows when it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caches {
    /// Nothing: dentries, inodes and pages are dropped. (kivafs has nothing in memory either: it was just
    /// mounted.)
    Cold,
    /// What looking at each small file, and reading it, has left there.
    Warm,
    /// What the rows before have left; of kivafs, which was mounted since, nothing.
    AsTheyAre,
}

/// What one row does on each side.
pub struct Work {
    /// Not measured; in a mount of its own.
    pub prepare: Option<fn(&Job<'_>) -> Answer<()>>,
    pub caches: Caches,
    pub measure: fn(&Job<'_>) -> Answer<Sample>,
}

/// The three, in a directory.
pub struct Sides {
    kivafs: Mounted,
    log: PathBuf,
    ceiling: Ceiling,
    disk: PathBuf,
    /// What a mount writes that is not used.
    idle: Activity,
}

impl Sides {
    /// New ones. `options` are for the mount; the ceiling has as many `threads` as that.
    pub fn start(dir: &Path, options: &str, threads: usize) -> Answer<Sides> {
        let (log, store, disk) = (dir.join("log"), dir.join("store"), dir.join("disk"));
        let logging = format!("log={}:info", log.display());
        let options = if options.is_empty() { logging } else { format!("{options},{logging}") };
        std::fs::create_dir_all(&disk).map_err(text)?;
        let kivafs = Mounted::new(store.display().to_string(), options, dir.join("mount")).map_err(text)?;
        let ceiling = Ceiling::start(dir.join("ceiling"), threads)?;
        let mut sides = Sides { kivafs, log, ceiling, disk, idle: Activity::default() };
        sides.mounted(&["--create"], |_| Ok(()))?;
        sides.idle = sides.mounted(&[], |_| Ok(()))?.1;
        Ok(sides)
    }

    /// What `work` does on a side; on ours also what was written for it, to the end.
    pub fn measure(&self, side: Side, work: &Work, job: &Job<'_>) -> Answer<(Sample, Activity)> {
        let measure = |dir: &Path| {
            let job = Job { dir, ..*job };
            match work.caches {
                Caches::Cold => drop_caches(&self.disk)?,
                Caches::Warm => {
                    work::stat(&job)?;
                    work::read_small(&job)?;
                }
                Caches::AsTheyAre => {}
            }
            (work.measure)(&job)
        };
        let prepare = |dir: &Path| work.prepare.map_or(Ok(()), |prepare| prepare(&Job { dir, ..*job }));
        match side {
            Side::Kivafs => {
                if work.prepare.is_some() {
                    self.mounted(&[], prepare)?;
                }
                let (sample, activity) = self.mounted(&[], measure)?;
                Ok((sample, less(activity, self.idle)))
            }
            Side::Ceiling => {
                prepare(&self.ceiling.dir)?;
                Ok((measure(&self.ceiling.dir)?, Activity::default()))
            }
            Side::Disk => {
                prepare(&self.disk)?;
                let sample = measure(&self.disk)?;
                // What it has put off is not to be in the way of the next.
                settle(&self.disk)?;
                Ok((sample, Activity::default()))
            }
        }
    }

    /// What `work` answers in a mount of its own, and what that wrote.
    fn mounted<T>(&self, words: &[&str], work: impl FnOnce(&Path) -> Answer<T>) -> Answer<(T, Activity)> {
        self.kivafs.mount(words).map_err(text)?;
        let done = work(&self.kivafs.dir);
        let ended = self.kivafs.umount().map_err(text);
        let done = done?;
        ended?;
        let log = std::fs::read_to_string(&self.log).map_err(text)?;
        std::fs::remove_file(&self.log).map_err(text)?;
        let told =
            written::told(&log).ok_or_else(|| format!("{}: does not say what was written", self.log.display()))?;
        Ok((done, told))
    }
}

fn less(activity: Activity, idle: Activity) -> Activity {
    Activity {
        commits: activity.commits.saturating_sub(idle.commits),
        syncs: activity.syncs.saturating_sub(idle.syncs),
        commit_bytes: activity.commit_bytes.saturating_sub(idle.commit_bytes),
        data_bytes: activity.data_bytes.saturating_sub(idle.data_bytes),
        ..activity
    }
}

fn settle(dir: &Path) -> Answer<()> {
    syncfs(File::open(dir).map_err(text)?).map_err(text)
}

/// Of the whole machine: only root may. What is not written yet would stay. The program is read again: what the
/// ceiling runs is in memory, and what only a mount does would be loaded within its time.
fn drop_caches(disk: &Path) -> Answer<()> {
    const DROP: &str = "/proc/sys/vm/drop_caches";
    settle(disk)?;
    std::fs::write(DROP, "3").map_err(|error| format!("{DROP}: {error}"))?;
    // Also if another one stands in its place by now.
    File::open("/proc/self/exe")
        .and_then(|mut program| std::io::copy(&mut program, &mut std::io::sink()))
        .map(drop)
        .map_err(text)
}

/// A process that serves the file system in memory.
struct Ceiling {
    process: Child,
    dir: PathBuf,
}

impl Ceiling {
    fn start(dir: PathBuf, threads: usize) -> Answer<Ceiling> {
        std::fs::create_dir(&dir).map_err(text)?;
        let process = Command::new(std::env::current_exe().map_err(text)?)
            .args(["bench", "ceiling", "--threads", &threads.to_string()])
            .arg(&dir)
            // Ctrl-C is for who measures: this is ended in its turn.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(text)?;
        let mut ceiling = Ceiling { process, dir };
        let mut said = String::new();
        if let Some(stdout) = &mut ceiling.process.stdout {
            BufReader::new(stdout).read_line(&mut said).map_err(text)?;
        }
        match said.as_str() {
            "ready\n" => Ok(ceiling),
            _ => Err("kivafs bench ceiling: ended at once".into()),
        }
    }
}

impl Drop for Ceiling {
    fn drop(&mut self) {
        // In vain if it was never mounted.
        drop(detach::lazily(&self.dir));
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
