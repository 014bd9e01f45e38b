//! Waiting, to a tenth of a millisecond: the runtime's own timer ticks once a millisecond, and what is
//! measured through the proxy would take up to two ticks longer than it was told to add.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// A thread that wakes who waits. It ends with this value, and so does all waiting.
pub(crate) struct Clock(Sender<Wait>);

struct Wait {
    until: Instant,
    wake: oneshot::Sender<()>,
}

impl Clock {
    pub(crate) fn start() -> io::Result<Clock> {
        let (waits, asked) = channel();
        std::thread::Builder::new().name("fault-proxy-clock".to_owned()).spawn(move || run(&asked))?;
        Ok(Clock(waits))
    }

    pub(crate) async fn wait(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        let (wake, woken) = oneshot::channel();
        self.0.send(Wait { until: Instant::now() + time, wake }).expect("the clock's thread lives as long as this");
        woken.await.expect("the clock wakes all who wait");
    }
}

fn run(asked: &Receiver<Wait>) {
    // By time, then by the order in which they came.
    let mut order: BinaryHeap<Reverse<(Instant, u64)>> = BinaryHeap::new();
    let mut waits = HashMap::new();
    for number in 0u64.. {
        let wait = loop {
            let Some(Reverse((until, next))) = order.peek().copied() else {
                match asked.recv() {
                    Ok(wait) => break wait,
                    Err(_) => return,
                }
            };
            match asked.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(wait) => break wait,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    order.pop();
                    let wake: oneshot::Sender<()> = waits.remove(&next).expect("each is woken once");
                    wake.send(()).ok();
                }
            }
        };
        order.push(Reverse((wait.until, number)));
        waits.insert(number, wait.wake);
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    #[test]
    fn nobody_is_woken_too_early_or_forgotten() {
        let clock = Arc::new(Clock::start().unwrap());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let waits = [50, 10, 0, 30, 10, 1].map(|milliseconds| {
            let (clock, time) = (clock.clone(), Duration::from_millis(milliseconds));
            runtime.spawn(async move {
                let start = Instant::now();
                clock.wait(time).await;
                assert!(start.elapsed() >= time);
            })
        });
        for wait in waits {
            runtime.block_on(wait).unwrap();
        }
    }
}
