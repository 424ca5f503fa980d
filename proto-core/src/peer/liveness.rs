//! Whether the direct path in use still carries packets both ways. Judged by what is authenticated: answers
//! to our probes prove both directions, data and probes of the peer prove the way from it to us.

use super::story::Loss;
use crate::limits;
use crate::time::{Duration, Time};

/// What the path is worth at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// It carries.
    Trusted,
    /// It may have stopped: send a copy through a relay until it answers.
    Doubted,
    /// It has stopped.
    Lost(Loss),
}

/// A probe that is due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    /// Whether it must be as long as a full data packet.
    pub(super) full: bool,
}

/// The check whether full-size packets pass, begun when data is sent and none comes back.
#[derive(Clone, Copy, Debug)]
struct FullCheck {
    since: Time,
    asked: u32,
    last: Time,
}

/// The liveness of the path in use.
#[derive(Clone, Debug)]
pub(super) struct Liveness {
    /// When anything authenticated last came on it.
    heard: Time,
    /// When a probe was last answered on it.
    answered: Time,
    /// The latest probe.
    asked: Time,
    /// The first probe since something was heard.
    asked_since_heard: Option<Time>,
    /// The first probe since one was answered.
    asked_since_answer: Option<Time>,
    /// The first data sent on it since something was heard on it.
    sent_since_heard: Option<Time>,
    /// The first data sent on it since data came from the peer by any way.
    sent_since_data: Option<Time>,
    /// Data sent got no echo in time, and no probe has been answered since.
    echo_missed: Option<Time>,
    /// The first of the data whose missing echo was looked into last: once is enough.
    echo_asked: Option<Time>,
    /// Echoes missed since data last came on this path: what comes as a copy through a relay must not hide that the
    /// path carries none.
    echo_misses: u32,
    /// Whether the latest data came on it.
    carried: bool,
    /// When the peer last turned to a relay with its data.
    turned: Time,
    full: Option<FullCheck>,
    full_passed: Option<Time>,
    /// The probes' round trip, as last smoothed.
    rtt: Duration,
    active: bool,
    /// The network changed since the last answer.
    shaken: Option<Time>,
}

impl Liveness {
    /// A path whose probe was answered right now.
    pub(super) const fn new(rtt: Duration, now: Time) -> Self {
        Self {
            heard: now,
            answered: now,
            asked: now,
            asked_since_heard: None,
            asked_since_answer: None,
            sent_since_heard: None,
            sent_since_data: None,
            echo_missed: None,
            echo_asked: None,
            echo_misses: 0,
            carried: false,
            turned: Time::ZERO,
            full: None,
            full_passed: None,
            rtt,
            active: true,
            shaken: None,
        }
    }

    /// How long an answer may take before we wonder: three round trips, within bounds.
    fn patience(&self) -> Duration {
        (self.rtt * 3).clamp(limits::PATIENCE_MIN, limits::PATIENCE_MAX)
    }

    /// How long an echo of data may take. Doubt is cheap, so it comes soon.
    fn echo_patience(&self) -> Duration {
        (self.rtt + self.rtt / 2 + limits::ECHO_DELAY).clamp(limits::ECHO_PATIENCE_MIN, limits::PATIENCE_MAX)
    }

    /// How long the path may stay in doubt.
    fn lost_after(&self) -> Duration {
        limits::PATH_LOST.max(self.patience() * 3)
    }

    /// Whether the path is in use, so that it is to be probed. Doubts end with the use; they are looked at
    /// afresh when it is used again.
    pub(super) fn set_active(&mut self, active: bool) {
        if self.active && !active {
            self.asked_since_heard = None;
            self.asked_since_answer = None;
            self.sent_since_heard = None;
            self.sent_since_data = None;
            self.echo_missed = None;
            self.full = None;
        }
        self.active = active;
    }

    /// The host's network changed: nothing is known until the next answer, which is asked for at once.
    pub(super) fn shake(&mut self, now: Time) {
        self.shaken = Some(now);
    }

    /// A probe has left on it.
    pub(super) fn asked(&mut self, ask: Ask, now: Time) {
        self.asked = now;
        if ask.full {
            if let Some(full) = &mut self.full {
                full.asked += 1;
                full.last = now;
            }
            // A long probe that is lost says nothing of the path for short ones.
            return;
        }
        self.asked_since_heard.get_or_insert(now);
        self.asked_since_answer.get_or_insert(now);
    }

