//! How a connection is weak (C7), or fails, or ends.

use super::super::random::Random;
use super::call::{Call, What};
use super::contents::Listing;
use std::collections::HashMap;

/// What one peer meets, besides what is asked for by [`Fault`]s. Rates are "one request in so
/// many"; 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weakness {
    /// Carried out, but the answer is lost.
    pub lost_reply: u64,
    /// Not carried out, and no answer.
    pub undone: u64,
    /// Refused with "slow down".
    pub slow: u64,
    /// No answer; carried out later, after some requests of anybody. Only what changes something.
    pub late: u64,
    /// A name that was not there when this peer looked is not there for so many more looks.
    pub missing_for: usize,
    /// What was deleted is still answered so many times.
    pub deleted_for: usize,
    pub listing: Listing,
}

impl Weakness {
    /// All of it, often.
    pub fn severe() -> Weakness {
        Weakness {
            lost_reply: 12,
            undone: 15,
            slow: 20,
            late: 20,
            missing_for: 2,
            deleted_for: 2,
            listing: Listing::HidesNewest(3),
        }
    }
}

/// How one request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// It is not carried out, and there is no answer.
    Undone,
    /// It is carried out, but the answer is lost.
    LostReply,
    /// There is no answer; it is carried out when the test says so.
    Late,
    /// "Slow down."
    Slow,
    /// Not allowed.
    Refused,
    /// A 404 from before (gets only; others fail as [`How::Undone`]).
    Missing,
}

/// Which request fails, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Only of this kind; `None`: of any.
    pub what: Option<What>,
    /// The how many-th of that kind, from now on; the first is 1.
    pub nth: usize,
    /// How many in a row fail.
    pub count: usize,
    pub how: How,
}

/// What becomes of a peer's requests that are on their way when it is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnTheWay {
    Lost,
    Done,
    /// Carried out later, after some requests of anybody.
    Late,
    /// One of these.
    Seeded,
}

/// A peer is cut off: killed, or parted from the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    pub on_the_way: OnTheWay,
    /// Whether its requests get "no answer" for an answer; else they get none, ever, as in a
    /// process that is gone: who waits for one waits for ever.
    pub is_told: bool,
}

impl Cut {
    pub fn killed(on_the_way: OnTheWay) -> Cut {
        Cut { on_the_way, is_told: true }
    }
}

/// When a request is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Now,
    Never,
    /// When so many more requests have arrived; `None`: when the test says so.
    Late(Option<u64>),
}

/// What a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// What came of it.
    Truth,
    /// That there is no answer.
    Unknown,
    Slow,
    Refused,
    Missing,
    /// Nothing.
    Nothing,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub effect: Effect,
    pub told: Told,
}

impl Plan {
    pub const DONE: Plan = Plan { effect: Effect::Now, told: Told::Truth };
    pub const LOST: Plan = Plan { effect: Effect::Never, told: Told::Unknown };
    pub const LOST_REPLY: Plan = Plan { effect: Effect::Now, told: Told::Unknown };

    fn of(how: How) -> Plan {
        let (effect, told) = match how {
            How::Undone => (Effect::Never, Told::Unknown),
            How::LostReply => (Effect::Now, Told::Unknown),
            How::Late => (Effect::Late(None), Told::Unknown),
            How::Slow => (Effect::Never, Told::Slow),
            How::Refused => (Effect::Never, Told::Refused),
            How::Missing => (Effect::Never, Told::Missing),
        };
        Plan { effect, told }
    }
}

struct Armed {
    fault: Fault,
    seen: usize,
}

/// One peer's connection, as the bucket sees it.
pub struct Connection {
    random: Random,
    weakness: Weakness,
    faults: Vec<Armed>,
    pub happened: usize,
    pub cut: Option<Cut>,
    /// To be cut when it has made so many changes.
    cut_after: Option<(u64, Cut)>,
    /// Changes that were carried out.
    pub effects: u64,
    /// Names that this peer does not see yet, and how often still.
    missing: HashMap<String, usize>,
    /// Names that it still sees.
    deleted: HashMap<String, usize>,
}

/// Late requests are carried out within so many further ones.
const LATE_MAX: usize = 40;

impl Connection {
    pub fn new(seed: u64) -> Connection {
        Connection {
            random: Random::new(seed),
            weakness: Weakness::default(),
            faults: Vec::new(),
            happened: 0,
            cut: None,
            cut_after: None,
            effects: 0,
            missing: HashMap::new(),
            deleted: HashMap::new(),
        }
    }

