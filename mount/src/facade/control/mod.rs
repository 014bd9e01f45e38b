//! `.kivafs`: what the one who mounts sees of the mount itself, as files.
//!
//! # Contract
//!
//! * **Where.** In the root, under a name that is reserved; never listed there. Mode 0700, of the user who
//!   serves the mount. Nothing is stored of it, and [`crate::fs`] does not know it.
//! * **What.** [`stats`](stats) for people and [`metrics`](metrics) for monitoring, to be read; `sync`, to be
//!   written to. A write to that, and fsync of any of them, is answered when everything that was answered
//!   before is durable.
//! * **One instant.** What a file tells is made up when it is opened, and stays the same until it is closed,
//!   however it is read. Its size is 0 and the kernel keeps nothing of it.
//! * **R14.** Making it up waits for no storage. So it can be read while storage is silent.
//! * **Fixed.** Nobody can make, rename, remove or change anything there (EPERM). Writing to what is to be
//!   read: EACCES. On a mount for reading only, the kernel itself refuses to open anything for writing; fsync
//!   of `sync` goes on, and has nothing to do.
//! * **Bounds.** At most [`OPEN_MAX`](open::OPEN_MAX) are open at once (ENFILE): each takes memory.
//! * Requests for these are not counted, fsync and writes to `sync` excepted: those are counted as fsync.
//!
//! In reading order:
//!
//! | file | job |
//! |---|---|
//! | `nodes.rs` | names, numbers and attributes |
//! | `open.rs` | what is open, and what it tells |
//! | `figures.rs` | all figures at one instant |
//! | `memory.rs` | what the process takes of memory |
//! | `metrics.rs` | figures as Prometheus reads them |
//! | `stats.rs` | figures as people read them |
//! | `answers.rs` | each request: its reply |

mod answers;
mod figures;
mod memory;
mod metrics;
mod nodes;
mod open;
mod stats;

pub use answers::Control;
pub use nodes::{has, has_name};
