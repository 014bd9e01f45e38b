//! Who opened an epoch: enough for others to say who holds the store, and for those on the same
//! machine to tell whether that process still lives.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | process id |
//! | 8 | the process's start time, clock ticks after boot (proc(5), stat, field 22) |
//! | 8 | the process's pid namespace (inode of /proc/PID/ns/pid) |
//! | 16 | boot id of the machine (/proc/sys/kernel/random/boot_id) |
//! | 2 + n | the machine's name |
//! | 1 | 1: a place follows |
//! | 2 + n | where it serves: an absolute path |
//!
//! All numbers little-endian.

use crate::log::bytes::{Fields, Malformed};
use std::fs;
use std::os::unix::fs::MetadataExt;

/// Texts are cut to this.
const TEXT_BYTES_MAX: usize = 4096;

/// Who opened an epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// Process id.
    pub pid: u32,
    started: u64,
    pid_namespace: u64,
    boot: [u8; 16],
    /// The machine's name.
    pub host: Vec<u8>,
    /// Where it serves the store.
    pub place: Option<Vec<u8>>,
}

/// Whether a keeper's process lives, as far as can be seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// On this machine, and alive.
    Alive,
    /// It was on this machine and is gone.
    Gone,
    /// Another machine, another boot of this one that is told apart only by who knows it, or another container.
    Elsewhere,
}

impl Keeper {
    /// This process.
    pub fn myself(place: Option<&[u8]>) -> Keeper {
        let host = fs::read("/proc/sys/kernel/hostname").unwrap_or_default();
        Keeper {
            pid: std::process::id(),
            started: started("self").unwrap_or(0),
            pid_namespace: pid_namespace().unwrap_or(0),
            boot: boot_id().unwrap_or([0; 16]),
            host: cut(host.trim_ascii()),
            place: place.map(cut),
        }
    }

    /// Looks for the process. Another pid namespace hides it: the same number may be somebody
    /// else's there.
    pub fn sight(&self) -> Sight {
        let same_machine = self.boot != [0; 16] && boot_id() == Some(self.boot);
        if !same_machine || self.pid_namespace == 0 || pid_namespace() != Some(self.pid_namespace) {
            return Sight::Elsewhere;
        }
        // A process id may have been given to another process since.
        match started(&self.pid.to_string()) {
            Some(started) if started == self.started => Sight::Alive,
            _ => Sight::Gone,
        }
    }

    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.pid.to_le_bytes());
        out.extend_from_slice(&self.started.to_le_bytes());
        out.extend_from_slice(&self.pid_namespace.to_le_bytes());
        out.extend_from_slice(&self.boot);
        put_text(&self.host, out);
        out.push(u8::from(self.place.is_some()));
        put_text(self.place.as_deref().unwrap_or_default(), out);
    }

    /// Takes its bytes off the front.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Keeper, Malformed> {
        let what = "keeper";
        Ok(Keeper {
            pid: fields.u32(what)?,
            started: fields.u64(what)?,
            pid_namespace: fields.u64(what)?,
            boot: fields.array(what)?,
            host: text(fields)?,
            place: {
                let there = fields.u8(what)? != 0;
                let place = text(fields)?;
                there.then_some(place)
            },
        })
    }
}

fn cut(text: &[u8]) -> Vec<u8> {
    text[..text.len().min(TEXT_BYTES_MAX)].to_vec()
}

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text);
}

fn text(fields: &mut Fields<'_>) -> Result<Vec<u8>, Malformed> {
    let length = usize::from(fields.u16("keeper: text")?);
    Ok(fields.bytes(length, "keeper: text")?.to_vec())
}

fn boot_id() -> Option<[u8; 16]> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

fn pid_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|meta| meta.ino())
}

/// Field 22 of proc(5)'s stat; the name in field 2 may hold anything, so it is counted from the
/// last parenthesis. A zombie has ended: it writes nothing any more.
fn started(pid: &str) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = stat.iter().rposition(|byte| *byte == b')')? + 1;
    let rest = std::str::from_utf8(&stat[behind_name..]).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    // The state was field 3.
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let keeper = Keeper {
            pid: 258,
            started: 7,
            pid_namespace: 9,
            boot: [3; 16],
            host: b"here".to_vec(),
            place: Some(b"/mnt".to_vec()),
        };
        let mut bytes = Vec::new();
        keeper.encode(&mut bytes);
        let mut golden = b"\x02\x01\0\0\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0".to_vec();
        golden.extend_from_slice(&[3; 16]);
        golden.extend_from_slice(b"\x04\0here\x01\x04\0/mnt");
        assert_eq!(bytes, golden);
        let mut fields = Fields(&bytes);
        assert_eq!(Keeper::decode(&mut fields), Ok(keeper));
        assert!(fields.0.is_empty());
        for length in 0..bytes.len() {
            assert!(Keeper::decode(&mut Fields(&bytes[..length])).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn the_living_are_told_from_the_dead() {
        let me = Keeper::myself(None);
        assert_eq!(me.sight(), Sight::Alive);
        assert_eq!(Keeper { started: me.started + 1, ..me.clone() }.sight(), Sight::Gone, "the pid is another's now");
        assert_eq!(Keeper { boot: [1; 16], ..me.clone() }.sight(), Sight::Elsewhere);
        assert_eq!(Keeper { pid_namespace: 1, ..me.clone() }.sight(), Sight::Elsewhere, "a container");
        let mut child = std::process::Command::new("true").spawn().expect("true runs");
        let pid = child.id();
        let dead = Keeper { pid, started: started(&pid.to_string()).unwrap_or(1), ..me };
        child.wait().expect("it ends");
        assert_eq!(dead.sight(), Sight::Gone);
    }
}
