//! The certificate of a server in two files: read at its start and again whenever the files change or somebody asks
//! for it, without a restart.

use crate::relay_stream::tls::{Identity, TlsError};
use crate::words::words;
use proto_core::key::NodePublic;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the files are looked at: a renewal is days before its need, a person who has just copied the files
/// wants to see it.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What the two files held, as a hash; a file that cannot be read is a state of its own.
type Contents = [u8; 32];

/// A certificate with its key, and the files they come from.
#[derive(Clone, Debug)]
pub struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    identity: Identity,
    /// What was in the files when they were last taken or found to be bad.
    tried: Arc<Mutex<Contents>>,
}

/// Why a certificate can't be used: a sentence with the file's name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CertificateError(String);

impl Certificate {
    /// Reads a certificate, PEM with its chain, and its key.
    ///
    /// # Errors
    /// If a file is unreadable or not PEM, or the two do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        // Looked at first: what changes in between is found to be new afterwards.
        let tried = Arc::new(Mutex::new(contents(certificate, key)));
        let identity =
            Identity::from_files(certificate, key).map_err(|error| sentence(&error, certificate, key))?;
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), identity, tried })
    }

    /// What new connections are answered with.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Tells those who connect the key of the relay behind it.
    ///
    /// # Errors
    /// If it cannot be put into a certificate.
    pub fn tell_relay(&self, relay: &NodePublic) -> Result<(), CertificateError> {
        self.identity.tell_relay(relay).map_err(|error| sentence(&error, &self.certificate, &self.key))
    }

    /// Reads both files again; new connections get the new certificate, those there go on. If the new one is
    /// bad, the old one stays. The log says which.
    pub fn reload(&self) {
        self.note(contents(&self.certificate, &self.key));
        match self.identity.reload(&self.certificate, &self.key) {
            Ok(()) => tracing::info!(
                file = %self.certificate.display(),
                "read the certificate again: new connections get it"
            ),
            Err(error) => {
                let why = sentence(&error, &self.certificate, &self.key);
                tracing::error!(code = "CERTIFICATE_UNUSABLE", "the old certificate stays: {why}");
            }
        }
    }

    /// Reads the files again whenever they have changed; does not end.
    pub async fn watch(&self) {
        let mut before = self.tried();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = contents(&self.certificate, &self.key);
            // Whoever renews writes one file after the other: only what has come to rest is taken.
            if now == before && now != self.tried() {
                self.reload();
            }
            before = now;
        }
    }

    fn tried(&self) -> Contents {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, contents: Contents) {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = contents;
    }
}

fn contents(certificate: &Path, key: &Path) -> Contents {
    let mut hash = Sha256::new();
    for file in [certificate, key] {
        let text = std::fs::read(file).ok();
        // Lengths keep the two apart; a file that is not there is none of its contents.
        hash.update(text.as_ref().map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
        hash.update(text.unwrap_or_default());
    }
    hash.finalize().into()
}

fn sentence(error: &TlsError, certificate: &Path, key: &Path) -> CertificateError {
    CertificateError(match error {
        TlsError::File { path, why } => {
            let what = if path == key { "private key" } else { "certificate" };
            format!("can't use the {what} {}: {}", path.display(), words(why))
        }
        TlsError::Certificate(why) if why.ends_with("KeyMismatch") => {
            format!(
                "the private key {} is not that of the certificate {}",
                key.display(),
                certificate.display()
            )
        }
        other => {
            format!("can't use the certificate {}: {}", certificate.display(), words(&other.to_string()))
        }
    })
}
