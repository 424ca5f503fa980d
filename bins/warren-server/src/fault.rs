//! Why the server does not start or run: one sentence, a hint, a code.

pub use warren_settings::Fault;
pub(crate) use warren_settings::io_words;
