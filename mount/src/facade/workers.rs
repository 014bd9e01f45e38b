//! The threads that wait for storage, so that reader threads need not.

use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A request that missed, to be carried on. May wait for storage.
type Task = Box<dyn FnOnce() + Send>;

/// Enough to keep a disk's queue filled.
const THREADS: usize = 16;

/// Most bytes that parked requests may hold before no more writes are taken in.
const PARKED_BYTES_MAX: usize = 32 << 20;

#[derive(Default)]
struct Queue {
    tasks: VecDeque<(usize, Task)>,
    /// Of waiting and running tasks.
    parked_bytes: usize,
    ending: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    came: Condvar,
    room: Condvar,
}

/// A pool of threads with one queue.
pub struct Workers {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Workers {
    /// Starts the threads.
    pub fn start() -> std::io::Result<Workers> {
        let shared = Arc::new(Shared::default());
        let threads = (0..THREADS)
            .map(|_| {
                let shared = shared.clone();
                std::thread::Builder::new().name("fetch".into()).spawn(move || work(&shared))
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Workers { shared, threads: Mutex::new(threads) })
    }

    /// Hands over a request that holds `bytes`. Does not wait. After `stop` (a session that had to
    /// be given up still runs) the request is dropped, and its reply with it, which answers EIO.
    pub fn park(&self, bytes: usize, task: Task) {
        let mut queue = self.shared.queue.lock();
        if queue.ending {
            return;
        }
        queue.parked_bytes += bytes;
        queue.tasks.push_back((bytes, task));
        drop(queue);
        self.shared.came.notify_one();
    }

    /// Waits until parked requests hold little enough.
    pub fn wait_for_room(&self) {
        let mut queue = self.shared.queue.lock();
        while queue.parked_bytes > PARKED_BYTES_MAX {
            self.shared.room.wait(&mut queue);
        }
    }

    /// Finishes what is parked, then ends the threads.
    pub fn stop(&self) {
        self.shared.queue.lock().ending = true;
        self.shared.came.notify_all();
        for thread in self.threads.lock().drain(..) {
            thread.join().expect("a panic ends the process, not a thread");
        }
    }
}

fn work(shared: &Shared) {
    let mut queue = shared.queue.lock();
    loop {
        if let Some((bytes, task)) = queue.tasks.pop_front() {
            drop(queue);
            task();
            queue = shared.queue.lock();
            queue.parked_bytes -= bytes;
            shared.room.notify_all();
        } else if queue.ending {
            return;
        } else {
            shared.came.wait(&mut queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn stop_finishes_what_is_parked() {
        let workers = Workers::start().unwrap();
        let (sender, receiver) = mpsc::channel();
        for number in 0..1000 {
            let sender = sender.clone();
            workers.park(0, Box::new(move || sender.send(number).unwrap()));
        }
        workers.stop();
        assert_eq!(receiver.try_iter().count(), 1000);
    }

    #[test]
    fn room_is_waited_for_and_comes() {
        let workers = Arc::new(Workers::start().unwrap());
        let (release, held) = mpsc::channel::<()>();
        let (passed, result) = mpsc::channel();
        workers.park(PARKED_BYTES_MAX + 1, Box::new(move || held.recv().unwrap()));
        let waiting = workers.clone();
        let thread = std::thread::spawn(move || {
            waiting.wait_for_room();
            passed.send(()).unwrap();
        });
        assert!(result.try_recv().is_err());
        release.send(()).unwrap();
        result.recv().unwrap();
        thread.join().unwrap();
        workers.stop();
    }
}
