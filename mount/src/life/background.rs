//! Starting itself again, and the word "ready".
//!
//! The process that was called starts the same program once more and waits until that says
//! "ready" on its stdout, or ends. So nothing ever forks after a thread exists, and an error line
//! of the server (its stderr is ours) and its exit code reach who called.

use crate::life::LifeError;
use crate::life::supervisor::Supervisor;
use nix::unistd::{User, dup2_stderr, dup2_stdin, dup2_stdout, geteuid, setsid};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const READY: &[u8] = b"ready\n";

/// Starts `kivafs ARGUMENTS` in the background; returns when it is ready.
pub fn start(arguments: &[OsString]) -> Result<(), LifeError> {
    keep_descriptors_from_children();
    // Not the path of the program: an update may have replaced what is there. The environment goes
    // along: credentials may be in it.
    let mut server = Command::new("/proc/self/exe")
        .arg0("kivafs")
        .envs(home())
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| LifeError::system("cannot start the serving process", error))?;
    let mut word = [0; READY.len()];
    let heard = server.stdout.take().map(|mut stdout| stdout.read_exact(&mut word));
    if matches!(heard, Some(Ok(()))) && word == READY {
        return Ok(());
    }
    let status = server.wait().map_err(|error| LifeError::system("the serving process", error))?;
    match status.code() {
        Some(code) => Err(LifeError::Relayed(u8::try_from(code).unwrap_or(1))),
        None => Err(LifeError::system("the serving process", std::io::Error::other(status.to_string()))),
    }
}

/// At boot nobody has set HOME, and credentials in `~/.aws` would not be found.
fn home() -> Option<(&'static str, PathBuf)> {
    match std::env::var_os("HOME") {
        Some(_) => None,
        None => User::from_uid(geteuid()).ok().flatten().map(|user| ("HOME", user.dir)),
    }
}

/// A server must not keep open what its caller's shell happened to leave open: who reads the other
/// end of such a pipe would wait for as long as the mount lasts.
fn keep_descriptors_from_children() {
    // SAFETY: this closes nothing in this process; it only marks descriptors close-on-exec.
    // A kernel without this call (before 5.11) leaves them as they were.
    unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) };
}

/// Who waits for this process to be ready.
pub enum Ready {
    /// Nobody.
    Foreground,
    /// The process that started this one.
    Background,
}

impl Ready {
    /// For the process that [`start`] started: its own session, so that the terminal's signals and
    /// its end do not reach it. To be called before the first thread is started.
    pub fn in_background() -> Result<Ready, LifeError> {
        setsid().map_err(|errno| LifeError::system("setsid", errno))?;
        // Started by way of /proc/self/exe, which would make it "exe" in lists of processes.
        nix::sys::prctl::set_name(c"kivafs").map_err(|errno| LifeError::system("prctl", errno))?;
        Ok(Ready::Background)
    }

    /// Who is to hear how this process goes on.
    pub fn supervisor(&self) -> Supervisor {
        match self {
            Ready::Foreground => Supervisor::of_this_process(),
            Ready::Background => Supervisor::nobody(),
        }
    }

    /// Says so. In the background this also lets go of the terminal and the working directory.
    pub fn announce(self) -> Result<(), LifeError> {
        match self {
            Ready::Foreground => Ok(()),
            Ready::Background => let_go().map_err(|error| LifeError::system("the process that called", error)),
        }
    }
}

fn let_go() -> std::io::Result<()> {
    let mut caller = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    std::env::set_current_dir("/")?;
    caller.write_all(READY)
}
