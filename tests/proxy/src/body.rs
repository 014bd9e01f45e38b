//! Bodies on their way: tallied, kept to a pace, cut.

use crate::record::{BodySum, Record, Ticket};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use parking_lot::Mutex;
use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::time::Sleep;
use xxhash_rust::xxh3::Xxh3;

/// A body that ends before its end.
#[derive(Debug, Error)]
#[error("cut on purpose")]
struct Cut;

/// What a request's body turned out to be.
pub(crate) struct Tally {
    record: Arc<Record>,
    sum: Xxh3,
    length: u64,
    head: [u8; 8],
    is_whole: bool,
    is_told: bool,
    /// The bytes, as long as they are at most `keep_max`.
    kept: Option<Vec<u8>>,
    keep_max: usize,
}

impl Tally {
    pub(crate) fn new(record: &Arc<Record>, keep_max: usize) -> Arc<Mutex<Tally>> {
        let kept = (keep_max > 0).then(Vec::new);
        let record = record.clone();
        let (is_whole, is_told) = (false, false);
        Arc::new(Mutex::new(Tally {
            record,
            sum: Xxh3::new(),
            length: 0,
            head: [0; 8],
            is_whole,
            is_told,
            kept,
            keep_max,
        }))
    }

    fn add(&mut self, data: &[u8]) {
        self.record.count_up(data.len());
        self.sum.update(data);
        let begun = usize::try_from(self.length).unwrap_or(usize::MAX);
        for (to, from) in self.head.iter_mut().skip(begun).zip(data) {
            *to = *from;
        }
        self.length += data.len() as u64;
        if let Some(kept) = &mut self.kept {
            if kept.len() + data.len() > self.keep_max {
                self.kept = None;
            } else {
                kept.extend_from_slice(data);
            }
        }
    }

    /// If all of it has come.
    pub(crate) fn sum(&self) -> Option<BodySum> {
        self.is_whole.then(|| BodySum { length: self.length, checksum: self.sum.digest128(), head: self.head })
    }

    /// The same, but once only.
    pub(crate) fn first_sum(&mut self) -> Option<BodySum> {
        let sum = self.sum().filter(|_| !self.is_told);
        self.is_told |= sum.is_some();
        sum
    }

    pub(crate) fn take(&mut self) -> Option<Bytes> {
        self.kept.take().filter(|_| self.is_whole).map(Bytes::from)
    }
}

/// How fast bodies pass, all together, in one direction.
#[derive(Default)]
pub(crate) struct Pace(Mutex<(Option<u64>, Option<Instant>)>);

impl Pace {
    pub(crate) fn set(&self, bytes_per_second: Option<u64>) {
        self.0.lock().0 = bytes_per_second;
    }

    /// When these bytes have passed, if that is later.
    fn passed(&self, bytes: usize) -> Option<Instant> {
        let mut state = self.0.lock();
        let (Some(rate), free) = *state else { return None };
        let now = Instant::now();
        let until = free.unwrap_or(now).max(now) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        state.1 = Some(until);
        Some(until)
    }
}

enum Source {
    Whole(Bytes),
    Passing(Incoming),
}

/// A body on its way.
pub(crate) struct Flow {
    source: Source,
    tally: Option<Arc<Mutex<Tally>>>,
    pace: Option<Arc<Pace>>,
    /// Held back until their time has come.
    waiting: Option<(Pin<Box<Sleep>>, Bytes)>,
    /// Bytes until it is cut.
    left: Option<u64>,
    /// Bits until the one that flips.
    flip: Option<u64>,
    /// What came before the cut has been sent off.
    is_flushed: bool,
    /// Ends with the body.
    ticket: Option<Ticket>,
}

impl Flow {
    fn new(source: Source) -> Flow {
        Flow { source, tally: None, pace: None, waiting: None, left: None, flip: None, is_flushed: false, ticket: None }
    }

    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Flow {
        Flow::new(Source::Whole(bytes.into()))
    }

    pub(crate) fn passing(body: Incoming) -> Flow {
        Flow::new(Source::Passing(body))
    }

    pub(crate) fn tallied(mut self, tally: Arc<Mutex<Tally>>) -> Flow {
        tally.lock().is_whole = self.source.is_end();
        self.tally = Some(tally);
        self
    }

    pub(crate) fn paced(mut self, pace: Arc<Pace>) -> Flow {
        self.pace = Some(pace);
        self
    }

    /// Breaks after half of it; a body of unknown length at once.
    pub(crate) fn cut(mut self) -> Flow {
        self.left = Some(self.size_hint().exact().unwrap_or(0) / 2);
        self
    }

    /// With one bit another one. A body of unknown length passes as it is.
    pub(crate) fn flipped(mut self, bit: u64) -> Flow {
        let bits = self.size_hint().exact().unwrap_or(0) * 8;
        self.flip = bit.checked_rem(bits);
        self
    }

    pub(crate) fn ending(mut self, ticket: Ticket) -> Flow {
        self.ticket = Some(ticket);
        self
    }

    fn poll_source(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            let data = match &mut self.source {
                Source::Whole(bytes) if bytes.is_empty() => None,
                Source::Whole(bytes) => Some(bytes.split_to(bytes.len().min(256 << 10))),
                Source::Passing(body) => match ready!(Pin::new(body).poll_frame(context)) {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => Some(data),
                        // Trailers: S3 sends none.
                        Err(_) => continue,
                    },
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => None,
                },
            };
            if let Some(tally) = &self.tally {
                let mut tally = tally.lock();
                tally.add(data.as_deref().unwrap_or(&[]));
                // Nobody asks for more of a body whose length was known and has come.
                tally.is_whole = data.is_none() || self.source.is_end();
            }
            return Poll::Ready(data.map(Ok));
        }
    }

    /// What goes on to the other side.
    fn pass(&mut self, data: Bytes) -> Frame<Bytes> {
        if let Some(ticket) = &self.ticket {
            ticket.count_down(data.len());
        }
        Frame::data(data)
    }
}

impl Body for Flow {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let flow = &mut *self;
        if let Some((sleep, _)) = &mut flow.waiting {
            ready!(sleep.as_mut().poll(context));
            let (_, data) = flow.waiting.take().expect("it was there");
            return Poll::Ready(Some(Ok(flow.pass(data))));
        }
        if flow.left == Some(0) {
            if !flow.is_flushed {
                // What is before the cut is sent while there is nothing more to be had.
                flow.is_flushed = true;
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(Box::new(Cut))));
        }
        let Some(data) = ready!(flow.poll_source(context)) else { return Poll::Ready(None) };
        let mut data = data?;
        if let Some(left) = &mut flow.left {
            data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= data.len() as u64;
        }
        if let Some(bit) = flow.flip {
            let byte = (bit / 8) as usize;
            flow.flip = bit.checked_sub(data.len() as u64 * 8);
            if byte < data.len() {
                let mut flipped = data.to_vec();
                flipped[byte] ^= 1 << (bit % 8);
                data = flipped.into();
            }
        }
        if let Some(until) = flow.pace.as_ref().and_then(|pace| pace.passed(data.len())) {
            flow.waiting = Some((Box::pin(tokio::time::sleep_until(until.into())), data));
            return self.poll_frame(context);
        }
        Poll::Ready(Some(Ok(flow.pass(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.left.is_none() && self.source.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Passing(body) => body.size_hint(),
        }
    }
}

impl Source {
    fn is_end(&self) -> bool {
        match self {
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Passing(body) => body.is_end_stream(),
        }
    }
}
