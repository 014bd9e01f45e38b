//! Names in a directory: the tree holds the raw key, people see the shown name. Pure.
//!
//! One bijection between all byte strings (keys) and all file names, the same in every directory,
//! changing as little as possible:
//!
//! | in the key | shown |
//! |---|---|
//! | `/` | `%2F` |
//! | NUL | `%00` |
//! | `%` before `(25)*2F` or `(25)*00` | `%25`, so that it is not taken for one of the two above |
//! | the whole key is empty | `%-` |
//! | the whole key is `.` | `%2E` |
//! | the whole key is `..` | `%2E.` |
//! | the whole key is `.kivafs` (the control directory) | `%2Ekivafs` |
//! | the whole key is `%(25)*` and one of `-`, `2E`, `2E.`, `2Ekivafs` | `%25` for its `%` |
//!
//! Everything else is itself: the key `100%` is the file `100%`. So `""`, `.`, `..`, `.kivafs` and
//! whatever has a `/` or NUL are no shown names, and every other byte string is one.
//!
//! Why it is a bijection: the rows for whole keys pair exactly the strings `%(25)*tail` with the
//! four specials and themselves, shifted by one; none of those strings contains anything that the
//! upper rows touch, and the upper rows produce none of them. In the upper rows whether a `%` is
//! touched depends only on the digits right after it, which are themselves never touched, and the
//! number of its `25` rises by one (to zero for `/` and NUL).

use crate::fs::error::{FsError, Result};
use std::fmt;

/// Longest raw name, and longest shown name that may be made through the mount, in bytes.
pub const NAME_MAX: usize = 255;
/// The name in the root that no key has: for who mounts, what it likes to show there.
pub const RESERVED: &[u8] = b".kivafs";
/// Longest shown name: every byte of the key takes three.
pub const SHOWN_MAX: usize = 3 * NAME_MAX;

const SHIFT: &[u8] = b"25";
const SLASH: &[u8] = b"2F";
const NUL: &[u8] = b"00";
/// Whole keys that cannot be shown, and what follows the `%` in what is shown instead.
const SPECIAL: [(&[u8], &[u8]); 4] = [(b"", b"-"), (b".", b"2E"), (b"..", b"2E."), (RESERVED, b"2Ekivafs")];

/// A name as the tree has it: any 0 to [`NAME_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

impl Name {
    /// A key as it came from the tree or a socket. `None`: longer than [`NAME_MAX`].
    pub fn from_raw(raw: &[u8]) -> Option<Name> {
        (raw.len() <= NAME_MAX).then(|| Name(raw.into()))
    }

    /// The key behind a shown name that is to be found. `NotFound` for what is no shown name,
    /// `NameTooLong` when no key can be behind it.
    pub fn to_find(shown: &[u8]) -> Result<Name> {
        if shown.len() > SHOWN_MAX {
            return Err(FsError::NameTooLong);
        }
        let raw = decode(shown).ok_or(FsError::NotFound)?;
        Name::from_raw(&raw).ok_or(FsError::NameTooLong)
    }

    /// The key behind a shown name that is to be made. `NotPermitted` for reserved names,
    /// `NameTooLong` beyond [`NAME_MAX`] bytes as given (the key is never longer than that).
    pub fn to_make(shown: &[u8]) -> Result<Name> {
        if shown.len() > NAME_MAX {
            return Err(FsError::NameTooLong);
        }
        decode(shown).map(|raw| Name(raw.into())).ok_or(FsError::NotPermitted)
    }

    /// The bytes in the tree's key.
    pub fn raw(&self) -> &[u8] {
        &self.0
    }

    /// What people see.
    pub fn shown(&self) -> Vec<u8> {
        encode(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.shown().escape_ascii())
    }
}

/// The shown name of a key.
pub fn encode(key: &[u8]) -> Vec<u8> {
    if let Some((_, tail)) = SPECIAL.iter().find(|(special, _)| *special == key) {
        return [b"%", *tail].concat();
    }
    if looks_special(key) {
        return [b"%25", &key[1..]].concat();
    }
    let mut shown = Vec::with_capacity(key.len() + 8);
    for (at, &byte) in key.iter().enumerate() {
        match byte {
            b'/' => shown.extend_from_slice(b"%2F"),
            0 => shown.extend_from_slice(b"%00"),
            b'%' if looks_escaped(&key[at + 1..]).is_some() => shown.extend_from_slice(b"%25"),
            _ => shown.push(byte),
        }
    }
    shown
}

