//! Somebody, and what he does: by a thread of its own, which has other rights than this process.

use std::io::{Error, Result};

/// Who.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'static [u32],
}

pub const ROOT: User = User { uid: 0, gid: 0, groups: &[] };
pub const ALICE: User = User { uid: 1000, gid: 1000, groups: &[3000] };
pub const BOB: User = User { uid: 1001, gid: 1001, groups: &[1000] };
pub const NOBODY: User = User { uid: 65534, gid: 65534, groups: &[] };

impl User {
    /// What comes of `action` when he does it with that umask.
    pub fn does<T: Send>(self, umask: u32, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.take_on(umask).unwrap();
                action()
            });
            thread.join().unwrap()
        })
    }

    /// Becomes him, for good. The C library's functions would do so for all threads; the system's calls
    /// are for the one that makes them.
    fn take_on(self, umask: u32) -> Result<()> {
        let (uid, gid) = (u64::from(self.uid), u64::from(self.gid));
        // SAFETY: these calls change what this thread may, and read nothing but the groups, which outlive
        // them.
        unsafe {
            succeeded(libc::unshare(libc::CLONE_FS).into())?;
            libc::umask(umask);
            succeeded(libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr()))?;
            succeeded(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
            succeeded(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
        }
    }
}

fn succeeded(returned: i64) -> Result<()> {
    if returned == 0 { Ok(()) } else { Err(Error::last_os_error()) }
}
