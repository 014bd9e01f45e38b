//! Clients that do one thing after another, all at once.

use crate::bench::figures::{Answer, text};
use crate::bench::interrupt::Interrupt;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often to look whether somebody wants an end.
const PAUSE: Duration = Duration::from_millis(20);

/// What clients did.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// So many things, or bytes.
    pub count: u64,
    /// From when all began until the last had ended.
    pub time: Duration,
    /// How long each thing took, where that was measured.
    pub times: Vec<Duration>,
}

impl Sample {
    /// A second.
    pub fn rate(&self) -> f64 {
        self.count as f64 / self.time.as_secs_f64()
    }
}

/// What one client does, as it does it.
pub struct Client<'a> {
    stop: &'a AtomicBool,
    count: u64,
    times: Vec<Duration>,
}

impl Client<'_> {
    /// Does one thing, which counts for so many.
    pub fn step<T>(&mut self, count: u64, thing: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if self.is_stopped() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let done = thing()?;
        self.count += count;
        Ok(done)
    }

    /// Does one thing, and notes how long it took.
    pub fn timed(&mut self, thing: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let start = Instant::now();
        self.step(1, thing)?;
        self.times.push(start.elapsed());
        Ok(())
    }

    /// Does nobody want it to go on?
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Runs `work` for the clients 0, 1, ... at once, each in a thread of its own.
pub fn run(
    interrupt: &Interrupt,
    clients: usize,
    work: impl Fn(usize, &mut Client<'_>) -> io::Result<()> + Sync,
) -> Answer<Sample> {
    run_beside(interrupt, clients, work, |_| Ok(()))
}

/// The same while `beside` goes on, which is to end once it is stopped, and does not count.
pub fn run_beside(
    interrupt: &Interrupt,
    clients: usize,
    work: impl Fn(usize, &mut Client<'_>) -> io::Result<()> + Sync,
    beside: impl FnOnce(&mut Client<'_>) -> io::Result<()> + Send,
) -> Answer<Sample> {
    let (stop, stop_beside, start) = (AtomicBool::new(false), AtomicBool::new(false), Barrier::new(clients));
    let (begun, main) = (&start, thread::current());
    thread::scope(|scope| {
        let one = |number| {
            let (work, stop, main) = (&work, &stop, main.clone());
            move || {
                let mut client = Client { stop, count: 0, times: Vec::new() };
                begun.wait();
                let begin = Instant::now();
                let done = work(number, &mut client);
                let end = Instant::now();
                main.unpark();
                done.map(|()| (begin, end, client))
            }
        };
        let beside = scope.spawn(|| beside(&mut Client { stop: &stop_beside, count: 0, times: Vec::new() }));
        let threads: Vec<_> = (0..clients).map(|number| scope.spawn(one(number))).collect();
        while !threads.iter().all(|thread| thread.is_finished()) {
            stop.fetch_or(interrupt.check().is_err(), Ordering::Relaxed);
            thread::park_timeout(PAUSE);
        }
        stop_beside.store(true, Ordering::Relaxed);
        let went_on = beside.join().expect("measuring does not panic");
        let done = threads.into_iter().map(|thread| thread.join().expect("measuring does not panic"));
        let done = done.collect::<io::Result<Vec<_>>>();
        interrupt.check()?;
        let done = done.map_err(text)?;
        went_on.map_err(text)?;
        let begin = done.iter().map(|(begin, ..)| *begin).min().expect("there are clients");
        let end = done.iter().map(|(_, end, _)| *end).max().expect("there are clients");
        Ok(Sample {
            count: done.iter().map(|(.., client)| client.count).sum(),
            time: end - begin,
            times: done.into_iter().flat_map(|(.., client)| client.times).collect(),
        })
    })
}