/// The key behind a shown name. `None`: no key is shown like that.
pub fn decode(shown: &[u8]) -> Option<Vec<u8>> {
    if shown.iter().any(|byte| matches!(byte, b'/' | 0)) || SPECIAL.iter().any(|(special, _)| *special == shown) {
        return None;
    }
    if looks_special(shown) {
        return Some(match SPECIAL.iter().find(|(_, tail)| *tail == &shown[1..]) {
            Some((special, _)) => special.to_vec(),
            None => [b"%", &shown[1 + SHIFT.len()..]].concat(),
        });
    }
    let mut key = Vec::with_capacity(shown.len());
    let mut at = 0;
    while at < shown.len() {
        let escape = if shown[at] == b'%' { looks_escaped(&shown[at + 1..]) } else { None };
        match escape {
            Some(Escape { shifts: 0, byte }) => {
                key.push(byte);
                at += 1 + SLASH.len();
            }
            Some(_) => {
                key.push(b'%');
                at += 1 + SHIFT.len();
            }
            None => {
                key.push(shown[at]);
                at += 1;
            }
        }
    }
    Some(key)
}

/// Whether it is `%(25)*` and the tail of a special name.
fn looks_special(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"%") else { return false };
    let (_, tail) = strip_shifts(rest);
    SPECIAL.iter().any(|(_, special)| *special == tail)
}

struct Escape {
    shifts: usize,
    byte: u8,
}

/// What a `%` before `rest` stands for, if `rest` begins with `(25)*2F` or `(25)*00`.
fn looks_escaped(rest: &[u8]) -> Option<Escape> {
    let (shifts, tail) = strip_shifts(rest);
    let byte = match tail {
        tail if tail.starts_with(SLASH) => b'/',
        tail if tail.starts_with(NUL) => 0,
        _ => return None,
    };
    Some(Escape { shifts, byte })
}

fn strip_shifts(mut rest: &[u8]) -> (usize, &[u8]) {
    let mut shifts = 0;
    while let Some(tail) = rest.strip_prefix(SHIFT) {
        rest = tail;
        shifts += 1;
    }
    (shifts, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_names() {
        let pairs: [(&[u8], &[u8]); 22] = [
            (b"", b"%-"),
            (b"%-", b"%25-"),
            (b"%25-", b"%2525-"),
            (b"-", b"-"),
            (b".", b"%2E"),
            (b"..", b"%2E."),
            (b"...", b"..."),
            (b"%2E", b"%252E"),
            (b"%252E.", b"%25252E."),
            (b".kivafs", b"%2Ekivafs"),
            (b"%2Ekivafs", b"%252Ekivafs"),
            (b".kivafs2", b".kivafs2"),
            (b"a/b", b"a%2Fb"),
            (b"a%2Fb", b"a%252Fb"),
            (b"a%252Fb", b"a%25252Fb"),
            (b"\0", b"%00"),
            (b"%00", b"%2500"),
            (b"100%", b"100%"),
            (b"%25", b"%25"),
            (b"%2f", b"%2f"),
            (b"%/", b"%%2F"),
            (b"%25/", b"%25%2F"),
        ];
        for (key, shown) in pairs {
            assert_eq!(encode(key), shown, "{}", key.escape_ascii());
            assert_eq!(decode(shown).as_deref(), Some(key), "{}", shown.escape_ascii());
        }
        for shown in [&b""[..], b".", b"..", b".kivafs", b"a/b", b"a\0"] {
            assert_eq!(decode(shown), None);
        }
    }

    #[test]
    fn lengths() {
        assert!(Name::to_make(&[b'a'; 255]).is_ok());
        assert!(matches!(Name::to_make(&[b'a'; 256]), Err(FsError::NameTooLong)));
        assert!(matches!(Name::to_find(&[b'a'; 256]), Err(FsError::NameTooLong)));
        let longest = encode(&[0; 255]);
        assert_eq!(longest.len(), SHOWN_MAX);
        assert_eq!(Name::to_find(&longest).unwrap().raw(), [0; 255]);
        assert!(matches!(Name::to_make(&longest), Err(FsError::NameTooLong)));
        assert!(matches!(Name::to_make(b".kivafs"), Err(FsError::NotPermitted)));
        assert!(matches!(Name::to_find(b".kivafs"), Err(FsError::NotFound)));
    }

    /// Strings in which what matters is frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let token = prop_oneof![
            Just(b"%".to_vec()),
            Just(b"25".to_vec()),
            Just(b"2F".to_vec()),
            Just(b"00".to_vec()),
            Just(b"2E".to_vec()),
            Just(b".".to_vec()),
            Just(b"-".to_vec()),
            Just(b"kivafs".to_vec()),
            Just(b"/".to_vec()),
            Just(b"\0".to_vec()),
            any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn key_to_shown_and_back(key in prop_oneof![bytes(), prop::collection::vec(any::<u8>(), 0..=255)]) {
            let shown = encode(&key);
            prop_assert!(shown.len() <= key.len().max(1) * 9);
            prop_assert!(!shown.contains(&b'/') && !shown.contains(&0));
            prop_assert!(![&b""[..], b".", b"..", b".kivafs"].contains(&&shown[..]));
            prop_assert_eq!(decode(&shown), Some(key));
        }

        #[test]
        fn shown_to_key_and_back(shown in prop_oneof![bytes(), prop::collection::vec(any::<u8>(), 0..=255)]) {
            if let Some(key) = decode(&shown) {
                prop_assert!(key.len() <= shown.len());
                prop_assert_eq!(encode(&key), shown);
            }
        }
    }
}
