//! The project's benchmarks: what `kivafs bench` runs.
//!
//! # Contract
//!
//! * Every figure stands beside the limit that was measured in the same run, and beside the requests
//!   that it took.
//! * Real mounts of this very program, real files, real syncs. Contents do not compress.
//! * Everything happens below a fresh prefix and in a fresh directory; both are removed at the end.
//!
//! Files, in reading order: `server` (what the server can do by itself), `mounted` (a mount to
//! measure), `noise` (contents), `s3` (the rows).

mod mounted;
mod noise;
mod s3;
mod server;

pub use s3::{Plan, s3};
