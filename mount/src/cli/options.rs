//! What stands after `-o` for a mount.

use crate::cli::mode::parse_mode;
use crate::cli::store_options::{self, take_number, words};
use crate::kvlds::server::{Address, USUAL_MODE};
use crate::life::plan::{KernelFlags, LogPlace, MountOptions, SyncMode};
use std::path::Path;
use std::time::Duration;
use tracing::Level;

/// For `kivafs mount --help`, after [`store_options::HELP`].
pub const HELP: &str = "\
And for the mount:
  ro, rw             nothing is changed; or, as usual, may be
  allow_other        others may use the mount as its files' modes say (usual for root)
  root_only          only who mounts may use it
  uid=NUMBER         all files are shown as that user's, whoever they belong to; chown to it changes
                     nothing, and to anybody else is not permitted
  gid=NUMBER         the same for the group
  umask=MODE         permissions that no file is shown with, nor grants; chmod stores what it is given
  inodes=NUMBER      inodes that the kernel may hold before it is asked to let go of some [400000]
  commit=SECONDS     longest time from a change to its commit [5]
  sync, dirsync      every change, or every change of names, is durable before it is answered
  threads=NUMBER     threads that read requests and do not wait [4]
  kvlds=PATH         serve the keys over that Unix socket, too; or 127.0.0.1:PORT
  kvlds_mode=MODE    of the socket's file: who may write to it may connect [0600]
  log=LEVEL          error, warn, info, debug or trace [info]; to stderr with -f, else to syslog
  log=/FILE[:LEVEL]  the log goes to the end of that file
  noatime            reading changes no time of access: as usual
  relatime           it does, if a file was changed since it was read last, or that is a day ago; never
                     stored by itself, but with the next change of the file
  nodiratime         with relatime: but not of directories
  dev, suid, noexec  and nodev, nosuid, exec: as of mount(8) [nodev,nosuid]
  remount            change ro, rw, dev, suid, exec of a mount that is there
From fstab these are taken and change nothing: defaults, auto, noauto, user, users, nouser, owner,
group, nofail, _netdev, async, lazytime, norelatime, x-*, comment=*.
Other machines or another mount can't change a file: the kernel keeps names, attributes and contents
until it needs the memory, or a key is set.";

const VALID: &str = "ro, rw, allow_other, root_only, uid=NUMBER, gid=NUMBER, umask=MODE, inodes=NUMBER, commit=SECONDS, sync, dirsync, threads=NUMBER, \
                     noatime, relatime, nodiratime, \
                     kvlds=PATH, kvlds=ADDRESS:PORT, kvlds_mode=MODE, log=LEVEL, log=/FILE[:LEVEL], mount(8)'s generic ones, and";

/// What to do about an option that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// An error.
    Refuse,
    /// mount(8)'s `-s`: ignored.
    Ignore,
}

/// Takes options apart; of two that contradict each other the later one counts. An error names
/// the bad word and the valid ones.
pub fn parse_options<'a>(lists: impl IntoIterator<Item = &'a str>, unknown: Unknown) -> Result<MountOptions, String> {
    let mut options = MountOptions::default();
    for word in words(lists) {
        let known = store_options::take(&mut options.store, word)?
            || match word.split_once('=') {
                Some((name, value)) => take_value(&mut options, name, value)?,
                None => take_word(&mut options, word),
            };
        if word == "strictatime" && unknown == Unknown::Refuse {
            return Err(
                "option 'strictatime': not offered: the kernel answers most reads without asking; 'relatime' is".into(),
            );
        }
        if !known && unknown == Unknown::Refuse {
            return Err(store_options::unknown(word, &format!("{VALID} {}", store_options::VALID)));
        }
    }
    if options.kvlds_mode != USUAL_MODE && !matches!(options.kvlds, Some(Address::Unix(_))) {
        return Err("option 'kvlds_mode': goes with 'kvlds=PATH', which makes a file".into());
    }
    Ok(options)
}

