//! What a commit in a bucket says beside what every commit says. Pure.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | length of this record in bytes |
//! | 4 | segment size in bytes |
//! | 4 | page size in bytes |
//! | 8 | log size in bytes: commits take a sixth of it at most |
//! | 8 | size limit in bytes; 0: none |
//! | 1 | 1: the server's conditional PUT was seen to be atomic |
//! | 8 | first data number not used when this was written |
//! | 48 | requests over the life of the store: PUT, GET, LIST, DELETE; bytes sent, received |
//! | 16 | changes of keys over the life of the store, and their bytes |
//! | 2 | number of garbage entries |
//! | 25 each | garbage: kind (1: commits of an epoch, 2: data segments), two numbers (8, 8), since (8) |
//! | 2 | number of links |
//! | 24 each | links, oldest first: number of a commit of this epoch (8), its checksum (16) |
//! | 4 | number of repeated commits |
//! | 16 each | repeated, oldest first: sequence (8), how many of the births (4), bytes of the body (4) are its own |
//! | 1 | 1: an opening follows |
//! | | opening: epoch before (8), its random id (16), its seal's number (8), since (8), keeper |
//!
//! All numbers little-endian.
//!
//! A commit repeats the redo of commits before it (they come first in its births and its body), and
//! links to the few that hold the rest since the checkpoint: so that the end of a long tail of tiny
//! commits is read with few GETs.

use super::keeper::Keeper;
use crate::backend::Usage;
use crate::log::bytes::{Fields, Malformed};
use crate::log::geometry::Geometry;
use crate::log::pointer::Sequence;

/// What became garbage, and is deleted once no reader elsewhere can need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Garbage {
    /// Which objects.
    pub what: Waste,
    /// Since when, nanoseconds since 1970.
    pub since_ns: u64,
}

/// Objects that nothing refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waste {
    /// The commits of a sealed epoch, apart from the first, the seal, and the one before the seal (R9).
    Commits {
        /// The epoch.
        epoch: u64,
        /// Its seal's number.
        seal: u64,
    },
    /// Data segments that a writer may have uploaded after its last commit.
    Segments {
        /// The first number.
        from: u64,
        /// One past the last.
        to: u64,
    },
}

/// A commit that holds redo from before what this one repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number within the epoch.
    pub number: u64,
    /// Its checksum.
    pub checksum: u128,
}

/// A commit that is repeated in a later one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// Its sequence.
    pub sequence: Sequence,
    /// How many births are its own.
    pub births: u32,
    /// How many bytes of the body are its own.
    pub body_bytes: u32,
}

/// What the first commit of an epoch claims (R8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The epoch before; 0: none.
    pub previous: u64,
    /// Its random identity.
    pub previous_id: [u8; 16],
    /// Its seal's number.
    pub seal: u64,
    /// When that writer opened the store, nanoseconds since 1970: the same in all epochs that it opens.
    pub since_ns: u64,
    /// Who opened it.
    pub keeper: Keeper,
}

/// The record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The store's sizes.
    pub geometry: Geometry,
    /// Most live bytes; 0: no limit.
    pub size_limit: u64,
    /// Whether the server's conditional PUT was seen to be atomic.
    pub fencing_proven: bool,
    /// First data number that was not used.
    pub next_segment: u64,
    /// Over the life of the store.
    pub usage: Usage,
    /// Changes of keys over the life of the store.
    pub changes: u64,
    /// Bytes of those keys and values.
    pub changed_bytes: u64,
    /// What is to be deleted.
    pub garbage: Vec<Garbage>,
    /// Where the older redo is.
    pub links: Vec<Link>,
    /// Whose redo is repeated here.
    pub repeated: Vec<Repeated>,
    /// In the first commit of an epoch.
    pub opening: Option<Opening>,
}

