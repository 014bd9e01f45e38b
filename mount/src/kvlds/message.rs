//! What is asked and answered: the records of kivaloo's "Key-value data store interface" (its
//! `INTERFACES`). Pure.
//!
//! A *string* is one byte of length and as many bytes. Numbers are four bytes, big-endian.
//!
//! | request | number | then | answer |
//! |---|---|---|---|
//! | PARAMS | 0x100 | | longest key, longest value |
//! | SET | 0x110 | key, value | 0 |
//! | CAS | 0x111 | key, old value, value | 0: done; 1: not |
//! | ADD | 0x112 | key, value | 0: done; 1: not |
//! | MODIFY | 0x113 | key, value | 0: done; 1: not |
//! | DELETE | 0x120 | key | 0 |
//! | CAD | 0x121 | key, old value | 0: done; 1: not |
//! | GET | 0x130 | key | 0, value; or 1: none |
//! | RANGE | 0x131 | number: most bytes of pairs; start, end | 0, number of pairs, next, then key, value of each |

use thiserror::Error;

/// Longest key, and longest value, in bytes.
pub const STRING_MAX: usize = 255;
/// Longest record of a request: a CAS.
pub const REQUEST_BYTES_MAX: usize = 4 + 3 * (1 + STRING_MAX);

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// How long may keys and values be?
    Params,
    /// Set a value, whatever was there.
    Set { key: &'a [u8], value: &'a [u8] },
    /// Set a value, if the old one is this.
    Cas { key: &'a [u8], old: &'a [u8], value: &'a [u8] },
    /// Set a value, if there is none.
    Add { key: &'a [u8], value: &'a [u8] },
    /// Set a value, if there is one.
    Modify { key: &'a [u8], value: &'a [u8] },
    /// Let there be no value.
    Delete { key: &'a [u8] },
    /// Let there be no value, if the old one is this.
    Cad { key: &'a [u8], old: &'a [u8] },
    /// What is the value?
    Get { key: &'a [u8] },
    /// Which pairs are there, from `start` on and before `end`? An empty `end` is none.
    Range { bytes_max: u32, start: &'a [u8], end: &'a [u8] },
}

/// A key and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A record that says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// No request has this number.
    #[error("a request of unknown type {0:#010x}")]
    Type(u32),
    /// It ends early, or goes on behind its end.
    #[error("a {0} of wrong length")]
    Length(&'static str),
    /// A number is none of those it can be.
    #[error("a {0} with a number that means nothing")]
    Number(&'static str),
}

/// What is left of a record of that name.
struct Fields<'a> {
    rest: &'a [u8],
    name: &'static str,
}

impl<'a> Fields<'a> {
    fn number(&mut self) -> Result<u32, Malformed> {
        let (number, rest) = self.rest.split_first_chunk::<4>().ok_or(Malformed::Length(self.name))?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*number))
    }

    fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let split = self.rest.split_first().and_then(|(length, rest)| rest.split_at_checked(usize::from(*length)));
        let (string, rest) = split.ok_or(Malformed::Length(self.name))?;
        self.rest = rest;
        Ok(string)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Length(self.name)) }
    }

    /// The number at the front of most answers: 0 or 1.
    fn is_done(&mut self) -> Result<bool, Malformed> {
        match self.number()? {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(Malformed::Number(self.name)),
        }
    }
}

