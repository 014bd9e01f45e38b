//! A page as stored: the format. Pure.
//!
//! Page:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | kind: `L` leaf, `I` inner page |
//! | 1 | 1 | version: 1 |
//! | 2 | 1 | level: 0 for a leaf, else 1 to 63 |
//! | 3 | 2 | number of entries, at least 1, big-endian |
//! | 5 | | entries with strictly rising keys; nothing after them |
//!
//! Entry:
//!
//! | bytes | field |
//! |---|---|
//! | varint | how many bytes its key shares with the key before (the first: 0) |
//! | varint | how many more bytes the key has |
//! | as said | these bytes |
//! | 29 | inner page only: pointer to the child |
//! | 1 | leaf only: kind of the value: 0 bytes, 1 extent |
//! | varint, as said | bytes: their number, and themselves |
//! | 29, varint, varint | extent: pointer to the unit, offset in it, length |
//!
//! A varint is a number of up to 21 bits, 7 bits a byte, the low ones first, bit 7 set in each but
//! the last byte, in as few bytes as possible. Keys have 1 to 512 bytes, but the first key of an
//! inner page is empty. Values have at most 1024 bytes, extents lie within 64 KiB.
//!
//! A page is checked against its checksum before it comes here; what is checked here guards
//! against our own bugs and crafted stores. Because keys share prefixes, the decoded entries can
//! have up to some 100 times the bytes of the payload, no more: an entry of at least 4 bytes
//! yields at most [`KEY_MAX`] beyond its own.

use crate::log::{POINTER_BYTES, Pointer};
use crate::tree::sorted::shared_bytes;
use crate::tree::{Extent, KEY_MAX, PAGE_BYTES_MAX, VALUE_INLINE_MAX, VALUE_MAX};
use thiserror::Error;

const KIND_AT: usize = 0;
const VERSION_AT: usize = KIND_AT + 1;
const LEVEL_AT: usize = VERSION_AT + 1;
const COUNT_AT: usize = LEVEL_AT + 1;
/// Bytes before the first entry.
pub(super) const HEADER_BYTES: usize = COUNT_AT + 2;
const _: () = assert!(HEADER_BYTES == 5);

const KIND_LEAF: u8 = b'L';
const KIND_INNER: u8 = b'I';
const VERSION: u8 = 1;
const VALUE_BYTES: u8 = 0;
const VALUE_EXTENT: u8 = 1;
/// Highest level of a page. An inner page has at least two children when it is made.
pub(super) const LEVEL_MAX: u8 = 63;
const VARINT_MAX: usize = (1 << 21) - 1;

/// Why a payload is not a page.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A newer kivafs wrote it.
    #[error("byte {offset}: {what} {found} is not known to this version of kivafs")]
    Newer {
        /// Where in the payload.
        offset: usize,
        /// Which field.
        what: &'static str,
        /// Its value.
        found: u64,
    },
    /// No kivafs wrote it.
    #[error("byte {offset}: {what}: expected {expected}, found {found}")]
    Damaged {
        /// Where in the payload.
        offset: usize,
        /// Which field.
        what: &'static str,
        /// What it could have been.
        expected: String,
        /// What it is.
        found: u64,
    },
}

/// A value that can be stored in a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoredValue<'a> {
    Bytes(&'a [u8]),
    Extent(Extent),
}

/// Encoded bytes of a key of `key_bytes` that shares `shared` with the one before.
pub(super) fn key_cost(shared: usize, key_bytes: usize) -> usize {
    let rest = key_bytes - shared;
    varint_bytes(shared) + varint_bytes(rest) + rest
}

/// Encoded bytes of a value of so many bytes, kept in the leaf.
pub(super) fn bytes_cost(length: usize) -> usize {
    1 + varint_bytes(length) + length
}

/// Encoded bytes of an extent.
pub(super) fn extent_cost(extent: &Extent) -> usize {
    1 + POINTER_BYTES + varint_bytes(extent.offset as usize) + varint_bytes(extent.length as usize)
}

/// Encoded bytes of a child's pointer.
pub(super) const CHILD_COST: usize = POINTER_BYTES;

/// Encoded bytes of the longest extent: what a value counts that is to become one.
pub(super) const EXTENT_COST_MAX: usize = 1 + POINTER_BYTES + 3 + 3;

