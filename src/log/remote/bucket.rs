//! Requests that wait, and are tried again: the bucket as the log sees it.
//!
//! The backend makes single attempts; here is what to do about their outcomes (R10, C7, the outage
//! rules): jittered backoff, a time limit for those who can be told, none for what must not be given up.

use super::{names, read};
use crate::backend::{DiskCache, Done, ObjectError, Objects, Usage};
use crate::log::LogError;
use crate::log::pointer::{Pointer, SegmentNo};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// The pause after a first failed attempt, and the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How long an object that must be there may seem missing: caches on the way keep a 404 for a while.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// How often who waits for an answer looks whether all was given up.
const LOOK_UP: Duration = Duration::from_millis(100);
/// How much is read at once before the end of a checkpoint.
const NEAR_BYTES: u64 = 512 << 10;
/// A failure is worth a word when it lasts so long.
const TELL_AFTER: Duration = Duration::from_secs(2);

/// A bucket, and how long to wait for it.
pub struct Bucket {
    objects: Arc<dyn Objects>,
    /// Where payloads that were read or written are kept, if they are.
    cache: OnceLock<DiskCache>,
    /// Parts of segments that are needed first: which, from where, and their bytes. They stay right: a
    /// name has one content (R9).
    near: Mutex<Vec<Near>>,
    /// How long reads wait for an answer.
    patience_ms: AtomicU64,
    /// How long deleted segments stay, for readers elsewhere.
    pub grace: Duration,
    /// Whether writers may work without atomic conditional PUT.
    pub unsafe_no_fencing: bool,
    /// Whether creates are conditional PUTs, and not plain ones.
    fenced: AtomicBool,
    trouble: Mutex<Trouble>,
    /// Signalled when all is given up.
    ended: Condvar,
}

struct Near {
    segment: SegmentNo,
    start: u64,
    bytes: Bytes,
}

