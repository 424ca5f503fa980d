//! Tokens: 256 random bits behind a prefix that names their kind. Only their SHA-256 is stored.

use crate::fault::Fault;
use core::fmt;
use sha2::{Digest, Sha256};

/// What a token is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenKind {
    /// A person who logged in.
    Session,
    /// A program that a person made it for.
    Api,
    /// An agent, for as long as its workspace is there.
    Agent,
    /// Making the owner, once.
    Setup,
    /// Fetching a session that a person confirms in a browser. It is never stored.
    Device,
}

impl TokenKind {
    const ALL: [Self; 5] = [Self::Session, Self::Api, Self::Agent, Self::Setup, Self::Device];

    /// What the kind is called in the database and in the prefix.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Api => "api",
            Self::Agent => "agent",
            Self::Setup => "setup",
            Self::Device => "device",
        }
    }

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A token in the clear: shown once, then forgotten. It does not print itself in logs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(String);

impl Token {
    /// A new token.
    ///
    /// # Errors
    /// If the operating system has no randomness to give.
    pub(crate) fn generate(kind: TokenKind) -> Result<Self, Fault> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| {
            Fault::new("NO_ENTROPY", format!("the system gives no random bytes: {error}"), "try again")
        })?;
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("warren_{}_{digits}", kind.name())))
    }

    /// The token's text.
    pub(crate) fn text(&self) -> &str {
        &self.0
    }

    /// What is stored of it.
    pub(crate) fn sha256(&self) -> [u8; 32] {
        sha256_of(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What is stored of a token with this text.
pub(crate) fn sha256_of(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Whether two hashes are the same, in a time that does not tell where they differ.
pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| core::hint::black_box(all | (a ^ b)));
    a.len() == b.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_kind_differ_and_keep_silent() {
        for kind in TokenKind::ALL {
            let (a, b) = (Token::generate(kind).unwrap(), Token::generate(kind).unwrap());
            assert!(a.text().starts_with(&format!("warren_{}_", kind.name())), "{}", a.text());
            assert_eq!(a.text().rsplit('_').next().unwrap().len(), 64);
            assert_ne!(a.text(), b.text());
            assert_eq!(format!("{a:?}"), "Token(..)");
            assert_eq!(TokenKind::named(kind.name()), Some(kind));
        }
    }

    #[test]
    fn hashes_compare_whole() {
        let hash = sha256_of("a");
        assert!(same(&hash, &hash));
        assert!(!same(&hash, &sha256_of("b")));
        assert!(!same(&hash, &hash[..31]));
    }
}
