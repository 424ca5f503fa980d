//! TLS by rustls, client end and server end, and the three ways in which a server may prove itself.

use proto_core::key::NodePublic;
use proto_core::machine::TlsCheck;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{CipherSuite, ClientConfig, ProtocolVersion, RootCertStore, ServerConfig, SupportedCipherSuite};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, TlsConnector};

mod metacert;
mod verify;
mod x509;

pub use tokio_rustls::client::TlsStream as ClientTls;
pub use tokio_rustls::server::TlsStream as ServerTls;

/// Why TLS is not to be had.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TlsError {
    /// The name is neither a DNS name nor an address.
    #[error("\"{0}\" is not a name that TLS can check")]
    Name(String),
    /// The handshake failed, most often because the certificate is not to be trusted.
    #[error("the TLS handshake with {host} failed: {why}")]
    Handshake {
        /// With whom.
        host: String,
        /// What went wrong.
        why: String,
    },
    /// A file of certificates or keys cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A certificate and its key do not work.
    #[error("the certificate cannot be used: {0}")]
    Certificate(String),
    /// The system's certificates cannot be used.
    #[error("no trusted certificates: {0}")]
    Roots(String),
}

/// Whom we trust: the system's roots and perhaps some more. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Trust(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    extra: Vec<CertificateDer<'static>>,
    system: bool,
    provider: Arc<CryptoProvider>,
    /// Reading the system's roots takes tens of milliseconds: once, and only if needed.
    roots: OnceLock<Result<Arc<dyn ServerCertVerifier>, TlsError>>,
    /// Configurations made, so that sessions are resumed.
    made: Mutex<Vec<(TlsCheck, Arc<ClientConfig>)>>,
}

/// Configurations kept: one a region with a setting of its own, and there are few.
const CONFIGS_MAX: usize = 16;

/// Whatever makes TLS in this process without naming a library uses the same as we do from now on.
pub fn install() {
    let _ = library().install_default();
}

#[cfg(feature = "aws-lc")]
fn library() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

#[cfg(not(feature = "aws-lc"))]
fn library() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// The ciphers, with AES-128 before AES-256: by a third faster, and what is inside is sealed by WireGuard anyway.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = library();
    let is_long = |suite: &SupportedCipherSuite| {
        let name = suite.suite();
        // The order of the others is the library's.
        matches!(
            name,
            CipherSuite::TLS13_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
                | CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
        )
    };
    let is_aes = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).contains("AES");
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !is_aes(suite), is_long(suite)));
    Arc::new(provider)
}

impl Trust {
    /// The system's roots alone.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Vec::new(), true)
    }

    /// The system's roots and the certificates of a PEM file.
    ///
    /// # Errors
    /// If the file cannot be read or has no certificate in it.
    pub fn with_file(path: &Path) -> Result<Self, TlsError> {
        Ok(Self::new(certificates(path)?, true))
    }

    /// These certificates alone, whatever the system says: for simulations and tests.
    #[must_use]
    pub fn only(roots: Vec<CertificateDer<'static>>) -> Self {
        Self::new(roots, false)
    }

    fn new(extra: Vec<CertificateDer<'static>>, system: bool) -> Self {
        let provider = provider();
        Self(Arc::new(Inner { extra, system, provider, roots: OnceLock::new(), made: Mutex::default() }))
    }

    /// Begins TLS on `stream` with `host`, which is also what the server is told (SNI).
    ///
    /// # Errors
    /// [`TlsError`] says what is wrong with the certificate.
    pub async fn connect<S>(&self, stream: S, host: &str, check: &TlsCheck) -> Result<ClientTls<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        begin(self.config(check)?, stream, host).await
    }

    /// As [`Trust::connect`], offering HTTP/2 (RFC 7301). True if the server takes it; else HTTP/1.1 is spoken.
    ///
    /// # Errors
    /// As [`Trust::connect`].
    pub async fn connect_http2<S>(
        &self,
        stream: S,
        host: &str,
        check: &TlsCheck,
    ) -> Result<(ClientTls<S>, bool), TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut config = ClientConfig::clone(&*self.config(check)?);
        config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
        let stream = begin(Arc::new(config), stream, host).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((stream, is_http2))
    }

    /// The configuration for this check, for whoever makes TLS connections of another kind.
    ///
    /// # Errors
    /// If the system's roots cannot be read or the check's name is none.
    pub fn config(&self, check: &TlsCheck) -> Result<Arc<ClientConfig>, TlsError> {
        let mut made = self.0.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, config)) = made.iter().find(|(c, _)| c == check) {
            return Ok(config.clone());
        }
        let verifier = self.verifier(check)?;
        let config = ClientConfig::builder_with_provider(self.0.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|e| TlsError::Roots(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        let config = Arc::new(config);
        if made.len() == CONFIGS_MAX {
            made.remove(0);
        }
        made.push((check.clone(), config.clone()));
        Ok(config)
    }

    fn verifier(&self, check: &TlsCheck) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let provider = self.0.provider.clone();
        Ok(match check {
            TlsCheck::Unchecked => Arc::new(verify::Unchecked::new(provider)),
            TlsCheck::Pinned { sha256 } => Arc::new(verify::Pinned::new(*sha256, provider)),
            TlsCheck::Roots { name } => {
                let name = ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone()))?;
                let roots = self.0.roots.get_or_init(|| self.roots()).clone()?;
                Arc::new(verify::Named::new(name, roots))
            }
        })
    }

    fn roots(&self) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let (extra, provider) = (self.0.extra.clone(), self.0.provider.clone());
        let roots = |e: &dyn std::fmt::Display| TlsError::Roots(e.to_string());
        if self.0.system {
            let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider);
            return Ok(Arc::new(verifier.map_err(|e| roots(&e))?));
        }
        let mut store = RootCertStore::empty();
        for certificate in extra {
            store.add(certificate).map_err(|e| roots(&e))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider);
        Ok(verifier.build().map_err(|e| roots(&e))?)
    }
}

