//! What happens to which request, and the words for it.

use crate::request::Kind;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Rules, from the first: the delays of all that are met add up, and so do what LIST hides and shows;
/// of the other faults the first that is met happens.
///
/// In words, with line ends or `;` between rules and `#` before a remark:
///
/// ```text
/// KINDS NAME [p=SHARE] [from=N] [times=N] [nth=N] [at=ADDRESS] [door=N] FAULT[=VALUE]
/// bandwidth=50MiB
/// ```
///
/// * KINDS: `any`, or some of `put` (both), `create` (with If-None-Match), `get`, `head`, `list`,
///   `delete` (both), `other`, with commas between.
/// * NAME is held against as many last components of the object's name as it has itself, with `*` for
///   any bytes but `/`: `c*`, `e1/c*`, `d/*`. A LIST has its prefix for a name.
/// * Of the requests that fit, counted from 1 since the plan was set, those from the `from`th on meet
///   the fault, each with that share, at most `times` of them; `nth=3` is `from=3 times=1`.
/// * ADDRESS is 0 for 127.0.0.1, 1 for 127.0.0.2...; door 0 is the proxy's own, [`crate::Proxy::door`]
///   gives others.
/// * TIME is `20ms`, `1.5s`, `250us`, or a range of them, `10ms..50ms`, from which one is drawn.
///
/// | fault | what happens |
/// |---|---|
/// | `delay=TIME` | it takes so much longer to be passed on |
/// | `delay-reply=TIME` | its answer takes so much longer |
/// | `error` | 500; the server was not asked |
/// | `slow-down` | 503 SlowDown; the server was not asked |
/// | `error-after` | 500; the server has acted |
/// | `reset` | the connection is reset; the server was not asked |
/// | `lost-reply` | the connection is reset; the server has acted |
/// | `cut-request` | half of the body reaches the server, then both connections break |
/// | `cut-reply` | the server has acted; the answer ends in the middle of its body |
/// | `flip-request` | one bit of the body is another one when it reaches the server |
/// | `flip-reply` | one bit of the answer's body is another one |
/// | `late=TIME` | the connection is reset; the server is asked so much later |
/// | `late-hang=TIME` | as `late`, but the client is left to wait for an answer that never comes |
/// | `hang` | no answer ever; the server was not asked |
/// | `hold` | stuck on its way to the server, until [`crate::Proxy::release`], even if the client is gone |
/// | `hold-reply` | the server has acted; the answer is stuck until then |
/// | `stale=TIME` | a GET or HEAD finds what the object was before it was overwritten or deleted, for so long after that |
/// | `missing=TIME` | a GET or HEAD finds 404, for so long after this address found 404 |
/// | `list-hides=TIME` | what was created within that time is not listed |
/// | `list-shows=TIME` | what was deleted within that time is still listed |
///
/// An address that has once shown what `stale` or `missing` makes it show goes on showing it for as
/// long. Both need something to show, and are passed over otherwise: `stale` serves bodies that passed since a
/// plan with that word was first set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub rules: Vec<Rule>,
    /// Bytes a second, of all bodies together, each way.
    pub bandwidth: Option<u64>,
}

/// One rule of a [`Plan`].
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// Empty: all.
    pub kinds: Vec<Kind>,
    pub name: Pattern,
    pub when: When,
    /// Only at this address.
    pub address: Option<usize>,
    /// Only through this door.
    pub door: Option<usize>,
    pub fault: Fault,
}

/// Which of the requests that a rule fits meet its fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct When {
    /// The share of them, from 0 to 1.
    pub chance: f64,
    /// None before this one; the first is 1.
    pub from: u64,
    /// At most so many.
    pub times: u64,
}

impl When {
    pub const ALWAYS: When = When { chance: 1.0, from: 1, times: u64::MAX };
}

/// A time drawn from `min` to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub min: Duration,
    pub max: Duration,
}

/// What happens; [`Plan`] has the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Delay(Span),
    DelayReply(Span),
    Error,
    SlowDown,
    ErrorAfter,
    Reset,
    LostReply,
    CutRequest,
    CutReply,
    FlipRequest,
    FlipReply,
    Late(Span),
    LateHang(Span),
    Hang,
    Hold,
    HoldReply,
    Stale(Span),
    Missing(Span),
    ListHides(Span),
    ListShows(Span),
}

