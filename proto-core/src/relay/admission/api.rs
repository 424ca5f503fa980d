//! What an admission is told, what it tells, and what it counts.

use crate::id::StreamId;
use crate::key::NodePublic;
use crate::time::Duration;
use core::net::IpAddr;
use std::collections::BTreeSet;

/// What an admission is made of.
#[derive(Clone, Debug)]
pub struct AdmissionConfig {
    /// Keys that are let in without asking anybody.
    pub list: Option<BTreeSet<NodePublic>>,
    /// Whether there is a verifier to ask about all others; if not, they are refused.
    pub verifier: bool,
    /// How often a connected key is asked about again.
    pub every: Duration,
    /// The wall clock at the machine's origin of time, in unix seconds.
    pub unix: u64,
    /// What was remembered, as [`AdmissionEvent::Save`] said it.
    pub admitted: Vec<Admitted>,
}

/// A key that the verifier has said yes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Admitted {
    /// Whose.
    pub key: NodePublic,
    /// When it last said so, in unix seconds.
    pub yes_at: u64,
}

/// What a verifier says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The key may use the relay.
    Yes,
    /// It may not.
    No,
    /// The verifier is there, and does not want to be asked now.
    Busy,
    /// There is no answer, which says nothing about the key.
    Unreachable {
        /// Why, in words for a person.
        why: String,
    },
}

impl Answer {
    /// What several verifiers say together: one yes is enough, and a no counts only if nobody is missing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, other) => other,
            (Self::Busy, Self::Unreachable { why }) => Self::Unreachable { why },
            (missing, _) => missing,
        }
    }
}

/// Why a login is not let in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Refused {
    /// The key is not on the list.
    NotListed,
    /// The verifier says no.
    Denied,
    /// The verifier does not answer, and has not said yes before.
    Unreachable,
    /// Too many logins wait for the verifier, or it does not want to be asked now.
    Busy,
}

impl Refused {
    /// All reasons, in the order of [`AdmissionCounters::refused`].
    pub const ALL: [Self; 4] = [Self::NotListed, Self::Denied, Self::Unreachable, Self::Busy];

    /// It in words for the person whose node is refused.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::NotListed => "its key is not on the list of those who may use it",
            Self::Denied => "the server that it asks does not know this node's key",
            Self::Unreachable => "the server that it asks about new nodes does not answer",
            Self::Busy => "too many nodes ask to be let in at this moment",
        }
    }
}

/// A question to the verifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Its number.
    pub id: u64,
    /// About whom.
    pub key: NodePublic,
    /// Where it connects from, if that is known.
    pub source: Option<IpAddr>,
}

/// What an admission's owner asks of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdmissionCommand {
    /// May this key in? Answered by [`AdmissionEvent::Verdict`].
    Login {
        /// The connection.
        stream: StreamId,
        /// Who.
        key: NodePublic,
        /// Where from, if that is known.
        source: Option<IpAddr>,
    },
    /// A connection has logged in.
    Joined {
        /// The connection.
        stream: StreamId,
        /// Whose.
        key: NodePublic,
        /// Where from, if that is known.
        source: Option<IpAddr>,
    },
    /// A connection that had logged in is gone.
    Left {
        /// The connection.
        stream: StreamId,
        /// Whose.
        key: NodePublic,
    },
    /// What the verifier says. Every question wants an answer.
    Answered {
        /// Which question.
        question: u64,
        /// The answer.
        answer: Answer,
    },
    /// The list has changed.
    List(BTreeSet<NodePublic>),
    /// The relay is about to stop: what is to be saved is told at once.
    Save,
}

/// What an admission tells its owner.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AdmissionEvent {
    /// Ask the verifier; answered by [`AdmissionCommand::Answered`].
    Ask(Question),
    /// Let a login in, or not.
    Verdict {
        /// The connection.
        stream: StreamId,
        /// In, or why not.
        verdict: Result<(), Refused>,
    },
    /// Close all connections of a key.
    Expel(NodePublic),
    /// Keep these over a restart, in place of those said before.
    Save(Vec<Admitted>),
    /// The verifier has stopped answering, or answers again.
    Verifier {
        /// Why it does not; none if it does.
        why_not: Option<String>,
    },
}

/// What an admission has counted since its start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AdmissionCounters {
    /// Logins let in by the list.
    pub listed: u64,
    /// Logins let in on an earlier yes, while the verifier did not answer.
    pub trusted: u64,
    /// Logins refused, by [`Refused`].
    pub refused: [u64; 4],
    /// Keys expelled.
    pub expelled: u64,
    /// Questions to the verifier.
    pub questions: u64,
    /// Questions answered with yes.
    pub yes: u64,
    /// Questions answered with no.
    pub no: u64,
    /// Questions that the verifier did not want to be asked.
    pub busy: u64,
    /// Questions that nobody answered.
    pub unreachable: u64,
}
