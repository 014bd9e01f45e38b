//! What the cache's files hold. Pure.
//!
//! Everything lies in units of 64 bytes, so that a place in a file is a small number. A file is:
//!
//! | unit | what |
//! |---|---|
//! | 0 | file header, written once |
//! | 1 | bookmark, written anew behind each catalog |
//! | 2 ... | entries, one after the other; what follows the last one is not an entry |
//!
//! File header, 64 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `kivafsDC` |
//! | 8 | 2 | format version, 1 |
//! | 10 | 6 | zeros |
//! | 16 | 8 | number of the file, as in its name |
//! | 24 | 8 | length of the file in bytes |
//! | 32 | 16 | id of the store that the values belong to |
//! | 48 | 8 | salt: a random number, the seed of the other checksums in this file |
//! | 56 | 8 | XXH3-64 of bytes 0-55 |
//!
//! Bookmark, 64 bytes:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `kivafsDB` |
//! | 8 | 4 | unit of the newest catalog; 0: none |
//! | 12 | 44 | zeros |
//! | 56 | 8 | XXH3-64, salted, of bytes 0-55 |
//!
//! Entry: a header of 64 bytes, the value, and zeros up to a whole unit (at least one unit of
//! value and zeros):
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic: `kvDE` a value, `kvDX` a catalog |
//! | 4 | 4 | length of the value in bytes, at most 1 MiB |
//! | 8 | 32 | key; of a catalog: bytes 8-11 the unit of the catalog before it (0: none), then zeros |
//! | 40 | 16 | XXH3-128 of the value |
//! | 56 | 8 | XXH3-64, salted, of bytes 0-55 |
//!
//! A catalog's value says which values were appended since the catalog before it, so that opening
//! need not visit each. 40 bytes for each of them:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 32 | key |
//! | 32 | 4 | unit of the entry |
//! | 36 | 4 | length of the value in bytes |
//!
//! All numbers little-endian. The salt keeps bytes of a file that was deleted from looking like
//! entries of the one that got its blocks.

use super::Key;
use super::index::Place;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed, xxh3_128};

/// The unit in which files are laid out, in bytes; also the size of each header.
pub const UNIT: usize = 64;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Where the bookmark is.
pub const BOOKMARK_UNIT: u32 = 1;
/// Where entries begin.
pub const ENTRIES_UNIT: u32 = 2;
/// Records in a catalog, at most: about 16 KiB.
pub const CATALOG_RECORDS: usize = 408;
/// Length of a record in a catalog.
pub const RECORD_BYTES: usize = 32 + 4 + 4;

const FILE_MAGIC: &[u8; 8] = b"kivafsDC";
const BOOKMARK_MAGIC: &[u8; 8] = b"kivafsDB";
const VALUE_MAGIC: &[u8; 4] = b"kvDE";
const CATALOG_MAGIC: &[u8; 4] = b"kvDX";
const VERSION: u16 = 1;
const CHECKED_BYTES: usize = UNIT - 8;
const _: () = assert!(UNIT.is_multiple_of(8) && 8 + 2 + 6 + 8 + 8 + 16 + 8 == CHECKED_BYTES);
const _: () = assert!(4 + 4 + 32 + 16 == CHECKED_BYTES);
const _: () = assert!(CATALOG_RECORDS * RECORD_BYTES <= VALUE_BYTES_MAX);

/// What a file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileHeader {
    pub number: u64,
    pub bytes: u64,
    pub store: [u8; 16],
    pub salt: u64,
}

/// What the first bytes of a file with a cache file's name turn out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A cache file of this version, not damaged here.
    Ours(FileHeader),
    /// A cache file, but of another version, or one whose header is damaged; or one of which a
    /// power cut left zeros or nothing. Of no use to anybody.
    Useless,
    /// No cache file ever began like this.
    Foreign,
}

/// What an entry holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Value(Key),
    /// With the unit of the catalog before it; 0: none.
    Catalog(u32),
}

