//! A commit as stored. Pure; the same bytes on every backend.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `kivafsC1` |
//! | 8 | 2 | format version, 2 |
//! | 10 | 1 | codec of the body |
//! | 11 | 1 | bit 0: a checkpoint record follows; bit 1: a bucket's record follows |
//! | 12 | 4 | length of the whole commit in bytes |
//! | 16 | 8 | incompatible features: unknown bits refuse the store. 1: pointers may tell how far what they name is compressed; 2: the list of the segment table may tell how many bytes of pages there are |
//! | 24 | 8 | read-only-compatible features: unknown bits refuse writing |
//! | 32 | 16 | store id |
//! | 48 | 8 | epoch |
//! | 56 | 16 | the epoch's random id |
//! | 72 | 8 | number within the epoch, from 1 |
//! | 80 | 8 | sequence over the life of the store |
//! | 88 | 8 | own position in the log's address space (local: in the ring; bucket: 0) |
//! | 96 | 16 | checksum of the predecessor |
//! | 112 | 8 | wall time, nanoseconds since 1970 |
//! | 120 | 8 | `redo_from`: sequence of the first commit whose redo is not in the checkpoint |
//! | 128 | 8 | sequence of the commit that carries the checkpoint record it builds on |
//! | 136 | 8 | data numbers below this may be in use (R11) |
//! | 144 | 4 | number of births |
//! | 148 | 4 | length of the body before compression |
//! | 152 | 16 | XXH3-128 of the whole commit, with these 16 bytes zero |
//! | 168 | | checkpoint record, if there is one |
//! | | | a bucket's record, if there is one: see `remote::record` |
//! | | 12 each | births: data segments opened since the last commit: number (8), place (4) |
//! | | | body: the redo of the store layer, to the commit's end |
//!
//! Checkpoint record:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `as_of`: the sequence up to which the checkpoint holds everything |
//! | 2 | number of roots |
//! | 2 + 29 each | roots: kind (1: the tree, 2: the segment table), 1 if there is a page, pointer |
//! | 2 | number of places |
//! | 12 each | places of the segments that the roots lie in: number (8), place (4) |
//!
//! All numbers little-endian, pointers as in `pointer`.

use super::bytes::{Fields, Malformed};
use super::codec;
use super::now_ns;
use super::pointer::{Codec, POINTER_BYTES, Pointer, SegmentNo, Sequence, checksum};
use super::remote::Record;
use bytes::Bytes;

/// Length of the fixed part.
pub const HEADER_BYTES: usize = 168;
/// Bytes of one birth.
pub const BIRTH_BYTES: usize = 12;
const MAGIC: &[u8; 8] = b"kivafsC1";
const VERSION: u16 = 2;
/// Those of every commit now. Without the first no pointer tells that, without the second no list; what there is means
/// what it says.
const FEATURES: u64 = 3;
const FEATURES_AT: usize = 16;
const POSITION_AT: usize = 88;
const CHECKSUM_AT: usize = 152;
const FLAG_CHECKPOINT: u8 = 1;
const FLAG_REMOTE: u8 = 2;
const ROOT_BYTES: usize = 2 + POINTER_BYTES;
/// Bodies shorter than this stay as they are: nothing is gained within one block.
const COMPRESS_FROM: usize = 2048;

/// Which root a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootKind {
    /// The tree.
    Tree,
    /// The segment table.
    Table,
}

/// A data segment and where its backend keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// The segment.
    pub number: SegmentNo,
    /// Its slot (local). In a bucket how many bytes the object has, as far as the segment table knows; 0 elsewhere, and
    /// where that is not known.
    pub place: u32,
}

/// A checkpoint: everything up to a commit, as roots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// It holds what commits up to this one did.
    pub as_of: Sequence,
    /// The roots; none: empty.
    pub roots: Vec<(RootKind, Option<Pointer>)>,
    /// Where the segments of the roots themselves are.
    pub places: Vec<Birth>,
}

impl Checkpoint {
    /// The checkpoint of a new store.
    pub fn empty() -> Checkpoint {
        Checkpoint { as_of: Sequence(0), roots: Vec::new(), places: Vec::new() }
    }

    /// The root of that kind, if there is one.
    pub fn root(&self, kind: RootKind) -> Option<Pointer> {
        self.roots.iter().find(|(of, _)| *of == kind).and_then(|(_, pointer)| *pointer)
    }
}

