//! All figures at one instant.

use crate::facade::control::memory::Memory;
use crate::facade::core::Core;
use crate::facade::parked::ParkedFigures;
use crate::meter::Counted;
use kivafs::store;
use std::time::{Duration, Instant};

/// What is known of a mount.
pub struct Figures {
    /// Since it began.
    pub uptime: Duration,
    /// Requests that were answered.
    pub requests: Counted,
    /// Requests that wait.
    pub parked: ParkedFigures,
    /// Nodes that the kernel holds, and the most that it is to hold.
    pub held: usize,
    pub held_max: usize,
    /// Removals have left something to do.
    pub deferred: bool,
    /// Files, directories and so on that there are; `None`: that is not in memory just now.
    pub nodes: Option<u64>,
    pub store: store::Figures,
    pub memory: Memory,
}

impl Figures {
    /// Of a mount that began then. Waits for no storage.
    pub fn of(core: &Core, began: Instant) -> Figures {
        Figures {
            uptime: began.elapsed(),
            requests: core.meter.counted(),
            parked: core.parked_now(),
            held: core.fs.held(),
            held_max: core.held_max(),
            deferred: core.fs.deferred_due(),
            nodes: core.fs.nodes().ok(),
            store: core.fs.store().figures(),
            memory: Memory::now(),
        }
    }
}
