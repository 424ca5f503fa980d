//! The addresses of apps: what stands for `*` in `*.apps.example.com`.
//!
//! | name | what it leads to |
//! | --- | --- |
//! | `slug--workspace--owner` | an app of the workspace |
//! | `port--agent--workspace--owner` | a port of one of its agents; `8443s` for one that speaks HTTPS |
//! | `slug--` and 26 letters | the same app; for a name that would be too long (RFC 1035: 63 letters), or unclear |
//! | `port--` and 26 letters | the same port |
//!
//! The letters are the id of the workspace, or of the agent, in base 32: they stay as long as it is there.

use crate::store::{AgentRow, WorkspaceRow};
use core::str::FromStr;
use io_adapters::access_url::{AccessUrl, host_name};
use uuid::Uuid;

/// What separates the parts of a name.
const SEPARATOR: &str = "--";
/// Letters of a DNS label (RFC 1035, section 2.3.4).
const LABEL_MAX: usize = 63;
/// Digits of base 32 (RFC 4648, section 6), in lower case as host names are.
const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Letters that 128 bits take in base 32.
const ID_LETTERS: usize = 26;
/// Letters of an app's slug: with an id it makes a label that leaves room for [`TAIL_MAX`].
pub(crate) const SLUG_MAX: usize = 24;
/// Letters of a label that may be fixed, such as `-apps`.
const TAIL_MAX: usize = LABEL_MAX - SLUG_MAX - SEPARATOR.len() - ID_LETTERS;

/// Where apps have origins of their own: `*.apps.example.com`, `https://*-apps.example.com:8443`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WildcardUrl {
    /// The access URL's, unless it says otherwise.
    tls: Option<bool>,
    /// What follows the `*` in the host's name.
    suffix: String,
    /// The access URL's, unless it says otherwise.
    port: Option<u16>,
}

impl FromStr for WildcardUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "a wildcard address has the form *.apps.example.com or https://*-apps.example.com:8443, and this is \
                 \"{text}\""
            )
        };
        let (tls, rest) = match text.split_once("://") {
            Some(("https", rest)) => (Some(true), rest),
            Some(("http", rest)) => (Some(false), rest),
            Some(_) => return Err(wrong()),
            None => (None, text),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok().filter(|p| *p != 0).ok_or_else(wrong)?)),
            None => (rest, None),
        };
        let suffix = host.strip_prefix('*').ok_or_else(wrong)?.to_ascii_lowercase();
        // A label of its own, or the end of one.
        let name = suffix.strip_prefix('.').unwrap_or(&suffix);
        let dotted = suffix.starts_with('.') || (suffix.starts_with('-') && suffix.contains('.'));
        if !dotted || tail(&suffix).len() > TAIL_MAX || !host_name(name) || name.split('.').any(str::is_empty)
        {
            return Err(wrong());
        }
        Ok(Self { tls, suffix, port })
    }
}

/// The same, with all that the access URL adds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Wildcard {
    pub(crate) tls: bool,
    suffix: String,
    port: u16,
}

impl Wildcard {
    pub(crate) fn new(url: &WildcardUrl, access: &AccessUrl) -> Self {
        let tls = url.tls.unwrap_or(access.tls);
        let usual = if tls { 443 } else { 80 };
        let port = url.port.unwrap_or(if tls == access.tls { access.port } else { usual });
        Self { tls, suffix: url.suffix.clone(), port }
    }

    /// What stands for the `*` in this host (and port): empty, or with dots in it, if it is none of ours and yet ends
    /// like them. None if it does not.
    pub(crate) fn label<'a>(&self, host: &'a str) -> Option<&'a str> {
        let host = without_port(host);
        let at = host.len().checked_sub(self.suffix.len())?;
        let (label, end) = (host.get(..at)?, host.get(at..)?);
        end.eq_ignore_ascii_case(&self.suffix).then_some(label)
    }

    /// The origin of the app of this label.
    pub(crate) fn origin(&self, label: &str) -> String {
        let host = format!("{label}{}", self.suffix);
        AccessUrl { tls: self.tls, host, port: self.port }.to_string()
    }

    /// Letters of a label that the suffix leaves room for.
    fn room(&self) -> usize {
        LABEL_MAX.saturating_sub(tail(&self.suffix).len())
    }

    /// The label of a workspace's app.
    pub(crate) fn app(&self, workspace: &WorkspaceRow, slug: &str) -> String {
        let long = [slug, &workspace.name, &workspace.owner].join(SEPARATOR);
        self.shorter(long, slug, &Name::app(&workspace.owner, &workspace.name, slug), &workspace.id)
    }

    /// The label of a port of a workspace's agent.
    pub(crate) fn port(&self, workspace: &WorkspaceRow, agent: &AgentRow, port: u16) -> String {
        let first = port.to_string();
        let long =
            [&first, &agent.name, &workspace.name, &workspace.owner].map(String::as_str).join(SEPARATOR);
        let whose = Whose::Named(workspace.owner.clone(), workspace.name.clone());
        let name = Name { what: What::Port(port, false, agent.name.clone()), whose };
        self.shorter(long, &first, &name, &agent.id)
    }

    /// The long form if it fits and means what it should.
    fn shorter(&self, long: String, first: &str, name: &Name, id: &str) -> String {
        match Uuid::parse_str(id) {
            Ok(id) if long.len() > self.room() || Name::parse(&long).as_ref() != Some(name) => {
                [first, &encode(id)].join(SEPARATOR)
            }
            _ => long,
        }
    }
}