/// A commit's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The store's identity.
    pub store: [u8; 16],
    /// The epoch.
    pub epoch: u64,
    /// The epoch's random identity.
    pub epoch_id: [u8; 16],
    /// Number within the epoch, from 1.
    pub number: u64,
    /// Number over the life of the store.
    pub sequence: Sequence,
    /// Where it lies.
    pub position: u64,
    /// Checksum of the commit before.
    pub predecessor: u128,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// First commit whose redo the checkpoint lacks.
    pub redo_from: Sequence,
    /// The commit that carries the checkpoint record it builds on.
    pub checkpoint_in: Sequence,
    /// Data numbers below this may be in use.
    pub reservation: u64,
    /// The record, if this is that commit.
    pub checkpoint: Option<Checkpoint>,
    /// In a bucket.
    pub remote: Option<Record>,
    /// Segments opened since the last commit; in a bucket, those of repeated commits first.
    pub births: Vec<Birth>,
    /// The store layer's redo; in a bucket, that of repeated commits first.
    pub body: Vec<u8>,
}

/// Why bytes are not a commit that this code can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotACommit {
    /// No commit begins here.
    Absent,
    /// One begins here, but is torn or damaged.
    Torn(&'static str),
    /// Whole, but in the format of another version.
    OtherVersion(String),
}

/// The fixed part, before the checksum has been looked at: enough to know how much to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// Length of the whole commit.
    pub length: u32,
    /// The sequence that it claims.
    pub sequence: Sequence,
    /// The position that it claims.
    pub position: u64,
}

/// Reads the outline of what may be a commit of this store.
pub fn outline(header: &[u8], store: &[u8; 16]) -> Option<Outline> {
    if header.len() < HEADER_BYTES || !header.starts_with(MAGIC) || header[32..48] != store[..] {
        return None;
    }
    let u64_at = |at: usize| Fields(&header[at..]).u64("").ok();
    let length = Fields(&header[12..]).u32("").ok()?;
    (length as usize >= HEADER_BYTES).then_some(Outline {
        length,
        sequence: Sequence(u64_at(80)?),
        position: u64_at(88)?,
    })
}

/// The identity of the store whose commit these bytes begin.
pub fn store_of(header: &[u8]) -> Option<[u8; 16]> {
    let is_commit = header.len() >= HEADER_BYTES && header.starts_with(MAGIC);
    is_commit.then(|| Fields(&header[32..]).array("").ok()).flatten()
}

impl Commit {
    /// The first commit of a new store: an empty checkpoint, whether in a file or (with its record) in
    /// a bucket.
    pub fn first(store: [u8; 16], epoch_id: [u8; 16], remote: Option<Record>) -> Commit {
        Commit {
            store,
            epoch: 1,
            epoch_id,
            number: 1,
            sequence: Sequence(1),
            position: 0,
            predecessor: 0,
            time_ns: now_ns(),
            redo_from: Sequence(1),
            checkpoint_in: Sequence(1),
            reservation: 1,
            checkpoint: Some(Checkpoint::empty()),
            remote,
            births: Vec::new(),
            body: Vec::new(),
        }
    }

