//! Why the server does not start or run: one sentence, a hint, a code.

use core::fmt;

/// A reason to stop, said so that an operator can act on it. [`fmt::Display`] prints all three lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// A code that programs may rely on, such as `PORT_BUSY`.
    pub code: &'static str,
    /// What is wrong: one lower-case sentence with the facts.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl Fault {
    /// A fault of these three parts.
    pub fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\n\nhint: {}\ncode: {}", self.message, self.hint, self.code)
    }
}

impl core::error::Error for Fault {}

/// The operating system's words for an error, without Rust's `(os error 98)`.
pub(crate) fn io_words(error: &std::io::Error) -> String {
    words(&error.to_string())
}

/// An error's text as a part of a sentence.
pub(crate) fn words(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
