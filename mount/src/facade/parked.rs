//! Requests that wait for storage, and the threads that wait for them, so that reader threads need
//! not.
//!
//! A parked request lies in one of four queues, by what it waits for: something to be read (many
//! threads, enough to keep storage busy); or space to be given back (that thread also does what removals
//! left to do), room for a change, or room for bulk data (one thread each: there is nothing to be gained
//! by more). Who waits for room thus never keeps a reader of data waiting, nor does storage that answers
//! no reads keep those who wait for room.
//!
//! Each is answered in time: what is queued or being waited for is taken away when its time is over,
//! whatever the threads are at, and is not carried out later.

use crate::facade::outage::Outage;
use crate::facade::patience::{Owed, Patience};
use crate::fs::{FileSystem, FsError};
use kivafs::store::{Miss, Room, SpaceTries};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Threads that have something read: enough to keep a disk's queue filled.
const FETCHERS: usize = 16;

/// Most bytes that parked requests may hold before no more of them are taken in.
const PARKED_BYTES_MAX: usize = 32 << 20;

/// How long the end waits for threads that wait for storage.
const STOP_MAX: Duration = Duration::from_secs(1);

/// A request that could not be answered at once.
pub trait Request: Send {
    /// Asks again. Answered, or what stands in its way now, and the request itself.
    fn ask(self: Box<Self>) -> Option<(Box<dyn Request>, Obstacle)>;

    /// Answers with an error.
    fn refuse(self: Box<Self>, why: Refusal);
}

/// Why a parked request is not carried out.
pub enum Refusal {
    /// What it needed failed.
    Failed(FsError),
    /// Its time is over.
    TooLate,
}

/// What a request waits for.
pub enum Obstacle {
    /// Something in memory, or room.
    Miss(Miss),
    /// Space, which may come back where something was deleted.
    Space,
}

impl Obstacle {
    /// The obstacle that an error speaks of, if it does.
    pub fn of(error: FsError) -> Result<Obstacle, FsError> {
        match error {
            FsError::Miss(miss) => Ok(Obstacle::Miss(miss)),
            FsError::NoSpace => Ok(Obstacle::Space),
            error => Err(error),
        }
    }

    fn queue(&self) -> Queue {
        match self {
            Obstacle::Space => Queue::Space,
            Obstacle::Miss(miss) => match miss.room() {
                None => Queue::Fetch,
                Some(Room::Change) => Queue::Change,
                // Who waits for the cleaner does not keep others from changing something.
                Some(Room::Cleaning) => Queue::Cleaning,
                Some(Room::Bulk) => Queue::Bulk,
            },
        }
    }
}

/// What became of an obstacle.
enum Cleared {
    /// It is gone. What this request has tried to get space so far.
    Gone { tries: SpaceTries },
    /// The request's time was over before.
    TooLate,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    Fetch,
    Space,
    Change,
    Bulk,
    Cleaning,
}

const QUEUES: usize = 5;

/// What is parked at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ParkedFigures {
    /// Requests.
    pub requests: usize,
    /// Bytes that they hold.
    pub bytes: usize,
    /// Those of them that wait for something to be read.
    pub for_reads: usize,
    /// For space to be given back.
    pub for_space: usize,
    /// For room for a change.
    pub for_changes: usize,
    /// For room for bulk data.
    pub for_bulk: usize,
}

struct Entry {
    /// `None`: it is being asked again.
    request: Option<Box<dyn Request>>,
    /// What it waits for; `None`: a thread has taken that in hand.
    obstacle: Option<Obstacle>,
    queue: Queue,
    /// Bytes that it holds.
    bytes: usize,
    until: Instant,
    tries: SpaceTries,
    /// Its time was over while it was asked.
    too_late: bool,
    alarm: Owed<()>,
}

#[derive(Default)]
struct State {
    /// By number: whoever came first is served first.
    requests: BTreeMap<u64, Entry>,
    queues: [BTreeSet<u64>; QUEUES],
    next: u64,
    parked_bytes: usize,
    threads: usize,
    ending: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Something came into a queue.
    came: [Condvar; QUEUES],
    /// Fewer bytes are parked, or a thread has ended.
    left: Condvar,
    /// Requests that wait in each queue, or are waited for.
    waiting: [AtomicUsize; QUEUES],
    fs: Arc<FileSystem>,
    reads: Arc<Outage>,
    writes: Arc<Outage>,
}

/// The parked requests.
pub struct Parked {
    shared: Arc<Shared>,
    alarms: Patience<()>,
}

