//! The disk cache: right bytes or none, never more than its size, whatever happens to its files.
//!
//! | file | job |
//! |---|---|
//! | `values.rs` | keys, the one value of each, and what a directory takes |
//! | `model.rs` | random work against a map of all that was ever put |
//! | `damage.rs` | every byte flipped, every length cut, copies taken in the midst of work, kill -9 |
//! | `size.rs` | what fits, what stays, what goes; a full disk below |
//! | `life.rs` | locks, other stores, foreign files, deletion under a running cache, many threads |

mod damage;
mod life;
mod model;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../support/random.rs"]
mod random;
#[path = "../support/scratch.rs"]
mod scratch;
mod size;
mod values;