    /// A probe was answered.
    pub(super) fn answered(&mut self, full: bool, rtt: Duration, now: Time) {
        let silent = self.asked_since_answer.is_some_and(|at| now.since(at) > self.patience());
        if silent && let Some(full) = &mut self.full {
            // Nothing at all passed for a while: that the long probes of that time were lost says nothing of
            // their length.
            *full = FullCheck { since: now, asked: 0, last: now };
        }
        self.rtt = rtt;
        self.answered = now;
        self.asked_since_answer = None;
        self.shaken = None;
        self.echo_missed = None;
        if full {
            self.full = None;
            self.full_passed = Some(now);
            self.sent_since_data = None;
        }
        self.heard(now);
    }

    /// Something authenticated came on it.
    pub(super) fn heard(&mut self, now: Time) {
        self.heard = now;
        self.asked_since_heard = None;
        self.sent_since_heard = None;
    }

    /// Data left on it.
    pub(super) fn sent(&mut self, now: Time) {
        self.sent_since_heard.get_or_insert(now);
        self.sent_since_data.get_or_insert(now);
    }

    /// Data came from the peer, on this path or by another way. A peer that turns to a relay doubts the path, or has
    /// lost it: so do we, until it answers.
    pub(super) fn data(&mut self, on_path: bool, now: Time) {
        self.sent_since_data = None;
        let carried = core::mem::replace(&mut self.carried, on_path);
        if on_path {
            self.echo_misses = 0;
        } else if carried && self.active && now.since(self.turned) >= limits::TURN_PAUSE {
            self.turned = now;
            self.echo_missed.get_or_insert(now);
        }
    }

    /// Nothing can leave for the path's other end, says the host's own network: it is asked at once, and data goes by a
    /// relay as well until it answers.
    pub(super) fn unreachable(&mut self, now: Time) {
        self.shaken.get_or_insert(now);
    }

    /// When something was last heard on it.
    pub(super) const fn last_heard(&self) -> Time {
        self.heard
    }

    /// When a probe was last answered on it.
    pub(super) const fn last_answer(&self) -> Time {
        self.answered
    }

    /// Whether the silence has outlasted one lost probe, so that other ways should be looked for.
    pub(super) fn persists(&self, now: Time) -> bool {
        self.persists_at().is_some_and(|at| at <= now)
    }

    fn persists_at(&self) -> Option<Time> {
        if self.active { self.asked_since_heard.map(|at| at + self.patience() * 2) } else { None }
    }

    /// The probe due at `now`, and begins the check of full-size packets if it is time.
    pub(super) fn due(&mut self, now: Time) -> Option<Ask> {
        if self.full_check_at().is_some_and(|at| at <= now) {
            self.full = Some(FullCheck { since: now, asked: 0, last: now });
        }
        if self.echo_at().is_some_and(|at| at <= now) {
            self.echo_asked = self.sent_since_data;
            self.echo_missed.get_or_insert(now);
            self.echo_misses = self.echo_misses.saturating_add(1);
        }
        if self.full_ask_at().is_some_and(|at| at <= now) {
            return Some(Ask { full: true });
        }
        self.ask_at().is_some_and(|at| at <= now).then_some(Ask { full: false })
    }

    fn ask_at(&self) -> Option<Time> {
        if let Some(at) = self.shaken.filter(|at| *at > self.asked) {
            return Some(at);
        }
        if !self.active {
            return None;
        }
        if let Some(at) = self.echo_missed.filter(|at| *at > self.asked) {
            return Some(at);
        }
        let beat = match self.asked_since_answer {
            None => self.asked + limits::HEARTBEAT,
            Some(_) => self.asked + self.patience(),
        };
        // Data without an echo asks at once, not only at the next beat.
        let echo = self.sent_since_heard.map(|at| (at + self.patience()).max(self.asked + self.patience()));
        Some(echo.map_or(beat, |echo| echo.min(beat)))
    }

    /// When data sent should have been echoed.
    fn echo_at(&self) -> Option<Time> {
        let sent = self.sent_since_data.filter(|_| self.active)?;
        (self.echo_asked != Some(sent)).then(|| sent + self.echo_patience())
    }

    fn full_check_at(&self) -> Option<Time> {
        if !self.active || self.full.is_some() {
            return None;
        }
        let sent = self.sent_since_data?;
        let silence = if self.echo_misses < limits::ECHO_MISSES {
            sent + limits::DATA_SILENCE.max(self.patience() * 2)
        } else {
            sent
        };
        Some(self.full_passed.map_or(silence, |at| silence.max(at + limits::FULL_CHECK_EVERY)))
    }

    fn full_ask_at(&self) -> Option<Time> {
        let full = self.full.filter(|_| self.active)?;
        (full.asked < limits::FULL_CHECK_PROBES)
            .then(|| if full.asked == 0 { full.since } else { full.last + self.patience() })
    }

