//! kivafs, the store library: a key-value store in one local file, or in a bucket of an S3 server.
//!
//! A copy-on-write B+Tree turns key-value operations into a log of blocks; the log lives in a
//! backend. The layers, from the top; calls go down, results come up, and no layer knows the one
//! above (a test reads the sources and checks it):
//!
//! | layer | job |
//! |---|---|
//! | [`store`] | the public API: views, transactions, sync, group commit, cache, space |
//! | [`tree`] | the copy-on-write B+Tree: get, scan, apply, checkpoint |
//! | [`log`] | segments, commits, epochs, recovery, the storage thread |
//! | [`backend`] | the bytes: one local file (or memory, for tests); objects in S3, and the disk cache before them |

pub mod backend;
pub mod log;
pub mod store;
pub mod tree;
