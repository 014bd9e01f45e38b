//! Reading ahead: which reads of a file follow each other, and what to fetch before it is asked for.
//!
//! A *stream* is somebody who reads a file in order. The kernel reads ahead, too, and by several
//! threads: reads that are a few lengths out of place belong to the stream all the same. From its
//! second read on, [`Distance::growth`] times as much is kept fetched ahead of a stream as it has read so far, from
//! [`WINDOW_MIN`] to [`WINDOW_MAX`], and no more than its share of what the cache keeps for all
//! streams. Reads at random are streams of one read, for which nothing is fetched; but a small file
//! is fetched whole when its beginning is read, and from far away [`FIRST_WINDOW`] behind a long read at a
//! file's beginning.
//!
//! How far a fetch really went is told here ([`ReadAhead::reached`]): less, if it is not known yet where the rest
//! lies; from far away a little more, if that comes with the same request.
//!
//! Streams are forgotten with the last open of their file, or when there are too many.

use crate::fs::attr::Ino;
use lru::LruCache;
use parking_lot::Mutex;
use std::ops::Range;

/// What is fetched ahead of a stream after its second read, at least; and a small file.
const WINDOW_MIN: u64 = 1 << 20;
/// Most that is fetched ahead of one stream.
pub(crate) const WINDOW_MAX: u64 = 80 << 20;
/// From far away, who begins a file with a read of as much is taken to go on,
const LONG: u64 = 128 << 10;
/// and so much is fetched ahead of it at once.
const FIRST_WINDOW: u64 = 8 << 20;
/// A window moves in steps of an eighth of it, within these bounds: what one request brings.
const STEP_MIN: u64 = 256 << 10;
const STEP_MAX: u64 = 8 << 20;
/// So many times its length a read may be out of place: the kernel reads ahead in parts of 1 MiB, and
/// has begun with the next few before it has the last.
const PLACES_OFF: u64 = 8;
/// In a stream that has read as much as [`WINDOW_MIN`], a short read may be as far out of place as a long
/// one.
const BYTES_OFF: u64 = PLACES_OFF << 20;
/// Streams of a file: some 200 bytes for each file.
const STREAMS_MAX: usize = 4;
const FILES_MAX: usize = 1024;

/// How far away storage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Distance {
    /// On a disk.
    Near,
    /// In a bucket. Each time that a window was read costs a round trip at first, and these are long: there are to
    /// be few of them.
    Far,
}

impl Distance {
    /// Who stops after some reads in order has had at most so much fetched in vain for what it read.
    fn growth(self) -> u64 {
        match self {
            Distance::Near => 4,
            Distance::Far => 16,
        }
    }
}

/// What all files' reads are like.
pub(crate) struct ReadAhead {
    distance: Distance,
    /// What may be fetched ahead of all streams together.
    bytes_max: u64,
    state: Mutex<State>,
}

struct State {
    files: LruCache<u64, Vec<Stream>>,
    /// Bytes read in order so far, by all streams: what stands for the time.
    clock: u64,
}

#[derive(Clone, Copy, Debug)]
struct Stream {
    /// One past the last byte read.
    at: u64,
    /// Bytes read in order.
    read: u64,
    /// Whether one read followed another.
    is_in_order: bool,
    /// Everything before this is read, fetched, or being fetched.
    ahead: u64,
    /// When it was last read from.
    clock: u64,
}

/// What a read is part of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    /// It follows others: what it reads will not be read again soon.
    pub(crate) is_in_order: bool,
    /// To be fetched now.
    pub(crate) fetch: Option<Range<u64>>,
}

impl ReadAhead {
    /// For a cache that keeps so many bytes of what is fetched ahead.
    pub(crate) fn new(distance: Distance, bytes_max: u64) -> ReadAhead {
        let state = State { files: LruCache::unbounded(), clock: 0 };
        ReadAhead { distance, bytes_max, state: Mutex::new(state) }
    }