    /// What the path is worth at `now`.
    pub(super) fn verdict(&self, now: Time) -> Verdict {
        let past = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if past(self.silent_lost_at()) {
            Verdict::Lost(Loss::Silent)
        } else if past(self.one_way_lost_at()) {
            Verdict::Lost(Loss::OneWay)
        } else if past(self.no_data_at()) {
            Verdict::Lost(Loss::NoData)
        } else if past(self.doubt_at()) {
            Verdict::Doubted
        } else {
            Verdict::Trusted
        }
    }

    fn silent_lost_at(&self) -> Option<Time> {
        self.asked_since_heard.filter(|_| self.active).map(|at| at + self.lost_after())
    }

    fn one_way_lost_at(&self) -> Option<Time> {
        self.asked_since_answer.filter(|_| self.active).map(|at| at + self.lost_after())
    }

    fn no_data_at(&self) -> Option<Time> {
        let full = self.full.filter(|full| full.asked >= limits::FULL_CHECK_PROBES)?;
        // If short probes are not answered either, it is another case and another rule decides.
        (self.answered >= full.since).then(|| full.last + self.patience())
    }

    fn doubt_at(&self) -> Option<Time> {
        if !self.active {
            return Some(self.shaken.unwrap_or(self.answered + limits::PATH_STALE));
        }
        let silent = self.asked_since_heard.map(|at| at + self.patience());
        let one_way = self.asked_since_answer.map(|at| at + self.lost_after() / 2);
        let full = self.full.map(|full| full.since);
        // Used again after a rest: nothing is known until the first answer.
        let stale = (self.asked.since(self.answered) >= limits::PATH_STALE).then_some(self.asked);
        [silent, one_way, full, stale, self.shaken, self.echo_missed].into_iter().flatten().min()
    }

