//! A bucket on an S3 server.
//!
//! Files, in reading order: `options` (which bucket, where, as whom), `client` (the SDK's client,
//! set up for that), `keys` (what requests are signed with), `trust` (certificates), `resolver` (the server's addresses, looked up and set aside in the
//! background), `attempts` (one request and its answer), `body` (what a GET brings), `classify`
//! (what errors mean, in one line each), `hedge` (slow GETs are sent twice), `lanes` (how many
//! requests at once, and which is next), `reply` (each caller hears once), `counters`.
//!
//! This does what kivaloo's `s3` daemon does, inside the process: it signs, resolves, keeps
//! connections, bounds how many requests are under way. It tries nothing again: when and how often
//! is decided above, where it is known what a lost answer means. It stores nothing and knows
//! nothing of what the objects are.
//!
//! # Contract
//!
//! As [`Objects`] says, and:
//!
//! * **Order.** At most `concurrency` GETs, PUTs, LISTs and DELETEs are under way at once, reads and
//!   writes taking turns while both wait, each in the order of the calls. A create does not queue
//!   behind them; there are at most `concurrency` of its own kind.
//! * **Time.** An attempt ends by itself: 3 s to connect, 10 s to answer, and 1 s for each MiB of
//!   its body. Waiting in a queue comes before that and has no limit: who begins more than the
//!   server takes waits for it.
//! * **End.** Dropping an [`S3`] ends everything at once. Whoever still waits hears
//!   [`ObjectError::Unknown`] on a thread of the backend, perhaps after the drop has returned.
//! * **Threads.** Two for the requests; more, for moments, for looking up names. Callers need no
//!   runtime, and may have one.

mod attempts;
mod body;
mod classify;
mod client;
mod counters;
mod hedge;
mod keys;
mod lanes;
mod options;
mod reply;
mod resolver;
mod trust;

pub use options::S3Options;

use super::{Done, ObjectError, Objects, Usage};
use attempts::Attempts;
use bytes::Bytes;
use classify::Kind;
use client::Connection;
use counters::Counters;
use hedge::Hedge;
use lanes::{Lane, Lanes};
use reply::Reply;
use std::future::Future;
use std::ops::Range;
use std::sync::{Arc, mpsc};
use tokio::runtime::{Builder, Runtime};

/// Signing takes 1 ms of processor for 2 MiB; two threads sign more than the links of most machines carry.
const THREADS: usize = 2;
/// Name lookups and reads of key files, which block.
const BLOCKING_THREADS_MAX: usize = 4;
/// What LIST and DELETE take at once.
const NAMES_MAX: usize = 1000;

/// A bucket, or the part of one under a prefix. The contract is in the module's docs.
pub struct S3 {
    parts: Arc<Parts>,
    lanes: Arc<Lanes>,
    /// None only while it is dropped.
    runtime: Option<Runtime>,
}

/// What requests under way use.
struct Parts {
    attempts: Attempts,
    hedge: Hedge,
}

impl S3 {
    /// Sets everything up and sends nothing: whether the server, the bucket and the keys are there
    /// shows with the first request. [`ObjectError::Refused`] says what is wrong with the options,
    /// the environment or the files they name.
    pub fn open(options: S3Options) -> Result<S3, ObjectError> {
        if options.concurrency == 0 {
            return Err(ObjectError::Refused("at least one request at once is needed".into()));
        }
        let threads = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("s3")
            .enable_io()
            .enable_time()
            .build();
        let runtime = threads.map_err(|error| ObjectError::Unknown(format!("no threads for S3: {error}").into()))?;
        let lanes = Arc::new(Lanes::new(runtime.handle().clone(), options.concurrency));
        // Not block_on(), which the threads of other runtimes must not call.
        let (sender, receiver) = mpsc::sync_channel(1);
        runtime.spawn(async move { sender.send(client::connect(&options).await) });
        let Connection { client, target, addresses } = receiver.recv().expect("it answers or ends the process")?;
        let attempts = Attempts { client, target, addresses, counters: Counters::default() };
        Ok(S3 { parts: Arc::new(Parts { attempts, hedge: Hedge::new() }), lanes, runtime: Some(runtime) })
    }

    /// Runs the request when its turn has come, and answers.
    fn begin<T, F>(&self, lane: Lane, done: Done<T>, request: impl FnOnce(Arc<Parts>, Arc<Lanes>) -> F + Send + 'static)
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ObjectError>> + Send + 'static,
    {
        let reply = Reply::new(done);
        let (parts, lanes) = (Arc::clone(&self.parts), Arc::clone(&self.lanes));
        self.lanes.begin(lane, async move { reply.send(request(parts, lanes).await) });
    }

    fn begin_put(&self, lane: Lane, kind: Kind, name: &str, body: Bytes, done: Done<()>) {
        let name = name.to_owned();
        self.begin(lane, done, move |parts, _| async move { parts.attempts.put(kind, &name, body).await });
    }
}

impl Objects for S3 {
    fn create(&self, name: &str, body: Bytes, done: Done<()>) {
        self.begin_put(Lane::Create, Kind::Create, name, body, done);
    }

    fn put(&self, name: &str, body: Bytes, done: Done<()>) {
        self.begin_put(Lane::Write, Kind::Put, name, body, done);
    }

    fn get(&self, name: &str, range: Option<Range<u64>>, done: Done<Bytes>) {
        assert!(range.as_ref().is_none_or(|range| !range.is_empty()), "an empty range was asked for");
        let name = name.to_owned();
        let bytes = range.as_ref().map(|range| range.end - range.start);
        self.begin(Lane::Read, done, move |parts, lanes| async move {
            parts.hedge.run(bytes, &lanes, || parts.attempts.get(&name, range.clone())).await
        });
    }

    fn list(&self, prefix: &str, max: u32, done: Done<Vec<String>>) {
        assert!((1..=NAMES_MAX).contains(&(max as usize)), "{max} names were asked for");
        let prefix = prefix.to_owned();
        self.begin(Lane::Read, done, move |parts, _| async move { parts.attempts.list(&prefix, max).await });
    }

    fn delete(&self, names: Vec<String>, done: Done<()>) {
        assert!((1..=NAMES_MAX).contains(&names.len()), "{} names were to be deleted", names.len());
        self.begin(Lane::Write, done, move |parts, _| async move { parts.attempts.delete(&names).await });
    }

    fn usage(&self) -> Usage {
        self.parts.attempts.counters.usage()
    }

    fn name(&self) -> &str {
        &self.parts.attempts.target.place.name
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.lanes.close();
        if let Some(runtime) = self.runtime.take() {
            // Does not wait for its threads: it may be one of them that drops this, in a `done`.
            runtime.shutdown_background();
        }
    }
}
