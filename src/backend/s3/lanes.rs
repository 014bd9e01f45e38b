//! How many requests are under way at once, and which is next.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use tokio::runtime::Handle;

/// What a request waits behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Creates: a commit, which somebody waits for. Behind no bulk data; but as many at once as
    /// there are of that, since racing creates are how a server's conditional PUT is tried out.
    Create,
    /// GETs and LISTs: somebody waits for most of them.
    Read,
    /// PUTs and DELETEs.
    Write,
}

type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs jobs on a runtime, at most `width` reads and writes together at once, and at most `width`
/// creates. Others queue.
///
/// Each lane is first in, first out. While both reads and writes wait, they take turns, so that a
/// read does not wait until everything is written that was there before it.
pub(super) struct Lanes {
    runtime: Handle,
    width: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    creates: Queue,
    reads: Queue,
    writes: Queue,
    read_was_last: bool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Job>,
    running: usize,
}

impl State {
    fn queue(&mut self, lane: Lane) -> &mut Queue {
        match lane {
            Lane::Create => &mut self.creates,
            Lane::Read => &mut self.reads,
            Lane::Write => &mut self.writes,
        }
    }

    /// The job that may begin now, if any.
    fn next(&mut self, width: usize) -> Option<(Lane, Job)> {
        let is_bulk_full = self.reads.running + self.writes.running >= width;
        let lane = if self.creates.running < width && !self.creates.waiting.is_empty() {
            Lane::Create
        } else if is_bulk_full || (self.reads.waiting.is_empty() && self.writes.waiting.is_empty()) {
            return None;
        } else if self.writes.waiting.is_empty() || (!self.read_was_last && !self.reads.waiting.is_empty()) {
            Lane::Read
        } else {
            Lane::Write
        };
        if lane != Lane::Create {
            self.read_was_last = lane == Lane::Read;
        }
        let queue = self.queue(lane);
        queue.running += 1;
        queue.waiting.pop_front().map(|job| (lane, job))
    }
}

impl Lanes {
    pub fn new(runtime: Handle, width: usize) -> Lanes {
        assert!(width > 0);
        Lanes { runtime, width, state: Mutex::default() }
    }

    /// Runs the job when its turn has come. It is dropped, run or not, when the lanes are closed
    /// and the runtime is shut down.
    pub fn begin(self: &Arc<Lanes>, lane: Lane, job: impl Future<Output = ()> + Send + 'static) {
        let job: Job = Box::pin(job);
        let mut state = self.state.lock();
        if state.is_closed {
            // What the job holds may call back: not under the lock.
            drop(state);
            return drop(job);
        }
        state.queue(lane).waiting.push_back(job);
        drop(state);
        self.start_next();
    }

    /// A place for one more read beside those that are under way, if nobody waits for it.
    pub fn spare(self: &Arc<Lanes>) -> Option<Slot> {
        let mut state = self.state.lock();
        let is_wanted = !state.reads.waiting.is_empty() || !state.writes.waiting.is_empty();
        if is_wanted || state.reads.running + state.writes.running >= self.width {
            return None;
        }
        state.reads.running += 1;
        Some(Slot { lanes: Arc::clone(self), lane: Lane::Read })
    }

    /// Drops what waits; nothing begins any more.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.is_closed = true;
        let dropped =
            [Lane::Create, Lane::Read, Lane::Write].map(|lane| std::mem::take(&mut state.queue(lane).waiting));
        drop(state);
        drop(dropped);
    }

    fn start_next(self: &Arc<Lanes>) {
        loop {
            let mut state = self.state.lock();
            let Some((lane, job)) = state.next(self.width) else { return };
            drop(state);
            let slot = Slot { lanes: Arc::clone(self), lane };
            self.runtime.spawn(async move {
                job.await;
                drop(slot);
            });
        }
    }
}