async fn begin<S>(config: Arc<ClientConfig>, stream: S, host: &str) -> Result<ClientTls<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host.to_string()).map_err(|_| TlsError::Name(host.to_string()))?;
    let connected = TlsConnector::from(config).connect(name, stream).await;
    connected.map_err(|e| TlsError::Handshake { host: host.to_string(), why: words(&e) })
}

/// Begins TLS on `stream` by the system's roots: [`Trust::connect`] for whoever has no roots of its own.
///
/// # Errors
/// As [`Trust::connect`].
pub async fn connect<S>(stream: S, host: &str, check: &TlsCheck) -> Result<ClientTls<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    system().connect(stream, host, check).await
}

/// The system's roots, read once, for whoever has none of its own.
pub(crate) fn system() -> &'static Trust {
    static SYSTEM: OnceLock<Trust> = OnceLock::new();
    SYSTEM.get_or_init(Trust::system)
}

/// The key of the relay at the other end, if its certificate tells it. TLS 1.2 shows certificates to whoever
/// listens, and lets them be changed, so that only TLS 1.3's count.
pub(crate) fn relay_key<S>(stream: &ClientTls<S>) -> Option<NodePublic> {
    let (_, connection) = stream.get_ref();
    let modern = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
    connection.peer_certificates().filter(|_| modern).and_then(metacert::key_in)
}

/// A server's certificate and key, which can be replaced while it runs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Identity(Arc<Mutex<Served>>);

#[derive(Debug)]
struct Served {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The certificate that tells the key of the relay behind it, if there is one.
    metacert: Option<CertificateDer<'static>>,
    /// What all of that makes, where only HTTP/1.1 is spoken inside: the upgrades to DERP and WebSocket are its own.
    config: Arc<ServerConfig>,
    /// The same where HTTP/2 is spoken to those who prefer it.
    config_http2: Arc<ServerConfig>,
}