/// The header of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    pub kind: EntryKind,
    /// Length of the value in bytes.
    pub length: u32,
    /// XXH3-128 of the value.
    pub sum: u128,
}

/// Where a value lies: one line of a catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub key: Key,
    pub unit: u32,
    pub length: u32,
}

impl Record {
    /// The place of the value, in the file of that id.
    pub fn place(&self, file: u8) -> Place {
        Place { file, unit: self.unit, units: value_units(self.length as usize) }
    }
}

impl FileHeader {
    pub fn encode(&self) -> [u8; UNIT] {
        let mut out = [0; UNIT];
        out[0..8].copy_from_slice(FILE_MAGIC);
        out[8..10].copy_from_slice(&VERSION.to_le_bytes());
        out[16..24].copy_from_slice(&self.number.to_le_bytes());
        out[24..32].copy_from_slice(&self.bytes.to_le_bytes());
        out[32..48].copy_from_slice(&self.store);
        out[48..56].copy_from_slice(&self.salt.to_le_bytes());
        let sum = xxh3_64(&out[..CHECKED_BYTES]);
        out[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
        out
    }
}

/// Judges a file by its first 64 bytes, or by as many as it has.
pub fn judge_file(start: &[u8]) -> FileKind {
    if start.iter().all(|byte| *byte == 0) {
        return FileKind::Useless;
    }
    if !start.starts_with(FILE_MAGIC) {
        return FileKind::Foreign;
    }
    let Ok(unit) = <&[u8; UNIT]>::try_from(start) else { return FileKind::Useless };
    let is_ours = u64_at(unit, CHECKED_BYTES) == xxh3_64(&unit[..CHECKED_BYTES])
        && array_at(unit, 8) == VERSION.to_le_bytes()
        && unit[10..16] == [0; 6];
    if !is_ours {
        return FileKind::Useless;
    }
    FileKind::Ours(FileHeader {
        number: u64_at(unit, 16),
        bytes: u64_at(unit, 24),
        store: array_at(unit, 32),
        salt: u64_at(unit, 48),
    })
}

/// The bookmark that names the catalog at that unit.
pub fn encode_bookmark(catalog: u32, salt: u64) -> [u8; UNIT] {
    let mut out = [0; UNIT];
    out[0..8].copy_from_slice(BOOKMARK_MAGIC);
    out[8..12].copy_from_slice(&catalog.to_le_bytes());
    seal_unit(&mut out, salt);
    out
}

/// The unit of the newest catalog, 0 if there is none. `None`: this is not a bookmark of that file.
pub fn decode_bookmark(unit: &[u8; UNIT], salt: u64) -> Option<u32> {
    let is_whole = unit.starts_with(BOOKMARK_MAGIC) && is_sealed(unit, salt);
    is_whole.then(|| u32_at(unit, 8))
}

impl EntryHeader {
    pub fn encode(&self, salt: u64) -> [u8; UNIT] {
        assert!(self.length as usize <= VALUE_BYTES_MAX, "a value of {} bytes", self.length);
        let mut out = [0; UNIT];
        match &self.kind {
            EntryKind::Value(key) => {
                out[0..4].copy_from_slice(VALUE_MAGIC);
                out[8..40].copy_from_slice(key);
            }
            EntryKind::Catalog(previous) => {
                out[0..4].copy_from_slice(CATALOG_MAGIC);
                out[8..12].copy_from_slice(&previous.to_le_bytes());
            }
        }
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[40..56].copy_from_slice(&self.sum.to_le_bytes());
        seal_unit(&mut out, salt);
        out
    }

    /// `None`: no entry of that file begins here.
    pub fn decode(unit: &[u8; UNIT], salt: u64) -> Option<EntryHeader> {
        let kind = match &array_at(unit, 0) {
            VALUE_MAGIC => EntryKind::Value(array_at(unit, 8)),
            CATALOG_MAGIC => EntryKind::Catalog(u32_at(unit, 8)),
            _ => return None,
        };
        let header = EntryHeader { kind, length: u32_at(unit, 4), sum: u128::from_le_bytes(array_at(unit, 40)) };
        (is_sealed(unit, salt) && header.length as usize <= VALUE_BYTES_MAX).then_some(header)
    }

