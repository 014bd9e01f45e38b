//! The service manager that started this process, if one did, and asked to be told how it goes:
//! systemd, or who speaks as it does over the socket that `NOTIFY_SOCKET` names.
//!
//! It learns when the process is ready, that it is about to end, and, for as long as that lasts, that
//! it is to be patient: what ends a process while it drains loses what is not durable yet.

use crate::life::drain::Backlog;
use sd_notify::NotifyState;
use std::time::{Duration, Instant};

/// How much longer it is asked to wait each time. More than all that comes between two times: open
/// files that are served for a while, a connection that is aborted.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(2);

/// Who is told.
pub struct Supervisor {
    is_there: bool,
    stopping: bool,
    asked: Option<Instant>,
}

impl Supervisor {
    /// Who is named in the environment, if anybody is.
    pub fn of_this_process() -> Supervisor {
        Supervisor { is_there: true, stopping: false, asked: None }
    }

    /// Nobody. A process in the background was started by another one, whose own affair it is what its
    /// service manager hears.
    pub fn nobody() -> Supervisor {
        Supervisor { is_there: false, ..Supervisor::of_this_process() }
    }

    /// It is usable.
    pub fn ready(&self) {
        self.tell(&[NotifyState::Ready]);
    }

    /// It is about to end. Said once, however often this is called.
    pub fn stopping(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.asked = Some(Instant::now());
            self.tell(&[NotifyState::Stopping, patience()]);
        }
    }

    /// It is at it. To be called often.
    pub fn draining(&mut self, backlog: Backlog) {
        if self.asked.is_none_or(|asked| asked.elapsed() >= INTERVAL) {
            self.asked = Some(Instant::now());
            let status = format!("making everything durable: {}", backlog.shown());
            self.tell(&[patience(), NotifyState::Status(&status)]);
        }
    }

    fn tell(&self, what: &[NotifyState<'_>]) {
        if self.is_there
            && let Err(error) = sd_notify::notify(what)
        {
            tracing::warn!("cannot tell the service manager: {error}");
        }
    }
}

fn patience() -> NotifyState<'static> {
    NotifyState::ExtendTimeoutUsec(PATIENCE.as_micros() as u32)
}
