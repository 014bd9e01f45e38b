//! Taking a mount down: umount(2) for root, fusermount3 for everybody else.

use crate::life::LifeError;
use crate::life::mountinfo::{self, Device};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often to look whether a mount has gone.
const PAUSE: Duration = Duration::from_millis(1);

/// Where the kernel lists FUSE connections, if fusectl is mounted.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// Takes down what is on top at `dir`, unless something is open there.
pub fn now(dir: &Path) -> Result<(), LifeError> {
    if nix::unistd::geteuid().is_root() {
        umount2(dir, MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| refused(dir, errno))
    } else {
        with_fusermount(dir, &["-u"])
    }
}

/// Takes down what is on top at `dir`, now for names, and for good once nothing is open there.
pub fn lazily(dir: &Path) -> Result<(), LifeError> {
    if nix::unistd::geteuid().is_root() {
        umount2(dir, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).map_err(|errno| refused(dir, errno))
    } else {
        with_fusermount(dir, &["-u", "-z"])
    }
}

/// The same for a mount on whose end nobody needs to wait: for root, returns as soon as it is not to be seen there
/// any more. Before umount2(2) returns, the kernel drops each inode that it holds of the mount, some 3 us each: of
/// 400,000 that takes more than a second.
pub fn lazily_behind(dir: &Path, device: Device) -> Result<(), LifeError> {
    if !nix::unistd::geteuid().is_root() {
        return lazily(dir);
    }
    // This very mount, whatever is mounted at its name by the time that the thread runs.
    let mount = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(dir);
    let mount = mount.map_err(|error| LifeError::system(dir.display().to_string(), error))?;
    let there = dir.to_path_buf();
    let take_down = move || {
        let name = format!("/proc/self/fd/{}", mount.as_raw_fd());
        umount2(name.as_str(), MntFlags::MNT_DETACH).map_err(|errno| refused(&there, errno))
    };
    let thread = std::thread::Builder::new().name("detach".into()).spawn(take_down);
    let thread = thread.map_err(|error| LifeError::system("cannot start a thread", error))?;
    while !thread.is_finished() {
        if !matches!(mountinfo::top_at(dir)?, Some(mount) if mount.device == device) {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    thread.join().expect("taking down does not panic")
}

fn refused(dir: &Path, errno: Errno) -> LifeError {
    match errno {
        Errno::EBUSY => LifeError::Busy(dir.into()),
        Errno::EINVAL | Errno::ENOENT => LifeError::NotMounted(dir.into()),
        errno => LifeError::system(format!("{}: cannot unmount", dir.display()), errno),
    }
}

fn with_fusermount(dir: &Path, flags: &[&str]) -> Result<(), LifeError> {
    let output = Command::new("fusermount3")
        .args(flags)
        .arg("--")
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(LifeError::NoFusermount)?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("fusermount3: ").replace('\n', "; ");
    if why.contains("busy") {
        return Err(LifeError::Busy(dir.into()));
    }
    Err(LifeError::FusermountRefused { dir: dir.into(), why })
}

/// Ends the connection of a FUSE mount: whoever waits for an answer gets ECONNABORTED, and the
/// server's session ends.
pub fn abort(device: Device) -> Result<(), LifeError> {
    // The kernel names a connection by the number of its device.
    let number = (u64::from(device.major) << 20) | u64::from(device.minor);
    let usual = PathBuf::from(format!("{CONNECTIONS}/{number}/abort"));
    let written = write_one(&usual);
    let Err(error) = written else { return Ok(()) };
    if usual.parent().is_some_and(Path::exists) || !nix::unistd::geteuid().is_root() {
        return Err(LifeError::system(usual.display().to_string(), error));
    }
    // fusectl is not mounted: mount it for a moment.
    mount(Some("fusectl"), CONNECTIONS, Some("fusectl"), MsFlags::empty(), None::<&str>)
        .map_err(|errno| LifeError::system(format!("{CONNECTIONS}: cannot mount fusectl"), errno))?;
    let written = write_one(&usual);
    umount2(CONNECTIONS, MntFlags::MNT_DETACH)
        .map_err(|errno| LifeError::system(format!("{CONNECTIONS}: cannot unmount fusectl"), errno))?;
    written.map_err(|error| LifeError::system(usual.display().to_string(), error))
}

fn write_one(path: &Path) -> std::io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path).and_then(|mut file| std::io::Write::write_all(&mut file, b"1"))
}
