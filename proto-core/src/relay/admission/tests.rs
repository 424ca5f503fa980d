use super::*;
use crate::machine::laws::{OwnedInput, Subject};

const DAY: Duration = Duration::from_secs(24 * 3_600);
/// The wall clock at the tests' origin.
const UNIX: u64 = 1_800_000_000;

fn key(n: u8) -> NodePublic {
    NodePublic([n; 32])
}

/// An admission, and what it said.
struct World {
    admission: Admission,
    now: Time,
    said: Vec<AdmissionEvent>,
}

impl World {
    fn new(list: Option<&[u8]>, verifier: bool) -> Self {
        Self::with(list, verifier, Vec::new())
    }

    fn with(list: Option<&[u8]>, verifier: bool, admitted: Vec<Admitted>) -> Self {
        let list = list.map(|list| list.iter().map(|n| key(*n)).collect());
        let config = AdmissionConfig { list, verifier, every: limits::VERIFY_EVERY, unix: UNIX, admitted };
        let admission = Admission::new(config, Seed::from_u64(1), Time::ZERO);
        Self { admission, now: Time::ZERO, said: Vec::new() }
    }

    fn tell(&mut self, command: AdmissionCommand) {
        self.admission.handle(Input::Command(command), self.now);
        self.drain();
    }

    /// What the relay's server makes of a verdict is told back, as its owner does.
    fn drain(&mut self) {
        while let Some(output) = self.admission.poll() {
            let Output::Event(event) = output else { panic!("{output:?}") };
            self.said.push(event);
        }
    }

    /// The stream's name is the key's number.
    fn login(&mut self, n: u8) {
        self.tell(AdmissionCommand::Login { stream: StreamId(n.into()), key: key(n), source: None });
    }

    fn joined(&mut self, n: u8) {
        self.tell(AdmissionCommand::Joined { stream: StreamId(n.into()), key: key(n), source: None });
    }

    fn left(&mut self, n: u8) {
        self.tell(AdmissionCommand::Left { stream: StreamId(n.into()), key: key(n) });
    }

    fn answer(&mut self, question: u64, answer: Answer) {
        self.tell(AdmissionCommand::Answered { question, answer });
    }

    fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while let Some((at, _)) = self.admission.deadline().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            self.admission.handle(Input::Deadline, self.now);
            self.drain();
        }
        self.now = until;
    }

    /// What was said since the last look, without what is to be saved.
    fn heard(&mut self) -> Vec<String> {
        let said = core::mem::take(&mut self.said);
        said.into_iter()
            .filter_map(|event| {
                Some(match event {
                    AdmissionEvent::Ask(question) => {
                        format!("ask {} about {}", question.id, question.key.0[0])
                    }
                    AdmissionEvent::Verdict { stream, verdict: Ok(()) } => format!("let {} in", stream.0),
                    AdmissionEvent::Verdict { stream, verdict: Err(why) } => {
                        format!("refuse {}: {why:?}", stream.0)
                    }
                    AdmissionEvent::Expel(key) => format!("expel {}", key.0[0]),
                    AdmissionEvent::Save(_) => return None,
                    AdmissionEvent::Verifier { why_not: Some(why) } => format!("verifier: {why}"),
                    AdmissionEvent::Verifier { why_not: None } => "verifier: answers".to_owned(),
                })
            })
            .collect()
    }

    fn saved(&self) -> Option<&Vec<Admitted>> {
        self.said.iter().rev().find_map(|event| match event {
            AdmissionEvent::Save(all) => Some(all),
            _ => None,
        })
    }

    /// Logs a key in with the verifier's yes.
    fn admit(&mut self, n: u8) {
        self.login(n);
        self.answer(self.admission.asked, Answer::Yes);
        self.joined(n);
    }
}

fn away() -> Answer {
    Answer::Unreachable { why: "no connection".to_owned() }
}

