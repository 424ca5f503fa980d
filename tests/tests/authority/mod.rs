//! A private authority, and the identity of a server that it vouches for.
#![allow(dead_code, reason = "each test program uses its own part")]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use tempfile::TempDir;
use tests::Result;

/// An authority that no system knows, and the files of a server.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::new([]).map_err(|e| e.to_string())?;
        // Issuer and subject must differ, or OpenSSL takes the server's certificate for a self-signed one.
        params.distinguished_name.push(DnType::CommonName, "a private authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(|e| e.to_string())?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let authority = Self { issuer, dir };
        authority.write("ca.pem", &authority.issuer.as_ref().pem())?;
        Ok(authority)
    }

    /// Its own certificate, for whoever is to trust it.
    pub(crate) fn roots(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// The files of the server's certificate and key.
    pub(crate) fn identity(&self) -> [String; 2] {
        ["cert.pem", "key.pem"].map(|name| self.dir.path().join(name).display().to_string())
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result {
        std::fs::write(self.dir.path().join(name), text).map_err(|e| format!("{name}: {e}"))
    }

    /// Puts a new certificate for these hosts and its key where the server reads them; the certificate's hash.
    pub(crate) fn renew(&self, hosts: &[&str]) -> Result<[u8; 32]> {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let params = CertificateParams::new(hosts).map_err(|e| e.to_string())?;
        let key = KeyPair::generate().map_err(|e| e.to_string())?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|e| e.to_string())?;
        self.write("cert.pem", &certificate.pem())?;
        self.write("key.pem", &key.serialize_pem())?;
        Ok(Sha256::digest(certificate.der()).into())
    }
}
