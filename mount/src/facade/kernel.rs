//! What is agreed with the kernel at the start.

use fuser::{InitFlags, KernelConfig};

/// What we ask for, where the kernel has it. Left out on purpose:
///
/// * `WRITEBACK_CACHE`: the kernel would own sizes, times and the order of changes.
/// * `ATOMIC_O_TRUNC`: opening with O_TRUNC comes as setattr, which knows about set-user-id bits.
/// * `POSIX_LOCKS`, `FLOCK_LOCKS`: one kernel, so its own locks do.
/// * `AUTO_INVAL_DATA`: contents change only through this kernel, unless keys are served.
const WANTED: [InitFlags; 11] = [
    // The kernel asks for ACLs, keeps them, also that there is none, and goes by them. It forgets them with
    // the attributes, and (Linux 6.18.44) never keeps those of the root: that node is older than this.
    InitFlags::FUSE_POSIX_ACL,
    // What the umask takes away is settled by us: nothing, where a default ACL is.
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_ASYNC_READ,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    // Without it the kernel asks for security.capability before each write(2).
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_ASYNC_DIO,
    // A node number without its name can't be resolved once the kernel has let go of it.
    InitFlags::FUSE_NO_EXPORT_SUPPORT,
];

/// The largest read or write.
pub const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Most requests that the kernel has under way on its own account: read-ahead, which is how most
/// reads come, and asynchronous I/O. Those that wait for silent storage count, and beyond the limit
/// the kernel keeps back all others, also such as need no storage: so there must be more of them than
/// anybody has files that stall. (For who is not root the system has a limit of its own.)
const BACKGROUND_MAX: u16 = 8192;

/// Where keys are served: a read asks for attributes that are no longer valid first, so that it goes by
/// the length that the file has. (An answer to chmod(2), say, sets the length that was when it was made
/// up, also if the kernel was told to forget that since.)
const WANTED_WITH_KEYS: [InitFlags; 1] = [InitFlags::FUSE_AUTO_INVAL_DATA];

/// Unless times of access are kept, of which we would not hear then.
const WANTED_WITHOUT_ATIME: [InitFlags; 1] = [InitFlags::FUSE_CACHE_SYMLINKS];

/// Sets up `config`.
pub fn agree(config: &mut KernelConfig, serves_keys: bool, keeps_access_times: bool) {
    let with_keys = if serves_keys { &WANTED_WITH_KEYS[..] } else { &[] };
    let without_atime = if keeps_access_times { &[] } else { &WANTED_WITHOUT_ATIME[..] };
    for flag in WANTED.iter().chain(with_keys).chain(without_atime).copied() {
        if config.add_capabilities(flag).is_err() {
            tracing::debug!("this kernel has no {flag:?}");
        }
    }
    config.set_max_write(REQUEST_BYTES_MAX).expect("below the library's limit");
    config.set_max_background(BACKGROUND_MAX).expect("not zero");
}