impl<'a> Request<'a> {
    /// Reads a record.
    pub fn decode(record: &'a [u8]) -> Result<Request<'a>, Malformed> {
        let mut fields = Fields { rest: record, name: "request" };
        let number = fields.number()?;
        let request = match number {
            0x100 => Request::Params,
            0x110 => Request::Set { key: fields.string()?, value: fields.string()? },
            0x111 => Request::Cas { key: fields.string()?, old: fields.string()?, value: fields.string()? },
            0x112 => Request::Add { key: fields.string()?, value: fields.string()? },
            0x113 => Request::Modify { key: fields.string()?, value: fields.string()? },
            0x120 => Request::Delete { key: fields.string()? },
            0x121 => Request::Cad { key: fields.string()?, old: fields.string()? },
            0x130 => Request::Get { key: fields.string()? },
            0x131 => Request::Range { bytes_max: fields.number()?, start: fields.string()?, end: fields.string()? },
            unknown => return Err(Malformed::Type(unknown)),
        };
        fields.end().map(|()| request)
    }

    /// Appends the record. Panics if a string is longer than [`STRING_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (number, strings): (u32, [Option<&[u8]>; 3]) = match *self {
            Request::Params => (0x100, [None; 3]),
            Request::Set { key, value } => (0x110, [Some(key), Some(value), None]),
            Request::Cas { key, old, value } => (0x111, [Some(key), Some(old), Some(value)]),
            Request::Add { key, value } => (0x112, [Some(key), Some(value), None]),
            Request::Modify { key, value } => (0x113, [Some(key), Some(value), None]),
            Request::Delete { key } => (0x120, [Some(key), None, None]),
            Request::Cad { key, old } => (0x121, [Some(key), Some(old), None]),
            Request::Get { key } => (0x130, [Some(key), None, None]),
            Request::Range { start, end, .. } => (0x131, [Some(start), Some(end), None]),
        };
        push_number(out, number);
        if let Request::Range { bytes_max, .. } = self {
            push_number(out, *bytes_max);
        }
        strings.into_iter().flatten().for_each(|string| push_string(out, string));
    }
}

/// Appends the answer to PARAMS.
pub fn push_params(out: &mut Vec<u8>) {
    push_number(out, STRING_MAX as u32);
    push_number(out, STRING_MAX as u32);
}

/// Reads it: longest key, longest value.
pub fn decode_params(record: &[u8]) -> Result<(u32, u32), Malformed> {
    let mut fields = Fields { rest: record, name: "PARAMS answer" };
    let params = (fields.number()?, fields.number()?);
    fields.end().map(|()| params)
}

/// Appends the answer to a request that changes: whether it did.
pub fn push_done(out: &mut Vec<u8>, is_done: bool) {
    push_number(out, u32::from(!is_done));
}

/// Reads it.
pub fn decode_done(record: &[u8]) -> Result<bool, Malformed> {
    let mut fields = Fields { rest: record, name: "status" };
    let is_done = fields.is_done()?;
    fields.end().map(|()| is_done)
}

/// Appends the answer to GET.
pub fn push_value(out: &mut Vec<u8>, value: Option<&[u8]>) {
    push_done(out, value.is_some());
    if let Some(value) = value {
        push_string(out, value);
    }
}

/// Reads it.
pub fn decode_value(record: &[u8]) -> Result<Option<&[u8]>, Malformed> {
    let mut fields = Fields { rest: record, name: "GET answer" };
    let value = if fields.is_done()? { Some(fields.string()?) } else { None };
    fields.end().map(|()| value)
}

/// Appends the answer to RANGE. `next`: all pairs from the request's start to before it are here;
/// empty, if there are no more.
pub fn push_pairs<'a>(out: &mut Vec<u8>, next: &[u8], pairs: impl ExactSizeIterator<Item = Pair<'a>>) {
    push_done(out, true);
    push_number(out, u32::try_from(pairs.len()).expect("an answer has far fewer pairs"));
    push_string(out, next);
    for (key, value) in pairs {
        push_string(out, key);
        push_string(out, value);
    }
}

/// Reads it: `next`, and the pairs.
pub fn decode_pairs(record: &[u8]) -> Result<(&[u8], Vec<Pair<'_>>), Malformed> {
    let mut fields = Fields { rest: record, name: "RANGE answer" };
    if !fields.is_done()? {
        return Err(Malformed::Number(fields.name));
    }
    let count = fields.number()?;
    let next = fields.string()?;
    // Not what is announced, but what there is room for: two bytes a pair.
    let mut pairs = Vec::with_capacity((count as usize).min(fields.rest.len() / 2));
    for _ in 0..count {
        pairs.push((fields.string()?, fields.string()?));
    }
    fields.end().map(|()| (next, pairs))
}

fn push_number(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_be_bytes());
}