impl Near {
    fn part(&self, range: &Range<u64>) -> Option<Bytes> {
        let at = |position: u64| position.checked_sub(self.start).map(|at| at as usize);
        let (from, to) = (at(range.start)?, at(range.end)?);
        (to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    told: bool,
    given_up: bool,
}

/// What became of a create.
pub enum Created {
    /// The object is there with our bytes.
    Ours,
    /// Somebody else's object has the name.
    Others(Bytes),
}

impl Bucket {
    /// A bucket, before anything is asked of it.
    pub fn new(objects: Arc<dyn Objects>, patience: Duration, grace: Duration, unsafe_no_fencing: bool) -> Bucket {
        Bucket {
            objects,
            cache: OnceLock::new(),
            near: Mutex::default(),
            patience_ms: AtomicU64::new(patience.as_millis() as u64),
            grace,
            unsafe_no_fencing,
            fenced: AtomicBool::new(true),
            trouble: Mutex::default(),
            ended: Condvar::new(),
        }
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        self.objects.name()
    }

    /// How long reads wait.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.load(Ordering::Relaxed))
    }

    /// Reads wait that long from now on.
    pub fn set_patience(&self, patience: Duration) {
        self.patience_ms.store(patience.as_millis() as u64, Ordering::Relaxed);
    }

    /// Requests so far.
    pub fn usage(&self) -> Usage {
        self.objects.usage()
    }

    /// The backend itself.
    pub fn objects(&self) -> &dyn Objects {
        &*self.objects
    }

    /// Reads what lies before the end of a payload with one GET, and has it at hand from then on, unless
    /// the payload is at hand already: a checkpoint's pages lie together, the tree's upper pages and then
    /// the segment table last. For the two roots of a checkpoint: it takes up to 2 x `NEAR_BYTES`.
    pub fn have_near(&self, pointer: &Pointer) -> Result<(), LogError> {
        let end = u64::from(pointer.offset) + u64::from(pointer.length);
        let is_cached = self.cache().is_some_and(|cache| cache.get(&read::key(pointer)).is_some());
        if is_cached || self.near(pointer.segment, &(pointer.offset.into()..end)).is_some() {
            return Ok(());
        }
        let start = end.saturating_sub(NEAR_BYTES);
        // If it is missing, whoever reads it will say so.
        if let Some(bytes) = self.get(&names::segment(pointer.segment), Some(start..end))? {
            self.near.lock().push(Near { segment: pointer.segment, start, bytes });
        }
        Ok(())
    }

    /// The bytes of that range, if they are at hand.
    pub fn near(&self, segment: SegmentNo, range: &Range<u64>) -> Option<Bytes> {
        self.near.lock().iter().filter(|near| near.segment == segment).find_map(|near| near.part(range))
    }

    /// The cache on the local disk, if there is one.
    pub fn cache(&self) -> Option<&DiskCache> {
        self.cache.get()
    }

    /// Keeps payloads in that cache from now on.
    pub fn keep_in(&self, cache: DiskCache) {
        assert!(self.cache.set(cache).is_ok(), "a bucket has one cache");
    }

    /// Nobody waits for the bucket any more: everything that waits ends with an error.
    pub fn give_up(&self) {
        self.trouble.lock().given_up = true;
        self.ended.notify_all();
    }

    /// Whether all was given up.
    pub fn is_given_up(&self) -> bool {
        self.trouble.lock().given_up
    }

    /// An object, or a range of it; none: it is not there, as far as can be seen.
    pub fn get(&self, name: &str, range: Option<Range<u64>>) -> Result<Option<Bytes>, LogError> {
        self.patiently(&format!("reading {name}"), |done| self.objects.get(name, range.clone(), done))
    }

    /// An object that must be there: it was seen, or what refers to it stands.
    pub fn get_existing(&self, name: &str) -> Result<Option<Bytes>, LogError> {
        let since = Instant::now();
        let mut pauses = Pauses::default();
        loop {
            match self.get(name, None)? {
                None if since.elapsed() < MISSING_FOR.min(self.patience()) => {
                    if !self.pause(pauses.next(&ObjectError::Missing)) {
                        return Ok(None);
                    }
                }
                done => return Ok(done),
            }
        }
    }

    /// The first names.
    pub fn list(&self, prefix: &str, max: u32) -> Result<Vec<String>, LogError> {
        let names = self.patiently("listing", |done| self.objects.list(prefix, max, done))?;
        Ok(names.unwrap_or_default())
    }

    fn patiently<T: Send + 'static>(&self, doing: &str, ask: impl Fn(Done<T>)) -> Result<Option<T>, LogError> {
        let since = Instant::now();
        let mut pauses = Pauses::default();
        loop {
            let error = match self.once(&ask) {
                Ok(answer) => {
                    self.answered();
                    return Ok(Some(answer));
                }
                Err(ObjectError::Missing) => {
                    self.answered();
                    return Ok(None);
                }
                Err(error) => error,
            };
            let failed = |what: &str| Err(LogError::Io(format!("{}: {doing}: {error}{what}", self.name()).into()));
            if matches!(error, ObjectError::Refused(_)) {
                return failed("");
            }
            self.failed(&error);
            if since.elapsed() >= self.patience() {
                return failed(&format!(" (for {} s)", since.elapsed().as_secs()));
            }
            if !self.pause(pauses.next(&error)) {
                return failed(" (given up)");
            }
        }
    }

    /// Whether this server's conditional PUT keeps writers apart. Where it does not, and somebody vouches
    /// that there is only one, it is not asked for: some servers refuse it.
    pub fn fence(&self, proven: bool) {
        self.fenced.store(proven, Ordering::Relaxed);
    }

