//! Counts requests, and the time that they take.
//!
//! # Contract
//!
//! * **Cheap.** Counting one is two or three additions to memory that hardly any other thread writes to: no
//!   lock, no allocation. (Threads share [`counters`] in shards, each on cache lines of its own.)
//! * **What was answered is counted.** A request is counted just before it is answered; so who has heard
//!   an answer and looks finds it counted.
//! * A request that is neither answered nor refused (its session is over) is not counted.
//!
//! | file | job |
//! |---|---|
//! | `kind.rs` | the kinds of requests, and their names |
//! | `histogram.rs` | how many took how long; means and percentiles |
//! | `counters.rs` | the counting |

mod counters;
mod histogram;
mod kind;

pub use counters::{Counted, Meter, OfKind};
pub use histogram::{BOUNDS, Histogram};
pub use kind::Kind;
