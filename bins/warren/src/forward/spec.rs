//! What is to be forwarded, as a person writes it: `[bind:]local[:remote]`, with ranges and lists.

use proto_core::stream::ListenAt;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ports of one command at most.
pub(crate) const PORTS_MAX: usize = 1_000;
/// Bytes of a Unix socket's path at most: the system's structure has 108, with a zero at the end.
const PATH_MAX: usize = 107;

/// One end of a forward: a port, or a Unix socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A port; 0 for any that is free.
    Port(u16),
    /// The path of a Unix socket.
    Path(String),
}

impl Place {
    /// For a sentence: `port 80`, `/run/db.sock`.
    pub(crate) fn words(&self) -> String {
        match self {
            Self::Port(port) => format!("port {port}"),
            Self::Path(path) => path.clone(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "{port}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

/// One forwarded port or socket.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Forward {
    /// Where to listen, of a port; none for both loopback addresses.
    pub bind: Option<IpAddr>,
    /// What is listened at.
    pub from: Place,
    /// Where connections go.
    pub to: Place,
}

impl Forward {
    /// The addresses to listen on.
    pub(crate) fn binds(&self) -> Vec<IpAddr> {
        self.bind.map_or_else(io_adapters::local::loopbacks, |bind| vec![bind])
    }

    /// Where the workspace is to listen, for a forward the other way.
    pub(crate) fn listen_at(&self) -> ListenAt {
        match &self.from {
            Place::Port(port) => ListenAt::Port { bind: self.bind, port: *port },
            Place::Path(path) => ListenAt::Path(path.clone()),
        }
    }

    /// Whether both would listen at the same port or path.
    fn collides(&self, other: &Self) -> bool {
        match (&self.from, &other.from) {
            (Place::Path(path), Place::Path(other)) => path == other,
            (Place::Port(port), Place::Port(same)) if *port != 0 && port == same => {
                self.binds().iter().any(|a| other.binds().iter().any(|b| overlap(*a, *b)))
            }
            _ => false,
        }
    }
}

/// Whether sockets of both addresses would be in one another's way.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    // All of IPv6 takes all of IPv4 with it.
    let holds = |a: IpAddr, b: IpAddr| a.is_unspecified() && (a.is_ipv6() || b.is_ipv4());
    a == b || holds(a, b) || holds(b, a)
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bind {
            Some(IpAddr::V6(bind)) => write!(f, "[{bind}]:")?,
            Some(bind) => write!(f, "{bind}:")?,
            None => {}
        }
        write!(f, "{}:{}", self.from, self.to)
    }
}

/// What may stand in a specification.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// `--tcp` and `--udp`: ports.
    Ports,
    /// `--unix`: a Unix socket at one end at least.
    Sockets,
    /// `--reverse`: ports of the workspace's loopback, or sockets.
    Reverse,
}

/// What is wrong with a specification, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{why}\n\n  {text}\n  {:at$}^", "")]
pub(crate) struct SpecError {
    /// Whether it is right for itself, and was said before.
    pub duplicate: bool,
    why: String,
    text: String,
    /// The character, counted from 0.
    at: usize,
}

impl SpecError {
    fn new(text: &str, (at, why): Fault) -> Self {
        Self {
            duplicate: false,
            why,
            // What is not printable would move the mark.
            text: text.chars().map(|c| if c.is_control() { '?' } else { c }).collect(),
            at: text.get(..at).unwrap_or(text).chars().count(),
        }
    }
}

/// Reads lists of specifications, separated by commas. No two may listen at the same place, and all together may be no
/// more than `room`, which they lessen.
///
/// # Errors
/// [`SpecError`] points at the character.
pub(crate) fn read(texts: &[String], kind: Kind, room: &mut usize) -> Result<Vec<Forward>, SpecError> {
    let mut all: Vec<Forward> = Vec::new();
    for text in texts {
        let mut from = 0;
        for part in text.split(',') {
            let more = one(part, kind).map_err(|(at, why)| SpecError::new(text, (from + at, why)))?;
            if more.len() > *room {
                let why = format!("more than {PORTS_MAX} ports in all");
                return Err(SpecError::new(text, (from, why)));
            }
            *room -= more.len();
            for forward in more {
                if let Some(before) = all.iter().find(|before| before.collides(&forward)) {
                    let why = format!("{} is to lead to {} already", before.from.words(), before.to.words());
                    return Err(SpecError { duplicate: true, ..SpecError::new(text, (from, why)) });
                }
                all.push(forward);
            }
            from += part.len() + 1;
        }
    }
    Ok(all)
}

