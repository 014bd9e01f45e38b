//! Where records are read from: a view of the store, or a transaction.

use crate::fs::attr::Ino;
use crate::fs::deferred_record::Deferred;
use crate::fs::entry::Entry;
use crate::fs::error::{FsError, Result};
use crate::fs::fs_record::FsRecord;
use crate::fs::inode::Inode;
use crate::fs::key;
use bytes::Bytes;
use kivafs::store::{Cursor, Direction, Payload, StoreError, Txn, View};
use kivafs::tree::Value;
use std::ops::{Bound, ControlFlow, Deref};

/// Reads that may miss. A transaction's scans do not see its own changes; its gets do.
pub(crate) trait Records {
    /// The value of a key.
    fn value(&self, key: &[u8]) -> Result<Option<Value>>;

    /// Visits a range of keys in order until `visit` breaks.
    fn visit(&self, range: &key::Range, visit: &mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>) -> Result<()>;

    /// The bytes of values; one miss names all that is missing.
    fn bytes(&self, values: &[Value]) -> Result<Vec<Bytes>>;

    /// The same, for who reads on and will not ask for them again soon.
    fn bytes_once(&self, values: &[Value]) -> Result<Vec<Payload>> {
        Ok(self.bytes(values)?.into_iter().map(Payload::from).collect())
    }

    /// A record: short enough always to lie in a leaf.
    fn record(&self, key: &[u8]) -> Result<Option<Bytes>> {
        self.value(key)?.map(|value| in_leaf(key, value)).transpose()
    }

    /// What a directory has under that key.
    fn entry(&self, key: &[u8]) -> Result<Option<Entry>> {
        self.record(key)?.map(|bytes| decoded(key, Entry::decode(bytes))).transpose()
    }

    /// A node's own record.
    fn inode(&self, ino: Ino) -> Result<Option<Inode>> {
        let key = key::inode(ino);
        self.record(&key)?.map(|bytes| decoded(&key, Inode::decode(&bytes))).transpose()
    }

    /// What is left to do for a node.
    fn deferred(&self, ino: Ino) -> Result<Option<Deferred>> {
        let key = key::deferred(ino);
        self.record(&key)?.map(|bytes| decoded(&key, Deferred::decode(&bytes))).transpose()
    }

    /// The file system's record. `None`: there is no file system yet.
    fn fs_record(&self) -> Result<Option<FsRecord>> {
        self.record(key::FS)?.map(|bytes| decoded(key::FS, FsRecord::decode(&bytes))).transpose()
    }

    /// The entry that was found under a key.
    fn found_entry(key: &[u8], value: Value) -> Result<Entry> {
        decoded(key, Entry::decode(in_leaf(key, value)?))
    }
}

fn in_leaf(key: &[u8], value: Value) -> Result<Bytes> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::Extent(_) => Err(FsError::damaged(format!("record {}: placed outside its leaf", key.escape_ascii()))),
    }
}

/// What a record decoded to; `None` is damage, and the key says where.
pub(crate) fn decoded<T>(key: &[u8], record: Option<T>) -> Result<T> {
    record.ok_or_else(|| FsError::damaged(format!("record {}: its bytes make no sense", key.escape_ascii())))
}

type Visit<'a> = &'a mut dyn FnMut(&[u8], &Value) -> ControlFlow<()>;

impl Records for View {
    fn value(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.get(key)?)
    }

    fn visit(&self, range: &key::Range, visit: Visit<'_>) -> Result<()> {
        let (from, to) = bounds(range);
        Ok(self.scan(from, to, Direction::Forward, visit)?)
    }

    fn bytes(&self, values: &[Value]) -> Result<Vec<Bytes>> {
        whole(values, self.read(values))
    }

    fn bytes_once(&self, values: &[Value]) -> Result<Vec<Payload>> {
        whole(values, self.read_once(values))
    }
}

impl Records for Cursor {
    fn value(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.get(key)?)
    }

    fn visit(&self, range: &key::Range, visit: Visit<'_>) -> Result<()> {
        Records::visit(self.view(), range, visit)
    }

    fn bytes(&self, values: &[Value]) -> Result<Vec<Bytes>> {
        Records::bytes(self.view(), values)
    }
}

impl Records for Txn<'_> {
    fn value(&self, key: &[u8]) -> Result<Option<Value>> {
        Ok(self.get(key)?)
    }

    fn visit(&self, range: &key::Range, visit: Visit<'_>) -> Result<()> {
        let (from, to) = bounds(range);
        Ok(self.scan(from, to, Direction::Forward, visit)?)
    }

    fn bytes(&self, values: &[Value]) -> Result<Vec<Bytes>> {
        whole(values, self.read(values))
    }
}

fn bounds(range: &key::Range) -> (Bound<&[u8]>, Bound<&[u8]>) {
    (Bound::Included(&range.from), Bound::Excluded(&range.to))
}

fn whole<B: Deref<Target = [u8]>>(values: &[Value], read: std::result::Result<Vec<B>, StoreError>) -> Result<Vec<B>> {
    let read = read?;
    assert!(read.len() == values.len() && values.iter().zip(&read).all(|(value, bytes)| value.len() == bytes.len()));
    Ok(read)
}
