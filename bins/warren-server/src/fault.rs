//! Why the server does not start or run: one sentence, a hint, a code.

use core::fmt;
pub(crate) use warren_settings::{io_words, words};

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

impl From<warren_settings::Fault> for Fault {
    fn from(fault: warren_settings::Fault) -> Self {
        Self::new(fault.code, fault.message, fault.hint)
    }
}
