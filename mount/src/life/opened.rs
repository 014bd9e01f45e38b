//! Opening the store that a process is to serve.

use crate::life::place::Place;
use crate::life::plan::MountOptions;
use crate::life::signals::{Signals, Wake};
use crate::life::{LifeError, holder};
use kivafs::store::{OpenError, OpenOptions, Store};
use std::path::Path;
use std::sync::Arc;

/// What is to be opened, and how.
pub struct Opening<'a> {
    pub place: &'a Place,
    pub options: &'a MountOptions,
    /// Make it if there is none.
    pub create: bool,
    /// Take it from a holder that is gone for good.
    pub takeover: bool,
    /// Where it will be mounted, or where its keys will be served without a mount.
    pub serving_at: &'a Path,
}

/// A store that is open.
pub struct Opened {
    pub store: Arc<Store>,
    /// By us, just now.
    made: bool,
}

impl Opening<'_> {
    /// Opens the store, and waits for a holder that is about to end.
    pub fn open(&self, signals: &Signals) -> Result<Opened, LifeError> {
        let options = OpenOptions {
            read_only: self.options.read_only,
            commit_interval: self.options.commit_interval,
            serving_at: Some(self.serving_at.to_path_buf()),
            takeover: self.takeover,
            ..self.options.store.for_opening()
        };
        let mut made = false;
        let mut open = || match self.place.open(&options) {
            Err(OpenError::NotFound(_)) if self.create && !made => {
                self.place.create(&self.options.store.for_creating(None))?;
                made = true;
                self.place.open(&options)
            }
            opened => opened,
        };
        // The signals are blocked: a wait must listen for them itself.
        let store = holder::patiently(self.place, &mut open, &mut |time| match signals.wait(&[], Some(time))? {
            Wake::Stop => Err(LifeError::Interrupted),
            Wake::Other | Wake::TimeOut => Ok(()),
        })?;
        Ok(Opened { store: Arc::new(store), made })
    }
}

impl Opened {
    /// As if nothing had been done.
    pub fn undo(self, place: &Place) {
        // Nothing was acknowledged that could fail to be durable.
        let _ = self.store.close();
        if self.made {
            place.unmake();
        }
    }
}