#[test]
fn nobody_is_asked_about_who_has_left_before_the_answer() {
    let mut world = World::new(None, true);
    let many = u8::try_from(limits::VERIFY_OPEN_MAX).unwrap();
    (0..=many).for_each(|n| world.login(n));
    assert_eq!(world.heard().len(), usize::from(many), "as many questions as may be open");
    world.left(many);
    world.answer(1, Answer::Yes);
    assert_eq!(world.heard(), ["let 0 in"], "and none more");
}

#[test]
fn a_list_lets_in_whom_it_names_and_expels_whom_it_drops() {
    let mut world = World::new(Some(&[1, 2]), false);
    for n in 1..4 {
        world.login(n);
    }
    world.joined(1);
    world.joined(2);
    assert_eq!(world.heard(), ["let 1 in", "let 2 in", "refuse 3: NotListed"]);
    world.advance(30 * DAY);
    world.tell(AdmissionCommand::List([key(2), key(3)].into()));
    assert_eq!(world.heard(), ["expel 1"]);
    world.left(1);
    world.login(1);
    world.login(3);
    assert_eq!(world.heard(), ["refuse 1: NotListed", "let 3 in"]);
}

#[test]
fn whom_the_list_does_not_name_the_verifier_is_asked_about() {
    let mut world = World::new(Some(&[1]), true);
    world.login(1);
    world.login(2);
    world.login(3);
    assert_eq!(world.heard(), ["let 1 in", "ask 1 about 2", "ask 2 about 3"]);
    world.answer(2, Answer::No);
    world.answer(1, Answer::Yes);
    assert_eq!(world.heard(), ["refuse 3: Denied", "let 2 in"]);
    world.joined(1);
    world.advance(DAY);
    assert!(world.heard().is_empty(), "nobody is asked about a listed key");
    world.tell(AdmissionCommand::List(BTreeSet::new()));
    assert_eq!(world.heard(), ["ask 3 about 1"]);
    world.answer(3, Answer::No);
    assert_eq!(world.heard(), ["expel 1"]);
}

#[test]
fn a_connected_key_is_asked_about_again_and_expelled_when_denied() {
    let mut world = World::new(None, true);
    world.admit(1);
    assert_eq!(world.heard(), ["ask 1 about 1", "let 1 in"]);
    world.advance(limits::VERIFY_EVERY * 89 / 100);
    assert!(world.heard().is_empty());
    world.advance(limits::VERIFY_EVERY * 22 / 100);
    assert_eq!(world.heard(), ["ask 2 about 1"]);
    world.answer(2, Answer::Yes);
    world.advance(limits::VERIFY_EVERY * 111 / 100);
    assert_eq!(world.heard(), ["ask 3 about 1"]);
    world.answer(3, Answer::No);
    assert_eq!(world.heard(), ["expel 1"]);
    world.left(1);
    world.login(1);
    world.answer(4, away());
    assert_eq!(
        world.heard(),
        ["ask 4 about 1", "verifier: no connection", "refuse 1: Unreachable"],
        "a no is not forgotten"
    );
    world.advance(DAY);
    assert!(world.admission.keys.is_empty() && world.heard().is_empty());
}

#[test]
fn without_a_verifier_those_known_stay_and_come_back_and_new_ones_are_refused() {
    let mut world = World::new(None, true);
    world.admit(1);
    world.advance(limits::VERIFY_EVERY * 111 / 100);
    world.heard();
    world.answer(2, away());
    assert_eq!(world.heard(), ["verifier: no connection"], "it stays");
    // It comes back, without waiting for anybody.
    world.left(1);
    world.login(1);
    world.joined(1);
    world.login(2);
    assert_eq!(world.heard(), ["let 1 in", "ask 3 about 2"]);
    world.answer(3, away());
    assert_eq!(world.heard(), ["refuse 2: Unreachable"]);
    for _ in 0..6 {
        world.advance(DAY);
        for said in world.heard() {
            assert!(said.starts_with("ask"), "{said}");
        }
        world.answer(world.admission.asked, away());
    }
    world.advance(2 * DAY);
    world.answer(world.admission.asked, away());
    assert_eq!(world.heard().last().unwrap(), "expel 1", "a week after its last yes");
    world.left(1);
    world.login(1);
    world.answer(world.admission.asked, away());
    assert_eq!(world.heard().last().unwrap(), "refuse 1: Unreachable");
}