    /// Takes its position from its length; answers its bytes and their checksum.
    pub fn encode(&mut self, position_for: impl FnOnce(u64) -> u64) -> (Vec<u8>, u128) {
        let (body_codec, body) = match self.body.len() {
            COMPRESS_FROM.. => codec::encode(&self.body, Codec::Lz4),
            _ => (Codec::Raw, std::borrow::Cow::Borrowed(&self.body[..])),
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + self.births.len() * BIRTH_BYTES + body.len() + 256);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.push(body_codec as u8);
        out.push(
            if self.checkpoint.is_some() { FLAG_CHECKPOINT } else { 0 }
                | if self.remote.is_some() { FLAG_REMOTE } else { 0 },
        );
        out.extend_from_slice(&[0; 4]);
        assert_eq!(out.len(), FEATURES_AT);
        out.extend_from_slice(&FEATURES.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.store);
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.epoch_id);
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.sequence.0.to_le_bytes());
        assert_eq!(out.len(), POSITION_AT);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&self.predecessor.to_le_bytes());
        out.extend_from_slice(&self.time_ns.to_le_bytes());
        out.extend_from_slice(&self.redo_from.0.to_le_bytes());
        out.extend_from_slice(&self.checkpoint_in.0.to_le_bytes());
        out.extend_from_slice(&self.reservation.to_le_bytes());
        out.extend_from_slice(&(self.births.len() as u32).to_le_bytes());
        out.extend_from_slice(&(self.body.len() as u32).to_le_bytes());
        assert_eq!(out.len(), CHECKSUM_AT);
        out.extend_from_slice(&[0; 16]);
        assert_eq!(out.len(), HEADER_BYTES);
        if let Some(checkpoint) = &self.checkpoint {
            encode_checkpoint(checkpoint, &mut out);
        }
        if let Some(record) = &self.remote {
            record.encode(&mut out);
        }
        encode_births(&self.births, &mut out);
        out.extend_from_slice(&body);
        let length = u32::try_from(out.len()).expect("a commit is bounded by the ring");
        out[12..16].copy_from_slice(&length.to_le_bytes());
        self.position = position_for(length.into());
        out[POSITION_AT..POSITION_AT + 8].copy_from_slice(&self.position.to_le_bytes());
        let sum = checksum(&out);
        out[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        (out, sum)
    }

    /// Reads a commit of this store; `bytes` are as long as its outline says. Answers its checksum
    /// too.
    pub fn decode(bytes: Vec<u8>, store: &[u8; 16]) -> Result<(Commit, u128), NotACommit> {
        let (mut commit, packed, sum) = Commit::decode_packed(bytes, store)?;
        commit.body = packed.unpack().ok_or(NotACommit::Torn("body"))?.into();
        Ok((commit, sum))
    }

    /// The same, but the body is apart, as it is stored.
    pub fn decode_packed(mut bytes: Vec<u8>, store: &[u8; 16]) -> Result<(Commit, Packed, u128), NotACommit> {
        let outline = outline(&bytes, store).ok_or(NotACommit::Absent)?;
        if bytes.len() != outline.length as usize {
            return Err(NotACommit::Torn("length"));
        }
        let sum = Fields(&bytes[CHECKSUM_AT..]).u128("checksum")?;
        bytes[CHECKSUM_AT..HEADER_BYTES].fill(0);
        if checksum(&bytes) != sum {
            return Err(NotACommit::Torn("checksum"));
        }
        let mut fields = Fields(&bytes[MAGIC.len()..]);
        let version = fields.u16("version")?;
        let body_codec = fields.u8("codec")?;
        let flags = fields.u8("flags")?;
        fields.u32("length")?;
        let incompatible = fields.u64("features")?;
        let read_only = fields.u64("features")?;
        if version != VERSION || incompatible & !FEATURES != 0 || read_only != 0 {
            let what = format!("commit version {version}, feature bits {incompatible:#x}, {read_only:#x}");
            return Err(NotACommit::OtherVersion(what));
        }
        let store = fields.array("store id")?;
        let epoch = fields.u64("epoch")?;
        let epoch_id = fields.array("epoch id")?;
        let number = fields.u64("number")?;
        let sequence = Sequence(fields.u64("sequence")?);
        let position = fields.u64("position")?;
        let predecessor = fields.u128("predecessor")?;
        let time_ns = fields.u64("time")?;
        let redo_from = Sequence(fields.u64("redo_from")?);
        let checkpoint_in = Sequence(fields.u64("checkpoint")?);
        let reservation = fields.u64("reservation")?;
        let births = fields.u32("births")?;
        let body_bytes = fields.u32("body length")?;
        fields.u128("checksum")?;
        let checkpoint = if flags & FLAG_CHECKPOINT != 0 { Some(decode_checkpoint(&mut fields)?) } else { None };
        let remote = if flags & FLAG_REMOTE != 0 { Some(Record::decode(&mut fields)?) } else { None };
        let births = decode_births(&mut fields, births as usize)?;
        let codec = Codec::from_number(body_codec).ok_or(NotACommit::Torn("body"))?;
        let body_at = bytes.len() - fields.0.len();
        let commit = Commit {
            store,
            epoch,
            epoch_id,
            number,
            sequence,
            position,
            predecessor,
            time_ns,
            redo_from,
            checkpoint_in,
            reservation,
            checkpoint,
            remote,
            births,
            body: Vec::new(),
        };
        let stored = Bytes::from(bytes).slice(body_at..);
        Ok((commit, Packed { stored, codec, length: body_bytes as usize }, sum))
    }
}

