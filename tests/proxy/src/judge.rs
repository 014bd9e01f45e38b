//! Which faults a request meets.

use crate::dice::Dice;
use crate::past::{Object, Past, Shown};
use crate::plan::{Fault, Plan, Rule, Span};
use crate::request::{Asked, Kind};
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// What happens to a request.
#[derive(Default)]
pub(crate) struct Verdict {
    /// Before it is passed on.
    pub(crate) delay: Duration,
    /// Before it is answered.
    pub(crate) delay_reply: Duration,
    /// LIST: what was created so lately is hidden.
    pub(crate) hides: Duration,
    /// LIST: what was deleted so lately is shown.
    pub(crate) shows: Duration,
    pub(crate) act: Act,
    /// The words of all that happens.
    pub(crate) words: Vec<&'static str>,
}

/// The one thing besides delays.
#[derive(Default)]
pub(crate) enum Act {
    #[default]
    Pass,
    Error,
    SlowDown,
    ErrorAfter,
    Reset,
    LostReply,
    CutRequest,
    CutReply,
    /// Which bit, of as many as there are.
    FlipRequest(u64),
    FlipReply(u64),
    Late(Duration),
    LateHang(Duration),
    Hang,
    Hold,
    HoldReply,
    Stale(Object),
    Missing,
}

/// The plan, and how far it has come.
pub(crate) struct Judge {
    seed: u64,
    plan: Plan,
    /// For each rule: the requests that fitted, and those that met its fault.
    counts: Vec<(u64, u64)>,
    /// How often the same was asked for.
    asked: HashMap<u64, u64>,
    /// A plan has, or had, stale answers.
    remembers: bool,
}

impl Judge {
    pub(crate) fn new(seed: u64) -> Judge {
        Judge { seed, plan: Plan::default(), counts: Vec::new(), asked: HashMap::new(), remembers: false }
    }

    pub(crate) fn set(&mut self, plan: Plan) {
        self.counts = vec![(0, 0); plan.rules.len()];
        self.asked.clear();
        self.remembers |= plan.rules.iter().any(|rule| matches!(rule.fault, Fault::Stale(_)));
        self.plan = plan;
    }

    /// Whether bodies are worth keeping.
    pub(crate) fn remembers(&self) -> bool {
        self.remembers
    }

    pub(crate) fn decide(&mut self, asked: &Asked, address: usize, door: usize, past: &mut Past) -> Verdict {
        let mut verdict = Verdict::default();
        let is_read = matches!(asked.kind, Kind::Get | Kind::Head);
        if is_read && let Some(shown) = past.shown(address, &asked.name) {
            verdict.meet(match shown {
                Shown::Object(object) => ("stale", Act::Stale(object)),
                Shown::Missing => ("missing", Act::Missing),
            });
        }
        let fitting = |rule: &Rule| {
            (rule.kinds.is_empty() || rule.kinds.contains(&asked.kind))
                && rule.address.is_none_or(|wanted| wanted == address)
                && rule.door.is_none_or(|wanted| wanted == door)
                && asked.all_names().iter().any(|name| rule.name.fits(name))
        };
        // Counted when the first rule asks.
        let mut about = None;
        for index in 0..self.plan.rules.len() {
            if !fitting(&self.plan.rules[index]) {
                continue;
            }
            let Rule { when, fault, .. } = self.plan.rules[index];
            let (fitted, met) = &mut self.counts[index];
            *fitted += 1;
            if *fitted < when.from || *met >= when.times {
                continue;
            }
            let (topic, before) = *about.get_or_insert_with(|| (asked.topic(), count(&mut self.asked, asked, address)));
            let dice = Dice::new(self.seed, &[topic, address as u64, index as u64, before]);
            if dice.hits(when.chance) && verdict.meets(fault, asked, address, dice, past) {
                *met += 1;
            }
        }
        verdict
    }
}

/// How often the same was asked for at that address before.
fn count(counts: &mut HashMap<u64, u64>, asked: &Asked, address: usize) -> u64 {
    let mut hasher = DefaultHasher::new();
    (asked.kind, asked.all_names(), &asked.range, address).hash(&mut hasher);
    let count = counts.entry(hasher.finish()).or_default();
    *count += 1;
    *count - 1
}

impl Verdict {
    fn meet(&mut self, (word, act): (&'static str, Act)) {
        self.act = act;
        self.words.push(word);
    }

    /// Whether the fault happens to this request.
    fn meets(&mut self, fault: Fault, asked: &Asked, address: usize, dice: Dice, past: &mut Past) -> bool {
        let drawn = |span: Span| dice.within(span.min, span.max);
        let total = match fault {
            Fault::Delay(span) => Some((&mut self.delay, span)),
            Fault::DelayReply(span) => Some((&mut self.delay_reply, span)),
            Fault::ListHides(span) if asked.kind == Kind::List => Some((&mut self.hides, span)),
            Fault::ListShows(span) if asked.kind == Kind::List => Some((&mut self.shows, span)),
            _ => None,
        };
        if let Some((total, span)) = total {
            *total += drawn(span);
            self.words.push(fault.word());
            return true;
        }
        if !matches!(self.act, Act::Pass) {
            return false;
        }
        let is_read = matches!(asked.kind, Kind::Get | Kind::Head);
        let act = match fault {
            Fault::Delay(_) | Fault::DelayReply(_) | Fault::ListHides(_) | Fault::ListShows(_) => None,
            Fault::Error => Some(Act::Error),
            Fault::SlowDown => Some(Act::SlowDown),
            Fault::ErrorAfter => Some(Act::ErrorAfter),
            Fault::Reset => Some(Act::Reset),
            Fault::LostReply => Some(Act::LostReply),
            Fault::CutRequest => Some(Act::CutRequest),
            Fault::CutReply => Some(Act::CutReply),
            Fault::FlipRequest => Some(Act::FlipRequest(dice.number())),
            Fault::FlipReply => Some(Act::FlipReply(dice.number())),
            Fault::Late(span) => Some(Act::Late(drawn(span))),
            Fault::LateHang(span) => Some(Act::LateHang(drawn(span))),
            Fault::Hang => Some(Act::Hang),
            Fault::Hold => Some(Act::Hold),
            Fault::HoldReply => Some(Act::HoldReply),
            Fault::Stale(span) if is_read => past.stale(address, &asked.name, drawn(span)).map(Act::Stale),
            Fault::Missing(span) if is_read => {
                past.stays_missing(address, &asked.name, drawn(span)).then_some(Act::Missing)
            }
            Fault::Stale(_) | Fault::Missing(_) => None,
        };
        let Some(act) = act else { return false };
        self.meet((fault.word(), act));
        true
    }
}
