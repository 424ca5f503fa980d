//! How a relay asks by HTTP whether a node may use it: the documents of Tailscale's `derper -verify-client-url`, so
//! that any relay may ask our server, and our relay any verifier.

use crate::key::NodePublic;
use crate::relay::Answer;
use core::net::IpAddr;
use serde::{Deserialize, Serialize};

/// Bytes of an answer's body; the relay it comes from reads as many.
pub const ANSWER_MAX: usize = 4_096;

/// What is posted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VerifyRequest {
    /// Who wants in.
    pub node_public: NodePublic,
    /// The address that it comes from; empty if that is not known.
    #[serde(default)]
    pub source: String,
}

impl VerifyRequest {
    /// The question about a key that comes from `source`.
    #[must_use]
    pub fn new(key: NodePublic, source: Option<IpAddr>) -> Self {
        // The form that a person knows, also of an address that came through a socket for both families.
        let source = source.map(|ip| ip.to_canonical().to_string()).unwrap_or_default();
        Self { node_public: key, source }
    }
}

/// What is answered, with status 200.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VerifyAnswer {
    /// Whether the node may use the relay.
    pub allow: bool,
}

/// What a verifier's answer means. Of the refusals by status only those count that speak of who asks: `derper` takes any
/// for a no, but does not ask again about those who are in, and what stands in front of a verifier that is away answers
/// 404 for it.
#[must_use]
pub fn judge(status: u16, body: &[u8]) -> Answer {
    match (status, serde_json::from_slice::<VerifyAnswer>(body)) {
        (200, Ok(VerifyAnswer { allow: true })) => Answer::Yes,
        (200, Ok(VerifyAnswer { allow: false })) => Answer::No,
        (200, Err(_)) => {
            Answer::Unreachable { why: "it answers something else than {\"Allow\":…}".to_owned() }
        }
        (429, _) => Answer::Busy,
        (401 | 403, _) => Answer::No,
        _ => Answer::Unreachable { why: format!("it answers with status {status}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_the_one_that_tailscales_relays_ask() {
        let asked = VerifyRequest::new(NodePublic([0xab; 32]), Some("::ffff:192.0.2.7".parse().unwrap()));
        let text = serde_json::to_string(&asked).unwrap();
        assert_eq!(text, format!(r#"{{"NodePublic":"nodekey:{}","Source":"192.0.2.7"}}"#, "ab".repeat(32)));
        assert_eq!(serde_json::from_str::<VerifyRequest>(&text).unwrap(), asked);
        let short = format!(r#"{{"NodePublic":"nodekey:{}"}}"#, "ab".repeat(32));
        assert_eq!(serde_json::from_str::<VerifyRequest>(&short).unwrap().source, "");
        assert_eq!(serde_json::to_string(&VerifyAnswer { allow: true }).unwrap(), r#"{"Allow":true}"#);
    }

    #[test]
    fn only_a_clear_word_about_the_key_counts() {
        let away = |answer: Answer| matches!(answer, Answer::Unreachable { .. });
        assert_eq!(judge(200, br#"{"Allow":true,"More":1}"#), Answer::Yes);
        assert_eq!(judge(200, br#"{"Allow":false}"#), Answer::No);
        assert_eq!(judge(403, b"no"), Answer::No);
        assert_eq!(judge(429, b"not so fast"), Answer::Busy);
        let in_front = judge(404, br#"{"Allow":true}"#);
        assert!(matches!(in_front, Answer::Unreachable { .. }), "a yes needs its status: {in_front:?}");
        for (status, body) in [(200, &b"<html>"[..]), (200, b"{}"), (500, b""), (502, b""), (302, b"")] {
            assert!(away(judge(status, body)), "{status}");
        }
    }
}