/// The body of a commit, as it is stored. What was compressed may be hundreds of times as long.
#[derive(Clone, Debug)]
pub struct Packed {
    stored: Bytes,
    codec: Codec,
    length: usize,
}

impl Packed {
    /// The body. `None`: it is not of that codec and length.
    pub fn unpack(&self) -> Option<Bytes> {
        let body = match self.codec {
            Codec::Raw => self.stored.clone(),
            codec => codec::decode(&self.stored, codec, self.length)?.into_owned().into(),
        };
        (body.len() == self.length).then_some(body)
    }
}

fn encode_births(births: &[Birth], out: &mut Vec<u8>) {
    for birth in births {
        out.extend_from_slice(&birth.number.0.to_le_bytes());
        out.extend_from_slice(&birth.place.to_le_bytes());
    }
}

fn decode_births(fields: &mut Fields<'_>, count: usize) -> Result<Vec<Birth>, Malformed> {
    let bytes = count.checked_mul(BIRTH_BYTES).ok_or(Malformed { what: "births" })?;
    let mut each = Fields(fields.bytes(bytes, "births")?);
    (0..count).map(|_| Ok(Birth { number: SegmentNo(each.u64("birth")?), place: each.u32("birth")? })).collect()
}

fn encode_checkpoint(checkpoint: &Checkpoint, out: &mut Vec<u8>) {
    out.extend_from_slice(&checkpoint.as_of.0.to_le_bytes());
    out.extend_from_slice(&(checkpoint.roots.len() as u16).to_le_bytes());
    for (kind, pointer) in &checkpoint.roots {
        out.push(match kind {
            RootKind::Tree => 1,
            RootKind::Table => 2,
        });
        out.push(u8::from(pointer.is_some()));
        match pointer {
            Some(pointer) => pointer.encode(out),
            None => out.extend_from_slice(&[0; POINTER_BYTES]),
        }
    }
    out.extend_from_slice(&(checkpoint.places.len() as u16).to_le_bytes());
    encode_births(&checkpoint.places, out);
}

fn decode_checkpoint(fields: &mut Fields<'_>) -> Result<Checkpoint, NotACommit> {
    let as_of = Sequence(fields.u64("checkpoint")?);
    let count = usize::from(fields.u16("roots")?);
    let mut each = Fields(fields.bytes(count * ROOT_BYTES, "roots")?);
    let mut roots = Vec::with_capacity(count);
    for _ in 0..count {
        let kind = match each.u8("root")? {
            1 => RootKind::Tree,
            2 => RootKind::Table,
            other => return Err(NotACommit::OtherVersion(format!("root of kind {other}"))),
        };
        let there = each.u8("root")? != 0;
        let pointer = each.array::<POINTER_BYTES>("root")?;
        let pointer = match there {
            true => Some(Pointer::decode(&pointer).ok_or(NotACommit::Torn("root pointer"))?),
            false => None,
        };
        roots.push((kind, pointer));
    }
    let places = usize::from(fields.u16("places")?);
    Ok(Checkpoint { as_of, roots, places: decode_births(fields, places)? })
}

