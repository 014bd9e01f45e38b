//! Objects that are not what was written.

use super::Bucket;
use bytes::Bytes;

/// What is done to a bucket's objects behind everybody's back.
#[derive(Clone, Debug)]
pub enum Damage {
    /// The bits of `mask` change in one byte.
    Flip {
        name: String,
        at: usize,
        mask: u8,
    },
    /// The object ends early.
    Cut {
        name: String,
        length: usize,
    },
    /// All zeros, of the same length.
    Zero {
        name: String,
    },
    /// Each holds what the other held.
    Swap(String, String),
    /// The second holds what the first holds, too; it need not have existed.
    Duplicate(String, String),
    Remove(String),
}

impl Bucket {
    /// Damages an object. It must be there.
    pub fn damage(&self, damage: &Damage) {
        let mut state = self.shared.state.lock();
        let body = |name: &String| state.contents.body(name).unwrap_or_else(|| panic!("no {name}")).clone();
        let mut changes: Vec<(&String, Option<Bytes>)> = Vec::new();
        match damage {
            Damage::Flip { name, at, mask } => {
                let mut bytes = body(name).to_vec();
                bytes[*at] ^= mask;
                changes.push((name, Some(bytes.into())));
            }
            Damage::Cut { name, length } => changes.push((name, Some(body(name).slice(..*length)))),
            Damage::Zero { name } => changes.push((name, Some(vec![0; body(name).len()].into()))),
            Damage::Swap(one, other) => {
                changes.extend([(one, Some(body(other))), (other, Some(body(one)))]);
            }
            Damage::Duplicate(from, to) => changes.push((to, Some(body(from)))),
            Damage::Remove(name) => changes.push((name, None)),
        }
        for (name, body) in changes {
            match body {
                Some(body) => state.contents.store(name, &body),
                None => state.contents.remove(name),
            }
        }
    }
}
