//! The servers that a person has logged in to: one of them in use, the others remembered.
//!
//! All are kept in one file. It holds the server in use as it did before there could be several, so that an earlier
//! version of this program finds it; the others stand beside it.

use crate::error::{CliError, Exit, Result};
use io_adapters::access_url::AccessUrl;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Characters of a server's name.
const NAME_MAX: usize = 64;

/// A login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Session {
    /// The server's address.
    pub url: String,
    /// The session's token.
    pub token: String,
    /// Who logged in.
    #[serde(default)]
    pub username: String,
    /// What the person calls the server; its host and port if nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

impl Session {
    /// What the server is called.
    pub(crate) fn name(&self) -> &str {
        match (self.name.as_str(), self.url.split_once("://")) {
            ("", Some((_, host))) => host,
            ("", None) => &self.url,
            (name, _) => name,
        }
    }

    /// Whether a person means this server, by its name or its address.
    fn is_called(&self, wish: &str) -> bool {
        let same = |url: &AccessUrl| url.to_string() == self.url;
        self.name() == wish || self.url == wish || wish.parse().is_ok_and(|url| same(&url))
    }
}

/// Tokens are no one's to see.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, username, name, .. } = self;
        f.debug_struct("Session").field("url", url).field("username", username).field("name", name).finish()
    }
}

/// All servers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Contexts {
    current: Option<Session>,
    others: Vec<Session>,
}

/// The file.
#[derive(Default, Serialize, Deserialize)]
struct OnDisk {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    others: Vec<Session>,
}

impl Contexts {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is damaged: what is wrong.
    pub(crate) fn parse(text: &str) -> std::result::Result<Self, String> {
        let OnDisk { url, token, username, name, others } =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let current = match (url, token) {
            (Some(url), Some(token)) => {
                let (username, name) = (username.unwrap_or_default(), name.unwrap_or_default());
                Some(Session { url, token, username, name })
            }
            (None, None) => None,
            (Some(_), None) => return Err("a server's address stands there without a token".into()),
            (None, Some(_)) => return Err("a token stands there without its server's address".into()),
        };
        Ok(Self { current, others })
    }

    /// The file's text.
    pub(crate) fn text(&self) -> String {
        let mut file = OnDisk { others: self.others.clone(), ..OnDisk::default() };
        if let Some(Session { url, token, username, name }) = self.current.clone() {
            (file.url, file.token, file.username) = (Some(url), Some(token), Some(username));
            file.name = Some(name).filter(|name| !name.is_empty());
        }
        serde_json::to_string_pretty(&file).unwrap_or_default()
    }

    /// All of them, by name, each with whether it is in use.
    pub(crate) fn all(&self) -> Vec<(&Session, bool)> {
        let current = self.current.iter().map(|session| (session, true));
        let mut all: Vec<_> = current.chain(self.others.iter().map(|session| (session, false))).collect();
        all.sort_by(|(a, _), (b, _)| a.name().cmp(b.name()));
        all
    }

