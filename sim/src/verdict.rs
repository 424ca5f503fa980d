//! What the verdicts of both lanes have in common: what must never happen, and the command that shows a run
//! again.

use std::fmt;

/// What must never happen and did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Violations(pub Vec<String>);

impl Violations {
    /// That there are none.
    ///
    /// # Errors
    /// The first.
    pub fn none(&self) -> Result<(), String> {
        self.0.first().map_or(Ok(()), |first| Err(format!("violated: {first}")))
    }
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|violation| writeln!(f, "  VIOLATED {violation}"))
    }
}

/// The command that shows a run in full.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Replay {
    /// `replay` or `lab --trace`.
    pub command: &'static str,
    /// The scenario's name.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { command, scenario, seed } = self;
        write!(f, "replay: cargo run -p sim -- {command} --seed {seed} --scenario {scenario}")
    }
}
