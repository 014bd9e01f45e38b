//! get, put, ls, rm of keys, through a server that has their store (`--kvlds`).

use crate::cli::failure::Failure;
use crate::fs::{Name, VALUE_MAX, names};
use crate::kvlds::client::{Client, ClientError};
use crate::kvlds::message::Request;
use crate::kvlds::server::Address;
use std::ffi::OsStr;
use std::io::{self, BufWriter, ErrorKind, Read, Write, stdout};
use std::os::unix::ffi::OsStrExt;

/// A key, and what people call it.
struct Key<'a> {
    name: &'a OsStr,
    raw: Name,
}

impl Key<'_> {
    /// The file name of a key; as in paths, slashes around it mean nothing.
    fn named(name: Option<&OsStr>) -> Result<Key<'_>, Failure> {
        let Some(name) = name else {
            return Err(Failure::Usage(
                "NAME is missing: behind --kvlds and its address stands a key's file name".into(),
            ));
        };
        let mut parts = names(name.as_bytes());
        match (parts.next().map(Name::to_find), parts.next()) {
            (Some(Ok(raw)), None) => Ok(Key { name, raw }),
            _ => Err(Failure::Usage(format!(
                "{}: not the file name of a key: a '/' in a key is written %2F, the empty key %-, and none has more than \
                 255 bytes",
                name.as_bytes().escape_ascii()
            ))),
        }
    }

    fn failed(&self, why: impl std::fmt::Display) -> Failure {
        Failure::Failed(format!("{}: {why}", self.name.as_bytes().escape_ascii()))
    }
}

fn connect(address: &Address) -> Result<Client, Failure> {
    Client::connect(address).map_err(|error| {
        let cure = match error.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                format!("nobody serves keys there: start 'kivafs serve STORE --kvlds {address}'")
            }
            ErrorKind::PermissionDenied => format!("{error}: only who started its server may use it"),
            _ => error.to_string(),
        };
        Failure::Failed(format!("{address}: {cure}"))
    })
}

/// A connection that has failed.
fn broken(address: &Address, error: ClientError) -> Failure {
    let why = match error {
        ClientError::Io(error) => match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                "the server has closed the connection: its log says why".into()
            }
            _ => error.to_string(),
        },
        ClientError::Packet(_) | ClientError::Answer(_) => format!("{error}: no server of keys answers like that"),
    };
    Failure::Failed(format!("{address}: {why}"))
}

fn unwritten(error: io::Error) -> Failure {
    Failure::Failed(format!("stdout: {error}"))
}

pub fn get(address: &Address, name: Option<&OsStr>) -> Result<(), Failure> {
    let key = Key::named(name)?;
    let value = connect(address)?.get(key.raw.raw()).map_err(|error| broken(address, error))?;
    let Some(value) = value else {
        return Err(key.failed(format!(
            "no such key, or one without a value: a directory, or a file of more than {VALUE_MAX} bytes"
        )));
    };
    let mut output = stdout().lock();
    output.write_all(&value).and_then(|()| output.flush()).map_err(unwritten)
}

/// Durable when it returns.
pub fn put(address: &Address, name: Option<&OsStr>, input: &mut dyn Read) -> Result<(), Failure> {
    let key = Key::named(name)?;
    let mut value = Vec::new();
    let read = input.take(VALUE_MAX as u64 + 1).read_to_end(&mut value);
    read.map_err(|error| key.failed(format!("reading what is to be put: {error}")))?;
    if value.len() > VALUE_MAX {
        return Err(key.failed(format!(
            "a value has at most {VALUE_MAX} bytes, and this has more: put it into the store itself, as a file"
        )));
    }
    let set = Request::Set { key: key.raw.raw(), value: &value };
    match connect(address)?.change(&set).map_err(|error| broken(address, error))? {
        true => Ok(()),
        false => Err(key.failed("not put: what has this name is no regular file")),
    }
}

/// All keys, as a mount shows them.
pub fn ls(address: &Address, name: Option<&OsStr>) -> Result<(), Failure> {
    if let Some(name) = name {
        let name = name.as_bytes().escape_ascii();
        return Err(Failure::Usage(format!("{name}: with --kvlds ls lists all keys, and takes no NAME")));
    }
    let mut output = BufWriter::new(stdout().lock());
    let mut written = Ok(());
    let listed = connect(address)?.range(b"", b"", &mut |(key, _)| {
        let name = Name::from_raw(key).expect("no string of the protocol is longer than a name");
        if written.is_ok() {
            written = output.write_all(&[&name.shown()[..], b"\n"].concat());
        }
    });
    listed.map_err(|error| broken(address, error))?;
    written.and_then(|()| output.flush()).map_err(unwritten)
}

/// Durable when it returns. As the protocol has it: what is not there is gone already.
pub fn rm(address: &Address, name: Option<&OsStr>) -> Result<(), Failure> {
    let key = Key::named(name)?;
    let delete = Request::Delete { key: key.raw.raw() };
    match connect(address)?.change(&delete).map_err(|error| broken(address, error))? {
        true => Ok(()),
        false => Err(key.failed("not removed: what has this name is no regular file")),
    }
}
