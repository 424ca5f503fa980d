//! What keys agree on, by the library that is fastest at it: half of what a login costs a relay beside TLS.

use aws_lc_rs::agreement::{PrivateKey, UnparsedPublicKey, X25519, agree};
use proto_core::key::NodeSecret;
use proto_core::relay::Agreement;

/// The agreement of this key; none if the library refuses it, and then the core works it out on its own.
pub(super) fn agreement(secret: &NodeSecret) -> Option<Agreement> {
    let ours = PrivateKey::from_private_key(&X25519, &secret.to_bytes()).ok()?;
    Some(Agreement::new(move |peer| {
        let shared = agree(&ours, UnparsedPublicKey::new(&X25519, peer.0), (), |shared| {
            Ok(shared.first_chunk().copied().unwrap_or_default())
        });
        // Refused are keys with which everybody agrees on zeros (RFC 7748, section 6.1).
        shared.unwrap_or_default()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proto_core::key::{NodePublic, SharedBox};
    use proto_core::relay::RelayServerConfig;

    proptest! {
        #[test]
        fn it_is_what_the_core_would_work_out(ours: [u8; 32], theirs: [u8; 32], point: [u8; 32]) {
            let (ours, theirs) = (NodeSecret::from_bytes(ours), NodeSecret::from_bytes(theirs));
            for peer in [theirs.public(), NodePublic(point), NodePublic([0; 32])] {
                let mut config = RelayServerConfig::new(ours.clone());
                let seal = |shared: SharedBox| {
                    let mut sealed = Vec::new();
                    shared.seal_with(b"hello", [1; 24], &mut sealed);
                    sealed
                };
                let core = seal(config.shared(&peer));
                config.agreement = agreement(&ours);
                prop_assert!(config.agreement.is_some());
                prop_assert_eq!(seal(config.shared(&peer)), core);
            }
        }
    }
}
