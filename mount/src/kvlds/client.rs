//! A client: sends requests, many at a time if need be, and reads the answers.

use super::message::{self, Pair, Request};
use super::server::Address;
use super::wire;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use thiserror::Error;

/// Longest answer that is accepted.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const READ_BYTES: usize = 64 << 10;

/// What went wrong. The connection is of no more use.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Connecting, sending or receiving failed, or the server has closed the connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The server's stream makes no sense.
    #[error("{0}")]
    Packet(#[from] wire::Malformed),
    /// An answer makes no sense.
    #[error("{0}")]
    Answer(#[from] message::Malformed),
}

/// A connection.
pub struct Client {
    stream: Box<dyn Stream>,
    /// What was asked and not yet sent.
    unsent: Vec<u8>,
    /// What was received; the part before `at` is done with.
    received: Vec<u8>,
    at: usize,
    next_id: u64,
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

impl Client {
    /// Connects.
    pub fn connect(address: &Address) -> io::Result<Client> {
        let stream: Box<dyn Stream> = match address {
            Address::Unix(path) => Box::new(UnixStream::connect(path)?),
            Address::Tcp(at) => {
                let stream = TcpStream::connect(at)?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
        };
        Ok(Client { stream, unsent: Vec::new(), received: Vec::new(), at: 0, next_id: 0 })
    }

    /// Asks; answers the request's number. Sent by [`Client::flush`].
    pub fn ask(&mut self, request: &Request<'_>) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        wire::push(&mut self.unsent, id, |record| request.encode(record));
        id
    }

    /// Sends what was asked.
    pub fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }

    /// Waits for the next answer, to whichever request: its number and its record.
    pub fn receive(&mut self) -> Result<(u64, Vec<u8>), ClientError> {
        loop {
            if let Some(answer) = self.next_received()? {
                return Ok(answer);
            }
            self.received.drain(..self.at);
            self.at = 0;
            let before = self.received.len();
            self.received.resize(before + READ_BYTES, 0);
            let read = self.stream.read(&mut self.received[before..]);
            self.received.truncate(before + read.as_ref().map_or(0, |count| *count));
            if read? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    /// The next answer, if it came together with one before it: nothing is waited for.
    pub fn next_received(&mut self) -> Result<Option<(u64, Vec<u8>)>, ClientError> {
        let Some(packet) = wire::front(&self.received[self.at..], ANSWER_BYTES_MAX)? else { return Ok(None) };
        let (answer, bytes) = ((packet.id, packet.record.to_vec()), packet.bytes());
        self.at += bytes;
        Ok(Some(answer))
    }

    /// Asks one thing, when nothing else is unanswered; answers the record.
    fn call(&mut self, request: &Request<'_>) -> Result<Vec<u8>, ClientError> {
        let id = self.ask(request);
        self.flush()?;
        match self.receive()? {
            (answered, record) if answered == id => Ok(record),
            _ => Err(io::Error::other("an answer to what was not asked").into()),
        }
    }

    /// Carries out a request that changes; answers whether it did.
    pub fn change(&mut self, request: &Request<'_>) -> Result<bool, ClientError> {
        Ok(message::decode_done(&self.call(request)?)?)
    }

    /// The key's value.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, ClientError> {
        let record = self.call(&Request::Get { key })?;
        Ok(message::decode_value(&record)?.map(<[u8]>::to_vec))
    }

    /// All pairs from `start` on and before `end` (empty: to the last), in order. What changes
    /// meanwhile may be seen or not.
    pub fn range(&mut self, start: &[u8], end: &[u8], each: &mut dyn FnMut(Pair<'_>)) -> Result<(), ClientError> {
        let mut start = start.to_vec();
        loop {
            start = self.range_part(READ_BYTES as u32, &start, end, each)?;
            if start.is_empty() {
                return Ok(());
            }
        }
    }

    /// The first of them, about `bytes_max`; answers where the rest begins, empty if there is none.
    pub fn range_part(
        &mut self,
        bytes_max: u32,
        start: &[u8],
        end: &[u8],
        each: &mut dyn FnMut(Pair<'_>),
    ) -> Result<Vec<u8>, ClientError> {
        let record = self.call(&Request::Range { bytes_max, start, end })?;
        let (next, pairs) = message::decode_pairs(&record)?;
        pairs.into_iter().for_each(each);
        let is_last = !end.is_empty() && next >= end;
        Ok(if is_last { Vec::new() } else { next.to_vec() })
    }
}