    /// Takes note of a read of those bytes of a file of that size. The same read may be noted again.
    pub(crate) fn note(&self, ino: Ino, read: Range<u64>, size: u64) -> Pace {
        let mut state = self.state.lock();
        let State { files, clock } = &mut *state;
        let streams = files.get_or_insert_mut(ino.0, Vec::new);
        let off = |stream: &Stream| match stream.is_in_order && stream.read >= WINDOW_MIN {
            true => BYTES_OFF.max(PLACES_OFF * (read.end - read.start)),
            false => PLACES_OFF * (read.end - read.start),
        };
        let near = |stream: &Stream| read.start <= stream.at + off(stream) && stream.at <= read.end + off(stream);
        let place = streams.iter().enumerate().filter(|(_, stream)| near(stream));
        let place = match place.min_by_key(|(_, stream)| stream.at.abs_diff(read.start)) {
            Some((place, _)) => place,
            None => {
                let is_small = read.start == 0 && size <= WINDOW_MIN;
                let ahead = if is_small { size } else { read.end };
                let length = read.end - read.start;
                add(streams, Stream { at: read.end, read: length, is_in_order: false, ahead, clock: *clock });
                let place = streams.len() - 1;
                if files.len() > FILES_MAX {
                    files.pop_lru();
                }
                if is_small {
                    return Pace { is_in_order: false, fetch: (ahead > read.end).then_some(0..size) };
                }
                place
            }
        };
        let streams = files.get_mut(&ino.0).expect("just seen");
        let stream = &mut streams[place];
        let progress = read.end.saturating_sub(stream.at);
        if progress > 0 {
            // What others read meanwhile may have pushed out what was fetched for this one.
            if *clock - stream.clock > self.bytes_max {
                stream.ahead = stream.ahead.min(stream.at);
            }
            *clock += progress;
            *stream =
                Stream { at: read.end, read: stream.read + progress, is_in_order: true, clock: *clock, ..*stream };
        }
        let window = match self.distance {
            _ if stream.is_in_order => (self.distance.growth() * stream.read).clamp(WINDOW_MIN, WINDOW_MAX),
            Distance::Far if read.start == 0 && stream.read >= LONG => FIRST_WINDOW,
            _ => return Pace { is_in_order: false, fetch: None },
        };
        // What was passed over by a read that came before its turn is fetched, too.
        let from = stream.ahead.max(read.start.saturating_sub(off(stream)));
        let stream = *stream;
        let fetch = (size > from).then(|| self.next(&state, stream, window, from, size)).flatten();
        if let Some(fetch) = &fetch {
            let streams = state.files.get_mut(&ino.0).expect("just seen");
            streams[place].ahead = fetch.end;
            if !stream.is_in_order {
                // It counts as read, so that many who begin files are seen to push out what others wait for.
                state.clock += fetch.end - fetch.start;
            }
        }
        Pace { is_in_order: stream.is_in_order, fetch }
    }

    /// The next step of a stream's window of that length, from there on, if it is time for it.
    fn next(&self, state: &State, stream: Stream, window: u64, from: u64, size: u64) -> Option<Range<u64>> {
        if stream.at + window <= from {
            return None;
        }
        let is_active = |other: &&Stream| other.is_in_order && state.clock - other.clock <= self.bytes_max;
        let active = state.files.iter().flat_map(|(_, streams)| streams).filter(is_active).count() as u64;
        let window = window.min(self.bytes_max / active.max(1));
        let step = (window / 8).clamp(STEP_MIN, STEP_MAX).min(window.max(1));
        let end = stream.at + window;
        let end = if end >= size { size } else { end - end % step };
        (end > from && (end == size || end - from >= step)).then_some(from..end)
    }

    /// What [`Pace::fetch`] asked for is being fetched up to there; perhaps only a part of it, perhaps more. After less,
    /// what was asked for since, by another read, comes behind that and is asked for again.
    pub(crate) fn reached(&self, ino: Ino, fetch: Range<u64>, reached: u64) {
        let reached = reached.max(fetch.start);
        let mut state = self.state.lock();
        let streams = state.files.get_mut(&ino.0).into_iter().flatten();
        // Not one that is past it.
        for stream in streams.filter(|stream| stream.at <= reached + BYTES_OFF && fetch.end <= stream.ahead) {
            if reached < fetch.end || stream.ahead < reached {
                stream.ahead = reached;
            }
        }
    }

    /// Nobody has the file open any more.
    pub(crate) fn forget(&self, ino: Ino) {
        self.state.lock().files.pop(&ino.0);
    }
}

/// Adds a stream, if need be for the one that was read from least lately.
fn add(streams: &mut Vec<Stream>, stream: Stream) {
    if streams.len() == STREAMS_MAX {
        let oldest = streams.iter().enumerate().min_by_key(|(place, stream)| (stream.clock, *place));
        let (oldest, _) = oldest.expect("there are some");
        streams.remove(oldest);
    }
    streams.push(stream);
}

#[cfg(test)]
mod tests {
    use super::*;

    const INO: Ino = Ino(7);
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    /// Reads a file through, in order; calls `each` with where the reader is and what is fetched.
    fn read_through(ahead: &ReadAhead, length: u64, size: u64, mut each: impl FnMut(u64, Range<u64>)) {
        for start in (0..size).step_by(length as usize) {
            let end = (start + length).min(size);
            if let Some(fetch) = ahead.note(INO, start..end, size).fetch {
                each(end, fetch);
            }
            let again = ahead.note(INO, start..end, size);
            assert_eq!(again, Pace { is_in_order: start > 0, fetch: None }, "the same read again");
        }
    }

