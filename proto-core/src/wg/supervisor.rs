//! Who begins a WireGuard handshake, and when. No engine revives an expired session by itself, and none is
//! in a hurry; this is.

use crate::limits;
use crate::machine::{Input, Machine, Outbox, Output};
use crate::route::Direction;
use crate::seed::{Rng, Seed};
use crate::time::{Monotone, Time};

/// What the supervisor is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeCommand {
    /// The peer has programmed us (the coordinator said so): a handshake will be answered.
    Start,
    /// Whether any way leads to the peer now: a relay or a direct path.
    Way(bool),
    /// A handshake is complete, whoever began it.
    Established,
    /// Data was sent to the peer, or waits inside the engine for a session.
    Sent,
    /// Authenticated data or a keepalive came from the peer.
    Received,
    /// The peer is another process than before (another boot id): its sessions are gone.
    Restarted,
    /// The peer may have ended: shake hands now, to see whether it answers.
    Check,
}

/// What the supervisor asks of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeEvent {
    /// Begin a handshake along the peer's route.
    Initiate,
    /// Forget the peer's sessions, and a handshake under way.
    Reset,
}

/// What is known of the session with the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Session {
    /// None yet, or it was reset.
    None,
    /// One that works as far as we know. `unanswered`: the first data sent since something came.
    Up { unanswered: Option<Time> },
}

/// Decides when to shake hands with one peer.
///
/// Whoever asked for the tunnel begins, as soon as the peer is ready and a way leads there. The other side
/// begins only if it has something to send and nothing comes of itself. A session in which data goes out and
/// nothing comes back is tried anew beside the old one, and in the end instead of it.
#[derive(Debug)]
pub struct HandshakeSupervisor {
    clock: Monotone,
    /// When the last input came.
    now: Time,
    rng: Rng,
    asked: bool,
    /// Since when the peer may be expected to answer.
    ready_at: Time,
    way: bool,
    session: Session,
    /// Since when it is to be seen whether the peer answers.
    check: Option<Time>,
    /// When the first data waited without a session.
    wanted: Option<Time>,
    /// Initiations without an answer.
    tries: u32,
    /// When the latest initiation was asked for.
    tried: Option<Time>,
    /// When the next one is due, if one is.
    next: Option<Time>,
    out: Outbox<HandshakeEvent>,
}

impl HandshakeSupervisor {
    /// A supervisor for a peer just told by the coordinator. `asked`: we asked for the tunnel, so we begin.
    #[must_use]
    pub fn new(asked: bool, seed: Seed, now: Time) -> Self {
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self {
            clock,
            now,
            rng: seed.fork("handshake").rng(),
            asked,
            ready_at: now + limits::READY_WAIT,
            way: false,
            session: Session::None,
            check: None,
            wanted: None,
            tries: 0,
            tried: None,
            next: None,
            out: Outbox::default(),
        }
    }

    /// Whether a session is believed to work.
    #[must_use]
    pub const fn is_up(&self) -> bool {
        matches!(self.session, Session::Up { .. })
    }

    fn on_command(&mut self, command: HandshakeCommand, now: Time) {
        match command {
            HandshakeCommand::Start => self.ready_at = self.ready_at.min(now),
            HandshakeCommand::Way(way) => self.on_way(way, now),
            HandshakeCommand::Established | HandshakeCommand::Received => self.on_sign_of_life(),
            HandshakeCommand::Sent => self.on_sent(now),
            HandshakeCommand::Restarted => self.on_restart(now),
            HandshakeCommand::Check => _ = self.check.get_or_insert(now),
        }
    }

    fn on_way(&mut self, way: bool, now: Time) {
        // An initiation sent into nowhere or along a dead way is not worth waiting for.
        if way && !self.way && self.next.is_some() {
            let soonest = self.tried.map_or(now, |at| now.max(at + limits::HANDSHAKE_PAUSE_MIN));
            self.next = self.next.map(|at| at.min(soonest));
        }
        self.way = way;
    }

    fn on_sign_of_life(&mut self) {
        self.session = Session::Up { unanswered: None };
        self.check = None;
        self.wanted = None;
        self.tries = 0;
        self.tried = None;
        self.next = None;
    }

    fn on_sent(&mut self, now: Time) {
        match &mut self.session {
            Session::None => {
                self.wanted.get_or_insert(now);
            }
            Session::Up { unanswered } => {
                unanswered.get_or_insert(now);
            }
        }
    }

    fn on_restart(&mut self, now: Time) {
        self.out.event(HandshakeEvent::Reset);
        self.session = Session::None;
        self.check = None;
        // Both sides may have been told of it, and the restarted one asks if it wants; a session that was in
        // use is wanted again by whoever asked.
        self.wanted = None;
        self.tries = 0;
        self.tried = None;
        self.next = None;
        self.ready_at = now + limits::READY_WAIT;
    }

