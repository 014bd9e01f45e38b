//! Ctrl-C: what was made is to be removed all the same.

use crate::bench::figures::{Answer, text};
use crate::life::signals::{Signals, Wake};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// SIGINT, SIGTERM and SIGHUP, asked for from time to time.
pub struct Interrupt {
    signals: Signals,
    came: AtomicBool,
}

impl Interrupt {
    /// To be called before there are threads.
    pub fn watch() -> Answer<Interrupt> {
        Ok(Interrupt { signals: Signals::block().map_err(text)?, came: AtomicBool::new(false) })
    }

    /// An error from the first signal on.
    pub fn check(&self) -> Answer<()> {
        if !self.came.load(Ordering::Relaxed) {
            let came = self.signals.wait(&[], Some(Duration::ZERO)).map_err(text)? == Wake::Stop;
            self.came.fetch_or(came, Ordering::Relaxed);
        }
        match self.came.load(Ordering::Relaxed) {
            true => Err("interrupted: nothing is left behind".into()),
            false => Ok(()),
        }
    }
}
