//! A session with the kernel, as every file system of this program has it: so that who measures one
//! beside another measures the file systems.

use crate::facade::REQUEST_BYTES_MAX;
use crate::life::LifeError;
use crate::life::mountinfo::Device;
use fuser::{Config, Filesystem, Session, SessionACL};
use nix::mount::{MsFlags, mount};
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Kilobytes that the kernel reads ahead: its own limit for FUSE is one small request.
const READ_AHEAD_KIB: u32 = 4096;

/// Mounts by mount(2), which only root may: answers the descriptor for the session. `source` and
/// `fs_type` are what the list of mounts shows.
pub fn mount_as_root(
    source: &Path,
    dir: &Path,
    fs_type: &str,
    flags: MsFlags,
    allow_other: bool,
) -> Result<OwnedFd, LifeError> {
    let fuse = File::options().read(true).write(true).open("/dev/fuse").map_err(LifeError::NoDevice)?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions,max_read={REQUEST_BYTES_MAX}",
        fuse.as_raw_fd(),
        nix::unistd::getuid(),
        nix::unistd::getgid(),
    );
    if allow_other {
        data.push_str(",allow_other");
    }
    mount(Some(source), dir, Some(fs_type), flags, Some(data.as_str()))
        .map_err(|errno| LifeError::system(format!("{}: cannot mount", dir.display()), errno))?;
    Ok(fuse.into())
}

/// The kernel's greeting, answered; `threads` will read requests, and one more, for the one that may be storing.
pub fn greet<F: Filesystem>(filesystem: F, fuse: OwnedFd, threads: usize, dir: &Path) -> Result<Session<F>, LifeError> {
    let mut config = Config::default();
    config.acl = SessionACL::All;
    config.n_threads = Some(threads + 1);
    // From a descriptor, the session knows no mount, so that it can't unmount a newer one.
    Session::from_fd(filesystem, fuse, SessionACL::All, config)
        .map_err(|error| LifeError::system(format!("{}: the kernel's greeting", dir.display()), error))
}

/// Has the kernel read far ahead. Only root may; without, reading is right, and slower.
pub fn read_ahead(device: Device) {
    let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", device.major, device.minor);
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!("{path}: {error}");
    }
}