/// One of the places under way; dropping it lets the next begin.
pub(super) struct Slot {
    lanes: Arc<Lanes>,
    lane: Lane,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.lanes.state.lock().queue(self.lane).running -= 1;
        self.lanes.start_next();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use tokio::runtime::{Builder, Runtime};
    use tokio::sync::oneshot;

    /// Lanes, and jobs that say when they begin and end when they are told.
    struct Scene {
        lanes: Arc<Lanes>,
        begun: mpsc::Receiver<&'static str>,
        sender: mpsc::Sender<&'static str>,
        runtime: Runtime,
    }

    impl Scene {
        fn new(width: usize) -> Scene {
            let runtime = Builder::new_multi_thread().worker_threads(1).build().unwrap();
            let (sender, begun) = mpsc::channel();
            let lanes = Arc::new(Lanes::new(runtime.handle().clone(), width));
            Scene { lanes, begun, sender, runtime }
        }

        fn begin(&self, lane: Lane, name: &'static str) -> oneshot::Sender<()> {
            let (end, ended) = oneshot::channel();
            let begun = self.sender.clone();
            self.lanes.begin(lane, async move {
                begun.send(name).unwrap();
                let _ = ended.await;
            });
            end
        }

        fn next(&self) -> &'static str {
            self.begun.recv().unwrap()
        }
    }

    #[test]
    fn each_lane_is_first_in_first_out_and_reads_and_writes_take_turns() {
        let scene = Scene::new(1);
        let mut running = scene.begin(Lane::Write, "w1");
        assert_eq!(scene.next(), "w1");
        let waiting = [(Lane::Write, "w2"), (Lane::Write, "w3"), (Lane::Read, "r1"), (Lane::Read, "r2")];
        let mut ends: Vec<_> = waiting.iter().map(|(lane, name)| (*name, scene.begin(*lane, name))).collect();
        let mut order = Vec::new();
        while !ends.is_empty() {
            drop(running);
            let name = scene.next();
            order.push(name);
            let at = ends.iter().position(|(waiting, _)| *waiting == name).unwrap();
            running = ends.remove(at).1;
        }
        assert_eq!(order, ["r1", "w2", "r2", "w3"]);
    }

    #[test]
    fn a_create_does_not_queue_behind_bulk_data_but_behind_as_many_creates() {
        let scene = Scene::new(2);
        let _bulk = [scene.begin(Lane::Write, "w1"), scene.begin(Lane::Write, "w2"), scene.begin(Lane::Write, "w3")];
        let creates = [scene.begin(Lane::Create, "c1"), scene.begin(Lane::Create, "c2")];
        let _third = scene.begin(Lane::Create, "c3");
        assert_eq!([(); 4].map(|_| scene.next()), ["w1", "w2", "c1", "c2"]);
        drop(creates);
        assert_eq!(scene.next(), "c3", "and w3 still waits");
    }

    #[test]
    fn a_spare_place_is_given_only_while_nobody_waits_for_one() {
        let scene = Scene::new(2);
        let _first = scene.begin(Lane::Read, "r1");
        let spare = scene.lanes.spare().expect("one of two is free");
        assert!(scene.lanes.spare().is_none());
        let _second = scene.begin(Lane::Read, "r2");
        assert_eq!(scene.next(), "r1");
        drop(spare);
        assert_eq!(scene.next(), "r2");
        assert!(scene.lanes.spare().is_none());
    }

    #[test]
    fn closing_drops_what_waits_and_what_runs() {
        let scene = Scene::new(1);
        let running = scene.begin(Lane::Read, "r1");
        assert_eq!(scene.next(), "r1");
        let waiting = scene.begin(Lane::Read, "r2");
        scene.lanes.close();
        assert!(waiting.is_closed());
        assert!(scene.begin(Lane::Create, "c1").is_closed());
        scene.runtime.shutdown_timeout(std::time::Duration::from_secs(60));
        assert!(running.is_closed());
        drop(scene.sender);
        assert_eq!(scene.begun.iter().count(), 0);
    }
}
