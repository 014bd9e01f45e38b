//! A thread that works in its directory, and what it was answered.

use crate::model::{Model, Op};
use crate::random::Random;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// An operation and when it was under way.
pub struct Asked {
    pub op: Op,
    pub begun: Instant,
    /// None: no answer came.
    pub answered: Option<Instant>,
}

/// What the thread outlives.
pub struct Worker {
    pub dir: PathBuf,
    pub random: Random,
    /// The state that `asked` starts from.
    pub model: Model,
    pub asked: Vec<Asked>,
    /// One in so many operations asks for durability.
    pub fsync_rarity: u64,
}

/// What tells workers how to behave.
#[derive(Default)]
pub struct Signals {
    /// The process that serves them is being killed: errors are to be expected.
    pub killed: AtomicBool,
    /// No more operations: the work is done.
    pub done: AtomicBool,
    /// Begins no operation while this is set.
    pub pause: AtomicBool,
}

impl Worker {
    pub fn new(dir: PathBuf, seed: u64) -> Worker {
        Worker { dir, random: Random::new(seed), model: Model::default(), asked: Vec::new(), fsync_rarity: 10 }
    }

    /// Works until the process that serves it dies.
    pub fn work_until_killed(&mut self, signals: &Signals) {
        let mut state = self.model.clone();
        loop {
            let op = state.choose(&mut self.random, self.fsync_rarity);
            let begun = Instant::now();
            let done = perform(&self.dir, &op, &state);
            let answered = done.is_ok().then(Instant::now);
            for step in op.steps(&state) {
                state.apply(&step);
                self.asked.push(Asked { op: step, begun, answered });
            }
            match done {
                Ok(()) => {}
                Err(error) if signals.killed.load(Ordering::SeqCst) && is_of_the_dead(&error) => return,
                Err(error) => panic!("{}: {}: {error}", self.dir.display(), op.shown()),
            }
        }
    }

    /// Works until told to stop. While nothing is mounted it waits and tries again.
    pub fn work_until_done(&mut self, signals: &Signals) {
        while !signals.done.load(Ordering::SeqCst) {
            if signals.pause.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let op = self.model.choose(&mut self.random, self.fsync_rarity);
            let mut refusals_while_mounted = 0;
            while let Err(error) = perform(&self.dir, &op, &self.model) {
                // It may be mounted by now, but not for ever when it was not at the time.
                refusals_while_mounted += u32::from(self.dir.exists());
                let unmounted = error.kind() == io::ErrorKind::NotFound && refusals_while_mounted < 20;
                assert!(unmounted, "{}: {}: {error}", self.dir.display(), op.shown());
                std::thread::sleep(Duration::from_millis(1));
            }
            self.model.apply(&op);
        }
    }
}

/// What a request gets whose server is gone; of a write that was cut, the rest may. EIO is what the
/// kernel answers when the server dies while it is being handed the request (fuse_dev_do_read,
/// whose page for it can't be had any more).
fn is_of_the_dead(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WriteZero
        || matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED | libc::EIO))
}

/// Asks for it. The model is as before it.
fn perform(dir: &Path, op: &Op, model: &Model) -> io::Result<()> {
    let at = |path: &str| if path.is_empty() { dir.to_owned() } else { dir.join(path) };
    match op {
        Op::MakeDir(path) => fs::DirBuilder::new().mode(0o700).create(at(path)),
        Op::RemoveDir(path) => fs::remove_dir(at(path)),
        Op::Create(path) => OpenOptions::new().write(true).create_new(true).mode(0o600).open(at(path)).map(drop),
        Op::Write { path, offset, bytes, durable } => {
            let flags = if *durable { libc::O_SYNC } else { 0 };
            let file = open_for_writing(&at(path), flags)?;
            expect_whole(file.write_at(bytes, *offset as u64)?, bytes)
        }
        Op::Append { path, bytes } => {
            let mut file = open_for_writing(&at(path), libc::O_APPEND)?;
            expect_whole(file.write(bytes)?, bytes)
        }
        Op::Truncate { path, length } => open_for_writing(&at(path), 0)?.set_len(*length as u64),
        Op::Chmod { path, mode } => fs::set_permissions(at(path), Permissions::from_mode(*mode)),
        Op::Rename { from, to } => fs::rename(at(from), at(to)),
        Op::Link { from, to } => fs::hard_link(at(from), at(to)),
        Op::Symlink { path, target } => symlink(target, at(path)),
        Op::Unlink(path) => fs::remove_file(at(path)),
        Op::Fsync(path) => File::open(at(path))?.sync_all(),
        Op::Read(path) => {
            let (found, expected) = (fs::read(at(path))?, model.content(path));
            match found.iter().zip(expected).position(|(found, expected)| found != expected) {
                Some(place) => Err(io::Error::other(format!("byte {place} is wrong"))),
                None if found.len() != expected.len() => {
                    Err(io::Error::other(format!("{} bytes, not {}", found.len(), expected.len())))
                }
                None => Ok(()),
            }
        }
    }
}

fn open_for_writing(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new().write(true).custom_flags(flags).open(path)
}

fn expect_whole(written: usize, bytes: &[u8]) -> io::Result<()> {
    if written == bytes.len() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {} bytes", bytes.len())))
}

/// The model against the disk's own file system: what the other tests rely on.
#[test]
fn the_model_is_what_a_file_system_does() {
    let place = assert_fs::TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
    for seed in 1..=3 {
        let dir = place.path().join(seed.to_string());
        fs::create_dir(&dir).expect("a directory");
        let mut worker = Worker::new(dir, seed);
        for step in 0..3000 {
            let op = worker.model.choose(&mut worker.random, 100);
            perform(&worker.dir, &op, &worker.model).unwrap_or_else(|error| panic!("{}: {error}", op.shown()));
            op.steps(&worker.model).iter().for_each(|step| worker.model.apply(step));
            if step % 50 == 0 {
                let found = crate::model::shape_of(&worker.dir).expect("a readable directory");
                assert_eq!(found, worker.model.shape(), "seed {seed}: {step}: {}", op.shown());
            }
        }
    }
}