/// Where, in bytes, and why.
type Fault = (usize, String);

fn one(text: &str, kind: Kind) -> Result<Vec<Forward>, Fault> {
    if kind == Kind::Sockets && !text.starts_with("localhost:") {
        rooted(text, 0)?;
    }
    let (bind, from) = if text.starts_with('/') { (None, 0) } else { bind(text)? };
    if kind == Kind::Reverse && bind.is_some_and(|bind| !bind.is_loopback()) {
        return Err((0, "the workspace listens on its loopback addresses alone".into()));
    }
    let ends = &text[from..];
    let (local, remote) = match ends.split_once(':') {
        Some((local, remote)) => (local, Some((from + local.len() + 1, remote))),
        None => (ends, None),
    };
    let first = end(local, from, kind)?;
    let (at, second) = match remote {
        None => (from, first.clone()),
        Some((at, remote)) => (at, end(remote, at, kind)?),
    };
    match (first, second) {
        (End::Ports(first, last), End::Ports(to, to_last)) => {
            if kind == Kind::Sockets {
                return Err((from, "one of the two is a path: --tcp forwards from port to port".into()));
            }
            if to == 0 {
                return Err((at, "no program listens on port 0: name the one that it is to lead to".into()));
            }
            let (here, there) = (last - first, to_last - to);
            if here != there {
                return Err((at, format!("{} ports here cannot be {} there", here + 1, there + 1)));
            }
            let forward = |n| Forward { bind, from: Place::Port(first + n), to: Place::Port(to + n) };
            Ok((0..=here).map(forward).collect())
        }
        (first, second) => {
            let from = first.single().ok_or((from, "a range cannot lead to one socket".to_owned()))?;
            let to = second.single().ok_or((at, "one socket cannot lead to a range".to_owned()))?;
            if to == Place::Port(0) {
                return Err((at, "no program listens on port 0: name the one that it is to lead to".into()));
            }
            Ok(vec![Forward { bind, from, to }])
        }
    }
}

/// One end, as it is written.
#[derive(Clone, PartialEq, Eq, Debug)]
enum End {
    /// The first port and the last.
    Ports(u16, u16),
    Path(String),
}

impl End {
    fn single(self) -> Option<Place> {
        match self {
            Self::Ports(first, last) => (first == last).then_some(Place::Port(first)),
            Self::Path(path) => Some(Place::Path(path)),
        }
    }
}

