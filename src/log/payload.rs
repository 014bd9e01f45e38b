//! A payload as it lies in memory.

use bytes::Bytes;
use std::ops::{Deref, Range};

/// The bytes of a payload. They may share their memory with the neighbours with which they were read,
/// and then keep all of that in memory: nobody has to copy what is soon forgotten together.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    memory: Bytes,
    range: Range<usize>,
}

impl Payload {
    /// A part of what was read in one go. Panics if the range does not lie in it.
    pub fn part(memory: &Bytes, range: Range<usize>) -> Payload {
        assert!(range.start <= range.end && range.end <= memory.len(), "{range:?} of {} bytes", memory.len());
        Payload { memory: memory.clone(), range }
    }

    /// The same in memory of its own, unless parts like it are nearly all of that memory.
    pub fn part_if_worth(memory: &Bytes, range: Range<usize>, parts_bytes: usize) -> Payload {
        let part = Payload::part(memory, range);
        if parts_bytes >= memory.len() - memory.len() / 8 { part } else { part.alone().into() }
    }

    /// A part of it, in the same memory. Panics if the range does not lie in it.
    pub fn slice(&self, range: Range<usize>) -> Payload {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of {} bytes", self.len());
        Payload { memory: self.memory.clone(), range: self.range.start + range.start..self.range.start + range.end }
    }

    /// This and what follows it, if they lie so in memory.
    pub fn joined(&self, next: &Payload) -> Option<Payload> {
        let is_same = self.memory.as_ptr() == next.memory.as_ptr() && self.memory.len() == next.memory.len();
        (is_same && self.range.end == next.range.start)
            .then(|| Payload { memory: self.memory.clone(), range: self.range.start..next.range.end })
    }

    /// Whether it keeps nothing else in memory.
    pub fn is_alone(&self) -> bool {
        self.range.len() == self.memory.len()
    }

    /// Its bytes, in memory of their own: a copy, unless they are alone.
    pub fn alone(&self) -> Bytes {
        if self.is_alone() { self.memory.clone() } else { Bytes::copy_from_slice(self) }
    }

    /// Its bytes, which keep in memory what it does.
    pub fn into_bytes(self) -> Bytes {
        self.memory.slice(self.range)
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[self.range.clone()]
    }
}

impl From<Bytes> for Payload {
    fn from(memory: Bytes) -> Payload {
        Payload { range: 0..memory.len(), memory }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_in_memory_are_joined_and_others_are_not() {
        let memory = Bytes::from_static(b"abcdefg");
        let (first, second) = (Payload::part(&memory, 1..3), Payload::part(&memory, 3..6));
        assert_eq!(&*first.joined(&second).unwrap(), b"bcdef");
        assert!(second.joined(&first).is_none() && first.joined(&first).is_none());
        let elsewhere = Bytes::copy_from_slice(&memory);
        assert!(first.joined(&Payload::part(&elsewhere, 3..6)).is_none());
        assert_eq!(&*second.slice(1..3), b"ef");
        assert_eq!(second.slice(1..3).into_bytes(), b"ef"[..]);
        assert!(first.slice(0..1).joined(&first.slice(1..2)).is_some_and(|both| &*both == b"bc"));
    }

    #[test]
    fn memory_is_shared_only_if_little_of_it_is_kept_in_vain() {
        let memory = Bytes::from(vec![7; 80]);
        assert!(!Payload::part_if_worth(&memory, 0..10, 70).is_alone());
        assert!(Payload::part_if_worth(&memory, 0..10, 69).is_alone());
    }

    #[test]
    fn only_what_is_alone_is_not_copied() {
        let memory = Bytes::copy_from_slice(b"abc");
        let whole = Payload::from(memory.clone());
        assert!(whole.is_alone() && whole.alone().as_ptr() == memory.as_ptr());
        let part = Payload::part(&memory, 0..2);
        assert!(!part.is_alone() && part.alone().as_ptr() != memory.as_ptr());
        assert_eq!(part.alone(), b"ab"[..]);
        assert_eq!(part.into_bytes().as_ptr(), memory.as_ptr());
    }
}
