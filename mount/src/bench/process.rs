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

/// KiB: VmHWM; 0 if it is not told.
pub fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|peak| peak.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
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
}
