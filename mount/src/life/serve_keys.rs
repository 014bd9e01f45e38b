//! The life of a process that serves a store's keys over a socket, without a mount.
//!
//! It stays in the foreground and says so on stdout when it can be connected to. SIGTERM, SIGINT or
//! SIGHUP ends it: connections end first, then everything is made durable, and the log (at level debug)
//! is told what was written all the while. An error before it is ready undoes what was done.

use crate::fs::{FileSystem, coarse_now};
use crate::kvlds::server::{Address, Server, Socket};
use crate::life::drain::close;
use crate::life::holder::{announce_draining, place_of_socket};
use crate::life::opened::Opening;
use crate::life::place::Place;
use crate::life::plan::MountOptions;
use crate::life::signals::{Signals, Wake};
use crate::life::supervisor::Supervisor;
use crate::life::{LifeError, journal, written};
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
    /// Where to listen; a path is absolute.
    pub address: Address,
    /// Mode of a Unix socket's file.
    pub mode: u32,
    /// As of a mount; what concerns the mount itself means nothing.
    pub options: MountOptions,
}

/// Serves until a signal comes. Ok: everything is durable.
pub fn serve_keys(plan: &KeyPlan) -> Result<(), LifeError> {
    let signals = Signals::block()?;
    let mut supervisor = Supervisor::of_this_process();
    journal::open(&plan.options, false)?;
    let serving_at = place_of_socket(&plan.address);
    let opening = Opening {
        place: &plan.store,
        options: &plan.options,
        create: plan.create,
        takeover: plan.takeover,
        serving_at: &serving_at,
    };
    let opened = opening.open(&signals)?;
    let begun = FileSystem::open(opened.store.clone(), coarse_now)
        .map_err(|error| LifeError::Content { store: plan.store.name(), why: error.to_string() })
        .and_then(|fs| {
            let fs = Arc::new(fs);
            let socket = Socket::listen(&plan.address, plan.mode)?;
            Ok((Server::start(fs.clone(), socket, None)?, fs))
        });
    let served = match begun {
        Ok((server, fs)) => {
            println!("{}: ready", plan.address);
            supervisor.ready();
            let served = until_stopped(&fs, &signals);
            supervisor.stopping();
            drop(server);
            served
        }
        Err(error) => {
            opened.undo(&plan.store);
            return Err(error);
        }
    };
    announce_draining(&opened.store);
    let closed = close(&plan.store, opened.store.clone(), plan.options.store.timeout, &mut supervisor)
        .map_err(|error| LifeError::Close { store: plan.store.name(), error });
    tracing::debug!("{}: {}", plan.store, written::line(&opened.store.activity()));
    served.and(closed)
}

/// Does what removals leave to do, until a signal comes.
fn until_stopped(fs: &FileSystem, signals: &Signals) -> Result<(), LifeError> {
    while signals.wait(&[], Some(TICK))? != Wake::Stop {
        fs.deferred_all();
    }
    Ok(())
}
