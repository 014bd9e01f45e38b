//! Crash images: what the loss of every machine at any moment may leave in a bucket.
//!
//! Changes that were carried out and answered are there. Those that were on their way, or whose
//! outcome nobody was told, are *open*: each may be there, or not, or come later ([`Fate`]).

use super::super::crash_disk::{Effort, Tried};
use super::super::random::Random;
use super::call::{Answer, Call};
use super::contents::Contents;
use super::rules::Rules;
use kivafs::backend::ObjectError;
use std::collections::HashSet;
use xxhash_rust::xxh3::Xxh3;

/// Something that happened to a change, by its place in the journal.
#[derive(Clone, Copy, Debug)]
enum Event {
    Arrived(usize),
    CarriedOut(usize),
    /// Its peer was told what came of it.
    Settled(usize),
    /// Its peer was told that there is no answer.
    LeftOpen(usize),
}

/// What becomes of the changes that are open at a crash. Numbers count among these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    AllLost,
    AllKept,
    OnlyKept(usize),
    OnlyLost(usize),
    /// All come later.
    AllLate,
    /// Each is lost, is there, or comes later, in any order: chosen by this seed.
    Shuffled(u64),
}

/// A bucket after the loss of all machines.
pub struct Left {
    pub contents: Contents,
    pub rules: Rules,
    /// Still on their way.
    pub late: Vec<(usize, Call)>,
}

/// What was changed in a bucket, and when who learned of it.
#[derive(Clone, Default)]
pub struct Journal {
    start: Contents,
    start_rules: Rules,
    changes: Vec<(usize, Call)>,
    events: Vec<Event>,
}

impl Journal {
    pub fn new(start: Contents, start_rules: Rules) -> Journal {
        Journal { start, start_rules, changes: Vec::new(), events: Vec::new() }
    }

    pub fn position(&self) -> usize {
        self.events.len()
    }

    /// Takes down a change; answers its number.
    pub fn arrived(&mut self, peer: usize, call: &Call) -> usize {
        self.changes.push((peer, call.clone()));
        self.events.push(Event::Arrived(self.changes.len() - 1));
        self.changes.len() - 1
    }

    pub fn carried_out(&mut self, change: usize) {
        self.events.push(Event::CarriedOut(change));
    }

    pub fn answered(&mut self, change: usize, result: &Result<Answer, ObjectError>) {
        self.events.push(match result {
            Err(ObjectError::Unknown(_)) => Event::LeftOpen(change),
            _ => Event::Settled(change),
        });
    }

    /// Shows `visit` the images: cut, fate and what is left. `demand` tells what an image of that
    /// cut is held to; the same contents with the same demand are shown once.
    pub fn for_each_image(
        &self,
        effort: Effort,
        demand: impl Fn(usize) -> u64,
        mut visit: impl FnMut(usize, Fate, Left),
    ) -> Tried {
        let mut random = Random::new(effort.seed);
        let mut tried = Tried::default();
        let mut seen = HashSet::new();
        for cut in effort.choose_cuts(self.events.len(), &mut random) {
            tried.cuts += 1;
            let open = self.open_at(cut);
            for fate in choose_fates(open.len(), effort, &mut random) {
                let left = self.image(cut, &open, fate);
                if seen.insert((digest(&left), demand(cut))) {
                    tried.images += 1;
                    visit(cut, fate, left);
                } else {
                    tried.repeated += 1;
                }
            }
        }
        tried
    }

    /// The contents after so many events, with only what had been carried out by then.
    pub fn at(&self, cut: usize) -> Left {
        let mut left = Left { contents: self.start.clone(), rules: self.start_rules.clone(), late: Vec::new() };
        for event in &self.events[..cut] {
            self.replay(*event, &HashSet::new(), &mut left);
        }
        left
    }

    fn replay(&self, event: Event, without: &HashSet<usize>, left: &mut Left) {
        match event {
            Event::Arrived(change) => {
                let (peer, call) = &self.changes[change];
                left.rules.note_arrived(*peer, call);
            }
            Event::CarriedOut(change) if !without.contains(&change) => {
                self.carry_out(change, left);
            }
            _ => {}
        }
    }

    fn carry_out(&self, change: usize, left: &mut Left) {
        let (peer, call) = &self.changes[change];
        if left.contents.carry_out(call, true).is_ok() {
            left.rules.carried_out(*peer, call, &left.contents);
        }
    }

    fn open_at(&self, cut: usize) -> Vec<usize> {
        let mut open = Vec::new();
        let mut carried_out = HashSet::new();
        let mut told_nothing = HashSet::new();
        for event in &self.events[..cut] {
            match *event {
                Event::Arrived(change) => open.push(change),
                Event::CarriedOut(change) => {
                    carried_out.insert(change);
                    if told_nothing.contains(&change) {
                        open.retain(|other| *other != change);
                    }
                }
                Event::Settled(change) => open.retain(|other| *other != change),
                Event::LeftOpen(change) => {
                    told_nothing.insert(change);
                    if carried_out.contains(&change) {
                        open.retain(|other| *other != change);
                    }
                }
            }
        }
        open
    }

    fn image(&self, cut: usize, open: &[usize], fate: Fate) -> Left {
        let without: HashSet<usize> = open.iter().copied().collect();
        let mut left = Left { contents: self.start.clone(), rules: self.start_rules.clone(), late: Vec::new() };
        for event in &self.events[..cut] {
            self.replay(*event, &without, &mut left);
        }
        let keep = |left: &mut Left, index: usize| self.carry_out(open[index], left);
        let delay = |left: &mut Left, index: usize| left.late.push(self.changes[open[index]].clone());
        match fate {
            Fate::AllLost => {}
            Fate::AllKept => (0..open.len()).for_each(|index| keep(&mut left, index)),
            Fate::OnlyKept(index) => keep(&mut left, index),
            Fate::OnlyLost(lost) => (0..open.len()).filter(|index| *index != lost).for_each(|index| {
                keep(&mut left, index);
            }),
            Fate::AllLate => (0..open.len()).for_each(|index| delay(&mut left, index)),
            Fate::Shuffled(seed) => {
                let mut random = Random::new(seed);
                for index in random.permutation(open.len()) {
                    match random.within(0..4) {
                        0 => {}
                        1 => delay(&mut left, index),
                        _ => keep(&mut left, index),
                    }
                }
            }
        }
        left
    }
}

fn choose_fates(open: usize, effort: Effort, random: &mut Random) -> Vec<Fate> {
    if open == 0 {
        return vec![Fate::AllKept];
    }
    let mut fates = vec![Fate::AllLost, Fate::AllKept, Fate::AllLate];
    let mut more = Vec::new();
    if open > 1 {
        more.extend((0..open).flat_map(|index| [Fate::OnlyKept(index), Fate::OnlyLost(index)]));
        more.extend((0..effort.shuffled).map(|_| Fate::Shuffled(random.next())));
    }
    let room = effort.fates_max.saturating_sub(fates.len());
    if more.len() <= room {
        fates.append(&mut more);
    } else {
        fates.extend(random.permutation(more.len()).into_iter().take(room).map(|index| more[index]));
    }
    fates
}

fn digest(left: &Left) -> u128 {
    let mut hash = Xxh3::new();
    let mut add = |name: &str, body: &[u8]| {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
        hash.update(&(body.len() as u64).to_le_bytes());
        hash.update(body);
    };
    for name in left.contents.names() {
        add(&name, left.contents.body(&name).expect("is there"));
    }
    for (_, call) in &left.late {
        add("late", call.name().as_bytes());
    }
    hash.digest128()
}
