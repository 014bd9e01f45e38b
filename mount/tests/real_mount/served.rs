//! A store served by a process that can be killed, and the mount that it leaves.

use crate::place::Medium;
use assert_fs::TempDir;
use std::ffi::CString;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A new store, and a directory to mount it at. Whatever stands there when this goes is detached.
pub struct Place {
    dir: TempDir,
    store: PathBuf,
    medium: Medium,
    /// What its commands find in their environment.
    environment: Vec<(String, String)>,
}

impl Place {
    pub fn new(medium: Medium) -> Place {
        Place::made(medium, medium.environment())
    }

    /// In a bucket that is reached there.
    pub fn in_bucket_at(endpoint: &str) -> Place {
        let mut environment = Medium::Bucket.environment();
        environment.push(("AWS_ENDPOINT_URL".into(), endpoint.into()));
        Place::made(Medium::Bucket, environment)
    }

    fn made(medium: Medium, environment: Vec<(String, String)>) -> Place {
        assert!(Path::new("/dev/fuse").exists(), "/dev/fuse is missing: real mounts can't be tested here");
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).expect("a temporary directory");
        let place = Place { store: medium.new_store(dir.path()), dir, medium, environment };
        std::fs::create_dir(place.mount_point()).expect("a directory to mount at");
        place.kivafs_ok(&["create", "STORE"]);
        place
    }

    pub fn mount_point(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Runs `kivafs` with these words, the store's path for STORE and the mount point's for DIR.
    pub fn kivafs(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("the kivafs binary")
    }

    /// As [`Self::kivafs`], and it must succeed.
    pub fn kivafs_ok(&self, words: &[&str]) -> String {
        let output = self.kivafs(words);
        let shown = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "kivafs {words:?}: {}\n{}{}{}",
            output.status,
            shown(&output.stdout),
            shown(&output.stderr),
            self.last_of_log()
        );
        shown(&output.stdout)
    }

    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kivafs"));
        for word in words {
            match *word {
                "STORE" => command.arg(&self.store),
                "DIR" => command.arg(self.mount_point()),
                "LOG" => command.arg(format!("log={}", self.log().display())),
                word => command.arg(word),
            };
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
        command
    }

    /// Serves in a child of ours, with these options; returns when the mount is usable.
    pub fn serve(&self, options: &str) -> Served {
        let log = File::options().create(true).append(true).open(self.log()).expect("a log");
        let mut child = self
            .command(&["mount", "-f", "-o", options, "STORE", "DIR"])
            .stdout(log.try_clone().expect("the log again"))
            .stderr(log)
            .spawn()
            .expect("the kivafs binary");
        let start = Instant::now();
        while !is_served(&self.mount_point()) {
            let ended = child.try_wait().expect("our child");
            assert!(ended.is_none(), "kivafs mount ended: {ended:?}{}", self.last_of_log());
            assert!(start.elapsed() < Duration::from_secs(60), "not mounted after a minute{}", self.last_of_log());
            std::thread::sleep(Duration::from_millis(2));
        }
        Served { child }
    }

    /// Takes away what is mounted, with or without a process that serves it.
    pub fn detach(&self) -> bool {
        let mut command = if is_root() { Command::new("umount") } else { Command::new("fusermount3") };
        command.args(if is_root() { &["-l"][..] } else { &["-u", "-z"] });
        command.arg(self.mount_point()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// umount(8), as a user would; false: busy.
    pub fn umount(&self) -> bool {
        let mut command = if is_root() { Command::new("umount") } else { Command::new("fusermount3") };
        if !is_root() {
            command.arg("-u");
        }
        let output = command.arg(self.mount_point()).output().expect("umount");
        let why = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() || why.contains("busy"), "umount: {why}");
        output.status.success()
    }

    /// How many mounts stand at the mount point.
    pub fn mounts(&self) -> usize {
        let listed = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        let dir = self.mount_point();
        listed.lines().filter(|line| line.split(' ').nth(4).map(Path::new) == Some(dir.as_path())).count()
    }

    /// Keeps the store for a look; where?
    fn keep(&self) -> String {
        match self.medium {
            Medium::File => {
                let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("store-that-failed");
                match std::fs::copy(&self.store, &kept) {
                    Ok(_) => format!("the store is kept as {}", kept.display()),
                    Err(error) => format!("the store cannot be kept as {}: {error}", kept.display()),
                }
            }
            Medium::Bucket => format!("the store stays at {}", self.store.display()),
        }
    }

    /// What the processes that serve have said lately.
    pub fn last_of_log(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        format!("\nlog:\n{}", lines[lines.len().saturating_sub(30)..].join("\n"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        while self.detach() {}
        if std::thread::panicking() {
            println!("{}{}", self.keep(), self.last_of_log());
        }
    }
}

/// A process that serves.
pub struct Served {
    child: Child,
}

impl Served {
    /// SIGKILL; returns when it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        let status = self.child.wait().expect("our child");
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        assert_eq!(signal, Some(libc::SIGKILL), "it ended before it was killed: {status}");
    }

    /// Waits for its end after an unmount; it must have been a good one.
    pub fn wait(mut self) {
        let status = self.child.wait().expect("our child");
        assert!(status.success(), "kivafs mount -f: {status}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Only when a test fails: nothing may be left that waits for an answer.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is there a mount, and a process that answers? (What a dead mount's root was is remembered by the
/// kernel; how full it is, is not.)
fn is_served(dir: &Path) -> bool {
    const FUSE_SUPER_MAGIC: i64 = 0x6573_5546;
    let path = CString::new(dir.as_os_str().as_bytes()).expect("a path without NUL");
    let mut answer = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the path ends with NUL, and the answer is read only if there is one.
    unsafe { libc::statfs(path.as_ptr(), answer.as_mut_ptr()) == 0 && answer.assume_init().f_type == FUSE_SUPER_MAGIC }
}

fn is_root() -> bool {
    // SAFETY: it takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}
