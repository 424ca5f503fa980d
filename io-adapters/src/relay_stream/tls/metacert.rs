//! The certificate in which a relay tells its key: one more at the end of its chain, that signs nothing. A client
//! that finds it knows the key before it asks, and saves a round trip ([`crate::relay_stream::fast_start`]).
//!
//! Its form is that of Tailscale's relays: self-signed with Ed25519, the DERP version as serial number, the key in
//! the common name. Some verifiers want dates and basic constraints even of certificates that they do not use.

use super::TlsError;
use super::x509::Certificate;
use proto_core::key::{NodePublic, unhex};
use proto_core::wire::derp::VERSION;
use rcgen::{CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::pki_types::CertificateDer;
use std::time::{Duration, SystemTime};

/// What the common name begins with.
const NAME: &str = "derpkey";
/// How long before and after its making it is valid. Nobody checks, so that it need not be made anew.
const VALID: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The certificate of a relay.
///
/// # Errors
/// If it cannot be made, which no input explains.
pub(super) fn make(relay: &NodePublic) -> Result<CertificateDer<'static>, TlsError> {
    let failed = |e: rcgen::Error| TlsError::Certificate(e.to_string());
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(VERSION.unsigned_abs()));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("{NAME}{}", relay.to_hex()));
    let now = SystemTime::now();
    params.not_before = (now - VALID).into();
    params.not_after = (now + VALID).into();
    params.is_ca = IsCa::ExplicitNoCa;
    let key = KeyPair::generate_for(&PKCS_ED25519).map_err(failed)?;
    Ok(params.self_signed(&key).map_err(failed)?.into())
}

/// Whether this is such a certificate, which belongs to no chain.
pub(super) fn is_one(der: &[u8]) -> bool {
    let name = Certificate::parse(der).and_then(|c| c.common_name);
    name.is_some_and(|name| name.starts_with(NAME))
}

/// The key that a relay tells in its chain.
pub(super) fn key_in(chain: &[CertificateDer<'_>]) -> Option<NodePublic> {
    chain.iter().find_map(|der| {
        let name = Certificate::parse(der)?.common_name?;
        unhex(name.strip_prefix(NAME)?).map(NodePublic)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_found_again_wherever_it_stands() {
        let key = NodePublic([7; 32]);
        let made = make(&key).unwrap();
        assert!(is_one(&made));
        let other = rcgen::generate_simple_self_signed(["relay.test".into()]).unwrap().cert;
        assert_eq!(key_in(&[other.der().clone(), made]), Some(key));
        assert_eq!(key_in(&[other.der().clone()]), None);
    }

    #[test]
    fn its_form_is_the_one_that_other_clients_read() {
        let made = make(&NodePublic([0xab; 32])).unwrap();
        let seen = Certificate::parse(&made).unwrap();
        assert_eq!(seen.common_name.unwrap(), format!("derpkey{}", "ab".repeat(32)));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let near = |a: u64, b: u64| a.abs_diff(b) < 3_600;
        assert!(near(seen.validity.0, now - 2_592_000) && near(seen.validity.1, now + 2_592_000));
        // Serial number 2; critical basic constraints without CA.
        let has = |bytes: &[u8]| made.windows(bytes.len()).any(|w| w == bytes);
        assert!(has(&[0x02, 0x01, 0x02]));
        assert!(has(&[0x06, 0x03, 0x55, 0x1d, 0x13, 0x01, 0x01, 0xff]));
    }
}
