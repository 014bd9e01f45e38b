//! Named byte strings in a bucket, as S3 keeps them.

use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// Called once with a request's outcome, on any thread, also before the call that began it has
/// returned. Must not wait.
pub type Done<T> = Box<dyn FnOnce(Result<T, ObjectError>) + Send>;

/// How one attempt failed, by what the caller does next.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// No object of that name was seen. It may exist all the same: S3 of 2012, and caches on the
    /// way, answer a 404 from before its creation (C7).
    #[error("there is no such object")]
    Missing,
    /// `create`: an object of that name exists (412). Perhaps our own, from an attempt whose answer
    /// was lost.
    #[error("an object of that name exists")]
    Exists,
    /// Nothing was done, as the server says (503 SlowDown, 429, 409): try again, later and slower.
    #[error("the server asks to slow down: {0}")]
    Slow(Arc<str>),
    /// No answer, half an answer, or an answer that says nothing about the outcome (500, resets,
    /// time-outs): it may have been done, or be done later. Try again.
    #[error("{0}")]
    Unknown(Arc<str>),
    /// Nothing was done, and trying again as it is will not help: no such bucket, wrong keys, wrong
    /// region, wrong clock, not allowed. One line that names the cure.
    #[error("{0}")]
    Refused(Arc<str>),
}

/// Requests sent, each attempt counted, and bytes of objects' bodies, since the backend was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// PUT requests, conditional ones included.
    pub puts: u64,
    /// GET and HEAD requests.
    pub gets: u64,
    /// LIST requests.
    pub lists: u64,
    /// DELETE requests; one may name many objects.
    pub deletes: u64,
    /// Bytes of the objects that PUTs sent, each counted whole, also where an attempt broke off.
    pub bytes_up: u64,
    /// Bytes of objects that GETs received.
    pub bytes_down: u64,
}

/// A bucket, or the part of one under a prefix. Names are relative to that prefix.
///
/// The contract is in the module's docs. No method waits: each begins one attempt and calls `done`
/// with its outcome. How often and when to try again is the caller's affair.
pub trait Objects: Send + Sync {
    /// Creates an object that must not exist: `Ok` to exactly one of all who ever try that name
    /// (`PUT` with `If-None-Match: *`).
    fn create(&self, name: &str, body: Bytes, done: Done<()>);

    /// Writes an object whose name nobody else uses. Every attempt for a name has the same body.
    fn put(&self, name: &str, body: Bytes, done: Done<()>);

    /// The bytes of an object, or those of a range of it, cut where the object
    /// ends, in memory of their own. An empty range is a caller's bug.
    fn get(&self, name: &str, range: Option<Range<u64>>, done: Done<Bytes>);

    /// The first names that begin with `prefix`, in order, at most `max` (1 to 1000) of them. May
    /// lack new objects and show deleted ones (C7).
    fn list(&self, prefix: &str, max: u32, done: Done<Vec<String>>);

    /// Deletes objects (1 to 1000); such as are not there are no error.
    fn delete(&self, names: Vec<String>, done: Done<()>);

    /// What was sent and received so far.
    fn usage(&self) -> Usage;

    /// What people call it: `s3://bucket/prefix`.
    fn name(&self) -> &str;
}
