//! Who may use a relay: keys on a list, and keys that a verifier answers for.
//!
//! Every login of a key that is on no list is a question to the verifier, and so is every connected key from time
//! to time: one that is denied is expelled. While the verifier does not answer, its last yes is good for
//! [`limits::ADMITTED_KEPT`]: whoever was let in stays, and may come back; whoever is new is refused. The keys with
//! their last yes are told to the owner, who keeps them over a restart.

use crate::id::StreamId;
use crate::key::NodePublic;
use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::seed::{Rng, Seed};
use crate::time::{Duration, Monotone, Time, earliest};
use core::net::IpAddr;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

mod api;
#[cfg(test)]
mod tests;

pub use api::{
    AdmissionCommand, AdmissionConfig, AdmissionCounters, AdmissionEvent, Admitted, Answer, Question, Refused,
};

/// Who may use a relay. Its owner is asked by [`super::ServerEvent::Ask`] and passes that on as
/// [`AdmissionCommand::Login`].
#[derive(Debug)]
pub struct Admission {
    config: AdmissionConfig,
    clock: Monotone,
    rng: Rng,
    /// Keys that are connected, or want to be.
    keys: BTreeMap<NodePublic, Key>,
    /// Keys with their last yes, in unix seconds; and the same by age.
    admitted: BTreeMap<NodePublic, u64>,
    by_age: BTreeSet<(u64, NodePublic)>,
    /// Keys to be asked about: those that wait for it first, then those that are connected.
    urgent: VecDeque<NodePublic>,
    again: VecDeque<NodePublic>,
    /// Questions under way.
    open: BTreeMap<u64, NodePublic>,
    asked: u64,
    /// What each key's timer is set to.
    timers: BTreeSet<(Time, NodePublic)>,
    reachable: bool,
    save_at: Option<Time>,
    counters: AdmissionCounters,
    out: Outbox<AdmissionEvent>,
}

/// A key that is connected, or wants to be.
#[derive(Debug, Default)]
struct Key {
    /// Its connections that are in.
    streams: BTreeSet<StreamId>,
    /// Its logins that wait for a verdict; only while none is in.
    waiting: Vec<StreamId>,
    source: Option<IpAddr>,
    /// A question about it waits or is under way.
    asking: bool,
    /// When its logins have waited long enough, or when it is asked about again.
    timer: Option<Time>,
}

impl Admission {
    /// Nobody is connected yet.
    #[must_use]
    pub fn new(mut config: AdmissionConfig, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        let remembered = core::mem::take(&mut config.admitted);
        let mut admission = Self {
            config,
            clock,
            rng: seed.fork("relay admission").rng(),
            keys: BTreeMap::new(),
            admitted: BTreeMap::new(),
            by_age: BTreeSet::new(),
            urgent: VecDeque::new(),
            again: VecDeque::new(),
            open: BTreeMap::new(),
            asked: 0,
            timers: BTreeSet::new(),
            reachable: true,
            save_at: None,
            counters: AdmissionCounters::default(),
            out: Outbox::default(),
        };
        for Admitted { key, yes_at } in remembered {
            // A clock that was set back must not make a yes last longer.
            admission.remember(key, yes_at.min(admission.unix(now)));
        }
        admission
    }

    /// What it has counted.
    #[must_use]
    pub const fn counters(&self) -> &AdmissionCounters {
        &self.counters
    }

    /// Keys remembered with their last yes.
    #[must_use]
    pub fn admitted(&self) -> usize {
        self.admitted.len()
    }

    /// Whether the verifier gave an answer when it was last asked.
    #[must_use]
    pub const fn is_reachable(&self) -> bool {
        self.reachable
    }

    fn unix(&self, now: Time) -> u64 {
        self.config.unix.saturating_add(now.since(Time::ZERO).as_secs())
    }

    fn is_listed(&self, key: &NodePublic) -> bool {
        self.config.list.as_ref().is_some_and(|list| list.contains(key))
    }