fn end(text: &str, at: usize, kind: Kind) -> Result<End, Fault> {
    if !text.starts_with('/') {
        if kind == Kind::Sockets {
            rooted(text, at)?;
        }
        return range(text, at).map(|(first, last)| End::Ports(first, last));
    }
    if kind == Kind::Ports {
        return Err((at, "this is a path: --unix forwards sockets".into()));
    }
    if let Some((wrong, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return Err((at + wrong, "a path has no such character".into()));
    }
    if text.len() > PATH_MAX {
        return Err((
            at,
            format!("the path of a socket has at most {PATH_MAX} bytes, this one {}", text.len()),
        ));
    }
    if text.ends_with('/') {
        return Err((at + text.len() - 1, "this is a folder: name the socket in it".into()));
    }
    Ok(End::Path(text.to_owned()))
}

/// No port or address begins with a letter, but a path does that is not told from the root.
fn rooted(text: &str, at: usize) -> Result<(), Fault> {
    if text.starts_with(|c: char| c.is_alphabetic() || ".~".contains(c)) {
        return Err((at, "a port is a number, and the path of a socket begins with /".into()));
    }
    Ok(())
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
    if third.is_some_and(|third| third.contains(':') && !third.starts_with('/')) {
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
    if usize::from(last - first) >= PORTS_MAX {
        return Err((after, format!("more than {PORTS_MAX} ports in one range")));
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

    fn parse(text: &str, kind: Kind) -> Result<Vec<Forward>, SpecError> {
        super::read(&[text.to_owned()], kind, &mut PORTS_MAX.clone())
    }

    fn shown(result: Result<Vec<Forward>, SpecError>) -> String {
        match result {
            Ok(all) => all.iter().map(Forward::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    fn read(text: &str) -> String {
        shown(parse(text, Kind::Ports))
    }

    #[test]
    fn what_people_write_is_understood() {
        for (text, meant) in [
            ("8080", "8080:8080"),
            ("8080:80", "8080:80"),
            ("0:80", "0:80"),
            ("0:80,0:80", "0:80 0:80"),
            ("127.0.0.1:8080", "127.0.0.1:8080:8080"),
            ("0.0.0.0:8080:80", "0.0.0.0:8080:80"),
            ("localhost:8080:80", "127.0.0.1:8080:80"),
            ("[::1]:8080:80", "[::1]:8080:80"),
            ("3000-3002:4000-4002", "3000:4000 3001:4001 3002:4002"),
            ("8080,9000-9001", "8080:8080 9000:9000 9001:9001"),
        ] {
            assert_eq!(read(text), meant, "{text}");
        }
        for (text, meant) in [
            ("/tmp/a:/run/b", "/tmp/a:/run/b"),
            ("/tmp/a", "/tmp/a:/tmp/a"),
            ("5432:/run/db.sock", "5432:/run/db.sock"),
            ("127.0.0.1:5432:/run/db.sock", "127.0.0.1:5432:/run/db.sock"),
            ("[::1]:5432:/run/db.sock", "[::1]:5432:/run/db.sock"),
            ("/tmp/a:5432", "/tmp/a:5432"),
        ] {
            assert_eq!(shown(parse(text, Kind::Sockets)), meant, "{text}");
            assert_eq!(shown(parse(text, Kind::Reverse)), meant, "{text}");
        }
        assert_eq!(shown(parse("8080:3000", Kind::Reverse)), "8080:3000");
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
            "/tmp/a:/tmp/b",
            "1-600,2001-2500",
            "8080:80,9000,7000-9001:17000-19001",
            "127.0.0.1:8080,[::1]:8080,8080",
            "[::]:8080,0.0.0.0:8080",
        ];
        insta::assert_snapshot!(wrong.map(read).join("\n\n"));
        let long = format!("/{}", "x".repeat(107));
        let sockets = [
            "8080:80",
            "1-3:/tmp/a",
            "/tmp/a:1-3",
            "/tmp/a/:80",
            "/tmp/\u{7}",
            "/tmp/a:0",
            &long,
            "/a,/a:/b",
            "d.sock:/tmp/a",
            "/tmp/a:run/b",
        ];
        let reverse = ["0.0.0.0:8080:80", "192.0.2.1:8080"];
        let sockets = sockets.map(|text| shown(parse(text, Kind::Sockets)));
        let reverse = reverse.map(|text| shown(parse(text, Kind::Reverse)));
        insta::assert_snapshot!([&sockets[..], &reverse[..]].concat().join("\n\n"));
    }

    #[test]
    fn the_same_port_is_refused_wherever_it_stands() {
        let texts = ["8080:80", "9000", "8079-8081:90-92"].map(str::to_owned);
        let error = super::read(&texts, Kind::Ports, &mut PORTS_MAX.clone()).unwrap_err();
        assert!(error.duplicate);
        insta::assert_snapshot!(error, @r"
        port 8080 is to lead to port 80 already

          8079-8081:90-92
          ^
        ");
        let apart = ["127.0.0.1:8080", "[::1]:8080", "127.0.0.2:8080"].map(str::to_owned);
        assert!(super::read(&apart, Kind::Ports, &mut PORTS_MAX.clone()).is_ok());
    }

    proptest! {
        #[test]
        fn nothing_panics(text in ".{0,40}") {
            for kind in [Kind::Ports, Kind::Sockets, Kind::Reverse] {
                let _ = shown(parse(&text, kind));
            }
        }

        #[test]
        fn what_looks_like_one_does_not_panic_either(text in "[0-9:,.\\-\\[\\]/a]{0,24}") {
            for kind in [Kind::Ports, Kind::Sockets, Kind::Reverse] {
                let _ = shown(parse(&text, kind));
            }
        }

        #[test]
        fn what_is_printed_reads_back(
            bind in proptest::option::of(any::<IpAddr>()), from: u16, to in 1_u16.., path in "/[a-z]{1,9}",
        ) {
            let forward = Forward { bind, from: Place::Port(from), to: Place::Port(to) };
            prop_assert_eq!(parse(&forward.to_string(), Kind::Ports), Ok(vec![forward.clone()]));
            let socket = Forward { to: Place::Path(path), ..forward };
            prop_assert_eq!(parse(&socket.to_string(), Kind::Sockets), Ok(vec![socket]));
        }
    }
}
