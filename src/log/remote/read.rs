//! Reading payloads from a bucket.
//!
//! Neighbours are read with one GET, and all GETs of a call are under way at once: a round trip costs
//! as much as megabytes.

use super::bucket::{Bucket, Pauses};
use super::names;
use crate::backend::ObjectError;
use crate::log::pointer::{Pointer, SegmentNo, raw_bytes};
use crate::log::{LogError, Payload, Unpack};
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// Neighbouring payloads are read in one go up to this many bytes, gaps included: more than a usual
/// segment comes quicker in several GETs side by side.
const JOINED_READ_BYTES_MAX: u64 = 9 << 20;
/// A gap of so many bytes is cheaper read than skipped.
const GAP_BYTES_MAX: u64 = 128 << 10;
/// How long a segment may seem missing: caches on the way keep a 404 for a while.
const MISSING_FOR: Duration = Duration::from_secs(10);

/// A GET, and the payloads that it brings.
struct Run {
    segment: SegmentNo,
    range: Range<u64>,
    which: Vec<usize>,
}

/// Reads the payloads of `stored` (which of the pointers; places mean nothing here). Answers them
/// unpacked.
pub fn read(
    bucket: &Bucket,
    pointers: &[Pointer],
    stored: &[(usize, u32)],
    unpack: &Unpack<'_>,
) -> Result<Vec<(usize, Payload)>, LogError> {
    let mut answers = Vec::with_capacity(stored.len());
    let mut wanted: Vec<usize> = stored.iter().map(|(which, _)| *which).collect();
    if let Some(cache) = bucket.cache() {
        let mut kept = Vec::new();
        wanted.retain(|which| match cache.get(&key(&pointers[*which])).filter(|bytes| pointers[*which].fits(bytes)) {
            Some(bytes) => {
                kept.push((*which, bytes));
                false
            }
            None => true,
        });
        for (which, bytes) in kept {
            answers.push((which, unpack(&pointers[which], bytes.into())?));
        }
    }
    let mut runs = HashMap::new();
    for (number, run) in join(wanted, pointers).into_iter().enumerate() {
        match bucket.near(run.segment, &run.range) {
            Some(bytes) => take_apart(bucket, &run, &bytes, pointers, unpack, &mut answers)?,
            None => drop(runs.insert(number, run)),
        }
    }
    let since = Instant::now();
    let mut pauses = Pauses::default();
    let mut to_ask: Vec<usize> = runs.keys().copied().collect();
    to_ask.sort_unstable();
    while !runs.is_empty() {
        let (answer, answered) = channel();
        for number in to_ask.drain(..) {
            let run = &runs[&number];
            let answer = answer.clone();
            let done = Box::new(move |result| drop(answer.send((number, result))));
            bucket.objects().get(&names::segment(run.segment), Some(run.range.clone()), done);
        }
        drop(answer);
        let mut failure = None;
        while let Some((number, result)) = bucket.receive(&answered) {
            match result {
                Ok(body) => {
                    bucket.answered();
                    let run = runs.remove(&number).expect("asked once");
                    take_apart(bucket, &run, &body, pointers, unpack, &mut answers)?;
                }
                Err(error) => {
                    bucket.failed(&error);
                    to_ask.push(number);
                    failure = Some((number, error));
                }
            }
        }
        if bucket.is_given_up() && !runs.is_empty() {
            return Err(LogError::Io(format!("reading from {}: given up", bucket.name()).into()));
        }
        if let Some((number, error)) = failure {
            let what = || format!("{}/{}", bucket.name(), names::segment(runs[&number].segment));
            match error {
                ObjectError::Missing if since.elapsed() >= MISSING_FOR.min(bucket.patience()) => {
                    return Err(LogError::Gone(what().into()));
                }
                ObjectError::Refused(cause) => {
                    return Err(LogError::Io(format!("reading {}: {cause}", what()).into()));
                }
                error if since.elapsed() >= bucket.patience() => {
                    let seconds = since.elapsed().as_secs();
                    return Err(LogError::Io(format!("reading {}: {error} (for {seconds} s)", what()).into()));
                }
                error => {
                    if !bucket.pause(pauses.next(&error)) {
                        return Err(LogError::Io(format!("reading {}: given up", what()).into()));
                    }
                }
            }
        }
    }
    Ok(answers)
}

/// What a payload is kept under in a disk cache.
pub fn key(pointer: &Pointer) -> [u8; 32] {
    let mut bytes = Vec::with_capacity(32);
    pointer.encode(&mut bytes);
    bytes.resize(32, 0);
    bytes.try_into().expect("a pointer is shorter")
}

fn take_apart(
    bucket: &Bucket,
    run: &Run,
    body: &Bytes,
    pointers: &[Pointer],
    unpack: &Unpack<'_>,
    answers: &mut Vec<(usize, Payload)>,
) -> Result<(), LogError> {
    let raw_bytes = raw_bytes(run.which.iter().map(|which| &pointers[*which]));
    for which in &run.which {
        let pointer = &pointers[*which];
        let start = (u64::from(pointer.offset) - run.range.start) as usize;
        let stored = start..start + pointer.length as usize;
        if body.len() < stored.end {
            return Err(LogError::damaged(format!("{pointer}: its segment ends before it")));
        }
        let stored = Payload::part_if_worth(body, stored, raw_bytes);
        let payload = unpack(pointer, stored.clone())?;
        if let Some(cache) = bucket.cache() {
            // A copy: what waits to be written must not keep its neighbours' bytes in memory.
            cache.put(&key(pointer), stored.alone());
        }
        answers.push((*which, payload));
    }
    Ok(())
}

fn join(mut wanted: Vec<usize>, pointers: &[Pointer]) -> Vec<Run> {
    let start_of = |which: usize| u64::from(pointers[which].offset);
    wanted.sort_unstable_by_key(|which| (pointers[*which].segment, pointers[*which].offset));
    let mut runs: Vec<Run> = Vec::new();
    for which in wanted {
        let (segment, start) = (pointers[which].segment, start_of(which));
        let end = start + u64::from(pointers[which].length);
        match runs.last_mut() {
            Some(run)
                if run.segment == segment
                    && start <= run.range.end + GAP_BYTES_MAX
                    && end - run.range.start <= JOINED_READ_BYTES_MAX =>
            {
                run.range.end = run.range.end.max(end);
                run.which.push(which);
            }
            _ => runs.push(Run { segment, range: start..end, which: vec![which] }),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::pointer::Codec;

    #[test]
    fn neighbours_are_read_together() {
        let at = |segment, offset, length| Pointer {
            segment: SegmentNo(segment),
            offset,
            length,
            codec: Codec::Raw,
            shrunk: 0,
            checksum: 0,
        };
        let pointers = [at(1, 300_000, 10), at(1, 64, 100), at(1, 64, 100), at(2, 164, 5), at(1, 164, 50)];
        let runs = join((0..5).collect(), &pointers);
        let seen: Vec<_> = runs.iter().map(|run| (run.segment.0, run.range.clone(), run.which.len())).collect();
        assert_eq!(seen, [(1, 64..214, 3), (1, 300_000..300_010, 1), (2, 164..169, 1)]);
        let long = [at(1, 0, 9 << 20), at(1, 9 << 20, 10)];
        assert_eq!(join(vec![0, 1], &long).len(), 2);
    }
}
