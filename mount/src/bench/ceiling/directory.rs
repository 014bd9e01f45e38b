//! The names of a directory.

use crate::fs::Ino;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What `.` and `..` have.
const FIRST_PLACE: u64 = 3;

/// Names, in the order in which they came: so each is listed once, whatever comes and goes meanwhile.
pub struct Directory {
    pub parent: Ino,
    names: HashMap<Arc<[u8]>, (Ino, u64)>,
    places: BTreeMap<u64, Arc<[u8]>>,
    next: u64,
}

impl Directory {
    pub fn new(parent: Ino) -> Directory {
        Directory { parent, names: HashMap::new(), places: BTreeMap::new(), next: FIRST_PLACE }
    }

    pub fn get(&self, name: &[u8]) -> Option<Ino> {
        self.names.get(name).map(|(ino, _)| *ino)
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name must be free.
    pub fn insert(&mut self, name: &[u8], ino: Ino) {
        let name: Arc<[u8]> = name.into();
        assert!(self.names.insert(name.clone(), (ino, self.next)).is_none(), "a name was given away twice");
        self.places.insert(self.next, name);
        self.next += 1;
    }

    /// What the name stood for.
    pub fn remove(&mut self, name: &[u8]) -> Option<Ino> {
        let (ino, place) = self.names.remove(name)?;
        self.places.remove(&place);
        Some(ino)
    }

    /// What comes after a place: with its own.
    pub fn after(&self, place: u64) -> impl Iterator<Item = (u64, &[u8], Ino)> {
        self.places.range(place + 1..).map(|(place, name)| (*place, &name[..], self.names[name].0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_goes_on_where_it_was() {
        let mut directory = Directory::new(Ino(1));
        for (number, name) in [b"c", b"b", b"a"].into_iter().enumerate() {
            directory.insert(name, Ino(number as u64));
        }
        let (first, ..) = directory.after(2).next().unwrap();
        assert_eq!((directory.remove(b"b"), directory.get(b"b")), (Some(Ino(1)), None));
        directory.insert(b"b", Ino(7));
        let rest: Vec<_> = directory.after(first).map(|(_, name, ino)| (name, ino)).collect();
        assert_eq!(rest, [(&b"a"[..], Ino(2)), (b"b", Ino(7))]);
    }
}
