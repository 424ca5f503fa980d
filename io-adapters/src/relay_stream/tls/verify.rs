//! How a server's certificate is checked.

use super::metacert;
use super::x509::Certificate;
use proto_core::key::hex;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use sha2::{Digest, Sha256};
use std::sync::Arc;

/// A reason of ours why a certificate is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("its certificate's SHA-256 is {found}, but {pinned} is pinned")]
    Pin { found: String, pinned: String },
    #[error("it sent {0} certificates, but a pinned certificate must be the only one")]
    Many(usize),
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
    }
}

macro_rules! signatures_by_provider {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

/// By a chain to a root, for a name that need not be the one asked for.
#[derive(Debug)]
pub(super) struct Named {
    name: ServerName<'static>,
    roots: Arc<dyn ServerCertVerifier>,
}

impl Named {
    pub(super) fn new(name: ServerName<'static>, roots: Arc<dyn ServerCertVerifier>) -> Self {
        Self { name, roots }
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // A relay tells its key in a last certificate that belongs to no chain.
        let chain: Vec<_> = intermediates.iter().filter(|c| !metacert::is_one(c)).cloned().collect();
        self.roots.verify_server_cert(end_entity, &chain, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.roots.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.roots.supported_verify_schemes()
    }
}

/// By the hash of the one certificate (`sha256-raw:`): its name and dates count, its issuer does not.
#[derive(Debug)]
pub(super) struct Pinned {
    sha256: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    pub(super) fn new(sha256: [u8; 32], provider: Arc<CryptoProvider>) -> Self {
        Self { sha256, provider }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        asked: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let others = intermediates.iter().filter(|c| !metacert::is_one(c)).count();
        if others > 0 {
            return Err(Refused::Many(others + 1).into());
        }
        let found: [u8; 32] = Sha256::digest(end_entity).into();
        if found != self.sha256 {
            return Err(Refused::Pin { found: hex(&found), pinned: hex(&self.sha256) }.into());
        }
        verify_server_name(&ParsedCertificate::try_from(end_entity)?, asked)?;
        let bad = Error::InvalidCertificate(CertificateError::BadEncoding);
        let (from, to) = Certificate::parse(end_entity).ok_or(bad)?.validity;
        match now.as_secs() {
            t if t < from => Err(Error::InvalidCertificate(CertificateError::NotValidYet)),
            t if t > to => Err(Error::InvalidCertificate(CertificateError::Expired)),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    signatures_by_provider!();
}

/// Not at all: whoever answers is taken for the server.
#[derive(Debug)]
pub(super) struct Unchecked {
    provider: Arc<CryptoProvider>,
}

impl Unchecked {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self { provider }
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _asked: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    signatures_by_provider!();
}