    #[test]
    fn a_reader_in_order_gets_a_window_that_grows_to_its_bound() {
        for length in [4 * KIB, 128 * KIB, MIB] {
            let ahead = ReadAhead::new(Distance::Near, 16 * MIB);
            let (mut fetched, mut steps, mut widest) = (length, 0, 0);
            read_through(&ahead, length, GIB / 4, |at, fetch| {
                assert!(
                    fetch.start == fetched || (fetched == length && fetch.start == length),
                    "{fetch:?} after {fetched}"
                );
                assert!(fetch.end - at <= 16 * MIB && (at <= fetched || steps == 0), "{fetch:?} at {at}");
                assert!(
                    fetch.end - at <= (Distance::Near.growth() * at).max(MIB),
                    "no more than the bound allows for what was read"
                );
                widest = widest.max(fetch.end - at);
                fetched = fetch.end;
                steps += 1;
            });
            assert_eq!((fetched, widest), (GIB / 4, 16 * MIB), "reads of {length}");
            assert!(steps < 128 + 40, "{steps} steps of reads of {length}");
        }
    }

    #[test]
    fn reads_at_random_fetch_nothing() {
        let ahead = ReadAhead::new(Distance::Near, 16 * MIB);
        let mut random = 1_u64;
        let (mut fetched, mut in_order) = (0, 0);
        for _ in 0..10_000 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let start = (random >> 20) % (GIB / 4 / KIB) * 4 * KIB;
            let pace = ahead.note(INO, start..start + 4 * KIB, GIB);
            fetched += pace.fetch.map_or(0, |fetch| fetch.end - fetch.start);
            in_order += u32::from(pace.is_in_order);
        }
        assert!(in_order < 20 && fetched < 20 * MIB, "{in_order} of 10,000 reads seemed in order: {fetched} bytes");
    }

    #[test]
    fn reads_that_come_out_of_place_are_in_order() {
        let ahead = ReadAhead::new(Distance::Near, 64 * MIB);
        // The first read is the second of the file: nobody fetched for it.
        let mut fetched = 2 * MIB;
        for four in (0..256).step_by(4) {
            for number in [1, 0, 3, 2].map(|off| four + off) {
                let pace = ahead.note(INO, number * MIB..(number + 1) * MIB, GIB);
                if let Some(fetch) = pace.fetch {
                    assert!(fetch.start <= fetched && fetch.end > fetched, "{fetch:?} after {fetched}");
                    fetched = fetch.end;
                }
            }
        }
        assert!((319 * MIB..=320 * MIB).contains(&fetched), "{fetched}");
    }

    #[test]
    fn several_streams_share_what_the_cache_keeps() {
        let ahead = ReadAhead::new(Distance::Near, 16 * MIB);
        let mut last = [0; 8];
        for step in 0..1000 {
            for file in 0..8 {
                let at = step * 128 * KIB;
                let pace = ahead.note(Ino(file + 1), at..at + 128 * KIB, GIB);
                last[file as usize] = pace.fetch.map_or(last[file as usize], |fetch| fetch.end);
                if step > 100 {
                    assert!(last[file as usize] <= at + 128 * KIB + 2 * MIB, "file {file}: {last:?} at {at}");
                }
            }
        }
        // Seven of them stop: the eighth gets more again.
        let mut widest = 0;
        for step in 1000..2000 {
            let at = step * 128 * KIB;
            let pace = ahead.note(Ino(1), at..at + 128 * KIB, GIB);
            widest = pace.fetch.map_or(widest, |fetch| widest.max(fetch.end - at));
        }
        assert!(widest > 15 * MIB, "{widest}");
    }

    #[test]
    fn two_readers_of_one_file_are_two_streams() {
        let ahead = ReadAhead::new(Distance::Near, 16 * MIB);
        let mut fetched = [0, 0];
        for step in 0..100 {
            for (which, base) in [0, GIB / 2].into_iter().enumerate() {
                let at = base + step * 64 * KIB;
                let pace = ahead.note(INO, at..at + 64 * KIB, GIB);
                fetched[which] += pace.fetch.map_or(0, |fetch| fetch.end - fetch.start);
            }
        }
        assert!(fetched.iter().all(|bytes| *bytes > 6 * MIB), "{fetched:?}");
    }

    #[test]
    fn from_far_away_a_window_is_wide_after_two_reads() {
        let ahead = ReadAhead::new(Distance::Far, 64 * MIB);
        assert_eq!(ahead.note(INO, 0..MIB, GIB).fetch, Some(MIB..9 * MIB));
        assert_eq!(ahead.note(INO, 0..MIB, GIB).fetch, None, "the same read again");
        ahead.reached(INO, MIB..9 * MIB, 2 * MIB);
        assert_eq!(ahead.note(INO, 0..MIB, GIB).fetch, Some(2 * MIB..9 * MIB), "and again, with records now");
        assert_eq!(ahead.note(INO, MIB..2 * MIB, GIB).fetch, Some(9 * MIB..32 * MIB));
        assert_eq!(ahead.note(INO, 2 * MIB..4 * MIB, GIB).fetch, Some(32 * MIB..64 * MIB));
        for (number, read) in [0..LONG - 1, MIB..2 * MIB].into_iter().enumerate() {
            assert_eq!(ahead.note(Ino(number as u64 + 10), read, GIB).fetch, None, "short, or not at the beginning");
        }
    }

    /// Else it would be read piece by piece, each by a request of its own.
    #[test]
    fn a_stream_asks_again_for_what_many_first_windows_may_have_pushed_out() {
        let ahead = ReadAhead::new(Distance::Far, 64 * MIB);
        for at in 0..8 {
            ahead.note(INO, at * MIB..(at + 1) * MIB, GIB);
        }
        for file in 0..9 {
            ahead.note(Ino(file + 10), 0..MIB, GIB);
        }
        assert_eq!(ahead.note(INO, 8 * MIB..9 * MIB, GIB).fetch.map(|fetch| fetch.start), Some(8 * MIB));
    }

    #[test]
    fn a_small_file_is_fetched_whole_at_its_first_read() {
        let ahead = ReadAhead::new(Distance::Near, 16 * MIB);
        let small = 300 * KIB;
        assert_eq!(ahead.note(INO, 0..128 * KIB, small).fetch, Some(0..small));
        assert_eq!(ahead.note(INO, 128 * KIB..256 * KIB, small).fetch, None);
        assert_eq!(ahead.note(Ino(8), 0..small, small).fetch, None, "nothing is left");
        assert_eq!(ahead.note(Ino(9), 4 * KIB..8 * KIB, small).fetch, None, "not from its beginning");
        ahead.forget(INO);
        assert_eq!(ahead.note(INO, 0..128 * KIB, small).fetch, Some(0..small));
    }

    #[test]
    fn what_could_not_be_begun_is_begun_later() {
        let ahead = ReadAhead::new(Distance::Near, 16 * MIB);
        ahead.note(INO, 0..MIB, GIB);
        let fetch = ahead.note(INO, MIB..2 * MIB, GIB).fetch.unwrap();
        assert_eq!(fetch, MIB..10 * MIB);
        ahead.reached(INO, fetch, 3 * MIB);
        assert_eq!(ahead.note(INO, 2 * MIB..3 * MIB, GIB).fetch, Some(3 * MIB..15 * MIB));
    }

    #[test]
    fn what_could_not_be_begun_is_begun_later_also_if_more_was_asked_for_meanwhile() {
        let ahead = ReadAhead::new(Distance::Near, 64 * MIB);
        ahead.note(INO, 0..MIB, GIB);
        let first = ahead.note(INO, MIB..2 * MIB, GIB).fetch.unwrap();
        let second = ahead.note(INO, 2 * MIB..4 * MIB, GIB).fetch.unwrap();
        assert!(first.end == second.start && second.end == 20 * MIB);
        ahead.reached(INO, first, 3 * MIB);
        assert_eq!(ahead.note(INO, 4 * MIB..5 * MIB, GIB).fetch, Some(3 * MIB..25 * MIB));
    }

    #[test]
    fn what_came_with_it_is_not_asked_for_again() {
        let ahead = ReadAhead::new(Distance::Far, 64 * MIB);
        let first = ahead.note(INO, 0..MIB, GIB).fetch.unwrap();
        assert_eq!(first, MIB..9 * MIB);
        ahead.reached(INO, first, 11 * MIB);
        let second = ahead.note(INO, MIB..2 * MIB, GIB).fetch.unwrap();
        assert_eq!(second, 11 * MIB..32 * MIB);
        ahead.note(INO, 2 * MIB..4 * MIB, GIB).fetch.unwrap();
        ahead.reached(INO, second, 33 * MIB);
        assert_eq!(ahead.note(INO, 4 * MIB..5 * MIB, GIB).fetch, None, "by now, more was asked for");
    }

    #[test]
    fn no_more_is_remembered_than_there_is_room_for() {
        let ahead = ReadAhead::new(Distance::Near, 16 * MIB);
        for number in 0..10_000 {
            for stream in 0..10 {
                ahead.note(Ino(number + 1), stream * MIB..stream * MIB + 1, GIB);
            }
        }
        let state = ahead.state.lock();
        assert!(state.files.len() <= FILES_MAX && state.files.iter().all(|(_, streams)| streams.len() <= STREAMS_MAX));
    }
}
