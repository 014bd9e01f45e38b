//! The bytes of a file. What was never written is zeros, and takes no memory.

use std::borrow::Cow;
use std::collections::BTreeMap;

/// As much as the largest request of the kernel: a read of that much that begins where one of these does
/// is not copied.
const CHUNK: usize = 1 << 20;

/// Invariant: no chunk is longer than [`CHUNK`], and none reaches beyond the length.
#[derive(Default)]
pub struct Content {
    /// By number. Behind the end of one are zeros.
    chunks: BTreeMap<u64, Vec<u8>>,
    length: u64,
}

impl Content {
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Bytes that take memory.
    pub fn stored(&self) -> u64 {
        self.chunks.values().map(|chunk| chunk.len() as u64).sum()
    }

    /// At most so many bytes; fewer at the end.
    pub fn read(&self, offset: u64, size: usize) -> Cow<'_, [u8]> {
        let size = self.length.saturating_sub(offset).min(size as u64) as usize;
        let (number, within) = split(offset);
        if let Some(whole) = self.chunks.get(&number).and_then(|chunk| chunk.get(within..within + size)) {
            return Cow::Borrowed(whole);
        }
        let mut bytes = vec![0; size];
        each_part(offset, size, |number, within, part| {
            let stored = self.chunks.get(&number).and_then(|chunk| chunk.get(within..)).unwrap_or_default();
            let length = stored.len().min(part.len());
            bytes[part][..length].copy_from_slice(&stored[..length]);
        });
        Cow::Owned(bytes)
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        each_part(offset, bytes.len(), |number, within, part| {
            let (chunk, bytes) = (self.chunks.entry(number).or_default(), &bytes[part]);
            if chunk.len() < within {
                chunk.resize(within, 0);
            }
            let over = bytes.len().min(chunk.len() - within);
            chunk[within..within + over].copy_from_slice(&bytes[..over]);
            chunk.extend_from_slice(&bytes[over..]);
        });
        self.length = self.length.max(offset + bytes.len() as u64);
    }

    pub fn resize(&mut self, length: u64) {
        let (number, within) = split(length);
        self.chunks.split_off(&(number + 1));
        if let Some(chunk) = self.chunks.get_mut(&number) {
            chunk.truncate(within);
        }
        self.length = length;
    }
}

/// The number of an offset's chunk, and the offset there.
fn split(offset: u64) -> (u64, usize) {
    (offset / CHUNK as u64, (offset % CHUNK as u64) as usize)
}

/// The parts of a range that lie in one chunk each: its number, where the part begins there, and which bytes
/// of the range it has.
fn each_part(offset: u64, size: usize, mut part: impl FnMut(u64, usize, std::ops::Range<usize>)) {
    let mut done = 0;
    while done < size {
        let (number, within) = split(offset + done as u64);
        let end = size.min(done + CHUNK - within);
        part(number, within, done..end);
        done = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_whatever_lies_between() {
        let mut content = Content::default();
        content.write(CHUNK as u64 - 2, b"abcd");
        assert_eq!((content.length(), content.stored()), (CHUNK as u64 + 2, CHUNK as u64 + 2));
        assert_eq!(*content.read(CHUNK as u64 - 3, 9), *b"\0abcd");
        assert!(matches!(content.read(CHUNK as u64, 9), Cow::Borrowed(b"cd")));
        content.write(CHUNK as u64, b"C");
        content.write(3 * CHUNK as u64, b"e");
        assert_eq!(*content.read(CHUNK as u64 - 1, 4), *b"bCd\0");
        assert_eq!(*content.read(3 * CHUNK as u64 - 1, 9), *b"\0e");
        assert!(content.read(content.length(), 9).is_empty() && content.read(u64::MAX, 9).is_empty());
    }

    #[test]
    fn what_is_cut_off_does_not_come_back() {
        let mut content = Content::default();
        content.write(0, &[1; 2 * CHUNK]);
        content.resize(CHUNK as u64 + 1);
        content.resize(5 * CHUNK as u64);
        assert_eq!(*content.read(CHUNK as u64, 3), [1, 0, 0]);
        assert_eq!(content.stored(), CHUNK as u64 + 1);
        content.resize(0);
        assert_eq!((content.stored(), content.length()), (0, 0));
    }
}
