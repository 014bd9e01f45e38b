//! The changes of one transaction.

use super::redo::Change;
use crate::tree::{Key, Value};

/// Changes in the order of their keys, one a key. Mostly they come in that order: then they are only
/// appended. Otherwise there are some hundreds at most, which are cheaper moved than linked.
#[derive(Default)]
pub struct Batch(Vec<Change>);

impl Batch {
    /// What is to become of `key`, if anything.
    pub fn get(&self, key: &[u8]) -> Option<&Option<Value>> {
        self.search(key).ok().map(|i| &self.0[i].1)
    }

    /// Sets what is to become of `key`, whatever was to become of it before.
    pub fn put(&mut self, key: Key, value: Option<Value>) {
        match self.search(&key) {
            Ok(i) => self.0[i].1 = value,
            Err(i) => self.0.insert(i, (key, value)),
        }
    }

    /// All of them.
    pub fn into_changes(self) -> Vec<Change> {
        self.0
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn search(&self, key: &[u8]) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if **last < *key => Err(self.0.len()),
            None => Err(0),
            Some(_) => self.0.binary_search_by(|(other, _)| (**other).cmp(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((prop::collection::vec(0..3_u8, 1..4), any::<bool>()), 0..60)) {
            let (mut batch, mut model) = (Batch::default(), BTreeMap::new());
            for (step, (key, is_put)) in steps.into_iter().enumerate() {
                let value = is_put.then(|| Value::from(vec![step as u8]));
                prop_assert_eq!(batch.get(&key), model.get(&key));
                batch.put(key[..].into(), value.clone());
                model.insert(key, value);
            }
            prop_assert_eq!(batch.is_empty(), model.is_empty());
            let changes: Vec<_> = batch.into_changes().into_iter().map(|(key, value)| (key.to_vec(), value)).collect();
            prop_assert_eq!(changes, model.into_iter().collect::<Vec<_>>());
        }
    }
}
