//! The redo in a commit: what changed, key by key. Pure.
//!
//! A run of changes with strictly rising keys, each:
//!
//! | bytes | field |
//! |---|---|
//! | 1 | 0: delete, 1: put bytes, 2: put an extent |
//! | varint | how many bytes the key shares with the one before |
//! | varint + n | the rest of the key |
//! | | bytes: varint length + the bytes; extent: pointer (29), varint offset, varint length |
//!
//! Replaying it needs the tree alone and follows no pointer: an extent may be put here and be gone
//! a few commits later.

use crate::log::{Fields, Malformed, POINTER_BYTES, Pointer, put_varint};
use crate::tree::{Extent, KEY_MAX, Key, VALUE_MAX, Value};

const DELETE: u8 = 0;
const PUT_BYTES: u8 = 1;
const PUT_EXTENT: u8 = 2;

/// A key and its new value; none: the key is gone.
pub type Change = (Key, Option<Value>);

/// Most bytes that the encoding adds to the key's and the value's own.
pub const OVERHEAD_BYTES: usize = 10;

/// Most bytes of an encoded extent.
pub const EXTENT_BYTES: usize = POINTER_BYTES + 6;

/// What a change takes, as if its key shared nothing.
pub fn cost(key_bytes: usize, value: Option<&Value>) -> usize {
    let value = match value {
        None => 0,
        Some(Value::Bytes(bytes)) => bytes.len(),
        Some(Value::Extent(_)) => EXTENT_BYTES,
    };
    OVERHEAD_BYTES + key_bytes + value
}

/// The bytes of these changes.
pub fn encode<'a>(changes: impl Iterator<Item = (&'a Key, &'a Option<Value>)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut before: &[u8] = &[];
    for (key, value) in changes {
        assert!(before.is_empty() || before < &key[..], "keys rise");
        out.push(match value {
            None => DELETE,
            Some(Value::Bytes(_)) => PUT_BYTES,
            Some(Value::Extent(_)) => PUT_EXTENT,
        });
        let shared = before.iter().zip(key.iter()).take_while(|(a, b)| a == b).count();
        put_varint(&mut out, shared as u64);
        put_varint(&mut out, (key.len() - shared) as u64);
        out.extend_from_slice(&key[shared..]);
        match value {
            None => {}
            Some(Value::Bytes(bytes)) => {
                put_varint(&mut out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
            Some(Value::Extent(extent)) => {
                extent.unit.encode(&mut out);
                put_varint(&mut out, extent.offset.into());
                put_varint(&mut out, extent.length.into());
            }
        }
        before = key;
    }
    out
}

/// What a key's value becomes, as it is read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put<'b> {
    /// It is gone.
    Nothing,
    /// At most [`VALUE_MAX`].
    Bytes(&'b [u8]),
    Extent(Extent),
}

/// Reads the changes back: `visit` gets each, with its key, in order. (Not a list of them: to make what each takes
/// apart was much of what opening took.)
pub fn decode(body: &[u8], mut visit: impl FnMut(&[u8], Put<'_>)) -> Result<(), Malformed> {
    let mut fields = Fields(body);
    let mut key: Vec<u8> = Vec::with_capacity(KEY_MAX);
    while !fields.0.is_empty() {
        let kind = fields.u8("redo: kind")?;
        let shared = fields.varint("redo: shared")? as usize;
        let rest = fields.varint("redo: key length")? as usize;
        let rest = fields.bytes(rest, "redo: key")?;
        let replaced = key.get(shared..).ok_or(Malformed { what: "redo: shared" })?;
        // None is empty, and so the first rises, too.
        if shared + rest.len() > KEY_MAX || rest <= replaced {
            return Err(Malformed { what: "redo: key" });
        }
        key.truncate(shared);
        key.extend_from_slice(rest);
        let put = match kind {
            DELETE => Put::Nothing,
            PUT_BYTES => {
                let length = fields.varint("redo: length")? as usize;
                if length > VALUE_MAX {
                    return Err(Malformed { what: "redo: length" });
                }
                Put::Bytes(fields.bytes(length, "redo: value")?)
            }
            PUT_EXTENT => {
                let unit = Pointer::decode(&fields.array::<POINTER_BYTES>("redo: pointer")?);
                let unit = unit.ok_or(Malformed { what: "redo: pointer" })?;
                let offset = fields.varint("redo: extent")?;
                let length = fields.varint("redo: extent")?;
                if length == 0 || offset.checked_add(length).is_none_or(|end| end > VALUE_MAX as u64) {
                    return Err(Malformed { what: "redo: extent" });
                }
                Put::Extent(Extent { unit, offset: offset as u32, length: length as u32 })
            }
            _ => return Err(Malformed { what: "redo: kind" }),
        };
        visit(&key, put);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Codec, SegmentNo};
    use bytes::Bytes;

    fn encode_all(changes: &[Change]) -> Vec<u8> {
        encode(changes.iter().map(|(key, value)| (key, value)))
    }

    fn decode_all(body: &[u8]) -> Result<Vec<Change>, Malformed> {
        let mut changes = Vec::new();
        decode(body, |key, put| {
            let value = match put {
                Put::Nothing => None,
                Put::Bytes(bytes) => Some(Value::Bytes(Bytes::copy_from_slice(bytes))),
                Put::Extent(extent) => Some(Value::Extent(extent)),
            };
            changes.push((key.into(), value));
        })?;
        Ok(changes)
    }

    fn sample() -> Vec<Change> {
        let unit = Pointer { segment: SegmentNo(1), offset: 2, length: 3, codec: Codec::Raw, shrunk: 0, checksum: 4 };
        vec![
            (Key::from(*b"ab"), Some(Value::Bytes(Bytes::from_static(b"xyz")))),
            (Key::from(*b"abc"), None),
            (Key::from(*b"b"), Some(Value::Extent(Extent { unit, offset: 200, length: 5 }))),
        ]
    }

    #[test]
    fn golden_bytes() {
        let mut golden = b"\x01\0\x02ab\x03xyz\0\x02\x01c\x02\0\x01b\0\0\0\0\0\x01\0\0\x02\0\0\x03\0".to_vec();
        golden.extend_from_slice(&4u128.to_be_bytes());
        golden.extend_from_slice(b"\xc8\x01\x05");
        assert_eq!(encode_all(&sample()), golden);
        assert_eq!(decode_all(&golden), Ok(sample()));
    }

    #[test]
    fn keys_that_do_not_rise_are_refused() {
        assert_eq!(decode_all(b"\0\0\x01a\0\x01\x01b"), Ok(vec![(b"a"[..].into(), None), (b"ab"[..].into(), None)]));
        for body in
            [&b"\0\0\0"[..], b"\0\0\x01b\0\0\x01a", b"\0\0\x01a\0\x01\0", b"\0\0\x02ac\0\x01\x01b", b"\0\x01\x01a"]
        {
            assert!(decode_all(body).is_err(), "{body:?}");
        }
    }

    #[test]
    fn any_bytes_are_changes_or_an_error() {
        let bytes = encode_all(&sample());
        for at in 0..bytes.len() {
            assert!(decode_all(&bytes[..at]).is_err() || at == 0 || decode_all(&bytes[..at]).unwrap().len() < 3);
            for flip in [1, 0x80, 0xff] {
                let mut wrong = bytes.clone();
                wrong[at] ^= flip;
                let _either = decode_all(&wrong);
            }
        }
    }
}