    /// The server of this name or address, else the one in use.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn chosen(&self, wish: Option<&str>) -> Result<&Session> {
        match (wish, &self.current) {
            (Some(wish), _) => self.find(wish),
            (None, Some(current)) => Ok(current),
            (None, None) if self.others.is_empty() => {
                Err(CliError::new(Exit::Forbidden, "NOT_LOGGED_IN", "you are not logged in")
                    .hint("run `warren login URL` with your server's address"))
            }
            (None, None) => Err(CliError::new(
                Exit::Forbidden,
                "NO_SERVER_CHOSEN",
                "you are logged in to no server at the moment",
            )
            .fact("others", self.names())
            .hint("choose one with `warren context use NAME`, or for one command with --server NAME")),
        }
    }

    /// Adds a server under this name and uses it. A server that is there is logged in anew: it keeps its name, unless
    /// another is given.
    ///
    /// # Errors
    /// If another server has the name, or it is none.
    pub(crate) fn add(&mut self, session: Session, name: Option<&str>) -> Result {
        let before = self.take(|known| known.url == session.url);
        let name = name.map_or_else(|| before.map(|known| known.name).unwrap_or_default(), str::to_owned);
        let mut session = Session { name, ..session };
        if session.name.chars().any(|c| c.is_control() || c.is_whitespace()) || session.name.len() > NAME_MAX
        {
            let sentence = format!("a server's name has at most {NAME_MAX} letters and no spaces");
            return Err(CliError::new(Exit::Usage, "BAD_SERVER_NAME", sentence));
        }
        if let Some(taken) = self.all().iter().find(|(known, _)| known.name() == session.name()) {
            if !session.name.is_empty() {
                let sentence = format!("the name \"{}\" is that of {} already", session.name, taken.0.url);
                return Err(CliError::new(Exit::Usage, "SERVER_NAME_TAKEN", sentence)
                    .hint("take another --name, or forget that server with `warren context remove NAME`"));
            }
            // The same host and port by the other scheme.
            session.name.clone_from(&session.url);
        }
        self.others.extend(self.current.replace(session));
        Ok(())
    }

    /// Uses the server of this name or address from now on.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn switch(&mut self, wish: &str) -> Result<&Session> {
        let session = self.find(wish)?.clone();
        self.take(|known| *known == session);
        self.others.extend(self.current.take());
        Ok(self.current.insert(session))
    }

    /// Forgets the server of this address.
    pub(crate) fn remove(&mut self, url: &str) {
        self.take(|known| known.url == url);
    }

    fn find(&self, wish: &str) -> Result<&Session> {
        let known = self.current.iter().chain(&self.others).find(|session| session.is_called(wish));
        known.ok_or_else(|| {
            let error = CliError::new(
                Exit::NotFound,
                "SERVER_UNKNOWN",
                format!("you are not logged in to a server called \"{wish}\""),
            );
            let error = if self.all().is_empty() { error } else { error.fact("servers", self.names()) };
            error.hint("`warren context list` shows them; `warren login URL` adds one")
        })
    }

    fn take(&mut self, is: impl Fn(&Session) -> bool) -> Option<Session> {
        if let Some(current) = self.current.take_if(|current| is(current)) {
            return Some(current);
        }
        let at = self.others.iter().position(is)?;
        Some(self.others.remove(at))
    }

    fn names(&self) -> String {
        self.all().iter().map(|(session, _)| session.name()).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(url: &str) -> Session {
        Session {
            url: url.into(),
            token: format!("token of {url}"),
            username: "alice".into(),
            name: String::new(),
        }
    }

    fn two() -> Contexts {
        let mut all = Contexts::default();
        all.add(session("https://a.example"), None).unwrap();
        all.add(session("http://b.example:7080"), Some("work")).unwrap();
        all
    }

    #[test]
    fn a_file_of_one_server_is_read_and_an_earlier_program_reads_ours() {
        let old = r#"{"url":"https://a.example","token":"t","username":"alice"}"#;
        let read = Contexts::parse(old).unwrap();
        assert_eq!(read.chosen(None).unwrap().name(), "a.example");
        #[derive(Deserialize)]
        struct Earlier {
            url: String,
            token: String,
            username: String,
        }
        let now: Earlier = serde_json::from_str(&two().text()).unwrap();
        let told = (now.url.as_str(), now.token.as_str(), now.username.as_str());
        assert_eq!(told, ("http://b.example:7080", "token of http://b.example:7080", "alice"));
        assert_eq!(Contexts::parse(&two().text()).unwrap(), two());
    }

    #[test]
    fn servers_are_chosen_by_name_and_by_address() {
        let mut all = two();
        assert_eq!(all.chosen(None).unwrap().name(), "work", "the latest login is in use");
        for wish in ["a.example", "https://a.example", "https://A.example/"] {
            assert_eq!(all.chosen(Some(wish)).unwrap().url, "https://a.example", "{wish}");
        }
        all.switch("a.example").unwrap();
        assert_eq!(all.chosen(None).unwrap().url, "https://a.example");
        assert_eq!(all.all().len(), 2);
        assert_eq!(all.chosen(Some("home")).unwrap_err().code, "SERVER_UNKNOWN");
        all.remove("https://a.example");
        assert_eq!(all.chosen(None).unwrap_err().code, "NO_SERVER_CHOSEN");
        all.remove("http://b.example:7080");
        assert_eq!(all.chosen(None).unwrap_err().code, "NOT_LOGGED_IN");
        assert_eq!(Contexts::parse(&all.text()).unwrap(), all);
    }

    #[test]
    fn logging_in_again_renews_a_server_and_names_stay_apart() {
        let mut all = two();
        all.add(Session { token: "new".into(), ..session("http://b.example:7080") }, None).unwrap();
        let work = all.chosen(Some("work")).unwrap();
        assert_eq!((work.token.as_str(), all.all().len()), ("new", 2));
        assert_eq!(
            all.add(session("https://c.example"), Some("work")).unwrap_err().code,
            "SERVER_NAME_TAKEN"
        );
        assert_eq!(
            all.add(session("https://c.example"), Some("my work")).unwrap_err().code,
            "BAD_SERVER_NAME"
        );
        all.add(session("http://a.example"), None).unwrap();
        assert_eq!(all.chosen(None).unwrap().name(), "http://a.example", "its short name is taken");
    }

    #[test]
    fn a_damaged_file_is_told() {
        for text in ["", "7", r#"{"url":"https://a.example"}"#, r#"{"token":"t"}"#, r#"{"others":[{}]}"#] {
            assert!(Contexts::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_not_shown() {
        assert!(!format!("{:?}", two()).contains("token of"));
    }
}