impl Identity {
    /// The identity of these PEM files: the certificate with its chain, and the key.
    ///
    /// # Errors
    /// If a file cannot be read or the two do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let (chain, key) = read_identity(certificate, key)?;
        Self::new(chain, key)
    }

    /// The identity of these documents in memory.
    ///
    /// # Errors
    /// If the two do not belong together.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, TlsError> {
        Ok(Self(Arc::new(Mutex::new(Served::new(chain, key, None)?))))
    }

    /// Tells, from now on, the key of the relay behind it to those who connect: they need not ask for it then.
    ///
    /// # Errors
    /// If the certificate for that cannot be made.
    pub fn tell_relay(&self, relay: &NodePublic) -> Result<(), TlsError> {
        let metacert = metacert::make(relay)?;
        let mut served = self.lock();
        *served = Served::new(served.chain.clone(), served.key.clone_key(), Some(metacert))?;
        Ok(())
    }

    /// Reads the files again; connections that exist go on. On an error the old identity stays.
    ///
    /// # Errors
    /// As [`Identity::from_files`].
    pub fn reload(&self, certificate: &Path, key: &Path) -> Result<(), TlsError> {
        let (chain, key) = read_identity(certificate, key)?;
        let mut served = self.lock();
        *served = Served::new(chain, key, served.metacert.clone())?;
        Ok(())
    }

    /// When the certificate ends, in unix seconds; none if it does not say so in a way that we understand.
    #[must_use]
    pub fn not_after(&self) -> Option<u64> {
        let served = self.lock();
        served.chain.first().and_then(|der| x509::Certificate::parse(der)).map(|seen| seen.validity.1)
    }

    fn lock(&self) -> MutexGuard<'_, Served> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts TLS on a connection.
    ///
    /// # Errors
    /// If the client does not speak TLS or does not like us.
    pub async fn accept<S>(&self, stream: S) -> io::Result<ServerTls<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.lock().config.clone();
        TlsAcceptor::from(config).accept(stream).await
    }

    /// Accepts TLS on a connection, and says whether HTTP/2 is spoken inside: the client has to ask for it by ALPN.
    ///
    /// # Errors
    /// As [`Identity::accept`].
    pub async fn accept_http2<S>(&self, stream: S) -> io::Result<(ServerTls<S>, bool)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.lock().config_http2.clone();
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((stream, is_http2))
    }
}

/// The names of the protocols inside (RFC 7301, 6).
const HTTP2: &[u8] = b"h2";
/// See [`HTTP2`].
const HTTP1: &[u8] = b"http/1.1";

type ChainAndKey = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn read_identity(certificate: &Path, key: &Path) -> Result<ChainAndKey, TlsError> {
    let chain = certificates(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|e| TlsError::File { path: key.to_path_buf(), why: pem_words(&e) })?;
    Ok((chain, secret))
}

impl Served {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        metacert: Option<CertificateDer<'static>>,
    ) -> Result<Self, TlsError> {
        let shown = chain.iter().chain(&metacert).cloned().collect();
        let provider = provider();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(shown, key.clone_key()))
            .map_err(|e| TlsError::Certificate(e.to_string()))?;
        config.alpn_protocols = vec![HTTP1.to_vec()];
        // Nobody would come back with one: only the last few hundred are remembered,
        // and whoever comes back usually does so because we were started anew.
        config.send_tls13_tickets = 0;
        let mut config_http2 = config.clone();
        config_http2.alpn_protocols.insert(0, HTTP2.to_vec());
        Ok(Self { chain, key, metacert, config: Arc::new(config), config_http2: Arc::new(config_http2) })
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |why: String| TlsError::File { path: path.to_path_buf(), why };
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).map_err(|e| file(pem_words(&e)))?.collect();
    let read = read.map_err(|e| file(pem_words(&e)))?;
    if read.is_empty() { Err(file("there is no certificate in it".into())) } else { Ok(read) }
}

fn pem_words(error: &rustls::pki_types::pem::Error) -> String {
    use rustls::pki_types::pem::Error;
    match error {
        Error::Io(e) => e.to_string(),
        Error::NoItemsFound => "there is no private key in it".into(),
        other => format!("not a PEM file ({other})"),
    }
}

/// What went wrong, in words.
fn words(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let tls = error.get_ref().and_then(|e| e.downcast_ref::<Error>());
    match tls {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature)) => {
            "its certificate is signed by nobody that this system trusts".into()
        }
        Some(Error::InvalidCertificate(CertificateError::Other(other))) => match other.to_string().as_str() {
            // The library has a name alone for it. `openssl req -x509` makes such ones unless told otherwise.
            "CaUsedAsEndEntity" => "its certificate is an authority's, and a server needs one with \
                                    basicConstraints CA:FALSE"
                .into(),
            other => other.to_owned(),
        },
        Some(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) => "its certificate has expired".into(),
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "its certificate is for another name".into(),
        Some(Error::InvalidMessage(_)) => "the other side does not speak TLS".into(),
        Some(other) => other.to_string(),
        None if error.kind() == io::ErrorKind::UnexpectedEof => "the connection was closed".into(),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests;