fn push_string(out: &mut Vec<u8>, string: &[u8]) {
    let length = u8::try_from(string.len());
    out.push(length.unwrap_or_else(|_| panic!("a string of {} bytes", string.len())));
    out.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_of(push: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out);
        out
    }

    #[test]
    fn golden_requests() {
        let (key, old, value) = (&b"key"[..], &b""[..], &b"value"[..]);
        let golden: [(Request<'_>, &[u8]); 9] = [
            (Request::Params, b"\0\0\x01\0"),
            (Request::Set { key, value }, b"\0\0\x01\x10\x03key\x05value"),
            (Request::Cas { key, old, value }, b"\0\0\x01\x11\x03key\0\x05value"),
            (Request::Add { key, value }, b"\0\0\x01\x12\x03key\x05value"),
            (Request::Modify { key, value }, b"\0\0\x01\x13\x03key\x05value"),
            (Request::Delete { key }, b"\0\0\x01\x20\x03key"),
            (Request::Cad { key, old: value }, b"\0\0\x01\x21\x03key\x05value"),
            (Request::Get { key }, b"\0\0\x01\x30\x03key"),
            (Request::Range { bytes_max: 1000, start: key, end: old }, b"\0\0\x01\x31\0\0\x03\xe8\x03key\0"),
        ];
        for (request, record) in golden {
            assert_eq!(bytes_of(|out| request.encode(out)), record, "{request:?}");
            assert_eq!(Request::decode(record), Ok(request));
            for cut in 0..record.len() {
                assert!(Request::decode(&record[..cut]).is_err(), "{request:?} cut at {cut}");
            }
            assert!(Request::decode(&[record, &[0]].concat()).is_err(), "{request:?} and more");
        }
        assert_eq!(Request::decode(b"\0\0\x01\x32\0"), Err(Malformed::Type(0x132)));
        let longest = [0; STRING_MAX];
        let longest = Request::Cas { key: &longest, old: &longest, value: &longest };
        assert_eq!(bytes_of(|out| longest.encode(out)).len(), REQUEST_BYTES_MAX);
    }

    #[test]
    fn golden_answers() {
        let params = b"\0\0\0\xff\0\0\0\xff";
        assert_eq!((bytes_of(push_params), decode_params(params)), (params.to_vec(), Ok((255, 255))));
        for (is_done, record) in [(true, b"\0\0\0\0"), (false, b"\0\0\0\x01")] {
            assert_eq!(bytes_of(|out| push_done(out, is_done)), record);
            assert_eq!(decode_done(record), Ok(is_done));
        }
        for (value, record) in [(Some(&b"value"[..]), &b"\0\0\0\0\x05value"[..]), (None, b"\0\0\0\x01")] {
            assert_eq!(bytes_of(|out| push_value(out, value)), record);
            assert_eq!(decode_value(record), Ok(value));
        }
        let pairs: [Pair<'_>; 2] = [(b"a", b"1"), (b"b", b"")];
        let record = b"\0\0\0\0\0\0\0\x02\x01c\x01a\x011\x01b\0";
        assert_eq!(bytes_of(|out| push_pairs(out, b"c", pairs.into_iter())), record);
        assert_eq!(decode_pairs(record), Ok((&b"c"[..], pairs.to_vec())));
    }

    #[test]
    fn wrong_answers_are_refused() {
        assert!(decode_params(b"\0\0\0\xff\0\0\0").is_err() && decode_params(b"\0\0\0\xff\0\0\0\xff\0").is_err());
        assert!(decode_done(b"\0\0\0\x02").is_err() && decode_done(b"\0\0\0\0\0").is_err());
        assert!(decode_value(b"\0\0\0\0").is_err() && decode_value(b"\0\0\0\x01\x01a").is_err());
        assert!(decode_pairs(b"\0\0\0\x01\0\0\0\0\0").is_err());
        assert!(decode_pairs(b"\0\0\0\0\xff\xff\xff\xff\0\x01a\0").is_err(), "announced, and not there");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..60), number in 0..5u32) {
            let record = [&(0x10f + number).to_be_bytes(), &bytes[..]].concat();
            if let Ok(request) = Request::decode(&record) {
                prop_assert_eq!(bytes_of(|out| request.encode(out)), record);
            }
            let record = [&[0, 0, 0], &bytes[..]].concat();
            if let Ok(value) = decode_value(&record) {
                prop_assert_eq!(bytes_of(|out| push_value(out, value)), &record[..]);
            }
            if let Ok((next, pairs)) = decode_pairs(&record) {
                prop_assert_eq!(bytes_of(|out| push_pairs(out, next, pairs.into_iter())), record);
            }
        }
    }
}
