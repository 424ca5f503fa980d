//! Tickets: signed words of the server to itself, carried by a browser, and read without the database.
//!
//! A [`Pass`] is a cookie of one app's host. It says who may open the app and where it is, and is good for [`FRESH_MS`]
//! without a further look; then the database is asked, and the cookie renewed. A [`Handover`] travels once from the
//! dashboard's origin to the app's, for [`HANDOVER_MS`], and is good only in the browser that asked for it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use proto_core::wire::api::AppScheme;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// How long a pass counts without asking whether it still should, in milliseconds: as long as somebody whom something was
/// taken from may go on at another server of the deployment.
pub(crate) const FRESH_MS: i64 = 60_000;
/// How long a handover is good, in milliseconds: a redirect takes one round trip.
pub(crate) const HANDOVER_MS: i64 = 60_000;

/// Bytes of a ticket: longer ones are not ours.
const TEXT_MAX: usize = 4_000;

/// Where an app is, and who may ask it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// `owner/name` of the workspace.
    pub(crate) workspace: String,
    /// The workspace's agents that it may be at, by id.
    pub(crate) agents: Vec<String>,
    pub(crate) port: u16,
    pub(crate) scheme: AppScheme,
    /// Origins whose pages may ask it too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cors: Vec<String>,
    /// Whether everybody may ask it.
    #[serde(default)]
    pub(crate) public: bool,
}

/// The right to open one app.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Pass {
    /// What stands before the wildcard's suffix: it is good at no other host.
    pub(crate) label: String,
    /// The row of the session's token, by which it ends.
    pub(crate) token: String,
    /// When it was last looked whether it holds, in unix milliseconds.
    pub(crate) checked_at: i64,
    pub(crate) target: Target,
}

/// The word of the dashboard to an app's host that somebody may open the app.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Handover {
    pub(crate) label: String,
    pub(crate) token: String,
    /// What the browser that asked knows the origin of ([`Keys::mark`]).
    pub(crate) mark: String,
    /// Unix milliseconds.
    pub(crate) made_at: i64,
}

/// What tickets are signed with.
#[derive(Clone)]
pub(crate) struct Keys([u8; 32]);

/// A kind of ticket, whose signature is good for no other.
pub(crate) trait Ticket: Serialize + DeserializeOwned {
    const KIND: &'static str;
}

impl Ticket for Pass {
    const KIND: &'static str = "pass";
}

impl Ticket for Handover {
    const KIND: &'static str = "handover";
}

impl Keys {
    pub(crate) const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The ticket as it travels: letters that neither a cookie nor an address changes.
    pub(crate) fn seal<T: Ticket>(&self, ticket: &T) -> String {
        // Texts and numbers: there is nothing in it that is not JSON.
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(ticket).unwrap_or_default());
        let seal = self.mac(T::KIND, &body).finalize().into_bytes();
        format!("{body}.{}", URL_SAFE_NO_PAD.encode(seal))
    }

    /// The ticket, if it is of this kind and was sealed here.
    pub(crate) fn open<T: Ticket>(&self, text: &str) -> Option<T> {
        let (body, seal) = text.split_once('.').filter(|_| text.len() <= TEXT_MAX)?;
        let seal = URL_SAFE_NO_PAD.decode(seal).ok()?;
        self.mac(T::KIND, body).verify_slice(&seal).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
    }

    /// What may be shown of a secret of the browser's.
    pub(crate) fn mark(&self, secret: &str) -> String {
        let bytes = self.mac("mark", secret).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode(&bytes[..16])
    }

    fn mac(&self, kind: &str, body: &str) -> Hmac<Sha256> {
        // A shorter key is filled up with zeros (RFC 2104, section 2).
        let mut block = [0; 64];
        block[..32].copy_from_slice(&self.0);
        let mut mac = <Hmac<Sha256> as Mac>::new(&block.into());
        mac.update(kind.as_bytes());
        mac.update(b".");
        mac.update(body.as_bytes());
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass() -> Pass {
        let target = Target {
            workspace: "alice/dev".into(),
            agents: vec!["1".into()],
            port: 8080,
            scheme: AppScheme::Http,
            cors: vec![],
            public: false,
        };
        Pass { label: "a--dev--alice".into(), token: "t".into(), checked_at: 1, target }
    }

    #[test]
    fn tickets_are_what_was_sealed_or_nothing() {
        let keys = Keys::new([1; 32]);
        let sealed = keys.seal(&pass());
        assert_eq!(keys.open::<Pass>(&sealed), Some(pass()));
        assert!(sealed.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{sealed}");
        assert_eq!(Keys::new([2; 32]).open::<Pass>(&sealed), None, "another server's");
        // Each letter counts, but for the spare bits of the last.
        for at in 0..sealed.len() - 1 {
            let mut other = sealed.clone().into_bytes();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            assert_eq!(keys.open::<Pass>(&String::from_utf8(other).unwrap()), None, "letter {at}");
        }
        for text in ["", ".", "a.b", &sealed[1..], &sealed[..sealed.len() - 2], &"a.".repeat(3_000)] {
            assert_eq!(keys.open::<Pass>(text), None);
        }
    }

    #[test]
    fn one_kind_is_no_other() {
        let keys = Keys::new([1; 32]);
        let handover =
            Handover { label: "a".into(), token: "t".into(), mark: keys.mark("secret"), made_at: 1 };
        let sealed = keys.seal(&handover);
        assert_eq!(keys.open::<Handover>(&sealed), Some(handover));
        assert_eq!(keys.open::<Pass>(&sealed), None);
        assert_ne!(keys.mark("secret"), keys.mark("other"));
    }
}
