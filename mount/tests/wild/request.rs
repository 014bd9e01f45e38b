//! What requests consist of (linux/fuse.h), and values for it: sensible ones, and those at the edges.

/// A part of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// A number of 32 bits that may be anything: modes, flags, users, masks.
    Bits,
    /// One of 64 bits: offsets, lengths, times, counts.
    Number,
    /// Seconds since 1970.
    Seconds,
    /// And nanoseconds.
    Nanoseconds,
    /// How many bytes are wanted back.
    Size,
    /// A node's number.
    Node,
    /// An open file's or directory's number.
    Handle,
    /// A file's name, and a NUL.
    Name,
    /// Not looked at.
    Padding,
    /// The length of the bytes at the end, and these, once all other fields are there.
    Length,
}

use Field::*;

/// All operations: opcodes and what they consist of.
pub const OPERATIONS: [(u32, &[Field]); 48] = [
    (LOOKUP, &[Name]),
    (FORGET, &[Number]),
    (3, &[Bits, Padding, Handle]),
    (
        SETATTR,
        &[
            Bits,
            Padding,
            Handle,
            Number,
            Number,
            Seconds,
            Seconds,
            Seconds,
            Nanoseconds,
            Nanoseconds,
            Nanoseconds,
            Bits,
            Padding,
            Bits,
            Bits,
            Padding,
        ],
    ),
    (5, &[]),
    (SYMLINK, &[Name, Name]),
    (MKNOD, &[Bits, Bits, Bits, Padding, Name]),
    (MKDIR, &[Bits, Bits, Name]),
    (10, &[Name]),
    (11, &[Name]),
    (12, &[Node, Name, Name]),
    (LINK, &[Node, Name]),
    (OPEN, &[Bits, Bits]),
    (READ, &[Handle, Number, Size, Bits, Number, Bits, Padding]),
    (WRITE, &[Handle, Number, Length, Bits, Number, Bits, Padding]),
    (17, &[]),
    (18, &[Handle, Bits, Bits, Number]),
    (20, &[Handle, Bits, Padding]),
    (SETXATTR, &[Length, Bits, Name]),
    (22, &[Size, Padding, Name]),
    (23, &[Size, Padding]),
    (24, &[Name]),
    (25, &[Handle, Bits, Padding, Number]),
    (OPENDIR, &[Bits, Bits]),
    (READDIR, &[Handle, Number, Size, Bits, Number, Bits, Padding]),
    (29, &[Handle, Bits, Bits, Number]),
    (30, &[Handle, Bits, Padding]),
    (31, &[Handle, Number, Number, Number, Bits, Bits, Bits, Padding]),
    (32, &[Handle, Number, Number, Number, Bits, Bits, Bits, Padding]),
    (33, &[Handle, Number, Number, Number, Bits, Bits, Bits, Padding]),
    (34, &[Bits, Padding]),
    (CREATE, &[Bits, Bits, Bits, Bits, Name]),
    (36, &[Number]),
    (37, &[Number, Bits, Padding]),
    (39, &[Handle, Bits, Bits, Number, Length, Size]),
    (40, &[Handle, Number, Bits, Bits]),
    (41, &[Number, Number, Size, Padding]),
    (BATCH_FORGET, &[Bits, Padding, Node, Number, Node, Number]),
    (43, &[Handle, Number, Number, Bits, Padding]),
    (READDIRPLUS, &[Handle, Number, Size, Bits, Number, Bits, Padding]),
    (45, &[Node, Bits, Padding, Name, Name]),
    (46, &[Handle, Number, Bits, Padding]),
    (47, &[Handle, Number, Node, Handle, Number, Number, Number]),
    (48, &[Number, Bits, Bits]),
    (50, &[Padding, Padding]),
    (51, &[Bits, Bits, Bits, Bits, Name]),
    (52, &[Bits, Padding, Handle, Bits, Bits]),
    (999, &[Number, Name]),
];

pub const LOOKUP: u32 = 1;
pub const FORGET: u32 = 2;
const SETATTR: u32 = 4;
const SYMLINK: u32 = 6;
const MKNOD: u32 = 8;
const MKDIR: u32 = 9;
const LINK: u32 = 13;
const OPEN: u32 = 14;
pub const READ: u32 = 15;
pub const WRITE: u32 = 16;
const SETXATTR: u32 = 21;
const OPENDIR: u32 = 27;
const READDIR: u32 = 28;
pub const CREATE: u32 = 35;
pub const BATCH_FORGET: u32 = 42;
const READDIRPLUS: u32 = 44;

const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"d",
    b"a",
    b"b",
    b"",
    b".",
    b"..",
    b".kivafs",
    b"a/b",
    b"%-",
    b"%2E",
    b"100%",
    b"\xff\xfe",
    b"user.x",
];
const ATTRIBUTES: [&[u8]; 5] =
    [b"user.a", b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default", b"trusted.b"];

/// Choices that were made before.
pub struct Draw<'a>(std::slice::Iter<'a, u64>);