/// The payload of a leaf. `bytes_hint`: about how long it will be.
pub(super) fn encode_leaf<'a>(
    bytes_hint: usize,
    entries: impl ExactSizeIterator<Item = (&'a [u8], StoredValue<'a>)>,
) -> Vec<u8> {
    let mut out = begin(KIND_LEAF, 0, entries.len(), bytes_hint);
    let mut before: &[u8] = &[];
    for (key, value) in entries {
        encode_key(before, key, &mut out);
        before = key;
        match value {
            StoredValue::Bytes(bytes) => {
                assert!(bytes.len() <= VALUE_INLINE_MAX, "T6: a value of {} bytes in a leaf", bytes.len());
                out.push(VALUE_BYTES);
                encode_varint(bytes.len(), &mut out);
                out.extend_from_slice(bytes);
            }
            StoredValue::Extent(extent) => {
                out.push(VALUE_EXTENT);
                extent.unit.encode(&mut out);
                encode_varint(extent.offset as usize, &mut out);
                encode_varint(extent.length as usize, &mut out);
            }
        }
    }
    end(out)
}

/// The payload of an inner page. `bytes_hint`: about how long it will be.
pub(super) fn encode_inner<'a>(
    level: u8,
    bytes_hint: usize,
    entries: impl ExactSizeIterator<Item = (&'a [u8], Pointer)>,
) -> Vec<u8> {
    assert!((1..=LEVEL_MAX).contains(&level));
    let mut out = begin(KIND_INNER, level, entries.len(), bytes_hint);
    let mut before: &[u8] = &[];
    for (key, pointer) in entries {
        encode_key(before, key, &mut out);
        before = key;
        pointer.encode(&mut out);
    }
    end(out)
}

fn begin(kind: u8, level: u8, count: usize, bytes_hint: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes_hint);
    out.extend_from_slice(&[kind, VERSION, level]);
    out.extend_from_slice(&u16::try_from(count).expect("a page has few entries").to_be_bytes());
    out
}

fn end(out: Vec<u8>) -> Vec<u8> {
    assert!(out.len() <= PAGE_BYTES_MAX, "T3: a page of {} bytes", out.len());
    out
}

fn encode_key(before: &[u8], key: &[u8], out: &mut Vec<u8>) {
    assert!(key.len() <= KEY_MAX);
    let shared = shared_bytes(before, key);
    encode_varint(shared, out);
    encode_varint(key.len() - shared, out);
    out.extend_from_slice(&key[shared..]);
}

fn encode_varint(number: usize, out: &mut Vec<u8>) {
    assert!(number <= VARINT_MAX);
    let mut rest = number;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn varint_bytes(number: usize) -> usize {
    match number {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        _ => 3,
    }
}

/// What the header of a page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// 0: a leaf.
    pub level: u8,
    /// Number of entries. At most a quarter of the payload's bytes.
    pub count: usize,
}

/// Reads the header of a page.
pub(super) fn decode_header(payload: &[u8]) -> Result<Header, DecodeError> {
    let mut reader = Reader { payload, at: 0 };
    let header = reader.take(HEADER_BYTES, "header")?;
    let kind = header[KIND_AT];
    if kind != KIND_LEAF && kind != KIND_INNER {
        return Err(damaged(KIND_AT, "kind of page", "76 or 73", kind));
    }
    if header[VERSION_AT] > VERSION {
        return Err(DecodeError::Newer { offset: VERSION_AT, what: "page version", found: header[VERSION_AT].into() });
    }
    if header[VERSION_AT] != VERSION {
        return Err(damaged(VERSION_AT, "page version", VERSION, header[VERSION_AT]));
    }
    let level = header[LEVEL_AT];
    match kind {
        KIND_LEAF if level != 0 => return Err(damaged(LEVEL_AT, "level of a leaf", 0, level)),
        KIND_INNER if !(1..=LEVEL_MAX).contains(&level) => {
            return Err(damaged(LEVEL_AT, "level of an inner page", "1 to 63", level));
        }
        _ => {}
    }
    let count = u16::from_be_bytes([header[COUNT_AT], header[COUNT_AT + 1]]);
    let count_max = (payload.len() - HEADER_BYTES) / 4;
    if !(1..=count_max).contains(&usize::from(count)) {
        return Err(damaged(COUNT_AT, "number of entries", format!("1 to {count_max}"), count));
    }
    Ok(Header { level, count: count.into() })
}

