//! What others wrote, made harmless for a terminal: none of their characters is an order to it.
//!
//! Servers and agents may be anybody's. Their documents pass through [`document`] where they are read, their sentences
//! through [`line()`], and whatever is printed through [`lines`], so that one that was forgotten does no harm either.

use serde_json::Value;
use std::borrow::Cow;

/// What stands in the place of a character that is none to be shown.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// Text for one line: without line breaks, too, which could pass for a line of ours.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    without(text, is_order)
}

/// Text for several lines.
pub(crate) fn lines(text: &str) -> Cow<'_, str> {
    without(text, |c| is_order(c) && !matches!(c, '\n' | '\t'))
}

/// A document all of whose texts are of one line each.
pub(crate) fn document(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(line(&text).into_owned()),
        Value::Array(all) => all.into_iter().map(document).collect(),
        Value::Object(all) => {
            all.into_iter().map(|(key, value)| (line(&key).into_owned(), document(value))).collect()
        }
        other => other,
    }
}

/// Whether a terminal does something else with this character than show it: controls (C0, DEL and C1, one of which
/// begins an escape sequence by itself), line breaks of Unicode, and what turns the direction of the text around it.
const fn is_order(c: char) -> bool {
    matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn without(text: &str, unwanted: impl Fn(char) -> bool + Copy) -> Cow<'_, str> {
    if text.contains(unwanted) {
        Cow::Owned(text.replace(unwanted, &REPLACEMENT.to_string()))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn orders_to_a_terminal_are_none_any_more() {
        assert_eq!(
            line("\u{1b}]0;title\u{7}\u{9b}31m red\r\nerror: a lie"),
            "�]0;title��31m red��error: a lie"
        );
        assert_eq!(lines("one\n\ttwo\u{1b}[2J"), "one\n\ttwo�[2J");
        assert_eq!(line("gpj.\u{202e}exe"), "gpj.�exe");
        assert_eq!(line("très bien ✔ 你好"), "très bien ✔ 你好");
        let told = json!({ "a\u{1b}": ["x\n", 1, { "b": "\u{7f}" }], "c": null });
        assert_eq!(document(told), json!({ "a�": ["x�", 1, { "b": "�" }], "c": null }));
    }

    proptest! {
        #[test]
        fn no_text_has_a_control_left(text in "(\\PC|\\p{Cc}|\\p{Cf})*") {
            prop_assert!(!line(&text).chars().any(char::is_control));
            prop_assert!(lines(&text).chars().all(|c| !c.is_control() || c == '\n' || c == '\t'));
        }
    }
}
