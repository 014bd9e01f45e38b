//! A GET that takes longer than nearly all others is sent a second time; the first good answer wins.
//!
//! Slow is what lies above the 95th percentile of recent GETs of about that size; of long ones, above twice that: what
//! takes its time there is mostly the bytes, and to send them again takes it from others. Sending twice at
//! most one GET in twenty bounds what that costs, also when a server has become slow as a whole:
//! then the measure follows it, and until it does, the budget ends.

use super::lanes::Lanes;
use crate::backend::ObjectError;
use parking_lot::Mutex;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::time::timeout;

/// Nothing faster is worth a second request.
const SLOW_MIN: Duration = Duration::from_millis(20);
/// Slow, before there is anything to compare with; a long one, after twice that.
const SLOW_AT_FIRST: Duration = Duration::from_secs(1);
/// With fewer latencies than this there is nothing to compare with.
const SAMPLES_MIN: usize = 20;
/// GETs of so many bytes are long.
const LONG: u64 = 1 << 20;
/// So many of the last latencies count.
const SAMPLES: usize = 128;
/// GETs between second ones, on average.
const GETS_PER_SECOND_ONE: u32 = 20;
/// Second ones that may follow each other closely after a time without any.
const BURST: u32 = 4;
/// Sizes are told apart from 64 KiB upwards by doublings; and whole objects, whose size is not known.
const CLASSES: usize = 10;

/// Latencies so far and what may be sent on top.
pub(super) struct Hedge(Mutex<State>);

struct State {
    classes: [Latencies; CLASSES],
    /// In twentieths of a request.
    budget: u32,
}

#[derive(Default)]
struct Latencies {
    /// The last ones; the oldest is overwritten next.
    recent: Vec<Duration>,
    next: usize,
    /// The 95th percentile as of some latencies ago.
    p95: Option<Duration>,
}

impl Latencies {
    fn add(&mut self, latency: Duration) {
        if self.recent.len() < SAMPLES {
            self.recent.push(latency);
        } else {
            self.recent[self.next] = latency;
        }
        self.next = (self.next + 1) % SAMPLES;
        // Sorting each time would cost more than the measure is worth.
        if self.recent.len() >= SAMPLES_MIN && self.next.is_multiple_of(8) || self.recent.len() == SAMPLES_MIN {
            let mut sorted = self.recent.clone();
            sorted.sort_unstable();
            self.p95 = Some(sorted[sorted.len() * 95 / 100]);
        }
    }

    fn slow(&self) -> Duration {
        self.p95.map_or(SLOW_AT_FIRST, |p95| p95.max(SLOW_MIN))
    }
}

impl Hedge {
    pub fn new() -> Hedge {
        Hedge(Mutex::new(State { classes: Default::default(), budget: GETS_PER_SECOND_ONE }))
    }

    /// Runs `get`, and if it is slow, once more beside it. `bytes`: how much is asked for, if known.
    pub async fn run<T, F>(&self, bytes: Option<u64>, lanes: &Arc<Lanes>, get: impl Fn() -> F) -> Result<T, ObjectError>
    where
        F: Future<Output = Result<T, ObjectError>>,
    {
        let class = class_of(bytes);
        let began = Instant::now();
        let outcome = self.race(class, lanes, get).await;
        if outcome.is_ok() {
            // If the second one won, the first would have taken longer still: at least this.
            self.0.lock().classes[class].add(began.elapsed());
        }
        outcome
    }

    async fn race<T, F>(&self, class: usize, lanes: &Arc<Lanes>, get: impl Fn() -> F) -> Result<T, ObjectError>
    where
        F: Future<Output = Result<T, ObjectError>>,
    {
        let slow = self.begin(class);
        let mut first = pin!(get());
        if let Ok(outcome) = timeout(slow, first.as_mut()).await {
            return outcome;
        }
        let Some(_slot) = lanes.spare().filter(|_| self.spend()) else { return first.await };
        tracing::debug!("a GET took longer than {slow:?} and is sent again");
        first_good(first, pin!(get())).await
    }

    /// A GET begins: when will it be slow?
    fn begin(&self, class: usize) -> Duration {
        let mut state = self.0.lock();
        state.budget = (state.budget + 1).min(BURST * GETS_PER_SECOND_ONE);
        let slow = state.classes[class].slow();
        if class >= class_of(Some(LONG)) { 2 * slow } else { slow }
    }

    /// Whether one may be sent a second time.
    fn spend(&self) -> bool {
        let mut state = self.0.lock();
        let left = state.budget.checked_sub(GETS_PER_SECOND_ONE);
        state.budget = left.unwrap_or(state.budget);
        left.is_some()
    }
}

