//! The log in a bucket.
//!
//! Files, in reading order: the formats `names`, `keeper`, `seal`, `record`; `bucket` (requests that
//! wait and are tried again), `tail` (which commits hold the redo), `end` (finding the newest commit and
//! what it needs), `open` (creation, and how an epoch is claimed), `writer` (the storage thread), `read`.
//!
//! # Contract
//!
//! As the layer's; and:
//!
//! * **One writer (C4).** Every commit is an object that must not exist yet, created with the
//!   server's conditional PUT. Whoever opens the store to write first seals the epoch that is open,
//!   which takes the place of that writer's next commit: it can acknowledge nothing more, however long
//!   it was stopped, and learns who has the store.
//! * **Weak S3 (C7).** No name is ever used for two contents (R10, R11); a 404, a LIST and a DELETE are
//!   never believed; only a create proves anything.
//! * **Requests (C8).** A commit is one PUT; segments are PUTs of up to the segment size, many at once;
//!   an idle store sends nothing.
//! * **Outage.** What writes waits without limit, what reads waits for as long as the bucket was told;
//!   when the server answers again everything goes on. A refusal (keys, permissions) counts as an
//!   outage for that long, then it is a failure (C5).
//! * **Readers elsewhere.** A log opened for reading shows the newest commit that was found (it may
//!   lag, R12) and keeps showing that; segments that the writer deletes later stay for the grace
//!   period, after that reading them is [`LogError::Gone`](super::LogError::Gone).
//!
//! # What a crash may leave
//!
//! An open epoch, which the next writer seals; data segments that no commit refers to, below that
//! writer's first number, which it deletes.

mod bucket;
mod end;
mod keeper;
mod names;
mod open;
mod read;
mod record;
mod seal;
mod tail;
mod writer;

pub use bucket::Bucket;
pub use end::EpochHolder;
pub use keeper::Sight;
pub use open::{Access, End, create_in, start};
pub use read::{key, read};
pub use record::Record;

/// A record with something in every field.
#[cfg(test)]
pub fn record_sample() -> Record {
    record::tests::sample()
}