    /// R10: creates an object with these bytes, which are the same at every attempt, and does not
    /// end before its fate is known. `limit`: after that the outcome stays unknown, and is an error.
    pub fn create(&self, name: &str, body: &Bytes, limit: Option<Duration>) -> Result<Created, LogError> {
        let since = Instant::now();
        let mut refused_since: Option<Instant> = None;
        let mut pauses = Pauses::default();
        loop {
            let put = |done| match self.fenced.load(Ordering::Relaxed) {
                true => self.objects.create(name, body.clone(), done),
                false => self.objects.put(name, body.clone(), done),
            };
            let mut error = match self.once(put) {
                Ok(()) => {
                    self.answered();
                    return Ok(Created::Ours);
                }
                Err(error) => error,
            };
            if error == ObjectError::Exists {
                // Ours, if an earlier answer was lost.
                match self.once(|done| self.objects.get(name, None, done)) {
                    Ok(bytes) => {
                        self.answered();
                        return Ok(if bytes == body { Created::Ours } else { Created::Others(bytes) });
                    }
                    // Perhaps a 404 from before it was created.
                    Err(of_get) => error = of_get,
                }
            }
            self.failed(&error);
            let failed =
                |what: &str| Err(LogError::Io(format!("{}: writing {name}: {error}{what}", self.name()).into()));
            match &error {
                // Keys and permissions come back, sometimes; but not for ever.
                ObjectError::Refused(_) if limit.is_some() => return failed(""),
                ObjectError::Refused(_) => {
                    if refused_since.get_or_insert_with(Instant::now).elapsed() >= self.patience() {
                        return failed("");
                    }
                }
                // An owner that cannot be read by anybody: nothing may be acknowledged (R10).
                ObjectError::Missing if since.elapsed() >= self.patience().max(MISSING_FOR) => {
                    return failed(" (somebody's object of that name exists, but cannot be read)");
                }
                _ => refused_since = None,
            }
            if limit.is_some_and(|limit| since.elapsed() >= limit) {
                return failed(" (whether it was written is not known)");
            }
            if !self.pause(pauses.next(&error)) {
                return failed(" (given up)");
            }
        }
    }

    /// One attempt, waited for.
    fn once<T: Send + 'static>(&self, ask: impl FnOnce(Done<T>)) -> Result<T, ObjectError> {
        let (answer, answered) = channel();
        // When all is given up nobody listens any more.
        ask(Box::new(move |result| drop(answer.send(result))));
        self.receive(&answered).unwrap_or_else(|| Err(ObjectError::Unknown("the request was given up".into())))
    }

    /// The next answer; none: there will be none, or all was given up.
    pub fn receive<T>(&self, answered: &Receiver<T>) -> Option<T> {
        loop {
            match answered.recv_timeout(LOOK_UP) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout) if !self.is_given_up() => {}
                Err(_) => return None,
            }
        }
    }

    /// Waits; false: all was given up.
    pub fn pause(&self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        let mut trouble = self.trouble.lock();
        while !trouble.given_up && !self.ended.wait_until(&mut trouble, until).timed_out() {}
        !trouble.given_up
    }

    /// An answer came.
    pub fn answered(&self) {
        let mut trouble = self.trouble.lock();
        if let Some(since) = trouble.since.take()
            && std::mem::take(&mut trouble.told)
        {
            tracing::info!("{}: answers again, after {} s", self.name(), since.elapsed().as_secs());
        }
    }

    /// None came.
    pub fn failed(&self, error: &ObjectError) {
        let mut trouble = self.trouble.lock();
        let since = *trouble.since.get_or_insert_with(Instant::now);
        if !trouble.told && since.elapsed() >= TELL_AFTER {
            trouble.told = true;
            tracing::warn!("{}: {error}: what needs it waits", self.name());
        }
    }
}

/// Longer and longer pauses between attempts, each of random length so that clients do not come back
/// all at once.
#[derive(Clone, Copy, Default)]
pub struct Pauses(u32);

impl Pauses {
    /// The next pause.
    pub fn next(&mut self, error: &ObjectError) -> Duration {
        let slower = if matches!(error, ObjectError::Slow(_)) { 4 } else { 1 };
        let pause = (PAUSE * slower * (1 << self.0.min(10))).min(PAUSE_MAX);
        self.0 += 1;
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}