    /// When something is to be done or decided next, after `now`.
    pub(super) fn deadline(&self, now: Time) -> Option<Time> {
        let decided = [
            self.silent_lost_at(),
            self.one_way_lost_at(),
            self.no_data_at(),
            self.doubt_at(),
            self.persists_at(),
        ];
        let coming = decided.into_iter().flatten().filter(|at| *at > now);
        let asks = [self.ask_at(), self.full_ask_at(), self.full_check_at(), self.echo_at()];
        coming.chain(asks.into_iter().flatten()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(20);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    /// Runs the path from `from` for `millis` in steps of 10 ms; `answers` says which probes come back.
    /// Answers the first moment it was not trusted and the moment it was lost, with the reason.
    fn run(
        live: &mut Liveness,
        from: u64,
        millis: u64,
        mut each: impl FnMut(&mut Liveness, u64, Option<Ask>),
    ) -> (Option<u64>, Option<(u64, Loss)>) {
        let mut doubted = None;
        for t in (from..from + millis).step_by(10) {
            let ask = live.due(at(t));
            if let Some(ask) = ask {
                live.asked(ask, at(t));
            }
            each(live, t, ask);
            match live.verdict(at(t)) {
                Verdict::Trusted => doubted = None,
                Verdict::Doubted => {
                    doubted.get_or_insert(t);
                }
                Verdict::Lost(why) => return (doubted, Some((t, why))),
            }
        }
        (doubted, None)
    }

    #[test]
    fn a_path_that_answers_is_asked_once_a_heartbeat() {
        let mut live = Liveness::new(RTT, at(0));
        let mut asks = 0;
        let end = run(&mut live, 0, 10_000, |live, t, ask| {
            if let Some(ask) = ask {
                asks += 1;
                live.answered(ask.full, RTT, at(t + 10));
            }
        });
        assert_eq!(end, (None, None));
        assert!((9..=10).contains(&asks), "{asks}");
    }

    #[test]
    fn a_silent_path_is_doubted_soon_and_lost_within_the_bound() {
        let mut live = Liveness::new(RTT, at(0));
        let (doubted, lost) = run(&mut live, 0, 10_000, |live, t, _| live.sent(at(t)));
        // One and a half round trips and 50 ms, and at least 100.
        assert_eq!(doubted, Some(100));
        assert_eq!(lost, Some((3_100, Loss::Silent)));
    }

    #[test]
    fn a_missing_echo_is_looked_into_once_and_an_answer_ends_the_doubt() {
        let mut live = Liveness::new(RTT, at(0));
        live.sent(at(5));
        let mut doubts = Vec::new();
        let mut answer = None;
        for t in 5..900 {
            if let Some(ask) = live.due(at(t)) {
                live.asked(ask, at(t));
                answer = Some(t + 20);
            }
            if answer == Some(t) {
                live.answered(false, RTT, at(t));
            }
            if live.verdict(at(t)) == Verdict::Doubted {
                doubts.push(t);
            }
        }
        assert_eq!(doubts, (105..125).collect::<Vec<_>>(), "until the probe's answer");
        // What is sent next, once data has come, is watched anew.
        live.data(true, at(900));
        live.sent(at(900));
        assert!(live.due(at(990)).is_none());
        assert_eq!(live.due(at(1_000)), Some(Ask { full: false }));
    }

    #[test]
    fn a_peer_that_turns_to_a_relay_and_a_host_without_a_way_are_doubted_at_once() {
        let mut live = Liveness::new(RTT, at(0));
        live.data(false, at(4));
        assert_eq!(
            live.verdict(at(4)),
            Verdict::Trusted,
            "a relay's late packets, before the path carried any"
        );
        live.data(true, at(5));
        live.data(false, at(2_000));
        assert_eq!(live.due(at(2_000)), Some(Ask { full: false }));
        live.asked(Ask { full: false }, at(2_000));
        assert_eq!(live.verdict(at(2_000)), Verdict::Doubted);
        live.answered(false, RTT, at(2_020));
        assert_eq!(live.verdict(at(2_020)), Verdict::Trusted);
        live.data(true, at(2_030));
        live.data(false, at(2_040));
        assert_eq!(live.verdict(at(2_040)), Verdict::Trusted, "once a second is enough");

        live.unreachable(at(2_500));
        assert_eq!(live.due(at(2_500)), Some(Ask { full: false }));
        live.asked(Ask { full: false }, at(2_500));
        live.unreachable(at(2_501));
        assert_eq!(live.due(at(2_501)), None, "the probe's own failure asks for none");
        assert_eq!(live.verdict(at(2_501)), Verdict::Doubted);
        live.answered(false, RTT, at(2_520));
        assert_eq!(live.verdict(at(2_520)), Verdict::Trusted);
    }

    #[test]
    fn data_of_the_peer_does_not_hide_that_ours_is_lost() {
        let mut live = Liveness::new(RTT, at(0));
        let (doubted, lost) = run(&mut live, 0, 10_000, |live, t, _| {
            live.heard(at(t));
            live.data(true, at(t));
        });
        assert_eq!(doubted, Some(2_500));
        assert_eq!(lost, Some((4_000, Loss::OneWay)));
    }

    #[test]
    fn a_path_that_passes_probes_but_no_data_is_found_out() {
        let mut live = Liveness::new(RTT, at(0));
        let (doubted, lost) = run(&mut live, 0, 10_000, |live, t, ask| {
            live.sent(at(t));
            if ask == Some(Ask { full: false }) {
                live.answered(false, RTT, at(t));
            }
        });
        assert_eq!(doubted, Some(1_500));
        assert!(matches!(lost, Some((at, Loss::NoData)) if at < 4_000), "{lost:?}");
    }

    #[test]
    fn an_outage_is_not_taken_for_a_path_without_data() {
        let mut live = Liveness::new(RTT, at(0));
        let outage = 100..3_000;
        let (_, lost) = run(&mut live, 0, 6_000, |live, t, ask| {
            live.sent(at(t));
            if let Some(ask) = ask.filter(|_| !outage.contains(&t)) {
                live.answered(ask.full, RTT, at(t));
            }
        });
        assert_eq!(lost, None);
    }

    #[test]
    fn a_peer_that_only_listens_is_no_reason_for_doubt_for_long() {
        let mut live = Liveness::new(RTT, at(0));
        let (doubted, lost) = run(&mut live, 0, 20_000, |live, t, ask| {
            live.sent(at(t));
            if let Some(ask) = ask {
                live.answered(ask.full, RTT, at(t));
            }
        });
        assert_eq!((doubted, lost), (None, None));
    }

    #[test]
    fn an_unused_path_is_not_asked_and_counts_as_doubtful_until_it_answers_again() {
        let mut live = Liveness::new(RTT, at(0));
        live.set_active(false);
        let mut asks = 0;
        let (doubted, lost) = run(&mut live, 0, 60_000, |_, _, ask| asks += u32::from(ask.is_some()));
        assert_eq!((asks, doubted, lost), (0, Some(3_000), None));
        assert_eq!(live.deadline(at(60_000)), None);
        live.set_active(true);
        assert_eq!(live.due(at(60_000)), Some(Ask { full: false }));
        live.asked(Ask { full: false }, at(60_000));
        assert_eq!(live.verdict(at(60_000)), Verdict::Doubted);
        live.answered(false, RTT, at(60_020));
        assert_eq!(live.verdict(at(60_020)), Verdict::Trusted);
    }
}