    /// When the first initiation is due, if one is wanted and none was tried.
    fn first_at(&self) -> Option<Time> {
        match self.session {
            Session::None if self.asked => Some(self.ready_at),
            Session::None => self.wanted.map(|at| at + limits::HANDSHAKE_YIELD),
            Session::Up { unanswered } => {
                let silent = unanswered.map(|at| at + limits::SESSION_SILENCE);
                [self.check, silent].into_iter().flatten().min()
            }
        }
    }

    fn due_at(&self) -> Option<Time> {
        if !self.way {
            return None;
        }
        self.next.or_else(|| self.first_at())
    }

    fn initiate(&mut self, now: Time) {
        // A session that may still work is kept beside the new handshake; one that is surely dead, and a
        // handshake without an answer, would only be in its way.
        let dead = match self.session {
            Session::None => self.tries > 0,
            Session::Up { unanswered } => unanswered.is_some_and(|at| now.since(at) >= limits::SESSION_DEAD),
        };
        if dead {
            self.out.event(HandshakeEvent::Reset);
            self.session = Session::None;
            self.wanted.get_or_insert(now);
        }
        self.out.event(HandshakeEvent::Initiate);
        let pause = limits::HANDSHAKE_PAUSE.saturating_mul(1 << self.tries.min(10));
        let pause = self.rng.jitter(pause.min(limits::HANDSHAKE_PAUSE_MAX), 10);
        self.tries = self.tries.saturating_add(1);
        self.tried = Some(now);
        self.next = Some(now + pause);
    }

    /// Whether anybody still waits for the handshake: whoever asked always does, the other side only for its
    /// own data, and nobody for a check that was not answered.
    fn give_up(&mut self) -> bool {
        let waits = match self.session {
            Session::None => self.asked,
            Session::Up { unanswered } => unanswered.is_some(),
        };
        let idle = !waits && self.tries > limits::HANDSHAKE_TRIES;
        if idle {
            self.check = None;
            self.wanted = None;
            self.tries = 0;
            self.next = None;
        }
        idle
    }
}

impl Machine for HandshakeSupervisor {
    type Command = HandshakeCommand;
    type Event = HandshakeEvent;

    fn handle(&mut self, input: Input<'_, HandshakeCommand>, now: Time) {
        let now = self.clock.clamp(now);
        self.now = now;
        match input {
            Input::Command(command) => self.on_command(command, now),
            Input::Activity(activity) => match activity.direction {
                Direction::Sent => self.on_sent(now),
                Direction::Received => self.on_sign_of_life(),
            },
            _ => {}
        }
        if self.due_at().is_some_and(|at| at <= now) && !self.give_up() {
            self.initiate(now);
        }
    }

