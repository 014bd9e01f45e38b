//! What the server can do by itself, asked through the very backend that the store uses.

use crate::bench::noise::Noise;
use bytes::Bytes;
use kivafs::backend::{Done, ObjectError, Objects};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Objects at once, and their size, for the rates.
const STREAMS: usize = 16;
const OBJECT_BYTES: usize = 8 << 20;
const ROUND_TRIPS: usize = 50;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Median time of a lone 4 KiB create.
    pub round_trip: Duration,
    /// Bytes a second of 16 PUTs of 8 MiB at once, and of as many GETs.
    pub put: f64,
    /// See `put`.
    pub get: f64,
}

/// Measures; objects are left below `s/`.
pub fn measure(objects: &dyn Objects) -> Result<Rates, ObjectError> {
    let mut noise = Noise::new(1);
    let mut times = Vec::new();
    for number in 0..ROUND_TRIPS {
        let body = Bytes::from(noise.bytes(4096));
        let start = Instant::now();
        wait(1, |_, done| objects.create(&format!("s/round-{number}"), body.clone(), done))?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let bodies: Vec<Bytes> = (0..STREAMS).map(|_| Bytes::from(noise.bytes(OBJECT_BYTES))).collect();
    let name = |number: usize| format!("s/stream-{number}");
    let all = (STREAMS * OBJECT_BYTES) as f64;
    let start = Instant::now();
    wait(STREAMS, |number, done| objects.put(&name(number), bodies[number].clone(), done))?;
    let put = all / start.elapsed().as_secs_f64();
    let start = Instant::now();
    wait(STREAMS, |number, done: Done<Bytes>| objects.get(&name(number), None, done))?;
    let get = all / start.elapsed().as_secs_f64();
    Ok(Rates { round_trip: times[times.len() / 2], put, get })
}

/// Deletes everything below the prefix.
pub fn clear(objects: &dyn Objects) -> Result<(), ObjectError> {
    loop {
        let (answer, answered) = channel();
        objects.list("", 1000, Box::new(move |result| drop(answer.send(result))));
        let names = answered.recv().unwrap_or_else(|_| Ok(Vec::new()))?;
        if names.is_empty() {
            return Ok(());
        }
        wait(1, |_, done| objects.delete(names.clone(), done))?;
    }
}

/// Begins all, then waits for all.
fn wait<T: Send + 'static>(count: usize, begin: impl Fn(usize, Done<T>)) -> Result<(), ObjectError> {
    let (answer, answered) = channel();
    for number in 0..count {
        let answer = answer.clone();
        begin(number, Box::new(move |result: Result<T, ObjectError>| drop(answer.send(result.map(|_| ())))));
    }
    drop(answer);
    answered.iter().collect()
}
