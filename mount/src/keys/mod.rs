//! A store's keys as a Rust API: its key directory as a key-value store, in the process of whoever
//! uses it. What is set here is a file in a mount of the same store, and the other way round.
//!
//! | file | job |
//! |---|---|
//! | `change.rs` | a change, what must be so for it, and what became of it |
//! | `range.rs` | the pairs of a range, in order |
//!
//! # Contract
//!
//! * **Sizes.** A key is any 0 to [`KEY_MAX`] bytes, a value any 0 to [`VALUE_MAX`]. Longer ones are
//!   [`KeysError::TooLong`], before anything is done.
//! * **What is no pair.** A directory, a symlink, a file of more than [`VALUE_MAX`] bytes has a name and
//!   no value: [`Keys::get`] and [`Keys::range`] pass over it, [`If::Absent`] does not hold for it, and
//!   [`If::Present`] does. The file is overwritten and deleted as any other; the rest is
//!   [`Outcome::NoFile`].
//! * **Order.** Each [`Keys::get`], each [`Keys::range`] as a whole, and each [`Keys::apply`] of at most
//!   [`BATCH_MAX`] changes takes effect at one instant between call and return (see there for longer
//!   ones). Keys are ordered by their bytes.
//! * **Durability.** What has returned is visible to everybody, and not yet durable. [`Keys::sync`] makes
//!   durable what returned before it; else that happens after `commit_interval`, at the latest. What a
//!   crash leaves is the state after some call (or part of a long one), no older than the last sync.
//! * **Waiting.** Every method may wait for storage. Any number of threads may share a `Keys`; reading
//!   never waits for who changes something.
//! * **Failure.** After an error nothing has changed, unless said otherwise. A store that has failed
//!   ([`FsError::Poisoned`]) takes no more changes, and goes on to be read.
//!
//! It knows nothing of sockets (`kvlds` serves the same keys to other processes), nor of directories
//! below the root, nor of files as such.
//!
//! ```no_run
//! use kivafs_mount::keys::{Change, If, Keys, Outcome};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Keys::create("notes.kiva".as_ref())?;
//! let outcomes = keys.apply(&[Change::set("todo", "buy milk"), Change::set("done", "").only(If::Absent)])?;
//! assert_eq!(outcomes, [Outcome::Done, Outcome::Done]);
//! assert_eq!(keys.get(b"todo")?.as_deref(), Some(&b"buy milk"[..]));
//! keys.close()?;
//! # Ok(())
//! # }
//! ```

mod change;
mod range;

pub use crate::fs::{FsError, If, Outcome, VALUE_MAX};
pub use change::Change;
pub use range::Range;

use crate::fs::{FileSystem, KeyChange, NAME_MAX, Name, SPACE_WAIT, coarse_now};
use bytes::Bytes;
use kivafs::store::{CreateOptions, OpenError, OpenOptions, SpaceTries, Store};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;

/// Longest key, in bytes.
pub const KEY_MAX: usize = NAME_MAX;

/// So many changes take effect at one instant, however long their keys and values are.
pub const BATCH_MAX: usize = crate::fs::CHANGES_AT_ONCE;

/// Why something was not done.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The store cannot be made or opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A key or value is longer than any can be.
    #[error("a {what} of {length} bytes: none has more than {most}")]
    TooLong {
        /// "key" or "value".
        what: &'static str,
        /// Its length.
        length: usize,
        /// The longest.
        most: usize,
    },
    /// The store could not do it.
    #[error(transparent)]
    Store(#[from] FsError),
}

/// What every method answers.
pub type Result<T> = std::result::Result<T, KeysError>;

/// The keys of an open store.
///
/// Dropped without [`Keys::close`], it leaves what a crash would: what was synced is there.
pub struct Keys {
    fs: FileSystem,
}

impl Keys {
    /// Makes a new store in a file at `path`, and opens it. With other options than the usual ones:
    /// [`Store::create_at`], then [`Keys::open`].
    pub fn create(path: &Path) -> Result<Keys> {
        Store::create_at(path, &CreateOptions::default())?;
        Keys::open(path, &OpenOptions::default())
    }

    /// Opens the store in the file at `path`. One process at a time may, or any number for reading.
    pub fn open(path: &Path, options: &OpenOptions) -> Result<Keys> {
        Keys::on(Arc::new(Store::open_at(path, options)?))
    }

    /// The keys of a store that is open already, in a bucket, say. Nobody else may have files of it open:
    /// what is removed here would be gone for them.
    pub fn on(store: Arc<Store>) -> Result<Keys> {
        let keys = Keys { fs: FileSystem::open(store, coarse_now)? };
        keys.fs.deferred_all();
        Ok(keys)
    }

    /// The key's value; `None`: there is none.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let (key, view) = (name(key)?, self.fs.store().view());
        Ok(self.fs.store().patiently(|| self.fs.value_of(&view, &key))?)
    }

    /// The pairs with keys from `from` on and before `to` (`None`: to the last), in order, as they are
    /// now: what changes later is not seen. Until it is dropped, space that is freed meanwhile is not
    /// used again.
    pub fn range(&self, from: &[u8], to: Option<&[u8]>) -> Result<Range<'_>> {
        Ok(Range::new(&self.fs, name(from)?, to.map(name).transpose()?))
    }

    /// Makes these changes, one after another; answers what became of each. A condition is held against
    /// what the changes before it in the batch have left.
    ///
    /// At most [`BATCH_MAX`] changes take effect at one instant, if none of them is of a file that is, or
    /// was, longer than 960 bytes. More may take several steps, in their order: who reads meanwhile, and
    /// a crash, may see the first of them without the rest; and so it may be after an error.
    ///
    /// A new key's file gets the owner and permissions that the store has for keys; an old one keeps its
    /// own.
    pub fn apply(&self, changes: &[Change]) -> Result<Vec<Outcome>> {
        let changes = changes.iter().map(Change::checked).collect::<Result<Vec<KeyChange>>>()?;
        let mut outcomes = Vec::with_capacity(changes.len());
        let (mut tries, mut until) = (SpaceTries::default(), Instant::now() + SPACE_WAIT);
        while outcomes.len() < changes.len() {
            match self.fs.store().patiently(|| self.fs.change_keys(&changes[outcomes.len()..])) {
                // Nobody else looks at this store's files: nothing is stale.
                Ok(changed) => {
                    outcomes.extend(changed.outcomes);
                    (tries, until) = (SpaceTries::default(), Instant::now() + SPACE_WAIT);
                }
                Err(FsError::NoSpace) if self.fs.get_space(&mut tries, until) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.fs.deferred_all();
        Ok(outcomes)
    }

    /// Waits until everything that was done before is durable.
    pub fn sync(&self) -> Result<()> {
        Ok(self.fs.store().sync().map_err(FsError::from)?)
    }

    /// Makes everything durable, and closes the store. Ok: it is. (The store of [`Keys::on`] is closed
    /// for everybody.)
    pub fn close(self) -> Result<()> {
        Ok(self.fs.store().close().map_err(FsError::from)?)
    }
}

/// A key as the tree has it.
fn name(key: &[u8]) -> Result<Name> {
    Name::from_raw(key).ok_or(KeysError::TooLong { what: "key", length: key.len(), most: KEY_MAX })
}

#[cfg(test)]
mod tests;
