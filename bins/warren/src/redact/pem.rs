//! Private keys in PEM.

use super::HIDDEN;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";
/// Whose labels end so.
const PRIVATE: &str = "PRIVATE KEY";
/// Letters of a line inside a key, but its last and where the text begins: PEM has 64, shorter ones come from other tools.
const LINE_MIN: usize = 8;

/// The text without private keys: what is between their first and last lines is hidden. One that has no end is hidden to
/// the end of the text, and one whose beginning was cut off is hidden as far as it looks like one.
pub(super) fn hide(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, found, after)) = next(rest) {
        match found {
            Found::Begin => {
                out.push_str(before);
                out.push_str(HIDDEN);
                rest = after.find(END).and_then(|end| after.get(end..)).unwrap_or_default();
                // The key's own last line, so that it is not taken for one without a beginning.
                let last = rest.get(END.len()..).and_then(|label| label.find(DASHES));
                let last = last.map_or(rest.len(), |at| END.len() + at + DASHES.len());
                out.push_str(rest.get(..last).unwrap_or_default());
                rest = rest.get(last..).unwrap_or_default();
            }
            Found::End => {
                out.push_str(without_body(before));
                out.push_str(HIDDEN);
                let line = END.len()
                    + rest
                        .get(before.len() + END.len()..)
                        .map_or(0, |label| label.find(DASHES).map_or(label.len(), |at| at + DASHES.len()));
                out.push_str(rest.get(before.len()..before.len() + line).unwrap_or_default());
                rest = rest.get(before.len() + line..).unwrap_or_default();
            }
        }
    }
    out.push_str(rest);
    out
}

enum Found {
    Begin,
    End,
}

/// The next line that begins or ends a private key: what is before its inside, and what is after.
fn next(text: &str) -> Option<(&str, Found, &str)> {
    let mut from = 0;
    loop {
        let rest = text.get(from..)?;
        let at = from + rest.find(DASHES)?;
        let here = text.get(at..)?;
        let label = here.strip_prefix(BEGIN).or_else(|| here.strip_prefix(END));
        let label = label.and_then(|label| label.get(..label.find(DASHES)?));
        match label.filter(|label| label.ends_with(PRIVATE) && !label.contains('\n')) {
            Some(label) if here.starts_with(BEGIN) => {
                let inside = at + BEGIN.len() + label.len() + DASHES.len();
                return Some((text.get(..inside)?, Found::Begin, text.get(inside..)?));
            }
            Some(_) => return Some((text.get(..at)?, Found::End, here)),
            None => from = at + 1,
        }
    }
}

/// The text without the lines at its end that look like the inside of a key.
fn without_body(text: &str) -> &str {
    let mut left = text;
    let mut first = true;
    loop {
        let body = left.strip_suffix('\n').unwrap_or(left);
        let start = body.rfind('\n').map_or(0, |at| at + 1);
        let word = body.get(start..).unwrap_or_default().trim().rsplit(' ').next().unwrap_or_default();
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        // The last line of a key may be of any length.
        let short = !first && start > 0 && word.len() < LINE_MIN;
        if word.is_empty() || !word.chars().all(inside) || short {
            return left;
        }
        left = left.get(..start).unwrap_or_default();
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn private_keys_are_hidden_and_certificates_are_not() {
        let key = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIIs3cr3tAAAA\nAAs3cr3t==\n-----END EC PRIVATE KEY-----\n";
        let certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
        let (_, cut) = key.split_at(40);
        let texts = [
            format!("before\n{key}between\n{certificate}{key}after"),
            key.replace('\n', "\\n"),
            format!("no end\n{}", &key[..60]),
            format!("{cut}after"),
            format!("one line\nhost prog: a word\nhost prog: MHcCAQEEIIs3cr3tAAAA\n{cut}after"),
        ];
        insta::assert_snapshot!(texts.each_ref().map(|text| hide(text)).join("\n---\n"), @r"
        before
        -----BEGIN EC PRIVATE KEY-----(hidden)-----END EC PRIVATE KEY-----
        between
        -----BEGIN CERTIFICATE-----
        MIIB
        -----END CERTIFICATE-----
        -----BEGIN EC PRIVATE KEY-----(hidden)-----END EC PRIVATE KEY-----
        after
        ---
        -----BEGIN EC PRIVATE KEY-----(hidden)-----END EC PRIVATE KEY-----\n
        ---
        no end
        -----BEGIN EC PRIVATE KEY-----(hidden)
        ---
        (hidden)-----END EC PRIVATE KEY-----
        after
        ---
        one line
        host prog: a word
        (hidden)-----END EC PRIVATE KEY-----
        after
        ");
        for text in texts {
            assert!(!hide(&text).contains("s3cr3t"), "{}", hide(&text));
        }
    }

    proptest! {
        #[test]
        fn any_text_may_be_looked_through(text in "(-----(BEGIN|END) (RSA )?(PRIVATE KEY|CERTIFICATE)-----|\\PC{0,3}|\n|-)*") {
            let key = format!("{text}\n-----BEGIN PRIVATE KEY-----\ns3cr3t\n-----END PRIVATE KEY-----\n{text}");
            prop_assert!(!hide(&key).contains("s3cr3t"), "{}", hide(&key));
        }
    }
}
