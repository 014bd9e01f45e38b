//! The project's benchmarks: what `kivafs bench` runs.
//!
//! # Contract
//!
//! * Every figure stands beside the limit that was measured in the same run, and beside the requests
//!   that it took (`s3`), or beside what it cost (`kv`, `mount`).
//! * Real mounts and servers of this very program, real files, real syncs. Contents do not compress,
//!   except where a row says so.
//! * Everything happens below a fresh prefix and in a fresh directory; both are removed at the end.
//!
//! In reading order:
//!
//! | file | job |
//! |---|---|
//! | `figures.rs` | medians, and what else is done with figures |
//! | `scratch.rs` | a fresh directory, removed at the end |
//! | `interrupt.rs` | Ctrl-C |
//! | `process.rs` | what the system tells of a process |
//! | `noise.rs` | contents that do not compress |
//! | `blocks.rs` | and those of large files |
//! | `pairs.rs` | the pairs that a store is loaded with |
//! | `load.rs` | them into a store, by the library |
//! | `server.rs` | what an S3 server can do by itself |
//! | `mounted.rs` | a mount to measure |
//! | `s3.rs` | `bench s3`: the rows |
//! | `serving.rs` | a server of keys to measure |
//! | `meter.rs` | how much was done in which time |
//! | `flight.rs` | many requests in flight |
//! | `kv.rs` | `bench kv`: the rows |
//! | `ceiling/` | a file system in memory, beside which a mount is measured |
//! | `clients.rs` | clients that do one thing after another, all at once |
//! | `work.rs` | what they do in a directory |
//! | `sides.rs` | a mount, the ceiling, the disk |
//! | `rows.rs` | the rows of `bench mount`, and what each is held to |
//! | `mount.rs` | `bench mount`: runs them, judges, prints |
//! | `growth.rs` | `bench growth`: as a store grows |
//! | `plot.rs` | figures as drawings |

mod blocks;
mod ceiling;
mod clients;
mod figures;
mod flight;
mod growth;
mod interrupt;
mod kv;
mod load;
mod meter;
mod mount;
mod mounted;
mod noise;
mod pairs;
mod plot;
mod process;
mod rows;
mod s3;
mod scratch;
mod server;
mod serving;
mod sides;
mod work;

pub use ceiling::serve as serve_ceiling;
pub use growth::{GrowthPlan, growth};
pub use kv::{KvPlan, kv};
pub use mount::{MountPlan, mount};
pub use s3::{Plan, s3};
pub use work::Sizes;
