//! Mounting: a descriptor of /dev/fuse that serves DIR.
//!
//! Done by ourselves, not by the FUSE library: at the end of a session that library unmounts
//! whatever stands at the path, also a newer mount of the same store.

use crate::facade::REQUEST_BYTES_MAX;
use crate::life::mountinfo::FS_TYPE;
use crate::life::plan::{MountOptions, Plan};
use crate::life::{LifeError, mountinfo, session};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a mount of ours is, once it stands.
pub struct Attached {
    /// For the session.
    pub fuse: OwnedFd,
    /// As the list of mounts has it.
    pub mount: mountinfo::Mount,
}

/// Mounts the plan's store at its DIR. The kernel sends the first request at once and lets
/// everybody wait for its answer: nothing here may look into DIR.
pub fn attach(plan: &Plan) -> Result<Attached, LifeError> {
    let root = nix::unistd::geteuid().is_root();
    let fuse = if root { mount_directly(plan)? } else { mount_by_helper(plan)? };
    match mountinfo::top_at(&plan.dir)? {
        Some(mount) if mount.is_ours() => Ok(Attached { fuse, mount }),
        _ => Err(LifeError::NotMounted(plan.dir.clone())),
    }
}

/// Do others than the user who mounts get in? For root, yes, unless told otherwise: the modes of
/// the files decide.
fn allows_other(options: &MountOptions) -> bool {
    options.allow_other.unwrap_or(nix::unistd::geteuid().is_root())
}

/// mount(2)'s flags.
pub fn kernel_flags(options: &MountOptions) -> MsFlags {
    let mut flags = MsFlags::empty();
    flags.set(MsFlags::MS_RDONLY, options.read_only);
    flags.set(MsFlags::MS_NODEV, options.kernel.nodev);
    flags.set(MsFlags::MS_NOSUID, options.kernel.nosuid);
    flags.set(MsFlags::MS_NOEXEC, options.kernel.noexec);
    flags.set(MsFlags::MS_NOATIME, options.kernel.noatime);
    flags.set(MsFlags::MS_RELATIME, !options.kernel.noatime);
    flags.set(MsFlags::MS_NODIRATIME, options.kernel.nodiratime);
    flags
}

fn mount_directly(plan: &Plan) -> Result<OwnedFd, LifeError> {
    let (source, options) = (plan.store.name(), &plan.options);
    session::mount_as_root(&source, &plan.dir, FS_TYPE, kernel_flags(options), allows_other(options))
}

/// Changes the flags of the mount at `dir`. If it becomes read-only, everything is durable then. Which
/// reads change times of access stays as it is: that was settled when it was mounted.
pub fn remount(dir: &Path, options: &MountOptions) -> Result<(), LifeError> {
    let noatime = match mountinfo::top_at(dir)? {
        Some(top) if top.is_ours() => top.noatime,
        _ => return Err(LifeError::NotMounted(dir.into())),
    };
    if options.read_only {
        // The long part: what can't be made durable is told while everything is as it was.
        sync(dir)?;
    }
    let mut flags = kernel_flags(options) | MsFlags::MS_REMOUNT;
    flags.set(MsFlags::MS_NOATIME, noatime);
    flags.set(MsFlags::MS_RELATIME, !noatime);
    mount(None::<&str>, dir, None::<&str>, flags, None::<&str>).map_err(|errno| match errno {
        Errno::EPERM => LifeError::RemountByUser(dir.into()),
        Errno::EBUSY => LifeError::OpenForWriting(dir.into()),
        errno => LifeError::system(format!("{}: cannot remount", dir.display()), errno),
    })?;
    // And what was changed meanwhile.
    if options.read_only { sync(dir) } else { Ok(()) }
}

fn sync(dir: &Path) -> Result<(), LifeError> {
    let synced = File::open(dir).and_then(|opened| opened.sync_all());
    synced.map_err(|error| LifeError::system(format!("{}: cannot make everything durable", dir.display()), error))
}

