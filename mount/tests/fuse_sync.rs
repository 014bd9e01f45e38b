//! sync(2) and syncfs(2) are no barrier on FUSE, whatever a file system would do: nobody is asked.
//!
//! A program of its own: who serves is stopped here, and a process that another test starts at that time would
//! have our files open for a moment, and wait to close them.

mod place;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use place::ceiling::on_both;
use place::until;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Requests that the kernel has sent, or is about to, and that are not answered.
fn unanswered(connections: &Path, dir: &Path) -> u64 {
    let device = dir.metadata().unwrap().dev();
    let (major, minor) = (u64::from(libc::major(device)), u64::from(libc::minor(device)));
    let path = connections.join(format!("{}/waiting", major << 20 | minor));
    std::fs::read_to_string(path).unwrap().trim().parse().unwrap()
}

fn state_of_threads(pid: Pid) -> Vec<char> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let stats = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("stat")).ok());
    stats.map(|stat| stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()).collect()
}

/// A process that does nothing until this is dropped: else a test that fails could not close its files.
struct Stopped(Pid);

impl Stopped {
    fn new(pid: Pid) -> Stopped {
        kill(pid, Signal::SIGSTOP).unwrap();
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}

/// Nobody answers, and yet it is done: so nobody was asked. An fsync is.
#[test]
fn sync_and_syncfs_ask_nobody() {
    let fusectl = assert_fs::TempDir::new().unwrap();
    mount(Some("fusectl"), fusectl.path(), Some("fusectl"), MsFlags::empty(), None::<&str>).unwrap();
    on_both(|dir, pid| {
        let file = File::create(dir.join("file")).unwrap();
        file.write_all_at(b"content", 0).unwrap();
        // Attributes are known from here on, so that looking at it asks nobody either.
        let unanswered = || unanswered(fusectl.path(), dir);
        until("everything is answered", || unanswered() == 0);
        let stopped = Stopped::new(pid);
        until("nobody answers", || state_of_threads(pid).iter().all(|state| *state == 'T'));
        // SAFETY: the descriptor is open.
        assert_eq!(Errno::result(unsafe { libc::syncfs(file.as_raw_fd()) }), Ok(0));
        // SAFETY: it takes nothing.
        unsafe { libc::sync() };
        assert_eq!(unanswered(), 0);
        std::thread::scope(|scope| {
            let syncs = scope.spawn(|| file.sync_all());
            until("fsync waits for an answer", || unanswered() == 1);
            assert!(!syncs.is_finished());
            drop(stopped);
            syncs.join().unwrap().unwrap();
        });
    });
    umount2(fusectl.path(), MntFlags::empty()).unwrap();
}
