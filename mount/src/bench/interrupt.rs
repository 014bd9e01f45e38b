//! Ctrl-C: what was made is to be removed all the same.

use crate::bench::figures::{Answer, text};
use crate::life::signals::{Signals, Wake};
use std::cell::Cell;
use std::time::Duration;

/// SIGINT, SIGTERM and SIGHUP, asked for now and then.
pub struct Interrupt {
    signals: Signals,
    came: Cell<bool>,
}

impl Interrupt {
    /// To be called before there are threads.
    pub fn watch() -> Answer<Interrupt> {
        Ok(Interrupt { signals: Signals::block().map_err(text)?, came: Cell::new(false) })
    }

    /// An error from the first signal on.
    pub fn check(&self) -> Answer<()> {
        if !self.came.get() {
            self.came.set(self.signals.wait(&[], Some(Duration::ZERO)).map_err(text)? == Wake::Stop);
        }
        if self.came.get() { Err("interrupted: nothing is left behind".into()) } else { Ok(()) }
    }
}
