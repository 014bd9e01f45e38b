//! What the kernel says is mounted where: /proc/PID/mountinfo.
//!
//! Reading it asks nothing of the file systems it lists, so that a dead or stuck mount does not
//! stop who looks.

use crate::life::LifeError;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The type under which our mounts are listed.
pub const FS_TYPE: &str = "fuse.kivafs";

/// A device number; of a FUSE mount also the name of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Unique among all mounts while this one lasts.
    pub device: Device,
    /// Where.
    pub dir: PathBuf,
    /// `fuse.kivafs` for ours.
    pub fs_type: String,
    /// For ours: the store.
    pub source: OsString,
    /// Of a FUSE mount: the user who serves it.
    pub user: Option<u32>,
    /// Reading changes no time.
    pub noatime: bool,
}

impl Mount {
    /// Is it one of ours?
    pub fn is_ours(&self) -> bool {
        self.fs_type == FS_TYPE
    }
}

/// The mounts that this process sees, in the order in which they were made.
pub fn read() -> Result<Vec<Mount>, LifeError> {
    read_of(Path::new("/proc/self/mountinfo"))
}

/// The mounts that process `pid` sees: it may live in another mount namespace.
pub fn read_of_process(pid: u32) -> Result<Vec<Mount>, LifeError> {
    read_of(Path::new(&format!("/proc/{pid}/mountinfo")))
}

fn read_of(path: &Path) -> Result<Vec<Mount>, LifeError> {
    let text = std::fs::read(path).map_err(|error| LifeError::system(path.display().to_string(), error))?;
    Ok(text.split(|&byte| byte == b'\n').filter_map(parse).collect())
}

/// What is on top at `dir`, which is absolute and free of links.
pub fn top_at(dir: &Path) -> Result<Option<Mount>, LifeError> {
    Ok(read()?.into_iter().rfind(|mount| mount.dir == dir))
}

/// `36 35 98:0 /root /dir options optional... - type source super-options`
fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let dir = fields.nth(1)?;
    let noatime = fields.next()?.split(|&byte| byte == b',').any(|word| word == b"noatime");
    let mut tail = fields.skip_while(|field| *field != b"-").skip(1);
    let fs_type = std::str::from_utf8(tail.next()?).ok()?;
    let source = tail.next()?;
    let own_options = std::str::from_utf8(tail.next()?).unwrap_or_default();
    let user = own_options.split(',').find_map(|word| word.strip_prefix("user_id="));
    Some(Mount {
        device: Device { major: major.parse().ok()?, minor: minor.parse().ok()? },
        dir: PathBuf::from(unescape(dir)),
        fs_type: fs_type.to_string(),
        source: unescape(source),
        user: user.and_then(|digits| digits.parse().ok()),
        noatime,
    })
}

/// The kernel writes space, tab, newline and backslash as `\` and three octal digits.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\')
            .then(|| after.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match octal {
            Some(byte) => {
                plain.push(byte);
                rest = &after[3..];
            }
            None => {
                plain.push(first);
                rest = after;
            }
        }
    }
    OsString::from_vec(plain)
}

/// `path` as the list of mounts has it: absolute, links followed. A mount at `path` itself is not
/// looked into when that can be avoided: it may be dead, or stuck.
pub fn as_listed(path: &Path) -> std::io::Result<PathBuf> {
    let absolute = std::path::absolute(path)?;
    if let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) {
        // A parent that is missing is told of by the second look.
        let place = parent.canonicalize().map(|parent| parent.join(name));
        if let Ok(place) = place
            && top_at(&place).is_ok_and(|mount| mount.is_some())
        {
            return Ok(place);
        }
    }
    path.canonicalize()
}

/// Is what is mounted at `dir` without its server? Asked by statfs(2): the attributes of a dead
/// mount's root may still be in the kernel's cache, and stat(2) then finds nothing amiss.
pub fn is_dead(dir: &Path) -> bool {
    matches!(nix::sys::statfs::statfs(dir), Err(nix::Error::ENOTCONN | nix::Error::ECONNABORTED))
}

/// Do both name the same store? A source is written as it was given to mount(2).
pub fn names_store(source: &OsString, store: &Path) -> bool {
    source.as_bytes() == store.as_os_str().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        let line =
            br"61 27 0:53 / /mnt/with\040space rw,nosuid shared:1 master:2 - fuse.kivafs /srv/a\134b rw,user_id=0";
        let mount = parse(line).unwrap();
        assert_eq!(mount.device, Device { major: 0, minor: 53 });
        assert_eq!(mount.dir, Path::new("/mnt/with space"));
        assert_eq!(mount.source, r"/srv/a\b");
        assert_eq!(mount.user, Some(0));
        assert!(mount.is_ours() && !mount.noatime);
        let line = br"61 27 0:53 / /mnt rw,noatime - fuse.kivafs /srv/a rw";
        assert!(parse(line).unwrap().noatime);
    }

    #[test]
    fn a_cut_line_is_no_mount() {
        let line = b"61 27 0:53 / /mnt rw - fuse.kivafs /srv/a rw";
        for length in 0..line.len() - b" rw".len() {
            assert_eq!(parse(&line[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_backslash_without_digits_stands_for_itself() {
        assert_eq!(unescape(br"a\04"), r"a\04");
        assert_eq!(unescape(br"\999"), r"\999");
        assert_eq!(unescape(br"\011"), "\t");
    }
}