    /// Whether the verifier's last yes about this key is still good.
    fn is_trusted(&self, key: &NodePublic, now: Time) -> bool {
        let kept = limits::ADMITTED_KEPT.as_secs();
        self.admitted.get(key).is_some_and(|yes| self.unix(now).saturating_sub(*yes) < kept)
    }

    fn command(&mut self, command: AdmissionCommand, now: Time) {
        match command {
            AdmissionCommand::Login { stream, key, source } => self.login(stream, key, source, now),
            AdmissionCommand::Joined { stream, key, source } => self.joined(stream, key, source, now),
            AdmissionCommand::Left { stream, key } => self.left(stream, &key),
            AdmissionCommand::Answered { question, answer } => self.answered(question, answer, now),
            AdmissionCommand::List(list) => self.set_list(list, now),
            AdmissionCommand::Save => {
                if self.save_at.is_some() {
                    self.save(now);
                }
            }
        }
    }

    // --- Logins ---

    fn login(&mut self, stream: StreamId, key: NodePublic, source: Option<IpAddr>, now: Time) {
        if self.is_listed(&key) {
            self.counters.listed += 1;
            return self.verdict(stream, Ok(()));
        }
        if !self.config.verifier {
            return self.verdict(stream, Err(Refused::NotListed));
        }
        let (trusted, known) = (self.is_trusted(&key, now), self.keys.get(&key));
        if known.is_some_and(|key| !key.streams.is_empty()) {
            // It is asked about from time to time already.
            return self.verdict(stream, Ok(()));
        }
        if trusted && !self.reachable {
            self.counters.trusted += 1;
            return self.verdict(stream, Ok(()));
        }
        let crowded = known.is_some_and(|key| key.waiting.len() >= limits::RELAY_DUPLICATES_MAX);
        if crowded || (known.is_none() && self.keys.len() >= limits::ADMISSION_KEYS_MAX) {
            return self.verdict(stream, Err(Refused::Busy));
        }
        let entry = self.keys.entry(key).or_default();
        entry.source = source.or(entry.source);
        entry.waiting.push(stream);
        let patience = if trusted { limits::VERIFY_PATIENCE } else { limits::RELAY_LOGIN_DEADLINE };
        if entry.timer.is_none() {
            self.set_timer(key, Some(now + patience));
        }
        self.ask(key, true);
    }

    fn verdict(&mut self, stream: StreamId, verdict: Result<(), Refused>) {
        if let Err(why) = verdict {
            self.counters.refused[why as usize] += 1;
        }
        self.out.event(AdmissionEvent::Verdict { stream, verdict });
    }

    /// The same verdict for all logins of a key that wait.
    fn decide(&mut self, key: &NodePublic, verdict: Result<(), Refused>) {
        let Some(entry) = self.keys.get_mut(key) else { return };
        for stream in core::mem::take(&mut entry.waiting) {
            self.verdict(stream, verdict);
        }
        self.tidy(key);
    }

    fn joined(&mut self, stream: StreamId, key: NodePublic, source: Option<IpAddr>, now: Time) {
        let room = self.keys.len() < limits::ADMISSION_KEYS_MAX || self.keys.contains_key(&key);
        if !room {
            return;
        }
        let yes = self.admitted.get(&key).map_or(0, |yes| *yes);
        let fresh = self.unix(now).saturating_sub(yes) < self.config.every.as_secs();
        let entry = self.keys.entry(key).or_default();
        entry.source = source.or(entry.source);
        entry.streams.insert(stream);
        if self.config.verifier && entry.timer.is_none() {
            let wait = if fresh { self.config.every } else { limits::VERIFY_RETRY };
            self.set_timer_in(key, wait, now);
        }
    }