    pub fn weaken(&mut self, weakness: Weakness, seed: u64) {
        self.weakness = weakness;
        self.random = Random::new(seed);
    }

    pub fn arm(&mut self, fault: Fault) {
        self.faults.push(Armed { fault, seen: 0 });
    }

    pub fn cut_after(&mut self, effects: u64, cut: Cut) {
        match effects {
            0 => self.cut = Some(cut),
            _ => self.cut_after = Some((self.effects + effects, cut)),
        }
    }

    /// It is back.
    pub fn heal(&mut self) {
        (self.cut, self.cut_after) = (None, None);
    }

    pub fn listing(&self) -> Listing {
        self.weakness.listing
    }

    /// What becomes of a request that arrives.
    pub fn plan(&mut self, call: &Call) -> Plan {
        if let Some(cut) = self.cut {
            return Plan { effect: Effect::Never, told: silence(cut) };
        }
        if let Some(how) = self.fault_of(call.what()) {
            self.happened += 1;
            return match (Plan::of(how), call) {
                (Plan { told: Told::Missing, .. }, call) if call.what() != What::Get => Plan::LOST,
                // What changes nothing cannot be late.
                (Plan { effect: Effect::Late(_), .. }, call) if !call.changes() => Plan::LOST,
                (plan, _) => plan,
            };
        }
        let weakness = self.weakness;
        let mut happens = |rate: u64| rate > 0 && self.random.one_in(rate);
        if happens(weakness.lost_reply) {
            Plan::LOST_REPLY
        } else if happens(weakness.undone) {
            Plan::LOST
        } else if happens(weakness.slow) {
            Plan::of(How::Slow)
        } else if call.changes() && happens(weakness.late) {
            Plan { effect: self.late(), told: Told::Unknown }
        } else if call.what() == What::List && weakness.listing == Listing::Refused {
            Plan::of(How::Refused)
        } else {
            Plan::DONE
        }
    }

    fn fault_of(&mut self, what: What) -> Option<How> {
        let mut found = None;
        for armed in self.faults.iter_mut().filter(|armed| armed.fault.what.is_none_or(|wanted| wanted == what)) {
            armed.seen += 1;
            let failing = armed.fault.nth..armed.fault.nth + armed.fault.count;
            if failing.contains(&armed.seen) {
                found = found.or(Some(armed.fault.how));
            }
        }
        found
    }

    fn late(&mut self) -> Effect {
        Effect::Late(Some(1 + self.random.within(0..LATE_MAX) as u64))
    }

    /// What becomes, now that the peer is cut off, of a request that was on its way.
    pub fn plan_on_the_way(&mut self, cut: Cut, call: &Call) -> Plan {
        let effect = match cut.on_the_way {
            OnTheWay::Seeded => match self.random.within(0..3) {
                0 => Effect::Never,
                1 => Effect::Now,
                _ => self.late(),
            },
            OnTheWay::Lost => Effect::Never,
            OnTheWay::Done => Effect::Now,
            OnTheWay::Late => self.late(),
        };
        let effect = if call.changes() { effect } else { Effect::Never };
        Plan { effect, told: silence(cut) }
    }

    /// It has made a change. How that is answered, if this was the one after which it is cut.
    pub fn count_effect(&mut self) -> Option<Told> {
        self.effects += 1;
        let (at, cut) = self.cut_after?;
        if self.effects < at {
            return None;
        }
        self.cut_after = None;
        self.cut = Some(cut);
        Some(silence(cut))
    }

    /// Whether this look at a name shows what was there before it was created.
    pub fn sees_missing(&mut self, name: &str) -> bool {
        take_one(&mut self.missing, name)
    }

    /// It has seen that there is no such object.
    pub fn note_missing(&mut self, name: &str) {
        if self.weakness.missing_for > 0 {
            self.missing.insert(name.to_owned(), self.weakness.missing_for);
        }
    }

    /// Whether this look at a name that was deleted shows what was there before.
    pub fn sees_deleted(&mut self, name: &str) -> bool {
        let left = self.deleted.entry(name.to_owned()).or_insert(self.weakness.deleted_for);
        let sees = *left > 0;
        *left = left.saturating_sub(1);
        sees
    }
}

fn silence(cut: Cut) -> Told {
    if cut.is_told { Told::Unknown } else { Told::Nothing }
}

/// Takes one off a name's count, if there is one left.
fn take_one(counts: &mut HashMap<String, usize>, name: &str) -> bool {
    match counts.get_mut(name) {
        Some(left) if *left > 0 => {
            *left -= 1;
            true
        }
        _ => false,
    }
}