/// What of these options a remount does not change, though they were given: their names.
pub fn unchanged_by_remount(dir: &Path, options: &MountOptions) -> Result<Vec<&'static str>, LifeError> {
    let mut names = options.fixed_given();
    if !options.kernel.noatime && mountinfo::top_at(dir)?.is_some_and(|top| top.noatime) {
        names.push("relatime");
    }
    Ok(names)
}

fn mount_by_helper(plan: &Plan) -> Result<OwnedFd, LifeError> {
    let words = helper_words(plan);
    let (ours, theirs) = UnixStream::pair().map_err(|error| LifeError::system("socketpair", error))?;
    // The helper takes the number of a descriptor from its environment; stdin is one that is
    // inherited anyway.
    let mut child = Command::new("fusermount3")
        .arg("-o")
        .arg(words)
        .arg("--")
        .arg(&plan.dir)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(LifeError::NoFusermount)?;
    let received = receive_descriptor(&ours);
    let mut why = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        // A helper that says something odd has still done its work, or not: the descriptor tells.
        let _ = stderr.read_to_string(&mut why);
    }
    let status = child.wait().map_err(|error| LifeError::system("fusermount3", error))?;
    match received {
        Ok(Some(fuse)) if status.success() => Ok(fuse),
        Err(error) => Err(LifeError::system("fusermount3", error)),
        Ok(_) => {
            let mut why = why.trim().trim_start_matches("fusermount3: ").replace('\n', "; ");
            if !Path::new("/dev/fuse").exists() {
                return Err(LifeError::NoDevice(std::io::ErrorKind::NotFound.into()));
            }
            if why.is_empty() {
                why = status.to_string();
            }
            Err(LifeError::FusermountRefused { dir: plan.dir.clone(), why })
        }
    }
}

/// The helper's `-o`: it knows some of the kernel's words (`nodiratime` not, which would only be shown)
/// and a few of its own.
fn helper_words(plan: &Plan) -> std::ffi::OsString {
    use std::os::unix::ffi::OsStringExt;
    let options = &plan.options;
    let mut words = format!("subtype=kivafs,default_permissions,max_read={REQUEST_BYTES_MAX}");
    let chosen = [
        (options.read_only, ",ro"),
        (options.kernel.noexec, ",noexec"),
        (options.kernel.noatime, ",noatime"),
        (allows_other(options), ",allow_other"),
    ];
    words.extend(chosen.iter().filter(|(on, _)| *on).map(|(_, word)| *word));
    words.push_str(",fsname=");
    let mut words = words.into_bytes();
    for &byte in plan.store.name().as_os_str().as_bytes() {
        if matches!(byte, b',' | b'\\') {
            words.push(b'\\');
        }
        words.push(byte);
    }
    std::ffi::OsString::from_vec(words)
}

/// What the helper sends; `None` when it ends without.
fn receive_descriptor(socket: &UnixStream) -> std::io::Result<Option<OwnedFd>> {
    let mut byte = [0u8];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(std::os::fd::RawFd);
    let message = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => continue,
            done => break done?,
        }
    };
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control
            && let Some(&descriptor) = descriptors.first()
        {
            // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::place::Place;
    use crate::life::plan::KernelFlags;

    /// It refuses the whole mount for a word that it does not know.
    #[test]
    fn the_helper_is_told_only_what_it_knows() {
        let kernel = KernelFlags { nodev: true, nosuid: true, noexec: true, noatime: true, nodiratime: true };
        let options = MountOptions { read_only: true, allow_other: Some(false), kernel, ..MountOptions::default() };
        let (store, dir) = (Place::File("/a,b".into()), "/dir".into());
        let plan = Plan { store, dir, create: false, takeover: false, options };
        let words = "subtype=kivafs,default_permissions,max_read=1048576,ro,noexec,noatime,fsname=/a\\,b";
        assert_eq!(helper_words(&plan), words);
    }
}
