//! What a person reads when something fails: one lower-case sentence, the facts, what to do, and a code.

use crate::plain;
use clap::error::ErrorKind;
use serde::Serialize;
use std::fmt::Write as _;

/// Why a command ended without a result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CliError {
    /// How the process exits.
    pub exit: Exit,
    /// A code that scripts may rely on.
    pub code: String,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// Facts, each a name and a value.
    pub facts: Vec<(String, String)>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// Exit statuses, each with one meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Exit {
    /// It failed (no reply to any ping is a failure).
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Not logged in, or not allowed.
    Forbidden = 3,
    /// No such thing.
    NotFound = 4,
    /// Unreachable, or it took too long.
    Unreachable = 5,
    /// `warren ssh` has no session or lost it: as with other SSH clients, since all lower ones may be the remote
    /// program's.
    NoSession = 255,
}

/// The result of a command.
pub(crate) type Result<T = ()> = std::result::Result<T, CliError>;

impl CliError {
    /// An error with a code and a sentence.
    pub(crate) fn new(exit: Exit, code: &str, message: impl Into<String>) -> Self {
        Self { exit, code: code.into(), message: message.into(), facts: Vec::new(), hint: None }
    }

    /// A usage error that clap has found: its first paragraph is the sentence, its tips or the usage say what to do.
    pub(crate) fn usage(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let sentence = match error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "no command was given".to_owned(),
            _ => words(text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ")),
        };
        let of = |beginning: &str| {
            let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix(beginning));
            words(&lines.collect::<Vec<_>>().join(","))
        };
        let hint = match (of("tip:"), of("Usage:")) {
            (tips, _) if !tips.is_empty() => tips,
            (_, usage) if !usage.is_empty() => format!("usage: {usage}"),
            _ => "the same command with --help says what may stand there".to_owned(),
        };
        Self::new(Exit::Usage, "USAGE", sentence).hint(hint)
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds a fact.
    pub(crate) fn fact(mut self, name: &str, value: impl ToString) -> Self {
        self.facts.push((name.into(), plain::line(&value.to_string()).into_owned()));
        self
    }

    /// Exits another way.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// The text for a terminal.
    pub(crate) fn text(&self) -> String {
        let mut out = format!("error: {}\n", self.message);
        if !self.facts.is_empty() {
            let width = self.facts.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
            out.push('\n');
            for (name, value) in &self.facts {
                let _ = writeln!(out, "  {name:width$}{value}");
            }
            out.push('\n');
        }
        if let Some(hint) = &self.hint {
            let _ = writeln!(out, "hint: {hint}");
        }
        let _ = writeln!(out, "code: {}", self.code);
        out
    }

    /// The same as JSON, for `-o json`.
    pub(crate) fn json(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
            facts: serde_json::Map<String, serde_json::Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            hint: Option<&'a str>,
        }
        let facts = self.facts.iter().map(|(k, v)| (k.replace(' ', "_"), v.clone().into())).collect();
        let body = Body { code: &self.code, message: &self.message, facts, hint: self.hint.as_deref() };
        serde_json::json!({ "error": body }).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> CliError {
        CliError::new(
            Exit::Unreachable,
            "AGENT_UNREACHABLE",
            "can't reach workspace \"dev\": no reply after 5s",
        )
        .fact("last seen", "4m ago")
        .fact("relay", "fra, 12ms")
        .hint("the agent may be stopped: see `warren status`")
    }

    #[test]
    fn errors_read_as_a_sentence_with_facts_and_a_hint() {
        insta::assert_snapshot!(example().text(), @r#"
        error: can't reach workspace "dev": no reply after 5s

          last seen  4m ago
          relay      fra, 12ms

        hint: the agent may be stopped: see `warren status`
        code: AGENT_UNREACHABLE
        "#);
    }

    #[test]
    fn errors_as_json_hold_the_same() {
        insta::assert_snapshot!(example().json(), @r#"{"error":{"code":"AGENT_UNREACHABLE","facts":{"last_seen":"4m ago","relay":"fra, 12ms"},"hint":"the agent may be stopped: see `warren status`","message":"can't reach workspace \"dev\": no reply after 5s"}}"#);
    }
}