impl Record {
    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.geometry.segment_bytes.to_le_bytes());
        out.extend_from_slice(&self.geometry.page_bytes.to_le_bytes());
        assert_eq!(self.geometry.ring_at_first, self.geometry.ring_bytes, "no ring of a bucket becomes longer");
        out.extend_from_slice(&self.geometry.ring_bytes.to_le_bytes());
        out.extend_from_slice(&self.size_limit.to_le_bytes());
        out.push(u8::from(self.fencing_proven));
        out.extend_from_slice(&self.next_segment.to_le_bytes());
        let Usage { puts, gets, lists, deletes, bytes_up, bytes_down } = self.usage;
        for count in [puts, gets, lists, deletes, bytes_up, bytes_down, self.changes, self.changed_bytes] {
            out.extend_from_slice(&count.to_le_bytes());
        }
        out.extend_from_slice(&(self.garbage.len() as u16).to_le_bytes());
        for garbage in &self.garbage {
            let (kind, numbers) = match garbage.what {
                Waste::Commits { epoch, seal } => (1, [epoch, seal]),
                Waste::Segments { from, to } => (2, [from, to]),
            };
            out.push(kind);
            for number in [numbers[0], numbers[1], garbage.since_ns] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out.extend_from_slice(&(self.links.len() as u16).to_le_bytes());
        for link in &self.links {
            out.extend_from_slice(&link.number.to_le_bytes());
            out.extend_from_slice(&link.checksum.to_le_bytes());
        }
        out.extend_from_slice(&(self.repeated.len() as u32).to_le_bytes());
        for repeated in &self.repeated {
            out.extend_from_slice(&repeated.sequence.0.to_le_bytes());
            out.extend_from_slice(&repeated.births.to_le_bytes());
            out.extend_from_slice(&repeated.body_bytes.to_le_bytes());
        }
        out.push(u8::from(self.opening.is_some()));
        if let Some(opening) = &self.opening {
            out.extend_from_slice(&opening.previous.to_le_bytes());
            out.extend_from_slice(&opening.previous_id);
            out.extend_from_slice(&opening.seal.to_le_bytes());
            out.extend_from_slice(&opening.since_ns.to_le_bytes());
            opening.keeper.encode(out);
        }
        let length = (out.len() - start) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }

    /// Takes its bytes off the front.
    pub fn decode(fields: &mut Fields<'_>) -> Result<Record, Malformed> {
        let what = "record: cut";
        let length = fields.u32(what)?.checked_sub(4).ok_or(Malformed { what })?;
        let mut fields = Fields(fields.bytes(length as usize, what)?);
        let segment_bytes = fields.u32(what)?;
        let page_bytes = fields.u32(what)?;
        let ring_bytes = fields.u64(what)?;
        let geometry = Geometry { ring_bytes, ring_at_first: ring_bytes, segment_bytes, page_bytes };
        if !geometry.is_valid() {
            return Err(Malformed { what: "record: sizes" });
        }
        let record = Record {
            geometry,
            size_limit: fields.u64(what)?,
            fencing_proven: fields.u8(what)? != 0,
            next_segment: fields.u64(what)?,
            usage: Usage {
                puts: fields.u64(what)?,
                gets: fields.u64(what)?,
                lists: fields.u64(what)?,
                deletes: fields.u64(what)?,
                bytes_up: fields.u64(what)?,
                bytes_down: fields.u64(what)?,
            },
            changes: fields.u64(what)?,
            changed_bytes: fields.u64(what)?,
            garbage: {
                let count = fields.u16(what)?;
                (0..count).map(|_| garbage(&mut fields)).collect::<Result<_, _>>()?
            },
            links: {
                let count = fields.u16(what)?;
                (0..count)
                    .map(|_| Ok(Link { number: fields.u64(what)?, checksum: fields.u128(what)? }))
                    .collect::<Result<_, _>>()?
            },
            repeated: repeated(&mut fields)?,
            opening: match fields.u8(what)? {
                0 => None,
                _ => Some(Opening {
                    previous: fields.u64(what)?,
                    previous_id: fields.array(what)?,
                    seal: fields.u64(what)?,
                    since_ns: fields.u64(what)?,
                    keeper: Keeper::decode(&mut fields)?,
                }),
            },
        };
        fields.end("record: too long")?;
        Ok(record)
    }
}

