//! For tests: storage, cache and ledger of a tree, in memory.

use crate::log::{Codec, Pointer, SegmentNo, checksum};
use crate::tree::{InMemory, Ledger, Node, PageSink, Pages, Reference, Root, TreeError};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;

/// Stored pages.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    payloads: HashMap<Pointer, Vec<u8>>,
    written: u64,
    pub leaf_bytes: u64,
    pub leaves: u64,
}

/// Bytes of pages in a segment before the next one begins: small, so that there are many.
const SEGMENT_BYTES: u64 = 20_000;

impl Shelf {
    pub fn decode(&self, at: &Pointer) -> Arc<Node> {
        let payload = &self.payloads[at];
        assert!(at.fits(payload));
        Arc::new(Node::decode(payload, *at).unwrap())
    }
}

impl PageSink for Shelf {
    type Error = Infallible;

    fn write(&mut self, level: u8, first_key: &[u8], payload: &[u8]) -> Result<Pointer, Infallible> {
        let at = Pointer {
            segment: SegmentNo(self.written / SEGMENT_BYTES),
            offset: (self.written % SEGMENT_BYTES) as u32,
            length: payload.len() as u32,
            codec: Codec::Raw,
            shrunk: 0,
            checksum: checksum(payload),
        };
        let node = Node::decode(payload, at).unwrap();
        assert_eq!((node.level(), node.bytes()), (level, payload.len()));
        if level == 0 {
            assert!(!first_key.is_empty());
            self.leaf_bytes += payload.len() as u64;
            self.leaves += 1;
        }
        self.written += payload.len() as u64;
        self.payloads.insert(at, payload.to_vec());
        Ok(at)
    }
}

/// A sink that fails after so many pages.
pub(super) struct Failing<'s> {
    pub shelf: &'s mut Shelf,
    pub pages_left: usize,
}

impl PageSink for Failing<'_> {
    type Error = ();

    fn write(&mut self, level: u8, first_key: &[u8], payload: &[u8]) -> Result<Pointer, ()> {
        self.pages_left = self.pages_left.checked_sub(1).ok_or(())?;
        let Ok(at) = self.shelf.write(level, first_key, payload);
        Ok(at)
    }
}

/// Pages in memory, without bound.
#[derive(Default)]
pub(super) struct Cache(pub RefCell<HashMap<Pointer, Arc<Node>>>);

impl Pages for Cache {
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError> {
        self.0.borrow().get(at).cloned().ok_or_else(|| TreeError::Miss(vec![*at]))
    }

    fn hold(&self, look: &mut dyn FnMut(&dyn InMemory)) {
        look(&*self.0.borrow());
    }

    fn left(&self, at: &Pointer) {
        self.0.borrow_mut().remove(at);
    }
}

impl InMemory for HashMap<Pointer, Arc<Node>> {
    fn page(&self, at: &Pointer) -> Option<&Node> {
        self.get(at).map(|page| &**page)
    }
}

impl Cache {
    /// Runs `operation` until it no longer misses. Returns how often it did, too.
    pub fn patiently<T>(&self, shelf: &Shelf, mut operation: impl FnMut() -> Result<T, TreeError>) -> (T, usize) {
        let mut misses = 0;
        loop {
            match operation() {
                Ok(done) => return (done, misses),
                Err(TreeError::Miss(missing)) => {
                    assert!(!missing.is_empty());
                    for at in missing {
                        let before = self.0.borrow_mut().insert(at, shelf.decode(&at));
                        assert!(before.is_none(), "missed what is in the cache");
                    }
                    misses += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Reads what is not in the cache, and does not keep it.
pub(super) struct Reading<'s>(pub &'s Cache, pub &'s Shelf);

impl Pages for Reading<'_> {
    fn page(&self, at: &Pointer) -> Result<Arc<Node>, TreeError> {
        Ok(self.0.page(at).unwrap_or_else(|_| self.1.decode(at)))
    }

    fn hold(&self, look: &mut dyn FnMut(&dyn InMemory)) {
        self.0.hold(look);
    }
}

/// Live bytes of each segment that has any.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(super) struct Counters(pub BTreeMap<SegmentNo, i64>);

impl Counters {
    fn count(&mut self, segment: SegmentNo, bytes: i64) {
        let counter = self.0.entry(segment).or_default();
        *counter += bytes;
        if *counter == 0 {
            self.0.remove(&segment);
        }
    }

    /// Counted from scratch.
    pub fn of(root: &Root, pages: &dyn Pages) -> Counters {
        let mut counters = Counters::default();
        root.references(pages, &mut |reference| match reference {
            Reference::Page { pointer, .. } => counters.add_page(&pointer),
            Reference::Extent { extent, .. } => counters.add(extent.unit.segment, extent.counted()),
        })
        .unwrap();
        counters
    }
}

impl Ledger for Counters {
    fn add(&mut self, segment: SegmentNo, bytes: u64) {
        self.count(segment, bytes as i64);
    }

    fn sub(&mut self, segment: SegmentNo, bytes: u64) {
        self.count(segment, -(bytes as i64));
    }
}
