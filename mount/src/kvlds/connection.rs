//! One connection: reads requests, carries them out, and sends the answers, each when it may be sent.
//!
//! Requests are taken as they come, many at a time. What they change is one or few transactions, in
//! their order. Answers go out in any order:
//!
//! * to a change, when it is durable and nobody keeps what was there before;
//! * to a read, when the same is so of what it shows; so to a GET at once, if its key has no change that
//!   is not durable. It sees everything that was acknowledged before it came, to anybody; of changes that
//!   were not, it may see them or not.
//!
//! So neither answer shows what a crash could take back. After storage has failed reads are answered
//! from what was durable then.
//!
//! Bounds: a connection has [`ROOM`] bytes for requests that are not answered and answers that are not
//! sent. When they are used up it is not read from until some are free again: nothing is dropped.

use super::message::{self, Request};
use super::untold::Untold;
use super::wire;
use crate::fs::{
    Changed, FileSystem, Forget, FsError, If, KEYS_AT_ONCE, KeyChange, KeyRange, NAME_MAX, Name, Outcome, SPACE_WAIT,
    VALUE_MAX,
};
use bytes::{Bytes, BytesMut};
use kivafs::store::{SpaceTries, StoreError, View};
use std::sync::Arc;
use std::time::Instant;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

/// Bytes read at once.
const READ_BYTES: usize = 128 << 10;
/// Bytes of a RANGE's pairs, whatever was asked for.
const RANGE_BYTES_MAX: usize = 512 << 10;
/// What a request and its answer take, a RANGE's pairs apart.
const REQUEST_COST: usize = 1 << 10;
/// Most that one connection may have in memory.
const ROOM: usize = 4 << 20;
const _: () = assert!(RANGE_BYTES_MAX + REQUEST_COST <= ROOM);
// What a request can name is what the file system takes.
const _: () = assert!(message::STRING_MAX == NAME_MAX && message::STRING_MAX == VALUE_MAX);