/// Reads the entries of a leaf.
pub(super) fn decode_leaf(payload: &[u8], mut visit: impl FnMut(&[u8], StoredValue<'_>)) -> Result<(), DecodeError> {
    let Header { level, count } = decode_header(payload)?;
    assert!(level == 0, "the caller looked at the header");
    let mut reader = Reader { payload, at: HEADER_BYTES };
    let mut key = Vec::new();
    for i in 0..count {
        reader.key(&mut key, i == 0, 1)?;
        let kind_at = reader.at;
        let value = match reader.take(1, "kind of value")?[0] {
            VALUE_BYTES => {
                let length = reader.varint("length of value", 0, VALUE_INLINE_MAX)?;
                StoredValue::Bytes(reader.take(length, "value")?)
            }
            VALUE_EXTENT => {
                let unit = reader.pointer()?;
                let offset = reader.varint("offset of extent", 0, VALUE_MAX - 1)?;
                let length = reader.varint("length of extent", 1, VALUE_MAX - offset)?;
                StoredValue::Extent(Extent { unit, offset: offset as u32, length: length as u32 })
            }
            kind => {
                return Err(DecodeError::Newer { offset: kind_at, what: "kind of value", found: kind.into() });
            }
        };
        visit(&key, value);
    }
    reader.end()
}

/// Reads the entries of an inner page.
pub(super) fn decode_inner(payload: &[u8], mut visit: impl FnMut(&[u8], Pointer)) -> Result<(), DecodeError> {
    let Header { level, count } = decode_header(payload)?;
    assert!(level > 0, "the caller looked at the header");
    let mut reader = Reader { payload, at: HEADER_BYTES };
    let mut key = Vec::new();
    for i in 0..count {
        reader.key(&mut key, i == 0, usize::from(i > 0))?;
        let key_at = reader.at;
        if i == 0 && !key.is_empty() {
            return Err(damaged(key_at, "length of an inner page's first key", 0, key.len() as u16));
        }
        visit(&key, reader.pointer()?);
    }
    reader.end()
}

struct Reader<'a> {
    payload: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let rest = &self.payload[self.at..];
        if rest.len() < bytes {
            return Err(DecodeError::Damaged {
                offset: self.at,
                what,
                expected: format!("{bytes} bytes"),
                found: rest.len() as u64,
            });
        }
        self.at += bytes;
        Ok(&rest[..bytes])
    }

    fn varint(&mut self, what: &'static str, least: usize, most: usize) -> Result<usize, DecodeError> {
        let offset = self.at;
        let mut number = 0;
        let mut canonical = false;
        for shift in [0, 7, 14] {
            let byte = self.take(1, what)?[0];
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                canonical = shift == 0 || byte != 0;
                break;
            }
        }
        if !canonical {
            return Err(damaged(offset, what, "a varint of 1 to 3 bytes, as short as possible", number as u32));
        }
        if !(least..=most).contains(&number) {
            return Err(damaged(offset, what, format!("{least} to {most}"), number as u32));
        }
        Ok(number)
    }

    /// Turns `key` from the key before into the next one.
    fn key(&mut self, key: &mut Vec<u8>, is_first: bool, length_min: usize) -> Result<(), DecodeError> {
        let shared = self.varint("shared bytes of key", 0, key.len())?;
        let rest_min = length_min.saturating_sub(shared);
        let rest_at = self.at;
        let rest = self.varint("further bytes of key", rest_min, KEY_MAX - shared)?;
        let rest = self.take(rest, "key")?;
        // The bytes after the shared ones must differ, and rise.
        if !is_first && rest.first() <= key.get(shared) {
            return Err(damaged(
                rest_at,
                "order of keys",
                "a key above the one before",
                rest.first().map_or(0, |b| *b),
            ));
        }
        key.truncate(shared);
        key.extend_from_slice(rest);
        Ok(())
    }

    fn pointer(&mut self) -> Result<Pointer, DecodeError> {
        let offset = self.at;
        let bytes = self.take(POINTER_BYTES, "pointer")?.try_into().expect("as many as asked for");
        Pointer::decode(bytes).ok_or(DecodeError::Newer {
            offset,
            what: "kind of pointer",
            found: u64::from(bytes[12]),
        })
    }

    fn end(&self) -> Result<(), DecodeError> {
        match self.payload.len() - self.at {
            0 => Ok(()),
            found => Err(damaged(self.at, "bytes after the last entry", 0, found as u32)),
        }
    }
}

