//! A caller's `done`, called once whatever happens.

use crate::backend::{Done, ObjectError};

/// Calls `done` with the outcome, or, if it is dropped before there is one, with
/// [`ObjectError::Unknown`]: the request was in the queue or under way when the backend was closed.
pub(super) struct Reply<T>(Option<Done<T>>);

impl<T> Reply<T> {
    pub fn new(done: Done<T>) -> Reply<T> {
        Reply(Some(done))
    }

    pub fn send(mut self, outcome: Result<T, ObjectError>) {
        if let Some(done) = self.0.take() {
            done(outcome);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(Err(ObjectError::Unknown("the bucket was closed before the answer came".into())));
        }
    }
}
