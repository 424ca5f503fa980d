//! The certificate of the HTTPS listener: read at start and again at SIGHUP, without a restart.

use crate::fault::{Fault, words};
use io_adapters::relay_stream::tls::{Identity, TlsError};
use std::path::{Path, PathBuf};

/// A certificate with its key, and the files they come from.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    /// What new connections are answered with.
    pub(super) identity: Identity,
}

impl Certificate {
    /// Reads a certificate and its key.
    ///
    /// # Errors
    /// If a file is unreadable or not PEM, or the two do not belong together.
    pub(crate) fn read(certificate: &Path, key: &Path) -> Result<Self, Fault> {
        let identity =
            Identity::from_files(certificate, key).map_err(|error| fault(&error, certificate, key))?;
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), identity })
    }

    /// Reads both files again; new connections get the new certificate.
    ///
    /// # Errors
    /// As for [`Certificate::read`]; the old certificate then stays.
    pub(crate) fn reload(&self) -> Result<(), Fault> {
        let reloaded = self.identity.reload(&self.certificate, &self.key);
        reloaded.map_err(|error| fault(&error, &self.certificate, &self.key))
    }
}

fn fault(error: &TlsError, certificate: &Path, key: &Path) -> Fault {
    let message = match error {
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
    };
    Fault::new(
        "CERTIFICATE_UNUSABLE",
        message,
        "give PEM files with `--tls-cert-file` and `--tls-key-file`, readable by this user; \
         the server's certificate comes first, then its chain",
    )
}
