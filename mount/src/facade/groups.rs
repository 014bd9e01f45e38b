//! Whether who asks may leave setgid on a file of some group. The kernel says so with a request that sets
//! an ACL (`FUSE_SETXATTR_ACL_KILL_SGID`), but fuser 0.18 does not understand such requests; so it is
//! looked up where the system tells of processes. Who asks waits meanwhile, so that it is still there and
//! what it is.

use crate::fs::Caller;

/// CAP_FSETID, as a bit of what a process may.
const FSETID: u64 = 1 << 4;

/// Whether setgid stays when this caller, of that process, sets the mode of a file of `group`: it is in
/// the group, or it is root with CAP_FSETID. Of a process that cannot be seen from here: no.
pub fn keeps_setgid(caller: Caller, process: u32, group: u32) -> bool {
    caller.gid == group
        || std::fs::read_to_string(format!("/proc/{process}/status"))
            .is_ok_and(|status| is_member(&status, group) || caller.uid == 0 && may_all(&status))
}

fn is_member(status: &str, group: u32) -> bool {
    field(status, "Groups:").is_some_and(|groups| groups.split_whitespace().any(|it| it.parse() == Ok(group)))
}

fn may_all(status: &str) -> bool {
    let capabilities = field(status, "CapEff:").and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    capabilities.is_some_and(|bits| bits & FSETID != 0)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read() {
        let status = "Name:\tsh\nGroups:\t4 24 1000 \nCapInh:\t0000000000000000\nCapEff:\t0000000000000010\n";
        assert!(is_member(status, 24) && !is_member(status, 2) && may_all(status));
        let status = "Groups:\t\nCapEff:\t000001ffffffffef\n";
        assert!(!is_member(status, 0) && !may_all(status));
        assert!(!is_member("", 0) && !may_all("CapEff:\tx\n"));
    }

    #[test]
    fn nobody_knows_a_process_that_is_not_there() {
        let caller = Caller { uid: 0, gid: 7, umask: 0 };
        assert!(keeps_setgid(caller, 0, 7));
        assert!(!keeps_setgid(caller, 0, 8));
    }
}
