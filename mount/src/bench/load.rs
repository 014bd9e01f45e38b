//! Sorted pairs into a store by the library, in this very process: no socket, no mount.

use crate::bench::figures::{Answer, text};
use crate::bench::pairs::Pairs;
use crate::keys::{Change, Keys};
use kivafs::store::{Store, StoreError};

/// Pairs of a transaction.
const BATCH: usize = 1000;

/// Into the tree itself, durable at the end.
pub fn load_tree(store: &Store, pairs: &Pairs) -> Answer<()> {
    for batch in batches(pairs) {
        let put = || {
            let mut txn = store.begin()?;
            batch.clone().for_each(|number| txn.put(&pairs.key(number), pairs.value(number)));
            txn.commit()
        };
        store.patiently(put).map_err(|error: StoreError| text(error))?;
    }
    store.sync().map_err(text)
}

/// As keys, each of which is a file, durable at the end.
pub fn load_keys(keys: &Keys, pairs: &Pairs) -> Answer<()> {
    for batch in batches(pairs) {
        let changes: Vec<Change> = batch.map(|number| Change::set(pairs.key(number), pairs.value(number))).collect();
        keys.apply(&changes).map_err(text)?;
    }
    keys.sync().map_err(text)
}

fn batches(pairs: &Pairs) -> impl Iterator<Item = std::ops::Range<usize>> {
    let count = pairs.len();
    (0..count).step_by(BATCH).map(move |start| start..count.min(start + BATCH))
}
