//! What people and scripts read of `warren`: every help text, every result as a table and as JSON, every error code.

mod codes;
mod errors_abroad;
mod errors_here;
mod help;
#[path = "../old_agent/mod.rs"]
mod old_agent;
mod results;

use std::process::{Command, Output, Stdio};

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

/// What was typed and what came, as a person sees it: `$` before a command, its status after it unless that is 0, and
/// `!` before what came on standard error.
#[derive(Default)]
struct Transcript {
    text: String,
    /// What differs each time, and what stands for it; the first are replaced first.
    hidden: Vec<(String, String)>,
}

impl Transcript {
    /// Shows `name` in the place of something that differs each time.
    fn hide(&mut self, what: impl Into<String>, name: &str) -> &mut Self {
        self.hidden.push((what.into(), name.to_owned()));
        self
    }

    /// Runs a command to its end, with nothing for its input.
    fn run(&mut self, command: &mut Command) -> Result<Output> {
        let out = command.stdin(Stdio::null()).output()?;
        self.note(&words(command), &out);
        Ok(out)
    }

    /// Writes down how a command went.
    fn note(&mut self, typed: &str, out: &Output) {
        self.text.push_str(&format!("$ {typed}\n"));
        if !out.status.success() {
            self.text.push_str(&match out.status.code() {
                Some(status) => format!("({status})\n"),
                None => "(killed)\n".to_owned(),
            });
        }
        self.text.push_str(&String::from_utf8_lossy(&out.stdout));
        for line in String::from_utf8_lossy(&out.stderr).lines() {
            self.text.push_str(format!("! {line}").trim_end());
            self.text.push('\n');
        }
        self.text.push('\n');
    }

    /// All of it, without what differs each time.
    fn all(&self) -> String {
        self.hidden.iter().fold(self.text.clone(), |text, (what, name)| text.replace(what, name))
    }
}

/// A command as a person types it; long words are cut.
fn words(command: &Command) -> String {
    let words = command.get_args().map(|word| {
        let word = word.to_string_lossy();
        let quoted = word.is_empty() || word.contains([' ', '"', '#', '$']);
        match word.char_indices().nth(100) {
            Some((end, _)) => format!("{}...", &word[..end]),
            None if quoted => format!("'{word}'"),
            None => word.into_owned(),
        }
    });
    std::iter::once("warren".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}
