//! The life of a process that serves a store's keys over a socket, without a mount.
//!
//! It stays in the foreground and says so on stdout when it can be connected to. SIGTERM, SIGINT or
//! SIGHUP ends it: connections end first, then everything is made durable.

use crate::fs::{FileSystem, coarse_now};
use crate::kvlds::server::{Address, Server};
use crate::life::drain::close;
use crate::life::holder::{self, announce_draining};
use crate::life::place::Place;
use crate::life::plan::MountOptions;
use crate::life::signals::{Signals, Wake};
use crate::life::{LifeError, journal};
use kivafs::store::{OpenError, OpenOptions};
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked whether removals left something to do.
const TICK: Duration = Duration::from_secs(1);

/// What is to be served, and where.
#[derive(Debug)]
pub struct KeyPlan {
    /// The store.
    pub store: Place,
    /// Make it if there is none.
    pub create: bool,
    /// Take it from a holder that is gone for good.
    pub takeover: bool,
    /// Where to listen.
    pub address: Address,
    /// As of a mount; what concerns the mount itself means nothing.
    pub options: MountOptions,
}

/// Serves until a signal comes. Ok: everything is durable.
pub fn serve_keys(plan: &KeyPlan) -> Result<(), LifeError> {
    let signals = Signals::block()?;
    journal::open(&plan.options, false)?;
    let options = OpenOptions {
        read_only: plan.options.read_only,
        commit_interval: plan.options.commit_interval,
        takeover: plan.takeover,
        ..plan.options.store.for_opening(&plan.store)
    };
    let mut open = || match plan.store.open(&options) {
        Err(OpenError::NotFound(_)) if plan.create => {
            plan.store.create(&plan.options.store.for_creating(None))?;
            plan.store.open(&options)
        }
        opened => opened,
    };
    // The signals are blocked: a wait must listen for them itself.
    let store = holder::patiently(&plan.store, &mut open, &mut |time| match signals.wait(&[], Some(time))? {
        Wake::Stop => Err(LifeError::Interrupted),
        Wake::Other | Wake::TimeOut => Ok(()),
    })?;
    let store = Arc::new(store);
    let served = FileSystem::open(store.clone(), coarse_now)
        .map_err(|error| LifeError::Content { store: plan.store.name(), why: error.to_string() })
        .and_then(|fs| serve(Arc::new(fs), &plan.address, &signals));
    announce_draining(&store);
    let closed = close(&plan.store, store, plan.options.store.timeout)
        .map_err(|error| LifeError::Close { store: plan.store.name(), error });
    served.and(closed)
}

fn serve(fs: Arc<FileSystem>, address: &Address, signals: &Signals) -> Result<(), LifeError> {
    let _server = Server::start(fs.clone(), address)?;
    println!("{address}: ready");
    while signals.wait(&[], Some(TICK))? != Wake::Stop {
        loop {
            match fs.store().patiently(|| fs.deferred_step()) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    tracing::warn!("what removals left is not done: {error}");
                    break;
                }
            }
        }
    }
    Ok(())
}