impl From<Malformed> for NotACommit {
    fn from(malformed: Malformed) -> NotACommit {
        NotACommit::Torn(malformed.what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: [u8; 16] = *b"0123456789abcdef";

    fn sample(body: Vec<u8>) -> Commit {
        Commit {
            store: STORE,
            epoch: 2,
            epoch_id: [9; 16],
            number: 3,
            sequence: Sequence(4),
            position: 0x3000,
            predecessor: 5,
            time_ns: 6,
            redo_from: Sequence(7),
            checkpoint_in: Sequence(8),
            reservation: 10,
            checkpoint: Some(Checkpoint {
                as_of: Sequence(6),
                roots: vec![
                    (
                        RootKind::Tree,
                        Some(Pointer {
                            segment: SegmentNo(1),
                            offset: 2,
                            length: 3,
                            codec: Codec::Raw,
                            shrunk: 0,
                            checksum: 4,
                        }),
                    ),
                    (RootKind::Table, None),
                ],
                places: vec![Birth { number: SegmentNo(1), place: 0 }],
            }),
            remote: None,
            births: vec![Birth { number: SegmentNo(11), place: 12 }],
            body,
        }
    }

    #[test]
    fn golden_bytes() {
        let (bytes, sum) = sample(b"redo".to_vec()).encode(|_| 0x3000);
        let mut golden = b"kivafsC1\x02\0\0\x01".to_vec();
        golden.extend_from_slice(&(HEADER_BYTES as u32 + 8 + 2 + 2 * 31 + 2 + 12 + 12 + 4).to_le_bytes());
        golden.extend_from_slice(b"\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        golden.extend_from_slice(&STORE);
        golden.extend_from_slice(b"\x02\0\0\0\0\0\0\0");
        golden.extend_from_slice(&[9; 16]);
        golden.extend_from_slice(b"\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\0\x30\0\0\0\0\0\0");
        golden.extend_from_slice(&5u128.to_le_bytes());
        golden.extend_from_slice(b"\x06\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x0a\0\0\0\0\0\0\0");
        golden.extend_from_slice(b"\x01\0\0\0\x04\0\0\0");
        golden.extend_from_slice(&sum.to_le_bytes());
        golden.extend_from_slice(b"\x06\0\0\0\0\0\0\0\x02\0\x01\x01\0\0\0\0\0\x01\0\0\x02\0\0\x03\0");
        golden.extend_from_slice(&4u128.to_be_bytes());
        golden.extend_from_slice(b"\x02\0");
        golden.extend_from_slice(&[0; 29]);
        golden.extend_from_slice(b"\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0\x0c\0\0\0redo");
        assert_eq!(bytes, golden);
        assert_eq!(Commit::decode(bytes, &STORE), Ok((sample(b"redo".to_vec()), sum)));
    }

    #[test]
    fn each_flipped_byte_and_each_cut_is_noticed() {
        for body in [b"redo".to_vec(), vec![b'x'; 5000]] {
            let (bytes, _) = sample(body).encode(|_| 0x3000);
            for at in 0..bytes.len() {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1;
                assert!(Commit::decode(wrong, &STORE).is_err(), "byte {at}");
                assert!(Commit::decode(bytes[..at].to_vec(), &STORE).is_err(), "cut at {at}");
            }
        }
    }

    #[test]
    fn features_that_nobody_knows_refuse_the_store() {
        let with = |features: u64| {
            let (mut bytes, _) = sample(b"redo".to_vec()).encode(|_| 0x3000);
            bytes[FEATURES_AT..FEATURES_AT + 8].copy_from_slice(&features.to_le_bytes());
            bytes[CHECKSUM_AT..HEADER_BYTES].fill(0);
            let sum = checksum(&bytes);
            bytes[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
            Commit::decode(bytes, &STORE)
        };
        assert!((0..4).all(|features| with(features).is_ok()));
        assert!(matches!(with(4), Err(NotACommit::OtherVersion(_))), "{:?}", with(4));
        assert!(matches!(with(1 << 63 | 1), Err(NotACommit::OtherVersion(_))));
    }

    #[test]
    fn a_buckets_record_comes_back() {
        let record = crate::log::remote::record_sample();
        let mut encoded = Vec::new();
        record.encode(&mut encoded);
        let (bytes, sum) = Commit { remote: Some(record.clone()), ..sample(b"redo".to_vec()) }.encode(|_| 0);
        let (plain, _) = sample(b"redo".to_vec()).encode(|_| 0);
        let at = plain.len() - 4 - BIRTH_BYTES;
        assert_eq!(bytes[11], FLAG_CHECKPOINT | FLAG_REMOTE);
        assert_eq!(bytes[at..at + encoded.len()], encoded);
        let (commit, again) = Commit::decode(bytes, &STORE).expect("just encoded");
        assert_eq!((commit.remote, again), (Some(record), sum));
    }

    #[test]
    fn long_bodies_are_compressed() {
        let mut commit = sample(vec![b'x'; 100_000]);
        let (bytes, sum) = commit.encode(|_| 0x3000);
        assert!(bytes.len() < 2000);
        assert_eq!(Commit::decode(bytes, &STORE), Ok((commit, sum)));
    }
}
