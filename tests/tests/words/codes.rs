//! Every error code has been seen: it stands in a snapshot of what a person reads.

use super::Result;
use std::collections::BTreeSet;
use std::path::Path;

/// Codes of what no test can bring about, each with the reason.
const UNSEEN: &[(&str, &str)] = &[
    ("CAPTURE_CUT", "a capture of gigabytes"),
    ("CONNECTION_NOT_ACCEPTED", "a system without a file for one more connection"),
    ("DATAGRAM_NOT_RECEIVED", "a system whose sockets fail"),
    ("NO_AGENT", "the server makes an agent with every workspace"),
    ("NO_KEY", "a server so old that it does not tell keys"),
    ("NO_PROGRAM", "a system that does not tell a program its own file"),
    ("NO_SIGNALS", "a system that refuses a process its signals"),
    ("STOPPED", "a node that stops under its own command"),
];

/// Literals that look like codes and are names of variables.
const VARIABLES: [&str; 5] =
    ["CARGO_PKG_VERSION", "NO_COLOR", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "WAYLAND_DISPLAY"];

/// The text of all files below a folder whose names end so.
fn texts(folder: &Path, endings: &[&str], add: &mut impl FnMut(String)) -> Result {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            texts(&path, endings, add)?;
        } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
            add(std::fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The codes among a source's literals.
fn codes(source: &str) -> impl Iterator<Item = &str> {
    source.split('"').skip(1).step_by(2).filter(|word| {
        word.len() > 3
            && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')
            && word.contains('_')
            && !word.ends_with('_')
            && !word.starts_with("WARREN_")
            && !VARIABLES.contains(word)
    })
}

#[test]
fn every_code_has_been_seen() -> Result {
    let mut known = BTreeSet::new();
    texts(&tests::root().join("bins/warren/src"), &["rs"], &mut |source| {
        let program = source.split("#[cfg(test)]").next().unwrap_or_default();
        // A quote in a literal would turn inside and outside round.
        known.extend(program.lines().flat_map(codes).map(str::to_owned));
    })?;
    assert!(known.len() > 50, "the codes are not found: {known:?}");
    let mut seen = String::new();
    for folder in ["tests/tests", "bins/warren/src"] {
        texts(&tests::root().join(folder), &["rs", "snap"], &mut |text| seen.push_str(&text))?;
    }
    let is_seen = |code: &str| {
        let forms = [format!("code: {code}\n"), format!("\"code\":\"{code}\""), format!("{code}: ")];
        forms.iter().any(|form| seen.contains(form.as_str()))
    };
    let unseen: Vec<_> = known.iter().filter(|code| !is_seen(code)).map(String::as_str).collect();
    let excused: Vec<_> = UNSEEN.iter().map(|(code, _)| *code).filter(|code| known.contains(*code)).collect();
    assert_eq!(unseen, excused, "no snapshot shows these, or shows those after all");
    Ok(())
}