/// What of a suffix belongs to the label before it.
fn tail(suffix: &str) -> &str {
    suffix.split('.').next().unwrap_or_default()
}

/// A host without its port; one with an address in brackets stays as it is.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

/// What an address leads to.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Name {
    pub(crate) what: What,
    pub(crate) whose: Whose,
}

/// See [`Name`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum What {
    /// An app, by its slug.
    App(String),
    /// A port, whether it speaks HTTPS, and the agent's name; empty if the agent is known by its id.
    Port(u16, bool, String),
}

/// Whose it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Whose {
    /// The workspace's, by its owner's name and its own.
    Named(String, String),
    /// The workspace's of an app, the agent's of a port, by id.
    Id(Uuid),
}

impl Name {
    /// An app of a workspace.
    pub(crate) fn app(owner: &str, workspace: &str, slug: &str) -> Self {
        Self { what: What::App(slug.to_owned()), whose: Whose::Named(owner.to_owned(), workspace.to_owned()) }
    }

    /// The name that this label is.
    pub(crate) fn parse(label: &str) -> Option<Self> {
        let label = label.to_ascii_lowercase();
        let parts: Vec<&str> = label.split(SEPARATOR).collect();
        let named = |owner: &str, workspace: &str| Whose::Named(owner.to_owned(), workspace.to_owned());
        if parts.iter().any(|part| part.is_empty() || part.contains('.')) {
            return None;
        }
        Some(match *parts {
            [first, id] => {
                let whose = Whose::Id(decode(id)?);
                match port(first) {
                    Some((port, tls)) => Self { what: What::Port(port, tls, String::new()), whose },
                    None => Self { what: What::App(first.to_owned()), whose },
                }
            }
            [slug, workspace, owner] if port(slug).is_none() => {
                Self { what: What::App(slug.to_owned()), whose: named(owner, workspace) }
            }
            [first, agent, workspace, owner] => {
                let (port, tls) = port(first)?;
                Self { what: What::Port(port, tls, agent.to_owned()), whose: named(owner, workspace) }
            }
            _ => return None,
        })
    }
}

/// Whether a slug would be taken for something else: a port, or the mark of names in other scripts (RFC 5890, 2.3.1).
pub(crate) fn is_reserved(slug: &str) -> bool {
    port(slug).is_some() || slug == "xn"
}

fn port(text: &str) -> Option<(u16, bool)> {
    let (digits, tls) = text.strip_suffix('s').map_or((text, false), |digits| (digits, true));
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
    plain.then(|| digits.parse().ok()).flatten().map(|port| (port, tls))
}

/// 128 bits in base 32.
fn encode(id: Uuid) -> String {
    let bits = id.as_u128();
    let shifts = (0..ID_LETTERS).rev().map(|place| 5 * place);
    shifts
        .map(|shift| char::from(DIGITS[usize::try_from((bits >> shift) & 31).unwrap_or_default()]))
        .collect()
}