    fn left(&mut self, stream: StreamId, key: &NodePublic) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.streams.remove(&stream);
            entry.waiting.retain(|waiting| *waiting != stream);
            self.tidy(key);
        }
    }

    /// Forgets a key that has nothing here any more.
    fn tidy(&mut self, key: &NodePublic) {
        let Some(entry) = self.keys.get(key) else { return };
        if entry.streams.is_empty() && entry.waiting.is_empty() {
            let asking = entry.asking;
            self.set_timer(*key, None);
            // With a question in hand it stays, so that no key has more than one.
            if !asking {
                self.keys.remove(key);
            }
        }
    }

    fn set_list(&mut self, list: BTreeSet<NodePublic>, now: Time) {
        self.config.list = Some(list);
        let is_out = |(key, entry): (&NodePublic, &Key)| {
            (!self.is_listed(key) && !entry.streams.is_empty()).then_some(*key)
        };
        let out: Vec<_> = self.keys.iter().filter_map(is_out).collect();
        for key in out {
            if !self.config.verifier {
                self.expel(key);
            } else if !self.is_trusted(&key, now) {
                self.ask(key, false);
            }
        }
    }

    fn expel(&mut self, key: NodePublic) {
        self.counters.expelled += 1;
        self.out.event(AdmissionEvent::Expel(key));
    }

    // --- Questions ---

    fn ask(&mut self, key: NodePublic, urgent: bool) {
        let Some(entry) = self.keys.get_mut(&key) else { return };
        if core::mem::replace(&mut entry.asking, true) {
            return;
        }
        // One question a key: these are bounded as the keys are.
        if urgent { self.urgent.push_back(key) } else { self.again.push_back(key) }
    }

    /// Asks as much as may be asked at once.
    fn pump(&mut self) {
        while self.open.len() < limits::VERIFY_OPEN_MAX {
            let Some(key) = self.urgent.pop_front().or_else(|| self.again.pop_front()) else { return };
            let Some(entry) = self.keys.get_mut(&key) else { continue };
            if entry.streams.is_empty() && entry.waiting.is_empty() {
                // Nobody waits for the answer any more.
                entry.asking = false;
                self.tidy(&key);
                continue;
            }
            let source = entry.source;
            self.asked += 1;
            self.counters.questions += 1;
            self.open.insert(self.asked, key);
            self.out.event(AdmissionEvent::Ask(Question { id: self.asked, key, source }));
        }
    }

    fn answered(&mut self, question: u64, answer: Answer, now: Time) {
        let Some(key) = self.open.remove(&question) else { return };
        if let Some(entry) = self.keys.get_mut(&key) {
            entry.asking = false;
        }
        match answer {
            Answer::Yes => {
                self.set_reachable(None);
                self.counters.yes += 1;
                let new = self.remember(key, self.unix(now));
                self.save_within(if new { limits::ADMITTED_SAVE } else { limits::ADMITTED_SAVE_LAZY }, now);
                self.next_look(key, self.config.every, now);
                self.decide(&key, Ok(()));
            }
            Answer::No => {
                self.set_reachable(None);
                self.counters.no += 1;
                if self.forget(&key) {
                    self.save_within(limits::ADMITTED_SAVE, now);
                }
                self.turn_away(key, Refused::Denied);
            }
            Answer::Busy => {
                self.set_reachable(None);
                self.counters.busy += 1;
                self.unanswered(key, Refused::Busy, now);
            }
            Answer::Unreachable { why } => {
                self.set_reachable(Some(why));
                self.counters.unreachable += 1;
                self.unanswered(key, Refused::Unreachable, now);
            }
        }
    }

    /// Nobody says anything about this key.
    fn unanswered(&mut self, key: NodePublic, why: Refused, now: Time) {
        if !self.is_trusted(&key, now) {
            return self.turn_away(key, why);
        }
        self.next_look(key, limits::VERIFY_RETRY, now);
        let waiting = self.keys.get(&key).map_or(0, |entry| entry.waiting.len());
        self.counters.trusted += waiting as u64;
        self.decide(&key, Ok(()));
    }

    /// A key is not let in, or no longer.
    fn turn_away(&mut self, key: NodePublic, why: Refused) {
        let is_in = self.keys.get(&key).is_some_and(|entry| !entry.streams.is_empty());
        if is_in && !self.is_listed(&key) {
            self.expel(key);
        }
        self.decide(&key, Err(why));
    }

    fn set_reachable(&mut self, why_not: Option<String>) {
        let reachable = why_not.is_none();
        if core::mem::replace(&mut self.reachable, reachable) != reachable {
            self.out.event(AdmissionEvent::Verifier { why_not });
        }
    }

    // --- What is remembered ---

    /// Notes a yes; whether the key is new.
    fn remember(&mut self, key: NodePublic, yes_at: u64) -> bool {
        let before = self.admitted.insert(key, yes_at);
        if let Some(before) = before {
            self.by_age.remove(&(before, key));
        }
        self.by_age.insert((yes_at, key));
        if self.admitted.len() > limits::ADMITTED_MAX
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.admitted.remove(&oldest);
        }
        before.is_none()
    }

    fn forget(&mut self, key: &NodePublic) -> bool {
        let Some(yes) = self.admitted.remove(key) else { return false };
        self.by_age.remove(&(yes, *key))
    }

    fn save_within(&mut self, delay: Duration, now: Time) {
        let due = now + delay;
        self.save_at = Some(self.save_at.map_or(due, |at| at.min(due)));
    }

    fn save(&mut self, now: Time) {
        self.save_at = None;
        let (kept, now) = (limits::ADMITTED_KEPT.as_secs(), self.unix(now));
        while let Some((yes, key)) = self.by_age.first().copied()
            && now.saturating_sub(yes) >= kept
        {
            self.by_age.pop_first();
            self.admitted.remove(&key);
        }
        let all = self.admitted.iter().map(|(key, yes_at)| Admitted { key: *key, yes_at: *yes_at }).collect();
        self.out.event(AdmissionEvent::Save(all));
    }

    // --- Time ---

    /// When a connected key is asked about again.
    fn next_look(&mut self, key: NodePublic, wait: Duration, now: Time) {
        if self.keys.contains_key(&key) {
            self.set_timer_in(key, wait, now);
        }
    }

    fn set_timer_in(&mut self, key: NodePublic, wait: Duration, now: Time) {
        // Spread, so that those who came together are not asked about together for ever.
        let wait = self.rng.jitter(wait, limits::VERIFY_JITTER_PERCENT);
        self.set_timer(key, Some(now + wait));
    }

    fn set_timer(&mut self, key: NodePublic, at: Option<Time>) {
        let Some(entry) = self.keys.get_mut(&key) else { return };
        if let Some(before) = core::mem::replace(&mut entry.timer, at) {
            self.timers.remove(&(before, key));
        }
        if let Some(at) = at {
            self.timers.insert((at, key));
        }
    }

    fn due(&mut self, now: Time) {
        while let Some((_, key)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.set_timer(key, None);
            let Some(entry) = self.keys.get(&key) else { continue };
            if !entry.waiting.is_empty() {
                // The question stays open: should the answer be no, the key is expelled then.
                self.unanswered(key, Refused::Unreachable, now);
                continue;
            }
            if self.is_listed(&key) {
                self.next_look(key, self.config.every, now);
                continue;
            }
            // While nobody answers, one question at a time is enough to find out that somebody does again.
            let pointless = !self.reachable && !self.open.is_empty();
            if !pointless {
                self.ask(key, false);
            } else if !self.is_trusted(&key, now) {
                self.turn_away(key, Refused::Unreachable);
            }
            self.next_look(key, limits::VERIFY_RETRY, now);
        }
        if self.save_at.is_some_and(|at| at <= now) {
            self.save(now);
        }
    }
}

impl Machine for Admission {
    type Command = AdmissionCommand;
    type Event = AdmissionEvent;

    fn handle(&mut self, input: Input<'_, AdmissionCommand>, now: Time) {
        let now = self.clock.clamp(now);
        if let Input::Command(command) = input {
            self.command(command, now);
        }
        self.due(now);
        self.pump();
    }

    fn poll(&mut self) -> Option<Output<AdmissionEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        let key = self.timers.first().map(|(at, _)| (*at, "relay admission: ask again, or wait no longer"));
        earliest(key, self.save_at.map(|at| (at, "relay admission: save")))
    }
}