fn take_word(options: &mut MountOptions, word: &str) -> bool {
    match word {
        "ro" => options.read_only = true,
        "rw" => options.read_only = false,
        "allow_other" => options.allow_other = Some(true),
        "root_only" => options.allow_other = Some(false),
        "sync" => options.sync = SyncMode::Everything,
        "dirsync" if options.sync != SyncMode::Everything => options.sync = SyncMode::Names,
        "async" => options.sync = SyncMode::OnRequest,
        "remount" => options.remount = true,
        "nodev" => options.kernel.nodev = true,
        "dev" => options.kernel.nodev = false,
        "nosuid" => options.kernel.nosuid = true,
        "suid" => options.kernel.nosuid = false,
        "noexec" => options.kernel.noexec = true,
        "exec" => options.kernel.noexec = false,
        "noatime" => options.kernel.noatime = true,
        "atime" | "relatime" => options.kernel.noatime = false,
        "nodiratime" => options.kernel.nodiratime = true,
        "diratime" => options.kernel.nodiratime = false,
        // mount(8): these imply the three flags.
        "user" | "users" => options.kernel = KernelFlags { nodev: true, nosuid: true, noexec: true, ..options.kernel },
        "owner" | "group" => options.kernel = KernelFlags { nodev: true, nosuid: true, ..options.kernel },
        "defaults"
        | "auto"
        | "noauto"
        | "nouser"
        | "nofail"
        | "_netdev"
        | "dirsync"
        | "norelatime"
        | "nostrictatime"
        | "lazytime"
        | "nolazytime"
        | "mand"
        | "nomand"
        | "iversion"
        | "noiversion"
        | "silent"
        | "loud"
        | "default_permissions" => {}
        word => return word.starts_with("x-") || word.starts_with("X-"),
    }
    true
}

fn take_value(options: &mut MountOptions, name: &str, value: &str) -> Result<bool, String> {
    match name {
        "inodes" => options.inodes_max = usize::try_from(take_number(name, value)?).unwrap_or(usize::MAX).max(1),
        "uid" => options.appearance.uid = Some(take_id(name, value)?),
        "gid" => options.appearance.gid = Some(take_id(name, value)?),
        "umask" => {
            let umask = parse_mode(value).map_err(|why| format!("option 'umask={value}': {why}"))?;
            options.appearance.umask = umask as u16;
        }
        "commit" => options.commit_interval = Duration::from_secs(take_number(name, value)?),
        "threads" => match take_number(name, value)? {
            threads @ 1..=64 => options.threads = threads as usize,
            _ => return Err(format!("option 'threads={value}': 1 to 64 make sense")),
        },
        "kvlds" => {
            let address = address(value).map_err(|error| format!("option 'kvlds={value}': {error}"))?;
            options.kvlds = Some(address);
        }
        "kvlds_mode" => {
            options.kvlds_mode = parse_mode(value).map_err(|why| format!("option 'kvlds_mode={value}': {why}"))?;
        }
        "log" => take_log(options, value)?,
        // Words of mount.fuse(8), and those that the list of mounts shows and mount(8) gives back to
        // us for `remount`. They say again what is so.
        "fsname" | "subtype" | "comment" | "helper" | "uhelper" | "user_id" | "group_id" | "max_read" => {}
        name => return Ok(name.starts_with("x-") || name.starts_with("X-")),
    }
    Ok(true)
}

/// The number of a user or group: names mean something else on every machine.
fn take_id(name: &str, value: &str) -> Result<u32, String> {
    // The last one stands for "nobody in particular" in the kernel.
    match take_number(name, value)? {
        number if number < u64::from(u32::MAX) => Ok(number as u32),
        _ => Err(format!("option '{name}={value}': no user or group has that number")),
    }
}

/// Where to listen. A path means the same in whatever directory this process goes on.
pub fn address(value: &str) -> std::io::Result<Address> {
    match Address::parse(value) {
        Address::Unix(path) => std::path::absolute(path).map(Address::Unix),
        address => Ok(address),
    }
}

fn take_log(options: &mut MountOptions, value: &str) -> Result<(), String> {
    let (file, level) = match value.rsplit_once(':') {
        Some((file, level)) if file.contains('/') => (Some(file), level),
        _ if value.contains('/') => (Some(value), ""),
        _ => (None, value),
    };
    match level {
        "" if file.is_some() => {}
        "error" => options.log_level = Level::ERROR,
        "warn" => options.log_level = Level::WARN,
        "info" => options.log_level = Level::INFO,
        "debug" => options.log_level = Level::DEBUG,
        "trace" => options.log_level = Level::TRACE,
        _ => {
            return Err(format!(
                "option 'log={value}': write a level (error, warn, info, debug, trace), or /FILE, or /FILE:LEVEL"
            ));
        }
    }
    if let Some(file) = file {
        let file = std::path::absolute(Path::new(file)).map_err(|error| format!("option 'log={value}': {error}"))?;
        options.log = LogPlace::File(file);
    }
    Ok(())
}