impl Parked {
    /// Starts the threads.
    pub fn start(fs: Arc<FileSystem>, reads: Arc<Outage>, writes: Arc<Outage>) -> std::io::Result<Parked> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            came: Default::default(),
            left: Condvar::new(),
            waiting: Default::default(),
            fs,
            reads,
            writes,
        });
        let parked = Parked { alarms: Patience::start(|| ())?, shared };
        for _ in 0..FETCHERS {
            parked.start_thread("fetch", Queue::Fetch)?;
        }
        parked.start_thread("space", Queue::Space)?;
        parked.start_thread("room", Queue::Change)?;
        parked.start_thread("bulk-room", Queue::Bulk)?;
        parked.start_thread("cleaning", Queue::Cleaning)?;
        Ok(parked)
    }

    fn start_thread(&self, name: &str, queue: Queue) -> std::io::Result<()> {
        let shared = self.shared.clone();
        self.shared.state.lock().threads += 1;
        std::thread::Builder::new().name(name.into()).spawn(move || shared.serve(queue)).map(drop)
    }

    /// Whether anybody waits for that room. Who comes later then has to wait, too: else those who
    /// wait might get none until their time is over.
    pub fn someone_waits(&self, room: Room) -> bool {
        let queue = Obstacle::Miss(room.into()).queue();
        self.shared.waiting[queue as usize].load(Ordering::Relaxed) > 0
    }

    /// Takes in a request that holds `bytes` and is to be answered until then. Waits only where it
    /// holds any, and too many are parked: until others have been answered. After `stop` (a session
    /// that had to be given up still runs) the request is dropped, and its reply with it, which
    /// answers EIO.
    pub fn park(&self, request: Box<dyn Request>, obstacle: Obstacle, bytes: usize, until: Instant) {
        let mut state = self.shared.state.lock();
        while bytes > 0 && state.parked_bytes >= PARKED_BYTES_MAX && !state.ending {
            self.shared.left.wait(&mut state);
        }
        if state.ending {
            return;
        }
        let number = state.next;
        state.next += 1;
        state.parked_bytes += bytes;
        let its = self.shared.clone();
        let alarm = self.alarms.wait(until, Box::new(move |()| its.expire(number)));
        let entry = Entry {
            request: None,
            obstacle: None,
            queue: obstacle.queue(),
            bytes,
            until,
            tries: SpaceTries::default(),
            too_late: false,
            alarm,
        };
        state.requests.insert(number, entry);
        self.shared.enqueue(&mut state, number, request, obstacle);
    }

    /// What is parked.
    pub fn now(&self) -> ParkedFigures {
        let waiting = |queue: Queue| self.shared.waiting[queue as usize].load(Ordering::Relaxed);
        let state = self.shared.state.lock();
        ParkedFigures {
            requests: state.requests.len(),
            bytes: state.parked_bytes,
            for_reads: waiting(Queue::Fetch),
            for_space: waiting(Queue::Space) + waiting(Queue::Cleaning),
            for_changes: waiting(Queue::Change),
            for_bulk: waiting(Queue::Bulk),
        }
    }

    /// Drops what is parked: nobody is there any more to hear an answer. Does not wait for threads
    /// that storage keeps waiting; they end when it lets them.
    pub fn stop(&self) {
        let dropped: Vec<Entry> = {
            let mut state = self.shared.state.lock();
            state.ending = true;
            self.shared.came.iter().chain([&self.shared.left]).for_each(|condvar| _ = condvar.notify_all());
            let numbers: Vec<u64> = state.requests.keys().copied().collect();
            // What is being asked goes when it has been.
            numbers.into_iter().filter_map(|number| self.shared.take_away(&mut state, number)).collect()
        };
        drop(dropped);
        let until = Instant::now() + STOP_MAX;
        let mut state = self.shared.state.lock();
        while state.threads > 0 {
            if self.shared.left.wait_until(&mut state, until).timed_out() {
                tracing::warn!("{} threads still wait for storage", state.threads);
                break;
            }
        }
        drop(state);
        self.alarms.stop();
    }
}

impl Shared {
    fn enqueue(&self, state: &mut State, number: u64, request: Box<dyn Request>, obstacle: Obstacle) {
        let queue = obstacle.queue();
        let entry = state.requests.get_mut(&number).expect("it is there until it is answered");
        entry.queue = queue;
        entry.request = Some(request);
        entry.obstacle = Some(obstacle);
        state.queues[queue as usize].insert(number);
        self.waiting[queue as usize].fetch_add(1, Ordering::Relaxed);
        self.came[queue as usize].notify_one();
    }