fn class_of(bytes: Option<u64>) -> usize {
    match bytes {
        None => 0,
        Some(bytes) => 1 + ((bytes >> 15).max(1).ilog2() as usize).min(CLASSES - 2),
    }
}

/// The first success of the two; if none succeeds, what the first said.
async fn first_good<T, F, G>(mut first: Pin<&mut F>, mut second: Pin<&mut G>) -> Result<T, ObjectError>
where
    F: Future<Output = Result<T, ObjectError>>,
    G: Future<Output = Result<T, ObjectError>>,
{
    let mut first_error = None;
    let mut has_second_failed = false;
    std::future::poll_fn(move |context| {
        if first_error.is_none() {
            match first.as_mut().poll(context) {
                Poll::Ready(Ok(value)) => return Poll::Ready(Ok(value)),
                Poll::Ready(Err(error)) => first_error = Some(error),
                Poll::Pending => {}
            }
        }
        if !has_second_failed {
            match second.as_mut().poll(context) {
                Poll::Ready(Ok(value)) => return Poll::Ready(Ok(value)),
                Poll::Ready(Err(_)) => has_second_failed = true,
                Poll::Pending => {}
            }
        }
        match first_error.take() {
            Some(error) if has_second_failed => Poll::Ready(Err(error)),
            error => {
                first_error = error;
                Poll::Pending
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_latencies(class: usize, millis: impl Iterator<Item = u64>) -> Hedge {
        let hedge = Hedge::new();
        for millis in millis {
            hedge.0.lock().classes[class].add(Duration::from_millis(millis));
        }
        hedge
    }

    #[test]
    fn slow_is_what_nearly_all_others_are_not() {
        assert_eq!(Hedge::new().begin(0), SLOW_AT_FIRST);
        assert_eq!(with_latencies(0, 1..20).begin(0), SLOW_AT_FIRST, "too few to tell");
        assert_eq!(with_latencies(0, 101..=120).begin(0), Duration::from_millis(120));
        assert_eq!(with_latencies(0, 1..=SAMPLES as u64).begin(0), Duration::from_millis(122));
        assert_eq!(with_latencies(0, std::iter::repeat_n(2, 100)).begin(0), SLOW_MIN);
        let hedge = with_latencies(3, std::iter::repeat_n(70, 200));
        assert_eq!((hedge.begin(3), hedge.begin(2)), (Duration::from_millis(70), SLOW_AT_FIRST), "by size");
        assert_eq!(with_latencies(5, std::iter::repeat_n(70, 200)).begin(5), Duration::from_millis(70));
        assert_eq!(with_latencies(6, std::iter::repeat_n(70, 200)).begin(6), Duration::from_millis(140), "a long one");
        let turned = with_latencies(0, std::iter::repeat_n(30, 500).chain(std::iter::repeat_n(300, SAMPLES)));
        assert_eq!(turned.begin(0), Duration::from_millis(300), "old ones are forgotten");
    }

    #[test]
    fn one_in_twenty_at_most_is_sent_twice() {
        let hedge = Hedge::new();
        let mut twice = 0;
        for _ in 0..1000 {
            hedge.begin(0);
            twice += u32::from(hedge.spend());
        }
        assert!((50..=51).contains(&twice), "{twice}");
        // After a long time without any, a few may follow each other.
        for _ in 0..1000 {
            hedge.begin(0);
        }
        let spent = (0..100).filter(|_| hedge.spend()).count();
        assert_eq!(spent, BURST as usize);
    }

    #[test]
    fn sizes_are_told_apart_by_doublings() {
        let class = |bytes| class_of(Some(bytes));
        assert_eq!([class(1), class(64 << 10), class((128 << 10) - 1)], [1, 2, 2]);
        assert_eq!([class(128 << 10), class(8 << 20), class(16 << 20), class(1 << 40)], [3, 9, 9, 9]);
        assert_eq!(class_of(None), 0);
    }

    #[test]
    fn the_first_good_answer_wins_and_of_two_errors_the_first_ones() {
        let unknown = || Err::<u8, _>(ObjectError::Unknown("x".into()));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let race = |first: Result<u8, ObjectError>, second: Result<u8, ObjectError>| {
            runtime.block_on(first_good(pin!(async { first }), pin!(async { second })))
        };
        assert_eq!(race(Ok(1), Ok(2)), Ok(1));
        assert_eq!(race(unknown(), Ok(2)), Ok(2));
        assert_eq!(race(Err(ObjectError::Missing), unknown()), Err(ObjectError::Missing));
        let never = std::future::pending::<Result<u8, ObjectError>>();
        assert_eq!(runtime.block_on(first_good(pin!(never), pin!(async { Ok(2) }))), Ok(2));
    }
}
