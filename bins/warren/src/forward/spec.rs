//! What is to be forwarded, as a person writes it: `[bind:]local[:remote]`, with ranges and lists.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ports of one range at most.
const RANGE_MAX: u16 = 1_000;

/// One forwarded port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Forward {
    /// Where to listen; none for both loopback addresses.
    pub bind: Option<IpAddr>,
    /// The port to listen on; 0 for any that is free.
    pub local: u16,
    /// The port in the workspace.
    pub remote: u16,
}

impl Forward {
    /// The addresses to listen on.
    pub(crate) fn binds(&self) -> Vec<IpAddr> {
        self.bind
            .map_or_else(|| vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], |bind| vec![bind])
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bind {
            Some(IpAddr::V6(bind)) => write!(f, "[{bind}]:")?,
            Some(bind) => write!(f, "{bind}:")?,
            None => {}
        }
        write!(f, "{}:{}", self.local, self.remote)
    }
}

/// What is wrong with a specification, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}\n\n  {text}\n  {:at$}^", "")]
pub(crate) struct SpecError {
    why: String,
    text: String,
    /// The character, counted from 0.
    at: usize,
}

/// Reads a list of specifications, separated by commas.
///
/// # Errors
/// [`SpecError`] points at the character.
pub(crate) fn parse(text: &str) -> Result<Vec<Forward>, SpecError> {
    let mut all = Vec::new();
    let mut from = 0;
    for part in text.split(',') {
        one(part).map(|more| all.extend(more)).map_err(|(at, why)| SpecError {
            why,
            // What is not printable would move the mark.
            text: text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
            at: text[..from + at].chars().count(),
        })?;
        from += part.len() + 1;
    }
    Ok(all)
}

/// Where, in bytes, and why.
type Fault = (usize, String);

fn one(text: &str) -> Result<Vec<Forward>, Fault> {
    let (bind, from) = bind(text)?;
    let ports = &text[from..];
    let (local, remote) = match ports.split_once(':') {
        Some((local, remote)) => (local, Some((from + local.len() + 1, remote))),
        None => (ports, None),
    };
    let (first, last) = range(local, from)?;
    let to = match remote {
        None => (first, last),
        Some((at, remote)) => range(remote, at)?,
    };
    if to.0 == 0 {
        let at = remote.map_or(from, |(at, _)| at);
        return Err((at, "no program listens on port 0: name the workspace's port".into()));
    }
    let (here, there) = (last - first, to.1 - to.0);
    if here != there {
        let at = remote.map_or(from, |(at, _)| at);
        return Err((at, format!("{} ports here cannot be {} there", here + 1, there + 1)));
    }
    Ok((0..=here).map(|n| Forward { bind, local: first + n, remote: to.0 + n }).collect())
}

/// The address to listen on, and where the ports begin.
fn bind(text: &str) -> Result<(Option<IpAddr>, usize), Fault> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else {
            return Err((0, "this bracket is never closed".into()));
        };
        let bind: Ipv6Addr = address.parse().map_err(|_| (1, "this is no IPv6 address".into()))?;
        let at = 1 + address.len() + 1;
        return match after.strip_prefix(':') {
            Some(_) => Ok((Some(bind.into()), at + 1)),
            None => Err((at, "a colon and a port belong here".into())),
        };
    }
    // Of three parts the first is an address; of two it is one if it looks like none but that.
    let mut parts = text.splitn(3, ':');
    let first = parts.next().unwrap_or_default();
    let (second, third) = (parts.next(), parts.next());
    let is_address = third.is_some() || (second.is_some() && first.contains('.'));
    if !is_address {
        return Ok((None, 0));
    }
    if third.is_some_and(|third| third.contains(':')) {
        return Err((0, "an IPv6 address belongs in brackets, such as [::1]:8080".into()));
    }
    let bind: IpAddr = match first {
        "localhost" => Ipv4Addr::LOCALHOST.into(),
        "*" => Ipv4Addr::UNSPECIFIED.into(),
        first => first.parse().map_err(|_| (0, "this is no address to listen on".to_owned()))?,
    };
    Ok((Some(bind), first.len() + 1))
}

/// A port, or the first and the last of some.
fn range(text: &str, at: usize) -> Result<(u16, u16), Fault> {
    let Some((first, last)) = text.split_once('-') else {
        let port = port(text, at)?;
        return Ok((port, port));
    };
    let after = at + first.len() + 1;
    let (first, last) = (port(first, at)?, port(last, after)?);
    if first == 0 {
        return Err((at, "a range begins at 1 at the lowest".into()));
    }
    if last < first {
        return Err((after, format!("the last port, {last}, is before the first, {first}")));
    }
    if last - first >= RANGE_MAX {
        return Err((after, format!("more than {RANGE_MAX} ports in one range")));
    }
    Ok((first, last))
}

fn port(text: &str, at: usize) -> Result<u16, Fault> {
    if text.is_empty() {
        return Err((at, "a port belongs here".into()));
    }
    if let Some((wrong, _)) = text.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        return Err((at + wrong, "a port is a number".into()));
    }
    text.parse().map_err(|_| (at, "ports end at 65535".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        match parse(text) {
            Ok(all) => all.iter().map(Forward::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn what_people_write_is_understood() {
        for (text, meant) in [
            ("8080", "8080:8080"),
            ("8080:80", "8080:80"),
            ("0:80", "0:80"),
            ("127.0.0.1:8080", "127.0.0.1:8080:8080"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("localhost:8080:80", "127.0.0.1:8080:80"),
            ("[::1]:8080:80", "[::1]:8080:80"),
            ("3000-3002:4000-4002", "3000:4000 3001:4001 3002:4002"),
            ("8080,9000-9001", "8080:8080 9000:9000 9001:9001"),
        ] {
            assert_eq!(read(text), meant, "{text}");
        }
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let wrong = [
            "",
            "80a",
            "8080:",
            ":80",
            "70000",
            "8080,,9000",
            "9000-8000",
            "1-2000",
            "3000-3001:4000",
            "0",
            "0-5",
            "[::1:80",
            "[::1]80",
            "[fe80::g]:80",
            "::1:80:80",
            "example.com:80:80",
            "8080:80:90",
            "80\u{e9}:1",
        ];
        insta::assert_snapshot!(wrong.map(read).join("\n\n"));
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            let _ = read(&text);
        }

        #[test]
        fn what_looks_like_one_does_not_panic_either(text in "[0-9:,.\\-\\[\\]]{0,24}") {
            let _ = read(&text);
        }

        #[test]
        fn what_is_printed_reads_back(bind in proptest::option::of(any::<IpAddr>()), local: u16, remote in 1_u16..) {
            let forward = Forward { bind, local, remote };
            prop_assert_eq!(parse(&forward.to_string()), Ok(vec![forward]));
        }
    }
}