    /// Removes a request that is not being asked.
    fn take_away(&self, state: &mut State, number: u64) -> Option<Entry> {
        state.requests.get(&number)?.request.as_ref()?;
        let entry = state.requests.remove(&number)?;
        state.queues[entry.queue as usize].remove(&number);
        self.waiting[entry.queue as usize].fetch_sub(1, Ordering::Relaxed);
        self.release(state, entry.bytes);
        Some(entry)
    }

    fn release(&self, state: &mut State, bytes: usize) {
        state.parked_bytes -= bytes;
        self.left.notify_all();
    }

    /// A request's time is over.
    fn expire(&self, number: u64) {
        let (request, queue) = {
            let mut state = self.state.lock();
            if let Some(entry) = state.requests.get_mut(&number) {
                entry.too_late = true;
            }
            let Some(entry) = self.take_away(&mut state, number) else { return };
            (entry.request.expect("only such are taken away"), entry.queue)
        };
        self.outage(queue).too_late();
        request.refuse(Refusal::TooLate);
    }

    /// What storage is asked for in that queue. (Space is given back by a checkpoint.)
    fn outage(&self, queue: Queue) -> &Outage {
        match queue {
            Queue::Fetch => &self.reads,
            Queue::Space | Queue::Change | Queue::Bulk | Queue::Cleaning => &self.writes,
        }
    }

    fn serve(&self, queue: Queue) {
        while let Some((number, obstacle, until, tries)) = self.next(queue) {
            let cleared = self.clear(&obstacle, until, tries);
            // A miss holds the state that was read: it would be kept for it while the request changes it.
            drop(obstacle);
            match cleared {
                Ok(Cleared::Gone { tries }) => {
                    self.outage(queue).answered();
                    self.ask(number, tries);
                }
                // It is taken away just now.
                Ok(Cleared::TooLate) => {}
                Err(error) => {
                    let entry = self.take_away(&mut self.state.lock(), number);
                    if let Some(Entry { request: Some(request), alarm, .. }) = entry {
                        alarm.forget();
                        request.refuse(Refusal::Failed(error));
                    }
                }
            }
        }
        self.state.lock().threads -= 1;
        self.left.notify_all();
    }

    /// The next request of that queue, and what it waits for; nothing at the end.
    fn next(&self, queue: Queue) -> Option<(u64, Obstacle, Instant, SpaceTries)> {
        let mut state = self.state.lock();
        loop {
            if state.ending {
                return None;
            }
            if let Some(number) = state.queues[queue as usize].pop_first() {
                let entry = state.requests.get_mut(&number).expect("what is queued is there");
                let obstacle = entry.obstacle.take().expect("what is queued waits for something");
                return Some((number, obstacle, entry.until, entry.tries));
            }
            self.came[queue as usize].wait(&mut state);
        }
    }

    /// Waits until the obstacle is gone, or until that time.
    fn clear(&self, obstacle: &Obstacle, until: Instant, mut tries: SpaceTries) -> Result<Cleared, FsError> {
        match obstacle {
            Obstacle::Miss(miss) if self.fs.store().fetch_until(miss, until)? => Ok(Cleared::Gone { tries }),
            Obstacle::Miss(_) => Ok(Cleared::TooLate),
            Obstacle::Space => {
                let is_worth_it = self.fs.get_space(&mut tries, until);
                if Instant::now() >= until {
                    Ok(Cleared::TooLate)
                } else if is_worth_it {
                    Ok(Cleared::Gone { tries })
                } else {
                    Err(FsError::NoSpace)
                }
            }
        }
    }

    fn ask(&self, number: u64, tries: SpaceTries) {
        let request = {
            let mut state = self.state.lock();
            let Some(entry) = state.requests.get_mut(&number) else { return };
            entry.tries = tries;
            self.waiting[entry.queue as usize].fetch_sub(1, Ordering::Relaxed);
            entry.request.take().expect("one thread asks for it")
        };
        let still = request.ask();
        let mut state = self.state.lock();
        let ending = state.ending;
        let entry = state.requests.get_mut(&number).expect("what is being asked stays");
        let (too_late, queue) = (entry.too_late, entry.queue);
        match still {
            Some((request, obstacle)) if !too_late && !ending => self.enqueue(&mut state, number, request, obstacle),
            still => {
                let entry = state.requests.remove(&number).expect("looked at just now");
                self.release(&mut state, entry.bytes);
                drop(state);
                entry.alarm.forget();
                if let Some((request, _)) = still.filter(|_| too_late) {
                    self.outage(queue).too_late();
                    request.refuse(Refusal::TooLate);
                }
            }
        }
    }
}
