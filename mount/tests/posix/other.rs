//! A process of its own, that holds locks: what another process holds is what locks are about.
//!
//! It is this test program once more, with only [`other_process`] to run: there it does what it reads,
//! a line each, and answers each with `done` or an error.

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Tells the test program that it is another's.
const PATH: &str = "KIVAFS_LOCKED_FILE";
/// Before each answer: the test harness writes to the same line.
const ANSWER: &str = "answer: ";

/// Which of the kernel's three kinds of locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Flock,
    Posix,
    OpenFile,
}

pub const KINDS: [Kind; 3] = [Kind::Flock, Kind::Posix, Kind::OpenFile];

/// What to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Shared,
    Exclusive,
    Nothing,
}

/// Whether to wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    Try,
    Wait,
}

/// Locks bytes 100 to 199 of a file (by flock: all of it).
pub fn lock(file: &File, kind: Kind, hold: Hold, patience: Patience) -> Result<(), Errno> {
    let waits = patience == Patience::Wait;
    let done = match kind {
        Kind::Flock => {
            let how = match hold {
                Hold::Shared => libc::LOCK_SH,
                Hold::Exclusive => libc::LOCK_EX,
                Hold::Nothing => libc::LOCK_UN,
            };
            // SAFETY: takes no memory.
            unsafe { libc::flock(file.as_raw_fd(), if waits { how } else { how | libc::LOCK_NB }) }
        }
        Kind::Posix | Kind::OpenFile => {
            let how = match hold {
                Hold::Shared => libc::F_RDLCK,
                Hold::Exclusive => libc::F_WRLCK,
                Hold::Nothing => libc::F_UNLCK,
            };
            let range = libc::flock { l_type: how as i16, l_whence: 0, l_start: 100, l_len: 100, l_pid: 0 };
            let command = match (kind, waits) {
                (Kind::Posix, false) => libc::F_SETLK,
                (Kind::Posix, true) => libc::F_SETLKW,
                (_, false) => libc::F_OFD_SETLK,
                (_, true) => libc::F_OFD_SETLKW,
            };
            // SAFETY: the record lives until the call returns.
            unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const range) }
        }
    };
    Errno::result(done).map(drop)
}

/// The other process, which has the file open.
pub struct Other {
    child: Child,
    ask: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Other {
    pub fn start(path: &Path) -> Other {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "other::other_process", "--nocapture"])
            .env(PATH, path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ask, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Other { child, ask, answers }
    }

    /// Has it lock, and does not wait for the answer.
    pub fn ask(&mut self, kind: Kind, hold: Hold, patience: Patience) {
        self.say(&format!("{kind:?} {hold:?} {patience:?}"));
    }

    /// Has it open the file once more, and close that again.
    pub fn open_and_close(&mut self) {
        self.say("open and close");
        assert_eq!(self.answer(), "done");
    }

    /// Has it close the file.
    pub fn close(&mut self) {
        self.say("close");
        assert_eq!(self.answer(), "done");
    }

    fn say(&mut self, line: &str) {
        writeln!(self.ask.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Waits for an answer.
    pub fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "it ended without an answer");
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim().to_string();
            }
        }
    }

    pub fn locks(&mut self, kind: Kind, hold: Hold) -> String {
        self.ask(kind, hold, Patience::Try);
        self.answer()
    }

    /// Ends it in order.
    pub fn end(mut self) {
        drop(self.ask.take());
        assert!(self.child.wait().unwrap().success());
    }

    /// `kill -9`
    pub fn kill(mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL).unwrap();
        self.child.wait().unwrap();
    }

    /// Is it waiting for a lock?
    pub fn waits(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let calls = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("syscall")).unwrap());
        let locking = [libc::SYS_flock, libc::SYS_fcntl].map(|number| number.to_string());
        calls.into_iter().any(|call| locking.iter().any(|number| call.split(' ').next() == Some(number)))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other process. As a test of its own it has nothing to do.
#[test]
fn other_process() {
    let Some(path) = std::env::var_os(PATH) else { return };
    let open = || File::options().read(true).write(true).open(&path).unwrap();
    let mut file = Some(open());
    for line in std::io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let done = match words[..] {
            ["close"] => {
                drop(file.take());
                Ok(())
            }
            ["open", ..] => {
                drop(open());
                Ok(())
            }
            [kind, hold, patience] => {
                let kind = KINDS.into_iter().find(|known| format!("{known:?}") == kind).unwrap();
                let holds = [Hold::Shared, Hold::Exclusive, Hold::Nothing];
                let hold = holds.into_iter().find(|known| format!("{known:?}") == hold).unwrap();
                let patience = if patience == "Wait" { Patience::Wait } else { Patience::Try };
                lock(file.as_ref().unwrap(), kind, hold, patience)
            }
            _ => panic!("{line}"),
        };
        match done {
            Ok(()) => println!("{ANSWER}done"),
            Err(errno) => println!("{ANSWER}{errno:?}"),
        }
    }
}