#[test]
fn when_the_verifier_answers_again_all_are_asked_about_soon() {
    let mut world = World::new(None, true);
    for n in 1..=9 {
        world.admit(n);
    }
    world.heard();
    world.advance(limits::VERIFY_EVERY * 111 / 100);
    let first = world.heard();
    assert_eq!(first.len(), 9, "{first:?}");
    for question in 10..19 {
        world.answer(question, away());
    }
    assert_eq!(world.heard(), ["verifier: no connection"]);
    world.advance(limits::VERIFY_RETRY * 2);
    assert_eq!(world.heard().len(), 1, "one question is enough to learn that nobody answers");
    world.answer(19, Answer::Yes);
    world.advance(limits::VERIFY_RETRY * 2);
    let asked = world.heard();
    assert_eq!(asked.len(), 9, "the verifier answers, and eight others are asked about: {asked:?}");
}

#[test]
fn a_verifier_that_is_slow_delays_nobody_whom_it_knows() {
    let mut world = World::with(None, true, vec![Admitted { key: key(1), yes_at: UNIX - 3_600 }]);
    world.login(1);
    world.login(2);
    world.advance(limits::VERIFY_PATIENCE);
    world.joined(1);
    assert_eq!(world.heard(), ["ask 1 about 1", "ask 2 about 2", "let 1 in"]);
    world.answer(1, Answer::No);
    assert_eq!(world.heard(), ["expel 1"], "a late answer counts");
    world.advance(limits::RELAY_LOGIN_DEADLINE);
    assert_eq!(world.heard(), ["refuse 2: Unreachable"]);
}

#[test]
fn a_verifier_that_does_not_want_to_be_asked_about_one_key_is_there_for_the_others() {
    let mut world = World::with(None, true, vec![Admitted { key: key(1), yes_at: UNIX - 3_600 }]);
    world.login(1);
    world.login(2);
    world.answer(1, Answer::Busy);
    world.answer(2, Answer::Busy);
    world.joined(1);
    world.login(3);
    assert_eq!(
        world.heard(),
        ["ask 1 about 1", "ask 2 about 2", "let 1 in", "refuse 2: Busy", "ask 3 about 3"],
        "nothing is said of an outage"
    );
    world.advance(limits::VERIFY_RETRY * 111 / 100);
    assert_eq!(world.heard(), ["refuse 3: Unreachable", "ask 4 about 1"]);
}

#[test]
fn what_is_remembered_outlives_a_restart_and_ages() {
    let mut world = World::new(None, true);
    world.admit(1);
    world.advance(limits::ADMITTED_SAVE);
    assert_eq!(world.saved(), Some(&vec![Admitted { key: key(1), yes_at: UNIX }]));
    // A clock that is ahead, or a file that somebody edited, gives no more than a week from now.
    let future = Admitted { key: key(2), yes_at: UNIX + 1_000_000 };
    let old = Admitted { key: key(3), yes_at: UNIX - limits::ADMITTED_KEPT.as_secs() };
    let known = Admitted { key: key(1), yes_at: UNIX - 60 };
    let mut world = World::with(None, true, vec![known, future, old]);
    for n in 1..4 {
        world.login(n);
        world.answer(world.admission.asked, away());
    }
    let (let_in, refused) = (world.heard().join("\n"), "refuse 3: Unreachable");
    assert!(
        let_in.contains("let 1 in") && let_in.contains("let 2 in") && let_in.contains(refused),
        "{let_in}"
    );
    world.advance(limits::ADMITTED_KEPT);
    world.login(4);
    world.answer(world.admission.asked, Answer::Yes);
    world.tell(AdmissionCommand::Save);
    let saved: Vec<u8> = world.saved().unwrap().iter().map(|admitted| admitted.key.0[0]).collect();
    assert_eq!(saved, [4], "what is too old is not kept");
}