fn decode(text: &str) -> Option<Uuid> {
    if text.len() != ID_LETTERS {
        return None;
    }
    let mut bits: u128 = 0;
    for (n, letter) in text.bytes().enumerate() {
        let digit = DIGITS.iter().position(|digit| *digit == letter)?;
        // 26 letters have two bits more.
        if n == 0 && digit > 7 {
            return None;
        }
        bits = (bits << 5) | u128::try_from(digit).ok()?;
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0198e5a4-7c1b-7def-8123-456789abcdef";

    fn workspace(owner: &str, name: &str) -> WorkspaceRow {
        let agent = AgentRow { id: ID.into(), name: "main".into(), last_seen_at: None, version: None };
        WorkspaceRow {
            id: ID.into(),
            name: name.into(),
            owner_id: "1".into(),
            owner: owner.into(),
            created_at: 0,
            agents: vec![agent],
            shared: false,
        }
    }

    fn wildcard(text: &str) -> Wildcard {
        Wildcard::new(&text.parse().unwrap(), &"https://warren.example.com:8443".parse().unwrap())
    }

    #[test]
    fn addresses_take_from_the_access_url_what_they_do_not_say() {
        for (text, origin) in [
            ("*.apps.example.com", "https://a.apps.example.com:8443"),
            ("https://*-apps.Example.com:9443/", "https://a-apps.example.com:9443"),
            ("http://*.localhost", "http://a.localhost"),
        ] {
            assert_eq!(wildcard(text).origin("a"), origin);
        }
        for text in [
            "",
            "apps.example.com",
            "*",
            "*.",
            "*apps.example.com",
            "*-apps",
            "*.*.a.b",
            "*..a",
            "ftp://*.a",
            "*.a:0",
            "*.a/b",
            "*-much-too-long.example.com",
        ] {
            assert!(text.parse::<WildcardUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn hosts_are_apps_or_not() {
        let apps = wildcard("*.apps.example.com");
        assert_eq!(apps.label("a--b--c.apps.example.com:8443"), Some("a--b--c"));
        assert_eq!(apps.label("A.Apps.Example.COM"), Some("A"));
        assert_eq!(apps.label("a.b.apps.example.com"), Some("a.b"), "nothing under it is the dashboard's");
        assert_eq!(apps.label(".apps.example.com"), Some(""));
        for other in ["apps.example.com", "xapps.example.com", "apps.example.com.evil.example", "", "é"] {
            assert_eq!(apps.label(other), None, "{other}");
        }
    }

    #[test]
    fn names_lead_back_to_what_they_were_made_of() {
        let apps = wildcard("*.apps.example.com");
        let plain = workspace("alice", "dev");
        assert_eq!(apps.app(&plain, "notes"), "notes--dev--alice");
        assert_eq!(apps.port(&plain, &plain.agents[0], 8080), "8080--main--dev--alice");
        assert_eq!(Name::parse("notes--dev--alice"), Some(Name::app("alice", "dev", "notes")));
        let port = |port, tls, agent: &str, whose| Name { what: What::Port(port, tls, agent.into()), whose };
        let named = |owner: &str, name: &str| Whose::Named(owner.into(), name.into());
        assert_eq!(
            Name::parse("8443s--main--dev--Alice"),
            Some(port(8443, true, "main", named("alice", "dev")))
        );

        // What is too long, or would read as something else, has a short form that never changes.
        let id = Whose::Id(Uuid::parse_str(ID).unwrap());
        for workspace in [workspace(&"o".repeat(32), &"w".repeat(32)), workspace("alice", "a--b")] {
            let label = apps.app(&workspace, "notes");
            assert_eq!(label.len(), "notes--".len() + ID_LETTERS, "{label}");
            assert_eq!(
                Name::parse(&label),
                Some(Name { what: What::App("notes".into()), whose: id.clone() })
            );
            let label = apps.port(&workspace, &workspace.agents[0], 65_535);
            assert_eq!(Name::parse(&label), Some(port(65_535, false, "", id.clone())));
        }
        let longest = wildcard(&format!("*{}.example.com", "-".repeat(TAIL_MAX)));
        let label = longest.app(&workspace(&"o".repeat(32), "w"), &"s".repeat(SLUG_MAX));
        assert!(label.len() + TAIL_MAX <= LABEL_MAX);
    }

    #[test]
    fn what_is_no_name_leads_nowhere() {
        for label in [
            "",
            "a",
            "a--",
            "--a",
            "a--b",
            "a----b",
            "8080--dev--alice",
            "a--main--dev--alice",
            "0--main--dev--alice",
            "65536--main--dev--alice",
            "080--main--dev--alice",
            "a--b--c--d--e",
            "x.a--b--c",
            "a--77777777777777777777777777",
        ] {
            assert_eq!(Name::parse(label), None, "{label}");
        }
        for (slug, reserved) in
            [("8080", true), ("8080s", true), ("xn", true), ("80a", false), ("notes", false)]
        {
            assert_eq!(is_reserved(slug), reserved, "{slug}");
        }
    }

    #[test]
    fn ids_survive_base_32() {
        for id in [Uuid::nil(), Uuid::max(), Uuid::parse_str(ID).unwrap()] {
            assert_eq!(decode(&encode(id)), Some(id));
        }
    }
}
