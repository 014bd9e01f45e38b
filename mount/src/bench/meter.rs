//! How much was done in which time, with how much of a server's processor time.

use crate::bench::figures::Answer;
use crate::bench::interrupt::Interrupt;
use crate::bench::process;
use std::time::{Duration, Instant};

/// What is measured of a steady state begins after this.
const WARM_UP: Duration = Duration::from_secs(1);

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Operations a second.
    pub rate: f64,
    /// Microseconds of the serving process's processor time for each.
    pub cpu: f64,
    /// Bytes written to the store for each.
    pub written: f64,
}

/// Counts what a process does.
pub struct Meter<'a> {
    pid: u32,
    interrupt: &'a Interrupt,
    /// When counting begins, and when it ends; without, when it is finished.
    from: Instant,
    until: Option<Instant>,
    begin: Option<Mark>,
    end: Option<Mark>,
    done: u64,
}

struct Mark {
    at: Instant,
    cpu: Duration,
    done: u64,
}

impl<'a> Meter<'a> {
    /// Of everything from now on.
    pub fn of_all(pid: u32, interrupt: &'a Interrupt) -> Answer<Meter<'a>> {
        let mut meter = Meter { pid, interrupt, from: Instant::now(), until: None, begin: None, end: None, done: 0 };
        meter.count(0)?;
        Ok(meter)
    }

    /// Of so many seconds after a warm-up.
    pub fn of_steady(pid: u32, interrupt: &'a Interrupt, seconds: u64) -> Meter<'a> {
        let from = Instant::now() + WARM_UP;
        let until = Some(from + Duration::from_secs(seconds));
        Meter { pid, interrupt, from, until, begin: None, end: None, done: 0 }
    }

    /// More is done. Answers whether to go on.
    pub fn count(&mut self, done: u64) -> Answer<bool> {
        self.interrupt.check()?;
        self.done += done;
        let now = Instant::now();
        if self.begin.is_none() && now >= self.from {
            self.begin = Some(self.mark()?);
        } else if self.begin.is_some() && self.end.is_none() && self.until.is_some_and(|until| now >= until) {
            self.end = Some(self.mark()?);
        }
        Ok(self.end.is_none())
    }

    /// The figures, once nothing more is done: to be called while the process is there. They lack what
    /// was written, which it tells at its end, of everything that was done.
    pub fn finish(mut self) -> Answer<(u64, Figures)> {
        let end = match self.end.take() {
            Some(end) => end,
            None => self.mark()?,
        };
        let begin = self.begin.take().ok_or("it ended before counting began")?;
        let done = (end.done - begin.done).max(1) as f64;
        let rate = (end.done - begin.done) as f64 / (end.at - begin.at).as_secs_f64();
        let cpu = end.cpu.saturating_sub(begin.cpu).as_secs_f64() * 1e6 / done;
        Ok((self.done, Figures { rate, cpu, written: 0.0 }))
    }

    fn mark(&self) -> Answer<Mark> {
        Ok(Mark { at: Instant::now(), cpu: process::cpu(self.pid)?, done: self.done })
    }
}