/// Why a connection is dropped.
#[derive(Debug, Error)]
pub enum Dropped {
    /// The stream makes no sense.
    #[error("{0}")]
    Packet(#[from] wire::Malformed),
    /// A packet's record makes no sense.
    #[error("{0}")]
    Record(#[from] message::Malformed),
    /// What was asked for cannot be done: the protocol has no answer that says so.
    #[error("{0}")]
    Refused(#[from] FsError),
    /// The other end has gone.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What goes to the task that sends.
enum Outgoing {
    /// Packets, and the room that they take until they are sent.
    Packets(Vec<u8>, OwnedSemaphorePermit),
    /// Nothing more: the connection is to be dropped.
    Failure(Dropped),
}

type Outbox = mpsc::UnboundedSender<Outgoing>;

/// What connections are served from.
#[derive(Clone)]
pub struct Source {
    fs: Arc<FileSystem>,
    /// Who keeps copies, if anybody does, and what they have not heard of.
    copies: Option<(Forget, Arc<Untold>)>,
}

impl Source {
    /// `forget`: has those forget who keep copies.
    pub fn new(fs: Arc<FileSystem>, forget: Option<Forget>) -> Source {
        Source { fs, copies: forget.map(|forget| (forget, Arc::default())) }
    }

    /// What to wait for with what was just seen, if that is to be waited for.
    fn untold(&self) -> Option<(Arc<Untold>, u64)> {
        let (_, untold) = self.copies.as_ref()?;
        let seen = untold.now();
        (!untold.is_told(seen)).then(|| (untold.clone(), seen))
    }
}

/// Waits until storage has what was seen, and nobody keeps what was there before.
async fn settled(fs: &FileSystem, untold: Option<(Arc<Untold>, u64)>) -> Result<(), StoreError> {
    let (done, durable) = oneshot::channel();
    // Who does not wait any more needs no answer.
    fs.store().sync_then(Box::new(move |result| drop(done.send(result))));
    if let Some((untold, seen)) = untold {
        untold.wait(seen).await;
    }
    durable.await.expect("every sync is answered")
}

/// Serves one connection until it ends. Ok: the other end has closed it, and has all answers.
///
/// Answers are sent by a task of its own, so that requests are carried out meanwhile.
pub async fn serve(
    source: Source,
    reader: impl AsyncRead + Send + Unpin + 'static,
    writer: impl AsyncWrite + Send + Unpin + 'static,
) -> Result<(), Dropped> {
    let (outbox, outgoing) = mpsc::unbounded_channel();
    let sending = tokio::spawn(send(writer, outgoing));
    let failure = outbox.clone();
    let room = Arc::new(Semaphore::new(ROOM));
    if let Err(dropped) = receive(source, reader, &room, outbox).await {
        // What was asked before has its answer first: room is whole again when that is sent.
        let _all = room.acquire_many(ROOM as u32).await.expect("never closed");
        // If there is nobody to tell, the sender has failed itself.
        drop(failure.send(Outgoing::Failure(dropped)));
    }
    // The sender ends when nothing holds the outbox any more: not before all is answered.
    drop(failure);
    sending.await.unwrap_or_else(|ended| Err(Dropped::Io(std::io::Error::other(ended))))
}

/// Sends answers as they come.
async fn send(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::UnboundedReceiver<Outgoing>,
) -> Result<(), Dropped> {
    while let Some(next) = outgoing.recv().await {
        match next {
            Outgoing::Packets(packets, _room) => writer.write_all(&packets).await?,
            Outgoing::Failure(dropped) => return Err(dropped),
        }
    }
    Ok(writer.shutdown().await?)
}

/// Takes requests and has them carried out.
async fn receive(
    source: Source,
    mut reader: impl AsyncRead + Unpin,
    room: &Arc<Semaphore>,
    outbox: Outbox,
) -> Result<(), Dropped> {
    let mut buffer = BytesMut::new();
    loop {
        let batch = Batch::front(&mut buffer)?;
        if batch.cost == 0 {
            buffer.reserve(READ_BYTES);
            let closed = tokio::select! {
                read = reader.read_buf(&mut buffer) => read? == 0,
                () = outbox.closed() => true,
            };
            match closed {
                false => continue,
                // In the midst of a packet: there is nobody to answer that one.
                true => return Ok(()),
            }
        }
        let cost = u32::try_from(batch.cost).expect("no more than there is room for");
        let room = room.clone().acquire_many_owned(cost).await.expect("never closed");
        carry_out(&source, batch, room, &outbox).await?;
    }
}

/// Whole requests from the front of a stream.
#[derive(Default)]
struct Batch {
    changes: Vec<(u64, KeyChange)>,
    reads: Vec<(u64, Read)>,
    cost: usize,
}

/// What asks and changes nothing.
enum Read {
    Params,
    Get(Name),
    Range { bytes_max: usize, start: Name, end: Option<Name> },
}

impl Read {
    /// What it and its answer take.
    fn cost(&self) -> usize {
        match self {
            Read::Params | Read::Get(_) => REQUEST_COST,
            Read::Range { bytes_max, .. } => REQUEST_COST + bytes_max,
        }
    }

    /// The key of a GET.
    fn key(&self) -> Option<&Name> {
        match self {
            Read::Get(key) => Some(key),
            Read::Params | Read::Range { .. } => None,
        }
    }
}

impl Batch {
    /// As many as there are and as there may be room for. What makes no sense is an error only at the
    /// very front: what came before it is carried out as if it had come alone.
    fn front(buffer: &mut BytesMut) -> Result<Batch, Dropped> {
        let (mut end, mut batch) = (0, Batch::default());
        // What is asked to be stored is a part of this until it is stored.
        let stream = std::mem::take(buffer).freeze();
        loop {
            let (packet, request) = match request_at(&stream[end..]) {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(_) if batch.cost > 0 => break,
                Err(dropped) => return Err(dropped),
            };
            let cost =
                REQUEST_COST + if let Request::Range { bytes_max, .. } = request { range_bytes(bytes_max) } else { 0 };
            if batch.cost > 0 && batch.cost + cost > ROOM / 2 {
                break;
            }
            batch.cost += cost;
            end += packet.bytes();
            batch.add(packet.id, &request, &stream);
        }
        // Usually a part of one request.
        *buffer = BytesMut::from(&stream[end..]);
        Ok(batch)
    }

    fn add(&mut self, id: u64, request: &Request<'_>, stream: &Bytes) {
        let mut change = |key, only, value: Option<&[u8]>| {
            let value = value.map(|value| stream.slice_ref(value));
            self.changes.push((id, KeyChange { key: name(key), only, value }));
        };
        let equals = |old| If::Equals(stream.slice_ref(old));
        match *request {
            Request::Set { key, value } => change(key, If::Always, Some(value)),
            Request::Cas { key, old, value } => change(key, equals(old), Some(value)),
            Request::Add { key, value } => change(key, If::Absent, Some(value)),
            Request::Modify { key, value } => change(key, If::Present, Some(value)),
            Request::Delete { key } => change(key, If::Always, None),
            Request::Cad { key, old } => change(key, equals(old), None),
            Request::Params => self.reads.push((id, Read::Params)),
            Request::Get { key } => self.reads.push((id, Read::Get(name(key)))),
            Request::Range { bytes_max, start, end } => {
                let end = (!end.is_empty()).then(|| name(end));
                self.reads.push((id, Read::Range { bytes_max: range_bytes(bytes_max), start: name(start), end }));
            }
        }
    }
}

/// The request at the front of a stream, if all of it is there.
fn request_at(stream: &[u8]) -> Result<Option<(wire::Packet<'_>, Request<'_>)>, Dropped> {
    let Some(packet) = wire::front(stream, message::REQUEST_BYTES_MAX)? else { return Ok(None) };
    Ok(Some((packet, Request::decode(packet.record)?)))
}

fn range_bytes(bytes_max: u32) -> usize {
    (bytes_max as usize).min(RANGE_BYTES_MAX)
}

async fn carry_out(
    source: &Source,
    batch: Batch,
    mut room: OwnedSemaphorePermit,
    outbox: &Outbox,
) -> Result<(), Dropped> {
    let fs = &source.fs;
    let Batch { changes, reads, .. } = batch;
    if !reads.is_empty() {
        let of_reads = room.num_permits() - changes.len() * REQUEST_COST;
        let of_reads = room.split(of_reads).expect("a part of what there is");
        read(source, reads, of_reads, outbox).await?;
    }
    if !changes.is_empty() {
        let (ids, changes): (Vec<u64>, Vec<KeyChange>) = changes.into_iter().unzip();
        let mut outcomes = Vec::with_capacity(changes.len());
        let (mut tries, mut until) = (SpaceTries::default(), None);
        while outcomes.len() < changes.len() {
            // Before anybody can see what is changed.
            let ticket = source.copies.as_ref().map(|(forget, untold)| (forget, untold.begin()));
            let (Changed { outcomes: some, stale }, made) = make_changes(fs, &changes[outcomes.len()..]).await;
            if let Some((forget, ticket)) = ticket.filter(|_| !stale.is_empty()) {
                // Also of those before one that could not be made.
                forget(stale, Box::new(move || drop(ticket)));
            }
            if !some.is_empty() {
                (tries, until) = (SpaceTries::default(), None);
            }
            outcomes.extend(some);
            match made {
                // With nothing untold: the answers of all other connections would wait for that.
                Err(Dropped::Refused(FsError::NoSpace)) => {
                    let until = *until.get_or_insert_with(|| Instant::now() + SPACE_WAIT);
                    tries = get_space(fs, tries, until).await?;
                }
                made => made?,
            }
        }
        let mut packets = Vec::with_capacity(ids.len() * (wire::OVERHEAD_BYTES + 4));
        for (id, outcome) in ids.into_iter().zip(outcomes) {
            wire::push(&mut packets, id, |record| message::push_done(record, outcome == Outcome::Done));
        }
        let outbox = outbox.clone();
        let answer = move |durable: Result<(), StoreError>| {
            let outgoing = match durable {
                Ok(()) => Outgoing::Packets(packets, room),
                Err(error) => Outgoing::Failure(Dropped::Refused(error.into())),
            };
            // Who has gone needs no answer.
            drop(outbox.send(outgoing));
        };
        match source.untold() {
            None => fs.store().sync_then(Box::new(answer)),
            untold => {
                let fs = fs.clone();
                tokio::spawn(async move { answer(settled(&fs, untold).await) });
            }
        }
    }
    Ok(())
}

/// Answers what asks and changes nothing: at once where that is durable, the rest when it is.
async fn read(
    source: &Source,
    mut reads: Vec<(u64, Read)>,
    mut room: OwnedSemaphorePermit,
    outbox: &Outbox,
) -> Result<(), Dropped> {
    let fs = &source.fs;
    let view = fs.store().view();
    let untold = source.untold();
    let shown = match (fs.store().is_durable(), &untold) {
        (true, None) => Shown::Settled,
        (false, None) => Shown::InPart,
        (_, Some(_)) => Shown::Unsettled,
    };
    let Answers { at_once, later, waits } = answer_reads(fs, &view, &reads, shown).await?;
    drop(view);
    let mut waits = waits.into_iter();
    reads.retain(|_| waits.next().expect("one for each"));
    let of_later = room.split(reads.iter().map(|(_, asked)| asked.cost()).sum()).expect("a part of what there is");
    if room.num_permits() > 0 {
        drop(outbox.send(Outgoing::Packets(at_once, room)));
    }
    if reads.is_empty() {
        return Ok(());
    }
    let (fs, outbox) = (fs.clone(), outbox.clone());
    tokio::spawn(async move {
        let answers = match settled(&fs, untold).await {
            Ok(()) => Ok(later),
            Err(_) => {
                let view = fs.store().committed_view();
                answer_reads(&fs, &view, &reads, Shown::Settled).await.map(|answers| answers.at_once)
            }
        };
        drop(outbox.send(match answers {
            Ok(packets) => Outgoing::Packets(packets, of_later),
            Err(dropped) => Outgoing::Failure(dropped),
        }));
    });
    Ok(())
}

/// What of a view may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// All of it: it is durable, and nobody keeps what was there before.
    Settled,
    /// What is durable of it.
    InPart,
    /// Nothing yet.
    Unsettled,
}

/// Packets with what was found.
struct Answers {
    /// Those that may be sent now.
    at_once: Vec<u8>,
    /// Those that have to wait.
    later: Vec<u8>,
    /// Of each of what was asked, whether its answer has to.
    waits: Vec<bool>,
}

/// The answers to what asks and changes nothing.
async fn answer_reads(
    fs: &Arc<FileSystem>,
    view: &View,
    reads: &[(u64, Read)],
    shown: Shown,
) -> Result<Answers, Dropped> {
    let is_settled = shown == Shown::Settled;
    let mut answers = Answers { at_once: Vec::new(), later: Vec::new(), waits: vec![!is_settled; reads.len()] };
    let gets: Vec<(usize, &Name)> =
        reads.iter().enumerate().filter_map(|(i, (_, asked))| asked.key().map(|key| (i, key))).collect();
    let keys: Vec<&Name> = gets.iter().map(|(_, key)| *key).collect();
    let judge = (shown == Shown::InPart).then(|| &**fs.store());
    let (mut done, mut at_once) = (0, KEYS_AT_ONCE);
    while done < gets.len() {
        let rest = &keys[done..];
        let some = |most: usize| fs.values_of(view, &rest[..most.min(rest.len())], judge);
        for found in patiently(fs, &mut at_once, some).await? {
            let i = gets[done].0;
            answers.waits[i] &= !found.is_durable;
            answers.push(i, reads[i].0, |record| message::push_value(record, found.value.as_deref()));
            done += 1;
        }
    }
    for (i, (id, asked)) in reads.iter().enumerate() {
        match asked {
            Read::Params => {
                // It shows nothing.
                answers.waits[i] = false;
                answers.push(i, *id, message::push_params);
            }
            Read::Get(_) => {}
            Read::Range { bytes_max, start, end } => {
                let pairs = |_| fs.pairs_of(view, start, end.as_ref(), *bytes_max);
                let found = patiently(fs, &mut at_once, pairs).await?;
                let KeyRange { pairs, next } = found;
                let next = next.as_ref().or(end.as_ref()).map_or(&[][..], Name::raw);
                let pairs = pairs.iter().map(|(key, value)| (key.raw(), &value[..]));
                answers.push(i, *id, |record| message::push_pairs(record, next, pairs));
            }
        }
    }
    Ok(answers)
}

impl Answers {
    fn push(&mut self, index: usize, id: u64, write: impl FnOnce(&mut Vec<u8>)) {
        wire::push(if self.waits[index] { &mut self.later } else { &mut self.at_once }, id, write);
    }
}

/// After a refusal for lack of space: tries to get some. Ok: it is worth asking again.
async fn get_space(fs: &Arc<FileSystem>, mut tries: SpaceTries, until: Instant) -> Result<SpaceTries, Dropped> {
    let fs = fs.clone();
    let got = tokio::task::spawn_blocking(move || fs.get_space(&mut tries, until).then_some(tries));
    match got.await {
        Ok(Some(tries)) if Instant::now() < until => Ok(tries),
        Ok(_) => Err(FsError::NoSpace.into()),
        Err(ended) => Err(Dropped::Io(std::io::Error::other(ended))),
    }
}

/// Makes all, or the first of them.
async fn make_changes(fs: &Arc<FileSystem>, changes: &[KeyChange]) -> (Changed, Result<(), Dropped>) {
    let (mut all, mut at_once) = (Changed::default(), KEYS_AT_ONCE);
    while all.outcomes.len() < changes.len() {
        let rest = &changes[all.outcomes.len()..];
        match patiently(fs, &mut at_once, |most| fs.change_keys(&rest[..most.min(rest.len())])).await {
            Ok(Changed { outcomes, stale }) => {
                all.outcomes.extend(outcomes);
                all.stale.extend(stale);
            }
            Err(dropped) => return (all, Err(dropped)),
        }
    }
    (all, Ok(()))
}

fn name(key: &[u8]) -> Name {
    Name::from_raw(key).expect("a string of the protocol is no longer than a name")
}

/// After so many misses in a row less is done at once: the pages for all of it may push each other out of the cache.
/// A tree has fewer levels.
const MISSES_MAX: usize = 8;

/// Does it, with so many keys at once or fewer, and fetches what it misses.
async fn patiently<T>(
    fs: &Arc<FileSystem>,
    at_once: &mut usize,
    mut operation: impl FnMut(usize) -> crate::fs::Result<T>,
) -> Result<T, Dropped> {
    let mut misses = 0;
    loop {
        match operation(*at_once) {
            Err(FsError::Miss(miss)) => {
                misses += 1;
                if misses % MISSES_MAX == 0 {
                    *at_once = (*at_once / 2).max(1);
                }
                let store = fs.store().clone();
                match tokio::task::spawn_blocking(move || store.fetch(&miss)).await {
                    Ok(fetched) => fetched.map_err(FsError::from)?,
                    Err(ended) => return Err(Dropped::Io(std::io::Error::other(ended))),
                }
            }
            done => return Ok(done?),
        }
    }
}
