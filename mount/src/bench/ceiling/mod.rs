//! The ceiling: a file system in memory, which stores nothing. What it takes is what the kernel, FUSE and
//! two processes take; no file system can be faster by these means.
//!
//! # Contract
//!
//! * **The same means.** What is agreed with the kernel, lifetimes, read-ahead and the number of threads
//!   are those of the façade, from the same place. Where the façade asks the kernel to forget a mode
//!   whose bits fell, here such modes are never believed for long: then there is no one else to tell.
//! * **Correct.** Names, links, permissions that fall, times, sparse files are as POSIX has them: a
//!   ceiling that leaves work out is no measure. `tests/real/pjdfstest.sh ceiling` holds it to that.
//! * **Less.** No extended attributes, holes are not found again, fsync does nothing, and everything
//!   is gone with the process. Any number of threads; one lock over everything, which readers share.
//!
//! | file | job |
//! |---|---|
//! | `content.rs` | the bytes of a file |
//! | `directory.rs` | names in the order in which they came |
//! | `tree.rs` | nodes, and what changes them |
//! | `requests.rs` | each request: its method and its reply |
//! | `life.rs` | the process: mounts, serves, ends |

mod content;
mod directory;
mod life;
mod requests;
mod tree;

pub use life::serve;