#[test]
fn a_flood_of_strangers_is_bounded_and_harms_nobody_known() {
    let mut world = World::with(None, true, vec![Admitted { key: key(1), yes_at: UNIX }]);
    let stranger = |n: u64| {
        let mut key = [0xff; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        NodePublic(key)
    };
    for n in 0..limits::ADMISSION_KEYS_MAX as u64 + 10 {
        let stream = StreamId(1_000 + n);
        world.tell(AdmissionCommand::Login { stream, key: stranger(n), source: None });
    }
    let busy = world
        .said
        .iter()
        .filter(|event| matches!(event, AdmissionEvent::Verdict { verdict: Err(Refused::Busy), .. }));
    assert_eq!(busy.count(), 10);
    assert_eq!(world.admission.open.len(), limits::VERIFY_OPEN_MAX);
    world.heard();
    world.answer(1, away());
    world.login(1);
    assert_eq!(world.heard()[2..], ["ask 65 about 0", "let 1 in"]);
    world.advance(limits::RELAY_LOGIN_DEADLINE);
    assert_eq!(
        world.admission.counters().refused[Refused::Unreachable as usize] as usize,
        limits::ADMISSION_KEYS_MAX
    );
    for question in 2..=world.admission.asked {
        world.answer(question, away());
    }
    assert!(world.admission.keys.is_empty() && world.admission.urgent.is_empty());
}

#[test]
fn several_verifiers_answer_as_one() {
    for (one, other, both) in [
        (Answer::Yes, away(), Answer::Yes),
        (Answer::No, Answer::Yes, Answer::Yes),
        (Answer::No, Answer::No, Answer::No),
        (Answer::No, Answer::Busy, Answer::Busy),
        (Answer::Busy, away(), away()),
        (Answer::No, away(), away()),
        (away(), Answer::No, away()),
    ] {
        assert_eq!(one.or(other), both);
    }
}

#[test]
fn the_admission_keeps_the_seven_laws() {
    for (list, verifier) in [(None, true), (Some(vec![1, 2]), true), (Some(vec![1, 2]), false)] {
        Subject::new(|seed| {
            let list = list.as_ref().map(|list| list.iter().map(|n| key(*n)).collect());
            let admitted = vec![Admitted { key: key(3), yes_at: UNIX }];
            let config =
                AdmissionConfig { list, verifier, every: limits::VERIFY_EVERY, unix: UNIX, admitted };
            Admission::new(config, seed, Time::ZERO)
        })
        .commands(|rng| {
            let n = rng.range(1..6) as u8;
            let (stream, key) = (StreamId(rng.range(0..12)), key(n));
            let command = match rng.range(0..10) {
                0..4 => AdmissionCommand::Login { stream, key, source: None },
                4 | 5 => AdmissionCommand::Joined { stream, key, source: None },
                6 | 7 => AdmissionCommand::Left { stream, key },
                8 => AdmissionCommand::List([key].into()),
                _ if rng.permille(500) => AdmissionCommand::Save,
                _ => AdmissionCommand::Answered { question: rng.range(0..99), answer: Answer::No },
            };
            // A new command does not compile here until it is drawn above.
            match command {
                AdmissionCommand::Login { .. }
                | AdmissionCommand::Joined { .. }
                | AdmissionCommand::Left { .. } => {}
                AdmissionCommand::Answered { .. } | AdmissionCommand::List(_) | AdmissionCommand::Save => {}
            }
            command
        })
        .replies(|output, rng| {
            let Output::Event(AdmissionEvent::Ask(question)) = output else { return None };
            let answer = match rng.range(0..4) {
                0 => Answer::Yes,
                1 => Answer::No,
                2 => Answer::Busy,
                _ => away(),
            };
            Some(vec![OwnedInput::Command(AdmissionCommand::Answered { question: question.id, answer })])
        })
        .size(64 << 10, |admission| format!("{admission:?}").len())
        .check(60);
    }
}