fn garbage(fields: &mut Fields<'_>) -> Result<Garbage, Malformed> {
    let what = "record: garbage";
    let kind = fields.u8(what)?;
    let (first, second) = (fields.u64(what)?, fields.u64(what)?);
    let waste = match kind {
        1 => Waste::Commits { epoch: first, seal: second },
        2 => Waste::Segments { from: first, to: second },
        _ => return Err(Malformed { what }),
    };
    Ok(Garbage { what: waste, since_ns: fields.u64(what)? })
}

fn repeated(fields: &mut Fields<'_>) -> Result<Vec<Repeated>, Malformed> {
    let what = "record: repeated";
    let count = fields.u32(what)? as usize;
    let mut each = Fields(fields.bytes(count.checked_mul(16).ok_or(Malformed { what })?, what)?);
    let one = |_| {
        let sequence = Sequence(each.u64(what)?);
        Ok(Repeated { sequence, births: each.u32(what)?, body_bytes: each.u32(what)? })
    };
    (0..count).map(one).collect()
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A record with something in every field.
    pub fn sample() -> Record {
        Record {
            geometry: Geometry {
                ring_bytes: 96 << 20,
                ring_at_first: 96 << 20,
                segment_bytes: 8 << 20,
                page_bytes: 4096,
            },
            size_limit: 1,
            fencing_proven: true,
            next_segment: 2,
            usage: Usage { puts: 3, gets: 4, lists: 5, deletes: 6, bytes_up: 7, bytes_down: 8 },
            changes: 9,
            changed_bytes: 10,
            garbage: vec![
                Garbage { what: Waste::Commits { epoch: 11, seal: 12 }, since_ns: 13 },
                Garbage { what: Waste::Segments { from: 14, to: 15 }, since_ns: 16 },
            ],
            links: vec![Link { number: 17, checksum: 18 }],
            repeated: vec![Repeated { sequence: Sequence(19), births: 0, body_bytes: 2 }],
            opening: Some(Opening {
                previous: 21,
                previous_id: [22; 16],
                seal: 23,
                since_ns: 24,
                keeper: Keeper::decode(&mut Fields(
                    &[7; 4 + 8 + 8 + 16].iter().copied().chain([1, 0, b'h', 0, 0, 0]).collect::<Vec<u8>>(),
                ))
                .expect("a keeper"),
            }),
        }
    }

    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        sample().encode(&mut bytes);
        let mut golden = vec![0; 4];
        golden.extend_from_slice(b"\0\0\x80\0\0\x10\0\0\0\0\0\x06\0\0\0\0\x01\0\0\0\0\0\0\0\x01");
        for number in 2..=10u64 {
            golden.extend_from_slice(&number.to_le_bytes());
        }
        golden.extend_from_slice(b"\x02\0\x01");
        for number in 11..=13u64 {
            golden.extend_from_slice(&number.to_le_bytes());
        }
        golden.push(2);
        for number in 14..=16u64 {
            golden.extend_from_slice(&number.to_le_bytes());
        }
        golden.extend_from_slice(b"\x01\0\x11\0\0\0\0\0\0\0");
        golden.extend_from_slice(&18u128.to_le_bytes());
        golden.extend_from_slice(b"\x01\0\0\0\x13\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x01\x15\0\0\0\0\0\0\0");
        golden.extend_from_slice(&[22; 16]);
        golden.extend_from_slice(b"\x17\0\0\0\0\0\0\0\x18\0\0\0\0\0\0\0");
        golden.extend_from_slice(&[7; 36]);
        golden.extend_from_slice(b"\x01\0h\0\0\0");
        let length = golden.len() as u32;
        golden[..4].copy_from_slice(&length.to_le_bytes());
        assert_eq!(bytes, golden);
        let mut fields = Fields(&bytes);
        assert_eq!(Record::decode(&mut fields), Ok(sample()));
        assert!(fields.0.is_empty());
        for length in 0..bytes.len() {
            assert!(Record::decode(&mut Fields(&bytes[..length])).is_err(), "cut at {length}");
        }
    }
}