fn damaged(offset: usize, what: &'static str, expected: impl ToString, found: impl Into<u64>) -> DecodeError {
    DecodeError::Damaged { offset, what, expected: expected.to_string(), found: found.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Codec, SegmentNo};
    use proptest::prelude::*;

    fn pointer() -> Pointer {
        Pointer {
            segment: SegmentNo(0x0102_0304_0506),
            offset: 0x0a0b0c,
            length: 0x0d0e0f,
            codec: Codec::Lz4,
            shrunk: 0,
            checksum: 0x1011_1213_1415_1617_1819_1a1b_1c1d_1e1f,
        }
    }

    const GOLDEN_POINTER: [u8; POINTER_BYTES] = [
        1, 2, 3, 4, 5, 6, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 1, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f,
    ];

    fn golden_leaf() -> (Vec<u8>, Vec<(Vec<u8>, StoredValue<'static>)>) {
        let extent = Extent { unit: pointer(), offset: 300, length: 65_000 };
        let entries = vec![
            (b"apple".to_vec(), StoredValue::Bytes(b"red")),
            (b"apply".to_vec(), StoredValue::Extent(extent)),
            (b"b".to_vec(), StoredValue::Bytes(b"")),
        ];
        let mut bytes = b"L\x01\x00\x00\x03".to_vec();
        bytes.extend_from_slice(b"\x00\x05apple\x00\x03red");
        bytes.extend_from_slice(b"\x04\x01y\x01");
        bytes.extend_from_slice(&GOLDEN_POINTER);
        bytes.extend_from_slice(b"\xac\x02\xe8\xfb\x03");
        bytes.extend_from_slice(b"\x00\x01b\x00\x00");
        (bytes, entries)
    }

    fn golden_inner() -> Vec<u8> {
        let mut bytes = b"I\x01\x02\x00\x02\x00\x00".to_vec();
        bytes.extend_from_slice(&GOLDEN_POINTER);
        bytes.extend_from_slice(b"\x00\x02bc");
        bytes.extend_from_slice(&GOLDEN_POINTER);
        bytes
    }

    fn decode(payload: &[u8]) -> Result<usize, DecodeError> {
        let mut bytes = 0;
        match decode_header(payload)?.level {
            0 => decode_leaf(payload, |key, _| bytes += key.len())?,
            _ => decode_inner(payload, |key, _| bytes += key.len())?,
        }
        Ok(bytes)
    }

    #[test]
    fn golden_bytes_of_a_leaf() {
        let (golden, entries) = golden_leaf();
        let encoded = encode_leaf(0, entries.iter().map(|(key, value)| (&key[..], *value)));
        assert_eq!(encoded, golden);
        let mut decoded = Vec::new();
        decode_leaf(&golden, |key, value| {
            assert_eq!(value, entries[decoded.len()].1);
            decoded.push(key.to_vec());
        })
        .unwrap();
        assert!(decoded.iter().eq(entries.iter().map(|(key, _)| key)));
    }

    #[test]
    fn golden_bytes_of_an_inner_page() {
        let golden = golden_inner();
        let entries: [(&[u8], Pointer); 2] = [(b"", pointer()), (b"bc", pointer())];
        assert_eq!(encode_inner(2, 0, entries.into_iter()), golden);
        let mut decoded = Vec::new();
        decode_inner(&golden, |key, pointer| decoded.push((key.to_vec(), pointer))).unwrap();
        assert_eq!(decoded, [(b"".to_vec(), pointer()), (b"bc".to_vec(), pointer())]);
        assert_eq!(decode_header(&golden), Ok(Header { level: 2, count: 2 }));
    }

    #[test]
    fn costs_are_what_encoding_takes() {
        let (golden, entries) = golden_leaf();
        let StoredValue::Extent(extent) = entries[1].1 else { unreachable!() };
        let cost = HEADER_BYTES
            + key_cost(0, 5)
            + bytes_cost(3)
            + key_cost(4, 5)
            + extent_cost(&extent)
            + key_cost(0, 1)
            + bytes_cost(0);
        assert_eq!(cost, golden.len());
        assert_eq!(HEADER_BYTES + key_cost(0, 0) + key_cost(0, 2) + 2 * CHILD_COST, golden_inner().len());
        let longest = Extent { unit: pointer(), offset: 1 << 14, length: VALUE_MAX as u32 };
        assert_eq!(extent_cost(&longest), EXTENT_COST_MAX);
    }

    /// The first byte that is wrong, and whether a newer version might have written it.
    fn refusal(payload: &[u8]) -> (usize, bool) {
        match decode(payload).unwrap_err() {
            DecodeError::Newer { offset, .. } => (offset, true),
            DecodeError::Damaged { offset, .. } => (offset, false),
        }
    }

    #[test]
    fn what_is_not_a_page_is_refused() {
        let (leaf, _) = golden_leaf();
        let with = |golden: &[u8], at: usize, byte: u8| {
            let mut bytes = golden.to_vec();
            bytes[at] = byte;
            bytes
        };
        assert_eq!(refusal(b""), (0, false));
        assert_eq!(refusal(&with(&leaf, 0, b'X')), (0, false), "kind of page");
        assert_eq!(refusal(&with(&leaf, 1, 2)), (1, true), "newer version");
        assert_eq!(refusal(&with(&leaf, 1, 0)), (1, false), "no version");
        assert_eq!(refusal(&with(&leaf, 2, 1)), (2, false), "a leaf above level 0");
        assert_eq!(refusal(&with(&golden_inner(), 2, 0)), (2, false), "an inner page at level 0");
        assert_eq!(refusal(&with(&golden_inner(), 2, 64)), (2, false), "too high");
        assert_eq!(refusal(&with(&leaf, 3, 0xff)), (3, false), "more entries than bytes");
        assert_eq!(refusal(b"L\x01\x00\x00\x00"), (3, false), "no entries");
        assert_eq!(refusal(&with(&leaf, 5, 1)), (5, false), "shares bytes with nothing");
        assert_eq!(refusal(&with(&leaf, 12, 7)), (12, true), "newer kind of value");
        assert_eq!(refusal(&with(&leaf, 19, b'e')), (18, false), "the same key again");
        assert_eq!(refusal(&with(&leaf, 19, b'a')), (18, false), "keys fall");
        assert_eq!(refusal(&with(&leaf, 33, 2)), (21, true), "newer codec");
        assert_eq!(refusal(&with(&golden_inner(), 37, 0)), (37, false), "an empty separator");
        let mut longer = leaf.clone();
        longer.push(0);
        assert_eq!(refusal(&longer), (leaf.len(), false), "trailing byte");
        for cut in 0..leaf.len() {
            assert!(decode(&leaf[..cut]).is_err(), "cut to {cut}");
        }
        assert_eq!(refusal(b"L\x01\x00\x00\x01\x00\x81\x00a\x00\x00"), (6, false), "varint longer than needed");
        assert_eq!(refusal(b"L\x01\x00\x00\x01\x00\xff\xff\xff\x00"), (6, false), "varint without end");
    }

    fn page() -> impl Strategy<Value = Vec<u8>> {
        let (leaf, _) = golden_leaf();
        prop_oneof![Just(leaf), Just(golden_inner())]
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn any_bytes_after_a_header_are_decoded_or_refused(
            leaf in any::<bool>(),
            bytes in prop::collection::vec(prop_oneof![0u8..4, any::<u8>()], 0..200),
        ) {
            let mut payload = if leaf { b"L\x01\x00\x00".to_vec() } else { b"I\x01\x01\x00".to_vec() };
            payload.extend_from_slice(&bytes);
            if let Ok(decoded) = decode(&payload) {
                prop_assert!(decoded <= payload.len() * (KEY_MAX / 4));
            }
        }

        #[test]
        fn any_damage_is_decoded_or_refused(mut bytes in page(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = decode(&bytes);
        }

        #[test]
        fn leaves_come_back(
            entries in prop::collection::btree_map(
                prop::collection::vec(0u8..3, 1..40),
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..40).prop_map(Ok),
                    (0u32..VALUE_MAX as u32 - 1, 1u32..2).prop_map(Err),
                ],
                1..60,
            ),
        ) {
            let values: Vec<_> = entries
                .iter()
                .map(|(key, value)| match value {
                    Ok(bytes) => (&key[..], StoredValue::Bytes(bytes)),
                    Err((offset, length)) => {
                        (&key[..], StoredValue::Extent(Extent { unit: pointer(), offset: *offset, length: *length }))
                    }
                })
                .collect();
            let payload = encode_leaf(0, values.iter().copied());
            let mut expected = values.iter();
            decode_leaf(&payload, |key, value| assert_eq!(Some(&(key, value)), expected.next())).unwrap();
            prop_assert!(expected.next().is_none());
        }
    }
}
