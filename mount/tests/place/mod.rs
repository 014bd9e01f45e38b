//! A store and a directory to mount it at, and the binary to use on them.

#![allow(dead_code, unused_imports, unused_macros, reason = "each test program uses its part")]

pub mod ceiling;
#[path = "../../../tests/support/ceph.rs"]
pub mod ceph;
mod medium;
mod watchdog;

pub use medium::Medium;
pub(crate) use medium::on_each_medium;
pub use watchdog::Watchdog;

use assert_fs::TempDir;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything should take on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// Polls until `condition` holds; fails loudly when it never does.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < DEADLINE, "still not so after {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// `kivafs ARGUMENTS`, run to its end.
pub fn kivafs<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Said {
    Said(command(arguments).output().unwrap())
}

/// `kivafs ARGUMENTS`, not started yet.
fn command<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kivafs"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The same binary under another name.
pub fn kivafs_as<A: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = A>) -> Said {
    Said(Command::new(env!("CARGO_BIN_EXE_kivafs")).arg0(name).args(arguments).stdin(Stdio::null()).output().unwrap())
}

/// What a command said, and its exit code.
#[derive(Debug)]
pub struct Said(pub Output);

impl Said {
    pub fn code(&self) -> i32 {
        self.0.status.code().expect("it ended by itself")
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    /// Done, without a word.
    #[track_caller]
    pub fn silently(self) -> Said {
        assert_eq!((self.code(), self.errors().as_str()), (0, ""));
        self
    }

    /// Exit code, and one line on stderr with all these words.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Said {
        let errors = self.errors();
        assert_eq!((self.code(), errors.lines().count()), (code, 1), "{errors}");
        for word in words {
            assert!(errors.contains(word), "'{word}' is not in: {errors}");
        }
        self
    }
}

/// One line of the list of mounts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mounted {
    pub device: String,
    pub fs_type: String,
    pub line: String,
}

/// A store's name and a mount point. What there is of it on the disk goes away with this.
pub struct Place {
    root: TempDir,
    pub store: PathBuf,
    pub dir: PathBuf,
    /// What its commands find in their environment.
    pub environment: Vec<(String, String)>,
}

impl Place {
    /// With a store.
    pub fn new(medium: Medium) -> Place {
        let place = Place::bare(medium);
        place.on_store("create", &[]).silently();
        place
    }

    /// Without.
    pub fn bare(medium: Medium) -> Place {
        let root = TempDir::new().unwrap();
        let path = root.path().canonicalize().unwrap();
        let place =
            Place { root, store: medium.new_store(&path), dir: path.join("dir"), environment: medium.environment() };
        std::fs::create_dir(&place.dir).unwrap();
        place
    }

    /// Another place to mount the same store at.
    pub fn elsewhere(&self) -> Place {
        let mut other = Place::bare(Medium::File);
        other.store.clone_from(&self.store);
        other.environment.clone_from(&self.environment);
        other
    }

    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// What people call the store.
    pub fn name(&self) -> &str {
        self.store.to_str().unwrap()
    }

