//! Errors of others as parts of our sentences.

/// The operating system's words for an error, without Rust's `(os error 98)`.
#[must_use]
pub fn io_words(error: &std::io::Error) -> String {
    words(&error.to_string())
}

/// An error's text as a part of a sentence.
#[must_use]
pub fn words(text: &str) -> String {
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}
