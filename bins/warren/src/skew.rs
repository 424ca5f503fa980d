//! Versions that differ: what is said of it, and when.

use crate::output;
use std::sync::Once;

/// This program's version.
pub(crate) const OURS: &str = env!("CARGO_PKG_VERSION");

/// How many minor versions apart the two ends are sure to understand each other.
const MINORS: u64 = 2;

/// How far two versions are from each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Distance {
    /// They differ in nothing that matters.
    None,
    /// By this many minor versions.
    Minor(u64),
    /// By a major version.
    Major,
}

/// What to say of the other end's version, which may have its program's name before it; nothing if the two differ
/// in nothing that matters, or it is no version.
pub(crate) fn sentence(whose: &str, theirs: &str) -> Option<String> {
    words(OURS, whose, theirs)
}

/// Warns, once in this process, if the server's version is so far from ours that the two may not understand each
/// other.
pub(crate) fn warn(theirs: &str) {
    static ONCE: Once = Once::new();
    let far = match distance(OURS, theirs) {
        Some(Distance::Major) => true,
        Some(Distance::Minor(apart)) => apart > MINORS,
        Some(Distance::None) | None => false,
    };
    if let Some(words) = sentence("the server", theirs).filter(|_| far) {
        ONCE.call_once(|| output::warning("VERSION_SKEW", &words));
    }
}

fn words(ours: &str, whose: &str, theirs: &str) -> Option<String> {
    let theirs = number(theirs);
    let (us, them) = (parse(ours)?, parse(theirs)?);
    let what = match distance(ours, theirs)? {
        Distance::None => return None,
        Distance::Minor(apart) if apart <= MINORS => {
            "they work together, without what only the newer one can do"
        }
        Distance::Minor(_) => "they may not understand each other",
        Distance::Major => "they may not understand each other at all",
    };
    let (which, todo) = match them > us {
        true => ("newer", format!("install warren {theirs}")),
        false => ("older", format!("bring {whose} to {ours}")),
    };
    Some(format!("{whose} has version {theirs}, {which} than this program's {ours}: {what}; {todo}"))
}

fn distance(ours: &str, theirs: &str) -> Option<Distance> {
    let ((major, minor), (their_major, their_minor)) = (parse(ours)?, parse(number(theirs))?);
    Some(match (major == their_major, minor.abs_diff(their_minor)) {
        (false, _) => Distance::Major,
        (true, 0) => Distance::None,
        (true, apart) => Distance::Minor(apart),
    })
}

/// The version in `warren-agent 1.2.3`.
fn number(text: &str) -> &str {
    text.split_whitespace().last().unwrap_or_default()
}

/// Major and minor. The other end wrote it: digits alone, so that no more than a version is ever shown.
fn parse(version: &str) -> Option<(u64, u64)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    let mut parts = Some(version).filter(|v| v.len() <= 64 && v.chars().all(plain))?.splitn(3, '.');
    let (major, minor, _patch) = (parts.next()?, parts.next()?, parts.next()?);
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_depends_on_the_distance() {
        let said = [
            "1.2.9",
            "1.3.0",
            "1.1.0-rc.1",
            "1.5.0",
            "2.0.0",
            "0.9.1",
            "warren-agent 1.4.2",
            "new",
            "1.2",
            "",
        ]
        .map(|theirs| {
            format!("{theirs}: {}", words("1.2.3", "the server", theirs).unwrap_or_else(|| "-".into()))
        });
        insta::assert_snapshot!(said.join("\n"), @r"
        1.2.9: -
        1.3.0: the server has version 1.3.0, newer than this program's 1.2.3: they work together, without what only the newer one can do; install warren 1.3.0
        1.1.0-rc.1: the server has version 1.1.0-rc.1, older than this program's 1.2.3: they work together, without what only the newer one can do; bring the server to 1.2.3
        1.5.0: the server has version 1.5.0, newer than this program's 1.2.3: they may not understand each other; install warren 1.5.0
        2.0.0: the server has version 2.0.0, newer than this program's 1.2.3: they may not understand each other at all; install warren 2.0.0
        0.9.1: the server has version 0.9.1, older than this program's 1.2.3: they may not understand each other at all; bring the server to 1.2.3
        warren-agent 1.4.2: the server has version 1.4.2, newer than this program's 1.2.3: they work together, without what only the newer one can do; install warren 1.4.2
        new: -
        1.2: -
        : -
        ");
    }

    #[test]
    fn nothing_but_a_version_is_shown() {
        assert_eq!(words("1.2.3", "the server", "9.9.9\u{1b}[31m"), None);
        assert_eq!(words("1.2.3", "the server", &format!("9.9.{}", "9".repeat(100))), None);
    }
}
