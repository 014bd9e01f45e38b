//! The changes that the next commit takes as its redo.

use super::redo::Change;
use crate::tree::{Key, Value};
use std::collections::BTreeMap;

/// Changes, one a key. Many come in the order of their keys: those make up a run, which is only
/// appended to; the others are sorted in where they belong.
#[derive(Default)]
pub struct Pending {
    /// With rising keys.
    run: Vec<Change>,
    /// Those that came out of order. None of their keys is in the run.
    rest: BTreeMap<Key, Option<Value>>,
}

impl Pending {
    /// Notes what becomes of a key; answers what was to become of it before, if anything was.
    pub fn put(&mut self, key: Key, value: Option<Value>) -> Option<Option<Value>> {
        if self.run.last().is_none_or(|(last, _)| *last < key) {
            if let Some(before) = self.rest.get_mut(&key) {
                return Some(std::mem::replace(before, value));
            }
            self.run.push((key, value));
            return None;
        }
        match self.search_run(&key) {
            Some(i) => Some(std::mem::replace(&mut self.run[i].1, value)),
            None => self.rest.insert(key, value),
        }
    }

    /// Whether the key has a change.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.search_run(key).is_some() || self.rest.contains_key(key)
    }

    /// Takes all of them, in the order of their keys.
    pub fn take(&mut self) -> Vec<Change> {
        let run = std::mem::take(&mut self.run);
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return run;
        }
        let mut all = Vec::with_capacity(run.len() + rest.len());
        let mut run = run.into_iter().peekable();
        for other in rest {
            while let Some(next) = run.next_if(|next| next.0 < other.0) {
                all.push(next);
            }
            all.push(other);
        }
        all.extend(run);
        all
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        *self = Pending::default();
    }

    fn search_run(&self, key: &[u8]) -> Option<usize> {
        self.run.binary_search_by(|(other, _)| (**other).cmp(key)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((prop::collection::vec(0..4_u8, 1..4), any::<bool>()), 0..80)) {
            let (mut pending, mut model) = (Pending::default(), BTreeMap::new());
            for (step, (key, is_put)) in steps.into_iter().enumerate() {
                let value = is_put.then(|| Value::from(vec![step as u8]));
                prop_assert_eq!(pending.contains(&key), model.contains_key(&key[..]));
                let before = pending.put(key[..].into(), value.clone());
                prop_assert_eq!(before, model.insert(Key::from(key), value));
            }
            prop_assert_eq!(pending.take(), model.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(pending.take(), []);
        }
    }
}