impl Fault {
    /// Its word.
    pub fn word(&self) -> &'static str {
        match self {
            Fault::Delay(_) => "delay",
            Fault::DelayReply(_) => "delay-reply",
            Fault::Error => "error",
            Fault::SlowDown => "slow-down",
            Fault::ErrorAfter => "error-after",
            Fault::Reset => "reset",
            Fault::LostReply => "lost-reply",
            Fault::CutRequest => "cut-request",
            Fault::CutReply => "cut-reply",
            Fault::FlipRequest => "flip-request",
            Fault::FlipReply => "flip-reply",
            Fault::Late(_) => "late",
            Fault::LateHang(_) => "late-hang",
            Fault::Hang => "hang",
            Fault::Hold => "hold",
            Fault::HoldReply => "hold-reply",
            Fault::Stale(_) => "stale",
            Fault::Missing(_) => "missing",
            Fault::ListHides(_) => "list-hides",
            Fault::ListShows(_) => "list-shows",
        }
    }

    /// The fault of that word, and that time if the word takes one.
    fn parse(word: &str, value: Option<&str>) -> Result<Fault, String> {
        let plain = match word {
            "error" => Some(Fault::Error),
            "slow-down" => Some(Fault::SlowDown),
            "error-after" => Some(Fault::ErrorAfter),
            "reset" => Some(Fault::Reset),
            "lost-reply" => Some(Fault::LostReply),
            "cut-request" => Some(Fault::CutRequest),
            "cut-reply" => Some(Fault::CutReply),
            "flip-request" => Some(Fault::FlipRequest),
            "flip-reply" => Some(Fault::FlipReply),
            "hang" => Some(Fault::Hang),
            "hold" => Some(Fault::Hold),
            "hold-reply" => Some(Fault::HoldReply),
            _ => None,
        };
        match (plain, value) {
            (Some(fault), None) => return Ok(fault),
            (Some(_), Some(_)) => return Err(format!("'{word}' takes no value")),
            (None, _) => {}
        }
        let timed = match word {
            "delay" => Fault::Delay,
            "delay-reply" => Fault::DelayReply,
            "late" => Fault::Late,
            "late-hang" => Fault::LateHang,
            "stale" => Fault::Stale,
            "missing" => Fault::Missing,
            "list-hides" => Fault::ListHides,
            "list-shows" => Fault::ListShows,
            _ => return Err(format!("no fault is called '{word}'")),
        };
        let value = value.ok_or_else(|| format!("'{word}' takes a time: {word}=20ms"))?;
        Ok(timed(parse_span(value)?))
    }
}

/// What last components of names may look like: `c*`, `e1/c*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    pub fn new(text: &str) -> Pattern {
        Pattern(text.to_owned())
    }

    pub fn fits(&self, name: &str) -> bool {
        let mut wanted = self.0.rsplit('/');
        let mut found = name.rsplit('/');
        wanted.all(|pattern| {
            found.next().is_some_and(|component| component_fits(pattern.as_bytes(), component.as_bytes()))
        })
    }
}

fn component_fits(pattern: &[u8], component: &[u8]) -> bool {
    match pattern.split_first() {
        None => component.is_empty(),
        Some((b'*', rest)) => (0..=component.len()).any(|skipped| component_fits(rest, &component[skipped..])),
        Some((byte, rest)) => component.first() == Some(byte) && component_fits(rest, &component[1..]),
    }
}

/// What is wrong with a plan's words.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("in \"{rule}\": {what}")]
pub struct PlanError {
    rule: String,
    what: String,
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Plan, PlanError> {
        let mut plan = Plan::default();
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or("");
            for rule in line.split(';').map(str::trim).filter(|rule| !rule.is_empty()) {
                let wrong = |what| PlanError { rule: rule.to_owned(), what };
                match rule.strip_prefix("bandwidth=") {
                    Some(bytes) => plan.bandwidth = Some(parse_bytes(bytes).map_err(wrong)?),
                    None => plan.rules.push(parse_rule(rule).map_err(wrong)?),
                }
            }
        }
        Ok(plan)
    }
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let mut words = text.split_whitespace();
    let (Some(kinds), Some(name)) = (words.next(), words.next()) else {
        return Err("a rule is KINDS NAME [CONDITION...] FAULT".to_owned());
    };
    let mut when = When::ALWAYS;
    let (mut address, mut door, mut fault) = (None, None, None);
    for word in words {
        let (word, value) = word.split_once('=').map_or((word, None), |(word, value)| (word, Some(value)));
        let given = || value.ok_or_else(|| format!("'{word}' takes a value: {word}=1"));
        match word {
            "p" => when.chance = parse_share(given()?)?,
            "from" => when.from = parse_number(given()?)?,
            "times" => when.times = parse_number(given()?)?,
            "nth" => when = When { from: parse_number(given()?)?, times: 1, ..when },
            "at" => address = Some(parse_number(given()?)? as usize),
            "door" => door = Some(parse_number(given()?)? as usize),
            _ if fault.is_some() => return Err("a rule has one fault, and it comes last".to_owned()),
            _ => fault = Some(Fault::parse(word, value)?),
        }
    }
    let fault = fault.ok_or("which fault?")?;
    Ok(Rule { kinds: parse_kinds(kinds)?, name: Pattern::new(name), when, address, door, fault })
}

