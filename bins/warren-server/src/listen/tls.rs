//! The certificate of the HTTPS listener: read at start and again at SIGHUP, without a restart.

use crate::fault::{Fault, io_words};
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use tokio_rustls::TlsAcceptor;

/// A certificate with its key, and the files they come from.
#[derive(Clone, Debug)]
pub(crate) struct Certificate(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// If a file is unreadable or not PEM, or the two do not belong together.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, Fault> {
        let current = RwLock::new(Arc::new(load(certificate, key)?));
        Ok(Self(Arc::new(Inner { certificate: certificate.to_owned(), key: key.to_owned(), current })))
    }

    /// Reads both files again; new connections get the new certificate.
    ///
    /// # Errors
    /// As for [`Certificate::read`]; the old certificate then stays.
    pub(crate) fn reload(&self) -> Result<(), Fault> {
        let fresh = Arc::new(load(&self.0.certificate, &self.0.key)?);
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// What makes TLS of accepted connections.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        let resolver = Arc::clone(&self.0) as Arc<dyn ResolvesServerCert>;
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring's provider supports rustls's default versions")
            .with_no_client_auth()
            .with_cert_resolver(resolver);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        TlsAcceptor::from(Arc::new(config))
    }
}

impl ResolvesServerCert for Inner {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

fn load(certificate: &Path, key: &Path) -> Result<CertifiedKey, Fault> {
    let wrong = |path: &Path, what: &str, why: &str| {
        Fault::new(
            "CERTIFICATE_UNUSABLE",
            format!("can't use the {what} {}: {why}", path.display()),
            "give PEM files with `--tls-cert-file` and `--tls-key-file`, readable by this user; \
             the server's certificate comes first, then its chain",
        )
    };
    let read = |path: &Path, what| std::fs::read(path).map_err(|e| wrong(path, what, &io_words(&e)));
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&read(certificate, "certificate")?)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(certificate, "certificate", &error.to_string()))?;
    if chain.is_empty() {
        return Err(wrong(certificate, "certificate", "it holds no certificate in PEM form"));
    }
    let secret = PrivateKeyDer::from_pem_slice(&read(key, "private key")?).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => wrong(key, "private key", "it holds no private key in PEM form"),
        error => wrong(key, "private key", &error.to_string()),
    })?;
    CertifiedKey::from_der(chain, secret, &default_provider()).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => wrong(key, "private key", "it is not the certificate's key"),
        error => wrong(certificate, "certificate", &error.to_string()),
    })
}
