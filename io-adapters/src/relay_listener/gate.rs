//! Who is let in, as the relay's task asks it: the [`Admission`] machine, and what it wants of the world.

use proto_core::id::StreamId;
use proto_core::limits::VERIFY_OPEN_MAX;
use proto_core::machine::{Input, Machine, Output};
use proto_core::relay::{
    Admission, AdmissionCommand, AdmissionConfig, AdmissionCounters, AdmissionEvent, Admitted, Answer,
    Question, ServerCommand, ServerEvent,
};
use proto_core::seed::Seed;
use proto_core::time::Time;
use std::net::IpAddr;
use tokio::sync::{mpsc, watch};

/// A gate for one relay, whose configuration says to ask.
#[derive(Debug)]
pub struct Gate {
    machine: Admission,
    questions: mpsc::Sender<Question>,
    saves: watch::Sender<Option<Vec<Admitted>>>,
}

/// What a gate wants of the world.
#[derive(Debug)]
pub struct Wants {
    /// Questions for the verifier. Each is answered by [`super::RelayHandle::admission`].
    pub questions: mpsc::Receiver<Question>,
    /// What is to be kept over a restart; none before that has been said.
    pub saves: watch::Receiver<Option<Vec<Admitted>>>,
}

/// What a gate has counted, and what it knows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct GateStatus {
    /// Logins and questions.
    pub counters: AdmissionCounters,
    /// Keys remembered with the verifier's yes.
    pub admitted: usize,
    /// Whether the verifier gave an answer when it was last asked.
    pub reachable: bool,
}

/// Makes a gate.
#[must_use]
pub fn gate(config: AdmissionConfig, seed: Seed, now: Time) -> (Gate, Wants) {
    // The machine has no more open at once.
    let (questions, asked) = mpsc::channel(VERIFY_OPEN_MAX);
    let (saves, saved) = watch::channel(None);
    let gate = Gate { machine: Admission::new(config, seed, now), questions, saves };
    (gate, Wants { questions: asked, saves: saved })
}

impl Gate {
    pub(super) fn status(&self) -> GateStatus {
        GateStatus {
            counters: *self.machine.counters(),
            admitted: self.machine.admitted(),
            reachable: self.machine.is_reachable(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.machine.deadline().map(|(at, _)| at)
    }

    pub(super) fn due(&mut self, now: Time) {
        self.machine.handle(Input::Deadline, now);
    }

    pub(super) fn command(&mut self, command: AdmissionCommand, now: Time) {
        self.machine.handle(Input::Command(command), now);
    }

    /// The relay's server said something; `source` tells where a connection comes from.
    pub(super) fn heard(
        &mut self,
        event: &ServerEvent,
        source: impl Fn(StreamId) -> Option<IpAddr>,
        now: Time,
    ) {
        let command = match *event {
            ServerEvent::Ask { stream, key } => {
                AdmissionCommand::Login { stream, key, source: source(stream) }
            }
            ServerEvent::Joined { stream, key, mesh: false } => {
                AdmissionCommand::Joined { stream, key, source: source(stream) }
            }
            ServerEvent::Left { stream, key } => AdmissionCommand::Left { stream, key },
            _ => return,
        };
        self.command(command, now);
    }

    /// The next order for the relay's server.
    pub(super) fn next(&mut self, now: Time) -> Option<ServerCommand> {
        while let Some(output) = self.machine.poll() {
            let Output::Event(event) = output else { continue };
            match event {
                AdmissionEvent::Ask(question) => {
                    if self.questions.try_send(question).is_err() {
                        let answer = Answer::Unreachable { why: "nobody asks it any more".to_owned() };
                        self.command(AdmissionCommand::Answered { question: question.id, answer }, now);
                    }
                }
                AdmissionEvent::Verdict { stream, verdict } => {
                    if let Err(why) = verdict {
                        tracing::debug!(?stream, ?why, "a client was not let in");
                    }
                    return Some(ServerCommand::Verdict { stream, verdict });
                }
                AdmissionEvent::Expel(key) => {
                    tracing::info!(%key, "a client was expelled: it may not use this relay any more");
                    return Some(ServerCommand::Expel(key));
                }
                AdmissionEvent::Save(all) => {
                    self.saves.send_replace(Some(all));
                }
                AdmissionEvent::Verifier { why_not: Some(why) } => {
                    tracing::warn!(
                        "the verifier does not answer, so that only those it let in before are let in: {why}"
                    );
                }
                AdmissionEvent::Verifier { why_not: None } => tracing::info!("the verifier answers again"),
            }
        }
        None
    }
}