impl<'a> Draw<'a> {
    pub fn new(choices: &'a [u64]) -> Draw<'a> {
        Draw(choices.iter())
    }

    fn next(&mut self) -> u64 {
        *self.0.next().expect("no request has more fields than there are choices")
    }
}

/// What answers have told.
#[derive(Default)]
pub struct Known {
    nodes: Vec<u64>,
    handles: Vec<u64>,
}

impl Known {
    /// Takes note of an answer's numbers: the body, if there was no error.
    pub fn learn(&mut self, opcode: u32, reply: &Option<Vec<u8>>) {
        let Some(reply) = reply else { return };
        let number = |at: usize| reply.get(at..at + 8).map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
        match opcode {
            LOOKUP | SYMLINK | MKNOD | MKDIR | LINK => self.nodes.extend(number(0)),
            // An entry takes 128 bytes.
            CREATE => {
                self.nodes.extend(number(0));
                self.handles.extend(number(128));
            }
            OPEN | OPENDIR => self.handles.extend(number(0)),
            _ => {}
        }
    }

    fn one_of(known: &[u64], choice: u64) -> u64 {
        match choice % 8 {
            0 => [0, 1, 2, 3, 1 << 48, (1 << 48) - 1, u64::MAX, choice][(choice >> 8) as usize % 8],
            _ if known.is_empty() => 1,
            _ => known[(choice >> 8) as usize % known.len()],
        }
    }
}

fn number(choice: u64) -> u64 {
    const EDGES: [u64; 16] = [
        0,
        1,
        4095,
        4096,
        65_535,
        65_536,
        1 << 20,
        (1 << 31) - 1,
        1 << 31,
        1 << 32,
        (1 << 62) + 1,
        i64::MAX as u64 - 1,
        i64::MAX as u64,
        1 << 63,
        u64::MAX - 1,
        u64::MAX,
    ];
    match choice % 4 {
        0 => choice,
        1 => choice >> 44,
        _ => EDGES[(choice >> 8) as usize % EDGES.len()],
    }
}

fn bits(choice: u64) -> u32 {
    match choice % 4 {
        0 => (choice >> 32) as u32,
        1 => 1 << (choice >> 32 & 31),
        // Modes and flags that make sense.
        2 => [0o100_644, 0o40_755, 0o644, 0o120_777, 0o10_600, 0, 1, 2, 3][(choice >> 32) as usize % 9],
        _ => (choice >> 32) as u32 & (choice >> 16) as u32 & 0xffff,
    }
}

fn name(choice: u64) -> Vec<u8> {
    let pick = (choice >> 8) as usize;
    match choice % 16 {
        0 => vec![b'n'; [254, 255, 256, 4096][pick % 4]],
        1 => choice.to_le_bytes().into_iter().filter(|byte| *byte != 0).collect(),
        2..=4 => ATTRIBUTES[pick % ATTRIBUTES.len()].to_vec(),
        _ => NAMES[pick % NAMES.len()].to_vec(),
    }
}

/// A request: the node that it is for, and its body.
pub fn draw(draw: &mut Draw, fields: &[Field], known: &Known) -> (u64, Vec<u8>) {
    let node = Known::one_of(&known.nodes, draw.next());
    let (mut body, mut bytes) = (Vec::new(), Vec::new());
    for field in fields {
        let choice = draw.next();
        match field {
            Bits => body.extend_from_slice(&bits(choice).to_le_bytes()),
            Number => body.extend_from_slice(&number(choice).to_le_bytes()),
            Seconds => body.extend_from_slice(&((number(choice) as i64).max(-i64::MAX)).to_le_bytes()),
            Nanoseconds => body.extend_from_slice(&((choice >> 32) as u32 % 1_000_000_000).to_le_bytes()),
            Size => {
                let size = if choice.is_multiple_of(8) { bits(choice) } else { (choice >> 32) as u32 % (128 << 10) };
                body.extend_from_slice(&size.to_le_bytes());
            }
            Node => body.extend_from_slice(&Known::one_of(&known.nodes, choice).to_le_bytes()),
            Handle => body.extend_from_slice(&Known::one_of(&known.handles, choice).to_le_bytes()),
            Name => {
                body.extend_from_slice(&name(choice));
                body.push(0);
            }
            Padding => body.extend_from_slice(&[0; 4]),
            Length => {
                bytes = vec![choice as u8; [0, 1, 100, 961, 5000, 70_000][(choice >> 8) as usize % 6]];
                body.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
            }
        }
    }
    body.extend_from_slice(&bytes);
    (node, body)
}