    fn poll(&mut self) -> Option<Output<HandshakeEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        self.due_at().map(|at| (at, "handshake"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Log = Vec<(u64, HandshakeEvent)>;

    fn supervisor(asked: bool) -> HandshakeSupervisor {
        HandshakeSupervisor::new(asked, Seed::from_u64(1), Time::ZERO)
    }

    fn say(s: &mut HandshakeSupervisor, millis: u64, command: HandshakeCommand) -> Log {
        s.handle(Input::Command(command), Time::from_millis(millis));
        drain(s, millis)
    }

    fn drain(s: &mut HandshakeSupervisor, millis: u64) -> Log {
        std::iter::from_fn(|| s.poll())
            .filter_map(|out| match out {
                Output::Event(event) => Some((millis, event)),
                _ => None,
            })
            .collect()
    }

    /// Follows the deadlines up to `until`.
    fn run(s: &mut HandshakeSupervisor, until: u64) -> Log {
        let mut log = Log::new();
        while let Some((at, _)) = s.deadline().filter(|(at, _)| *at <= Time::from_millis(until)) {
            s.handle(Input::Deadline, at);
            log.extend(drain(s, at.as_micros() / 1_000));
        }
        log
    }

    fn initiations(log: &Log) -> Vec<u64> {
        log.iter().filter(|(_, e)| *e == HandshakeEvent::Initiate).map(|(at, _)| *at).collect()
    }

    #[test]
    fn who_asked_begins_as_soon_as_the_peer_is_ready_and_a_way_is_there() {
        let mut s = supervisor(true);
        assert_eq!(say(&mut s, 10, HandshakeCommand::Start), []);
        assert_eq!(say(&mut s, 20, HandshakeCommand::Way(true)), [(20, HandshakeEvent::Initiate)]);
        assert_eq!(say(&mut s, 60, HandshakeCommand::Established), []);
        assert_eq!(s.deadline(), None);
        assert!(s.is_up());
    }

    #[test]
    fn a_coordinator_that_never_says_ready_costs_one_second() {
        let mut s = supervisor(true);
        say(&mut s, 0, HandshakeCommand::Way(true));
        assert_eq!(run(&mut s, 1_500), [(1_000, HandshakeEvent::Initiate)]);
    }

    #[test]
    fn the_other_side_waits_and_begins_only_for_its_own_data() {
        let mut s = supervisor(false);
        say(&mut s, 0, HandshakeCommand::Start);
        say(&mut s, 0, HandshakeCommand::Way(true));
        assert_eq!(run(&mut s, 60_000), []);
        assert_eq!(say(&mut s, 60_000, HandshakeCommand::Sent), []);
        assert_eq!(initiations(&run(&mut s, 61_200)), [61_000]);
        // Nobody answers and nothing more is sent: it does not go on for ever.
        let log = run(&mut s, 3_600_000);
        assert!(initiations(&log).len() < 12, "{log:?}");
        assert_eq!(s.deadline(), None);
    }

    #[test]
    fn an_unanswered_initiation_is_repeated_with_growing_pauses() {
        let mut s = supervisor(true);
        say(&mut s, 0, HandshakeCommand::Start);
        assert_eq!(initiations(&say(&mut s, 0, HandshakeCommand::Way(true))), [0]);
        let times = initiations(&run(&mut s, 30_000));
        let pauses: Vec<_> = std::iter::once(times[0]).chain(times.windows(2).map(|w| w[1] - w[0])).collect();
        assert!((900..=1_100).contains(&pauses[0]), "{pauses:?}");
        assert!((1_800..=2_200).contains(&pauses[1]), "{pauses:?}");
        assert!(pauses[2..].iter().all(|pause| (3_600..=5_500).contains(pause)), "{pauses:?}");
    }

    #[test]
    fn nothing_is_begun_while_no_way_is_there_and_at_once_when_it_returns() {
        let mut s = supervisor(true);
        say(&mut s, 0, HandshakeCommand::Start);
        say(&mut s, 0, HandshakeCommand::Way(true));
        say(&mut s, 100, HandshakeCommand::Way(false));
        assert_eq!((run(&mut s, 60_000), s.deadline()), (vec![], None));
        assert_eq!(initiations(&say(&mut s, 60_000, HandshakeCommand::Way(true))), [60_000]);
    }

    #[test]
    fn data_without_an_echo_shakes_hands_beside_the_old_session_and_then_instead_of_it() {
        let mut s = supervisor(false);
        say(&mut s, 0, HandshakeCommand::Way(true));
        say(&mut s, 0, HandshakeCommand::Established);
        assert_eq!(say(&mut s, 1_000, HandshakeCommand::Sent), []);
        let log = run(&mut s, 60_000);
        assert_eq!(log[0], (6_000, HandshakeEvent::Initiate));
        let reset = log.iter().find(|(_, e)| *e == HandshakeEvent::Reset).map(|(at, _)| *at);
        assert!(reset.is_some_and(|at| (31_000..42_000).contains(&at)), "{log:?}");
    }

    #[test]
    fn an_echo_in_time_is_all_it_takes() {
        let mut s = supervisor(true);
        say(&mut s, 0, HandshakeCommand::Way(true));
        say(&mut s, 0, HandshakeCommand::Established);
        for t in (0..60_000).step_by(4_000) {
            assert_eq!(say(&mut s, t, HandshakeCommand::Sent), []);
            assert_eq!(say(&mut s, t + 3_900, HandshakeCommand::Received), []);
        }
        assert_eq!(s.deadline(), None);
    }

    #[test]
    fn it_keeps_the_seven_laws() {
        use crate::machine::laws::Subject;
        for asked in [true, false] {
            Subject::new(|seed| HandshakeSupervisor::new(asked, seed, Time::ZERO))
                .commands(|rng| match rng.range(0..9) {
                    0 | 1 => HandshakeCommand::Way(true),
                    2 => HandshakeCommand::Way(false),
                    3 => HandshakeCommand::Start,
                    4 => HandshakeCommand::Established,
                    5 => HandshakeCommand::Received,
                    6 => HandshakeCommand::Restarted,
                    7 => HandshakeCommand::Check,
                    _ => HandshakeCommand::Sent,
                })
                .size(2_000, |s| format!("{s:?}").len())
                .check(60);
        }
    }

    #[test]
    fn a_peer_that_may_have_ended_is_asked_at_once_and_not_for_ever() {
        let mut s = supervisor(true);
        say(&mut s, 0, HandshakeCommand::Way(true));
        say(&mut s, 0, HandshakeCommand::Established);
        assert_eq!(say(&mut s, 5_000, HandshakeCommand::Check), [(5_000, HandshakeEvent::Initiate)]);
        assert_eq!(say(&mut s, 5_050, HandshakeCommand::Established), []);
        assert_eq!(s.deadline(), None);
        say(&mut s, 9_000, HandshakeCommand::Check);
        let times = initiations(&run(&mut s, 3_600_000));
        assert!((9_900..=10_100).contains(&times[0]) && times.len() < 12, "{times:?}");
        assert_eq!(s.deadline(), None);
    }

    #[test]
    fn a_restarted_peer_is_shaken_hands_with_anew() {
        let mut s = supervisor(true);
        say(&mut s, 0, HandshakeCommand::Way(true));
        say(&mut s, 0, HandshakeCommand::Established);
        assert_eq!(say(&mut s, 5_000, HandshakeCommand::Restarted), [(5_000, HandshakeEvent::Reset)]);
        assert_eq!(initiations(&say(&mut s, 5_100, HandshakeCommand::Start)), [5_100]);
    }
}
