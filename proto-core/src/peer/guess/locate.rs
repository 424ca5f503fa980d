//! The walker behind a NAT that takes ports by a sequence finds out which one it will have, and holds it.

use super::{Measure, Stage};
use crate::id::LinkId;
use crate::limits;
use crate::nat::Allocation;
use crate::nat::predict::{Grade, Habit, habit};
use crate::peer::Peer;
use crate::time::Time;
use crate::wire::disco::GuessWord;
use core::net::SocketAddr;

impl Peer {
    /// The opener asks which port we will have towards it.
    pub(super) fn locate(&mut self, grades: (Grade, Grade), now: Time) {
        let ready = self.guess.is_idle() && self.guess.rested <= now && !self.opens(grades);
        if !ready || !matches!(grades.0, Grade::Kept | Grade::Next) {
            return;
        }
        self.guess.named = 0;
        // The first is the one that walks; what the others see around it tells its port.
        let sockets = self.bind(2);
        self.guess.from = sockets.first().copied();
        self.guess.stage = Stage::Locating(Measure::new(sockets, now));
    }

    /// The first socket of a walker whose mapping is kept for an address makes it, right after its request to a STUN
    /// server and before the second socket's.
    pub(super) fn hold_port(&mut self, link: LinkId, now: Time) {
        let kept = self.guess.ours.grade() == Some(Grade::Kept);
        let Some(theirs) = self.guess.theirs.as_ref().filter(|_| kept) else { return };
        if let (Stage::Locating(_), Some(ip)) = (&self.guess.stage, theirs.address) {
            let to = SocketAddr::new(ip.into(), theirs.port);
            self.guess.packets.charge(now);
            self.guess_probe(link, to, Some(limits::GUESS_TTL));
        }
    }

    /// The measurement is over: the opener is told.
    pub(super) fn located(&mut self, now: Time) {
        let port = self.port_ahead();
        let Some(port) = port else { return self.fail_guess(now) };
        self.guess.stage = Stage::Located { until: now + limits::GUESS_ASK };
        self.say_guess(GuessWord::Here { port }, now);
    }

    fn port_ahead(&self) -> Option<u16> {
        let Stage::Locating(measure) = &self.guess.stage else { return None };
        let (first, second) = (*measure.sockets.first()?, *measure.sockets.get(1)?);
        let (before, after) = (measure.port_of(first)?, measure.port_of(second)?);
        let step = match self.guess.ours.allocation {
            Some(Allocation::Sequential(step)) => step.max(1),
            _ => 1,
        };
        match self.guess.ours.grade()? {
            // The one between.
            Grade::Kept => before.checked_add(step).filter(|port| *port != after),
            // The one that the try half-way will have.
            Grade::Next => {
                let Habit::Sequential(_) = habit(&[before, after]) else { return None };
                before.max(after).checked_add(step.checked_mul(limits::SEQUENCE_AHEAD)?)
            }
            Grade::Easy | Grade::Unknown => None,
        }
    }
}