    /// Changes what its commands find in their environment.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.retain(|(old, _)| old != name);
        self.environment.push((name.into(), value.into()));
    }

    /// `kivafs ARGUMENTS`, not started yet.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = command(arguments);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The same binary under another name, run to its end.
    pub fn run_as<A: AsRef<OsStr>>(&self, name: &str, arguments: impl IntoIterator<Item = A>) -> Said {
        Said(self.command(arguments).arg0(name).output().unwrap())
    }

    /// `kivafs COMMAND STORE WORDS`, run to its end.
    pub fn on_store(&self, command: &str, words: &[&str]) -> Said {
        let words = words.iter().map(OsStr::new);
        Said(self.command([OsStr::new(command), self.store.as_os_str()].into_iter().chain(words)).output().unwrap())
    }

    /// `kivafs put STORE PATH`, with this content.
    pub fn put(&self, path: &str, content: &[u8]) -> Said {
        let mut child = self
            .command(["put", self.name(), path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that fails early does not read its input.
        let _ = child.stdin.take().unwrap().write_all(content);
        Said(child.wait_with_output().unwrap())
    }

    /// What `kivafs info` tells.
    pub fn info(&self) -> serde_json::Value {
        serde_json::from_str(&self.on_store("info", &["--json"]).silently().text()).unwrap()
    }

    /// Mounts in the background.
    pub fn mount(&self, words: &[&str]) -> Said {
        let words: Vec<&str> = [&[self.dir.to_str().unwrap()], words].concat();
        self.on_store("mount", &words)
    }

    /// Mounts in the foreground; returns when the mount stands.
    pub fn mount_in_foreground(&self, words: &[&str]) -> Foreground {
        let child = self
            .command(["mount".as_ref(), "-f".as_ref(), self.store.as_os_str(), self.dir.as_os_str()])
            .args(words)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        until("the mount stands", || self.mounted().is_some() && std::fs::metadata(&self.dir).is_ok());
        Foreground(child)
    }

    pub fn umount(&self, words: &[&str]) -> Said {
        kivafs(["umount".as_ref(), self.dir.as_os_str()].into_iter().chain(words.iter().map(OsStr::new)))
    }

    /// Unmounts; the server goes on to make everything durable.
    pub fn umount_without_waiting(&self) {
        until("nothing is open there", || umount2(&self.dir, MntFlags::empty()).is_ok());
    }

    /// Unmounts, in the end without a word. A file that a test has closed may still be open for a
    /// moment: in a process that another test of this program is just starting.
    #[track_caller]
    pub fn umounts(&self) {
        let mut said = self.umount(&[]);
        until("nothing is open there", || {
            if said.errors().contains("busy") {
                said = self.umount(&[]);
            }
            !said.errors().contains("busy")
        });
        said.silently();
    }

    /// What is on top at DIR.
    pub fn mounted(&self) -> Option<Mounted> {
        let list = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let dir = self.dir.to_str().unwrap();
        let line = list.lines().rfind(|line| line.split(' ').nth(4) == Some(dir))?;
        Some(Mounted {
            device: line.split(' ').nth(2).unwrap().to_string(),
            fs_type: line.split(" - ").nth(1).unwrap().split(' ').next().unwrap().to_string(),
            line: line.to_string(),
        })
    }

    /// The process that serves this place in the background.
    pub fn server(&self) -> Option<Pid> {
        self.servers().pop()
    }

    /// All processes that serve DIR, or end doing so.
    pub fn servers(&self) -> Vec<Pid> {
        servers(|dir| dir == self.dir)
    }
}

/// All processes that serve, in the background, a directory that is `wanted`.
fn servers(wanted: impl Fn(&Path) -> bool) -> Vec<Pid> {
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse::<i32>().ok()
    });
    pids.filter(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = words.split(|&byte| byte == 0).filter(|word| !word.is_empty()).collect();
        words.contains(&&b"--serve-in-background"[..])
            && words.last().is_some_and(|word| wanted(Path::new(OsStr::from_bytes(word))))
    })
    .map(Pid::from_raw)
    .collect()
}

impl Drop for Place {
    /// The directory is removed next: nothing may be mounted in it then.
    fn drop(&mut self) {
        let root = self.root.path().canonicalize().unwrap();
        for pid in servers(|dir| dir.starts_with(&root)) {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let list = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for dir in list.lines().rev().filter_map(|line| line.split(' ').nth(4)).map(Path::new) {
            if dir.starts_with(&root) {
                let _ = umount2(dir, MntFlags::MNT_DETACH);
            }
        }
    }
}

/// A server in the foreground.
pub struct Foreground(pub Child);

impl Foreground {
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    /// Waits for its end.
    pub fn end(mut self) -> Said {
        until("the server ends", || self.0.try_wait().unwrap().is_some());
        let mut text = Vec::new();
        std::io::Read::read_to_end(self.0.stderr.as_mut().unwrap(), &mut text).unwrap();
        let status = self.0.wait().unwrap();
        Said(Output { status, stdout: Vec::new(), stderr: text })
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
