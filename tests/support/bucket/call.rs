//! Requests: what they ask for, what they are about, and how they are answered.

use bytes::Bytes;
use kivafs::backend::{Done, ObjectError};
use std::ops::Range;

/// What is asked.
#[derive(Clone, Debug)]
pub enum Call {
    Create { name: String, body: Bytes },
    Put { name: String, body: Bytes },
    Get { name: String, range: Option<Range<u64>> },
    List { prefix: String, max: u32 },
    Delete { names: Vec<String> },
}

/// What a request is about, for who keeps a log in the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum What {
    /// The create of an epoch's first commit, the store's very first one included.
    Claim,
    /// The create of another commit.
    Commit,
    /// The create of a seal.
    Seal,
    /// The put of a data segment.
    Data,
    Get,
    List,
    Delete,
    /// A create or put of anything else.
    Other,
}

impl What {
    pub const ALL: [What; 8] =
        [What::Claim, What::Commit, What::Seal, What::Data, What::Get, What::List, What::Delete, What::Other];
}

/// What a name of the log's layout stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A commit or a seal.
    Commit { epoch: u64, number: u64 },
    /// A data segment.
    Data { number: u64 },
}

pub const SEAL_MAGIC: &[u8; 8] = b"kivafsE1";
pub const COMMIT_MAGIC: &[u8; 8] = b"kivafsC1";
pub const DATA_MAGIC: &[u8; 8] = b"kivafsD1";

/// The name of a commit or seal; later ones come first in a listing.
pub fn commit_name(epoch: u64, number: u64) -> String {
    format!("e{:016x}/c{:016x}", !epoch, !number)
}

pub fn data_name(number: u64) -> String {
    format!("d/{:016x}", !number)
}

/// What a name stands for, if it is one of the layout's.
pub fn place_of(name: &str) -> Option<Place> {
    let number = |text: &str| {
        let is_number = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        is_number.then(|| u64::from_str_radix(text, 16).ok().map(|inverted| !inverted)).flatten()
    };
    match name.split_once('/')? {
        ("d", rest) => Some(Place::Data { number: number(rest)? }),
        (epoch, rest) => {
            Some(Place::Commit { epoch: number(epoch.strip_prefix('e')?)?, number: number(rest.strip_prefix('c')?)? })
        }
    }
}

impl Call {
    pub fn what(&self) -> What {
        match self {
            Call::Create { name, body } => match place_of(name) {
                Some(Place::Commit { .. }) if body.starts_with(SEAL_MAGIC) => What::Seal,
                Some(Place::Commit { number: 1, .. }) => What::Claim,
                Some(Place::Commit { .. }) => What::Commit,
                _ => What::Other,
            },
            Call::Put { name, .. } => match place_of(name) {
                Some(Place::Data { .. }) => What::Data,
                _ => What::Other,
            },
            Call::Get { .. } => What::Get,
            Call::List { .. } => What::List,
            Call::Delete { .. } => What::Delete,
        }
    }

    /// Whether it may change what is in the bucket.
    pub fn changes(&self) -> bool {
        matches!(self, Call::Create { .. } | Call::Put { .. } | Call::Delete { .. })
    }

    /// The name, the first of the names, or the prefix.
    pub fn name(&self) -> &str {
        match self {
            Call::Create { name, .. } | Call::Put { name, .. } | Call::Get { name, .. } => name,
            Call::List { prefix, .. } => prefix,
            Call::Delete { names } => names.first().map_or("", String::as_str),
        }
    }
}

/// What the bucket has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done,
    Body(Bytes),
    Names(Vec<String>),
}

/// Whom it is said to.
pub enum Reply {
    Done(Done<()>),
    Body(Done<Bytes>),
    Names(Done<Vec<String>>),
}

impl Reply {
    pub fn send(self, result: Result<Answer, ObjectError>) {
        match (self, result) {
            (Reply::Done(done), Ok(Answer::Done)) => done(Ok(())),
            (Reply::Body(done), Ok(Answer::Body(body))) => done(Ok(body)),
            (Reply::Names(done), Ok(Answer::Names(names))) => done(Ok(names)),
            (Reply::Done(done), Err(error)) => done(Err(error)),
            (Reply::Body(done), Err(error)) => done(Err(error)),
            (Reply::Names(done), Err(error)) => done(Err(error)),
            (_, Ok(answer)) => panic!("{answer:?} answers another question"),
        }
    }
}
