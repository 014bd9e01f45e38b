//! What the server can do by itself, asked through the very backend that the store uses.

use crate::bench::noise::Noise;
use bytes::Bytes;
use kivafs::backend::{Done, ObjectError, Objects};
use std::sync::mpsc::channel;
use std::time::Instant;

/// Objects for the rates, and their size. As many are under way at once as the backend allows: 16,
/// unless told otherwise.
const OBJECTS: usize = 48;
const OBJECT_BYTES: usize = 8 << 20;
const ROUND_TRIPS: usize = 50;

/// Measured again and again, right before and after what is compared with it: a server's rates drift.
pub struct Server<'a> {
    objects: &'a dyn Objects,
    noise: Noise,
    names: usize,
    body: Bytes,
}

impl Server<'_> {
    /// Its objects are left below `s/`.
    pub fn new(objects: &dyn Objects) -> Server<'_> {
        let mut noise = Noise::new(1);
        let body = noise.bytes(OBJECT_BYTES).into();
        Server { objects, noise, names: 0, body }
    }

    /// Median time of a lone 4 KiB create, in seconds.
    pub fn round_trip(&mut self) -> Result<f64, ObjectError> {
        let mut times = Vec::new();
        for _ in 0..ROUND_TRIPS {
            self.names += 1;
            let (name, body) = (format!("s/round-{}", self.names), Bytes::from(self.noise.bytes(4096)));
            let start = Instant::now();
            wait(1, |_, done| self.objects.create(&name, body.clone(), done))?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times[times.len() / 2].as_secs_f64())
    }

    /// Bytes a second of PUTs of 8 MiB.
    pub fn put(&self) -> Result<f64, ObjectError> {
        rate(|number, done: Done<()>| self.objects.put(&stream(number), self.body.clone(), done))
    }

    /// Bytes a second of GETs of what was put last.
    pub fn get(&self) -> Result<f64, ObjectError> {
        rate(|number, done: Done<Bytes>| self.objects.get(&stream(number), None, done))
    }
}

fn stream(number: usize) -> String {
    format!("s/stream-{number}")
}

fn rate<T: Send + 'static>(begin: impl Fn(usize, Done<T>)) -> Result<f64, ObjectError> {
    let start = Instant::now();
    wait(OBJECTS, begin)?;
    Ok((OBJECTS * OBJECT_BYTES) as f64 / start.elapsed().as_secs_f64())
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