fn parse_kinds(text: &str) -> Result<Vec<Kind>, String> {
    let mut kinds = Vec::new();
    for word in text.split(',') {
        match word {
            "any" => return Ok(Vec::new()),
            "put" => kinds.extend([Kind::Put, Kind::Create]),
            "create" => kinds.push(Kind::Create),
            "get" => kinds.push(Kind::Get),
            "head" => kinds.push(Kind::Head),
            "list" => kinds.push(Kind::List),
            "delete" => kinds.extend([Kind::Delete, Kind::DeleteMany]),
            "other" => kinds.push(Kind::Other),
            _ => return Err(format!("no kind of request is called '{word}'")),
        }
    }
    Ok(kinds)
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("not a share from 0 to 1: '{text}'"))
}

fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("not a number: '{text}'"))
}

fn parse_span(text: &str) -> Result<Span, String> {
    let (min, max) = text.split_once("..").unwrap_or((text, text));
    let (min, max) = (parse_time(min)?, parse_time(max)?);
    if min > max {
        return Err(format!("not from less to more: '{text}'"));
    }
    Ok(Span { min, max })
}

fn parse_time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("not a time, as 20ms, 1.5s or 250us: '{text}'");
    let digits = text.find(|byte: char| !byte.is_ascii_digit() && byte != '.').ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return Err(wrong()),
    };
    let number: f64 = number.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| wrong())
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|byte: char| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("not a number of bytes, as 500KiB: '{text}'")),
    };
    let bytes = parse_number(number)?.checked_mul(scale).filter(|bytes| *bytes != 0);
    bytes.ok_or_else(|| format!("nothing can pass, or anything: '{text}'"))
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).fits(name)
    }

    #[test]
    fn patterns_are_held_against_last_components() {
        assert!(fits("*", ""));
        assert!(fits("*", "a/b/c"));
        assert!(fits("c*", "prefix/e1/c5"));
        assert!(!fits("c*", "c/e1/d5"));
        assert!(fits("e1/c*", "prefix/e1/c5"));
        assert!(!fits("e1/c*", "prefix/e2/c5"));
        assert!(!fits("e1/c*", "c5"));
        assert!(fits("c*5*", "c005"));
        assert!(!fits("c*5*", "c006"));
    }

    #[test]
    fn words_are_read() {
        let plan: Plan =
            "put c* nth=3 lost-reply # lost\n\n any * p=0.25 at=1 delay=1.5ms..1s; bandwidth=2MiB".parse().unwrap();
        assert_eq!(plan.bandwidth, Some(2 << 20));
        let [lost, delay] = &plan.rules[..] else { panic!("{plan:?}") };
        assert_eq!(lost.kinds, [Kind::Put, Kind::Create]);
        assert_eq!(lost.when, When { chance: 1.0, from: 3, times: 1 });
        assert_eq!(lost.fault, Fault::LostReply);
        assert_eq!((delay.kinds.len(), delay.when.chance, delay.address), (0, 0.25, Some(1)));
        let span = Span { min: Duration::from_micros(1500), max: Duration::from_secs(1) };
        assert_eq!(delay.fault, Fault::Delay(span));
        assert_eq!("".parse(), Ok(Plan::default()));
    }

    #[test]
    fn each_fault_is_read_by_its_word() {
        for word in
            "delay delay-reply error slow-down error-after reset lost-reply cut-request cut-reply flip-request flip-reply late late-hang hang \
                     hold hold-reply stale missing list-hides list-shows"
                .split_whitespace()
        {
            let read = Fault::parse(word, None).or_else(|_| Fault::parse(word, Some("1s"))).unwrap();
            assert_eq!(read.word(), word);
        }
    }

    #[test]
    fn wrong_words_are_refused() {
        for wrong in [
            "put",
            "put c*",
            "put c* explode",
            "post c* error",
            "put c* error=1s",
            "put c* delay",
            "put c* delay=1",
            "put c* delay=2s..1s",
            "put c* p=2 error",
            "put c* nth error",
            "put c* error reset",
            "bandwidth=0",
            "bandwidth=1X",
            "put c* delay=1e99s",
        ] {
            assert!(wrong.parse::<Plan>().is_err(), "{wrong}");
        }
    }
}