    /// Whether these are the bytes that the header was made for.
    pub fn fits(&self, value: &[u8]) -> bool {
        value.len() == self.length as usize && xxh3_128(value) == self.sum
    }
}

/// Units of an entry without its header: those of a value of so many bytes.
pub fn value_units(length: usize) -> u32 {
    length.div_ceil(UNIT).max(1) as u32
}

/// Units of the catalogs of so many values, with their headers.
pub fn catalogs_units(records: usize) -> u32 {
    let of_one = |records: usize| 1 + value_units(records * RECORD_BYTES);
    let rest = records % CATALOG_RECORDS;
    (records / CATALOG_RECORDS) as u32 * of_one(CATALOG_RECORDS) + if rest == 0 { 0 } else { of_one(rest) }
}

/// Appends an entry: header, value, zeros up to a whole unit.
pub fn put_entry(out: &mut Vec<u8>, kind: EntryKind, value: &[u8], salt: u64) {
    let header = EntryHeader { kind, length: value.len() as u32, sum: xxh3_128(value) };
    out.extend_from_slice(&header.encode(salt));
    out.extend_from_slice(value);
    out.resize(out.len() + value_units(value.len()) as usize * UNIT - value.len(), 0);
}

/// The value of a catalog.
pub fn encode_records(records: &[Record]) -> Vec<u8> {
    assert!(records.len() <= CATALOG_RECORDS, "{} records in a catalog", records.len());
    let mut out = Vec::with_capacity(records.len() * RECORD_BYTES);
    for record in records {
        out.extend_from_slice(&record.key);
        out.extend_from_slice(&record.unit.to_le_bytes());
        out.extend_from_slice(&record.length.to_le_bytes());
    }
    out
}

/// The records of a catalog's value whose checksum was right.
pub fn decode_records(value: &[u8]) -> impl Iterator<Item = Record> {
    value.chunks_exact(RECORD_BYTES).map(|record| Record {
        key: array_at(record, 0),
        unit: u32_at(record, 32),
        length: u32_at(record, 36),
    })
}

fn seal_unit(unit: &mut [u8; UNIT], salt: u64) {
    let sum = xxh3_64_with_seed(&unit[..CHECKED_BYTES], salt);
    unit[CHECKED_BYTES..].copy_from_slice(&sum.to_le_bytes());
}

fn is_sealed(unit: &[u8; UNIT], salt: u64) -> bool {
    u64_at(unit, CHECKED_BYTES) == xxh3_64_with_seed(&unit[..CHECKED_BYTES], salt)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(&bytes[at..at + N]);
    out
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x1122_3344_5566_7788;
    const KEY: Key = *b"segment:offset:length:checksum..";

    fn header() -> FileHeader {
        FileHeader { number: 0x2a, bytes: 4 << 20, store: *b"0123456789abcdef", salt: SALT }
    }

    fn sums(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn golden_bytes_of_a_file_header() {
        let bytes = header().encode();
        assert_eq!(&bytes[..32], b"kivafsDC\x01\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0");
        assert_eq!(&bytes[32..48], b"0123456789abcdef");
        assert_eq!(bytes[48..56], [0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
        assert_eq!(sums(&bytes[56..]), "d86e52b02585da6b");
        assert_eq!(judge_file(&bytes), FileKind::Ours(header()));
    }

    #[test]
    fn golden_bytes_of_a_bookmark() {
        let bytes = encode_bookmark(0x0102, SALT);
        assert_eq!(&bytes[..16], b"kivafsDB\x02\x01\0\0\0\0\0\0");
        assert_eq!(bytes[16..56], [0; 40]);
        assert_eq!(sums(&bytes[56..]), "5261ffb55f1633f4");
        assert_eq!(decode_bookmark(&bytes, SALT), Some(0x0102));
        assert_eq!(decode_bookmark(&bytes, SALT + 1), None, "of another file");
    }

    #[test]
    fn golden_bytes_of_entries() {
        let mut bytes = Vec::new();
        put_entry(&mut bytes, EntryKind::Value(KEY), b"hello", SALT);
        assert_eq!(bytes.len(), 2 * UNIT);
        assert_eq!(&bytes[..8], b"kvDE\x05\0\0\0");
        assert_eq!(&bytes[8..40], KEY);
        assert_eq!(sums(&bytes[40..64]), "1838525eaacf79c77f3e1b07adc1e9b53c250b8df1fab058");
        assert_eq!(&bytes[64..69], b"hello");
        assert_eq!(bytes[69..], [0; 59]);
        let unit: &[u8; UNIT] = bytes[..UNIT].try_into().expect("a unit");
        let decoded = EntryHeader::decode(unit, SALT).expect("a header");
        assert_eq!((decoded.kind, decoded.length), (EntryKind::Value(KEY), 5));
        assert!(decoded.fits(b"hello") && !decoded.fits(b"hellO") && !decoded.fits(b"hell"));
        assert_eq!(EntryHeader::decode(unit, SALT ^ 1), None, "of another file");

        bytes.clear();
        let record = Record { key: KEY, unit: 0x0304, length: 0x0506 };
        put_entry(&mut bytes, EntryKind::Catalog(7), &encode_records(&[record, record]), SALT);
        assert_eq!(bytes.len(), 3 * UNIT);
        assert_eq!(&bytes[..12], b"kvDX\x50\0\0\0\x07\0\0\0");
        assert_eq!(bytes[12..40], [0; 28]);
        assert_eq!(sums(&bytes[40..64]), "b2b9ec2489230c9cb84d856f76c3140765905c101eb2e4ba");
        assert_eq!(&bytes[64..96], KEY);
        assert_eq!(&bytes[96..104], b"\x04\x03\0\0\x06\x05\0\0");
        assert_eq!(decode_records(&bytes[64..144]).collect::<Vec<_>>(), [record, record]);
    }

    #[test]
    fn each_flipped_byte_of_a_header_is_noticed() {
        let whole = header().encode();
        let bookmark = encode_bookmark(9, SALT);
        let entry = EntryHeader { kind: EntryKind::Value(KEY), length: 5, sum: 6 }.encode(SALT);
        for at in 0..UNIT {
            let flipped = |unit: &[u8; UNIT]| {
                let mut unit = *unit;
                unit[at] ^= 0x10;
                unit
            };
            let expected = if at < 8 { FileKind::Foreign } else { FileKind::Useless };
            assert_eq!(judge_file(&flipped(&whole)), expected, "byte {at}");
            assert_eq!(decode_bookmark(&flipped(&bookmark), SALT), None, "byte {at}");
            assert_eq!(EntryHeader::decode(&flipped(&entry), SALT), None, "byte {at}");
        }
    }

    #[test]
    fn what_a_power_cut_leaves_is_no_foreign_file() {
        let whole = header().encode();
        assert_eq!(judge_file(&[]), FileKind::Useless);
        assert_eq!(judge_file(&[0; UNIT]), FileKind::Useless);
        for cut in 8..UNIT {
            assert_eq!(judge_file(&whole[..cut]), FileKind::Useless, "cut at {cut}");
        }
        assert_eq!(judge_file(b"kivafsSB"), FileKind::Foreign);
        assert_eq!(judge_file(b"dear diary"), FileKind::Foreign);
    }

    #[test]
    fn units_of_values() {
        let units = [0, 1, 64, 65, 4096, VALUE_BYTES_MAX].map(value_units);
        assert_eq!(units, [1, 1, 1, 2, 64, 16384]);
        assert_eq!([0, 1, CATALOG_RECORDS, CATALOG_RECORDS + 1].map(catalogs_units), [0, 2, 256, 258]);
    }
}
