//! Who begins a WireGuard handshake, and when. No engine revives an expired session by itself, and none is
//! in a hurry; this is.

use crate::machine::{Input, Machine, Outbox, Output};
use crate::seed::Seed;
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
}

/// What the supervisor asks of the engine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HandshakeEvent {
    /// Begin a handshake along the peer's route.
    Initiate,
    /// Forget the peer's sessions.
    Reset,
}

/// Decides when to shake hands with one peer.
#[derive(Debug)]
pub struct HandshakeSupervisor {
    clock: Monotone,
    out: Outbox<HandshakeEvent>,
}

impl HandshakeSupervisor {
    /// A supervisor for a peer just told by the coordinator. `asked`: we asked for the tunnel, so we begin.
    #[must_use]
    pub fn new(asked: bool, seed: Seed, now: Time) -> Self {
        let _ = (asked, seed);
        let mut clock = Monotone::default();
        clock.clamp(now);
        Self { clock, out: Outbox::default() }
    }
}

impl Machine for HandshakeSupervisor {
    type Command = HandshakeCommand;
    type Event = HandshakeEvent;

    fn handle(&mut self, input: Input<'_, HandshakeCommand>, now: Time) {
        let _now = self.clock.clamp(now);
        let _ = input;
    }

    fn poll(&mut self) -> Option<Output<HandshakeEvent>> {
        self.out.pop()
    }

    fn deadline(&self) -> Option<(Time, &'static str)> {
        None
    }
}
