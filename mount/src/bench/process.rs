//! What the system tells of a process: proc(5).

use crate::bench::figures::{Answer, text};
use nix::unistd::{SysconfVar, sysconf};
use std::time::Duration;

/// Fields behind the name: utime is the 14th of the line, which is the 12th of these.
const UTIME_AT: usize = 11;

/// Processor time so far, of all its threads, in the kernel and outside.
pub fn cpu(pid: u32) -> Answer<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let ticks = ticks(&stat).ok_or_else(|| format!("{path}: does not tell the processor time"))?;
    let a_second = sysconf(SysconfVar::CLK_TCK).map_err(text)?.unwrap_or(100);
    Ok(Duration::from_secs_f64(ticks as f64 / a_second as f64))
}

/// utime and stime of a line of /proc/PID/stat. The name may have anything in it, `)` too.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(UTIME_AT);
    let (utime, stime): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(utime + stime)
}

/// KiB: the most that it has had in memory; 0 if it is not told.
pub fn peak_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

/// KiB that it has in memory; 0 if it is not told.
pub fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

fn status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let told = status.lines().find_map(|line| line.strip_prefix(name));
    told.and_then(|told| told.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Has it ended? Then it has let go of all that it had open, even if nobody has asked how it ended.
pub fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').map_or("", |(_, fields)| fields.trim_start());
    state.is_empty() || state.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_whatever_the_name() {
        let stat = "7 (a) b 9) S 1 7 7 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 5 0 100 1000 10";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert!(cpu(std::process::id()).is_ok() && cpu(u32::MAX).is_err());
    }

    #[test]
    fn who_is_there_is_told_from_who_is_gone() {
        assert!(!is_gone(std::process::id()) && is_gone(u32::MAX));
        assert!(memory(std::process::id()) > 0 && memory(std::process::id()) <= peak_memory(std::process::id()));
        assert_eq!(memory(u32::MAX), 0);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while !is_gone(child.id()) {
            std::thread::yield_now();
        }
        assert!(child.wait().unwrap().success());
    }
}
