use super::*;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Server {
    identity: Identity,
    certificate: CertificateDer<'static>,
}

fn server(name: &str) -> Server {
    server_of(rcgen::CertificateParams::new(vec![name.to_string()]).unwrap())
}

fn server_of(params: rcgen::CertificateParams) -> Server {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let certificate = params.self_signed(&key).unwrap().der().clone();
    let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    Server { identity: Identity::new(vec![certificate.clone()], secret).unwrap(), certificate }
}

async fn talk(server: &Server, trust: &Trust, host: &str, check: TlsCheck) -> Result<(), TlsError> {
    let (ours, theirs) = tokio::io::duplex(16 * 1024);
    let identity = server.identity.clone();
    let task = tokio::spawn(async move {
        let Ok(mut stream) = identity.accept(theirs).await else { return };
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
        let _ = stream.flush().await;
    });
    let result = async {
        let mut stream = trust.connect(ours, host, &check).await?;
        stream.write_all(b"hello").await.unwrap();
        let mut word = [0; 5];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"hello");
        Ok(())
    }
    .await;
    task.await.unwrap();
    result
}

fn pin(certificate: &[u8]) -> TlsCheck {
    TlsCheck::Pinned { sha256: Sha256::digest(certificate).into() }
}

fn roots(name: &str) -> TlsCheck {
    TlsCheck::Roots { name: name.into() }
}

#[tokio::test]
async fn a_pinned_certificate_is_taken_and_another_is_refused_by_both_hashes() {
    let server = server("relay.test");
    let trust = Trust::only(Vec::new());
    talk(&server, &trust, "relay.test", pin(&server.certificate)).await.unwrap();

    let error = talk(&server, &trust, "relay.test", pin(b"another")).await.unwrap_err().to_string();
    let found = proto_core::key::hex(&Sha256::digest(&server.certificate));
    let pinned = proto_core::key::hex(&Sha256::digest(b"another"));
    assert_eq!(
        error,
        format!(
            "the TLS handshake with relay.test failed: its certificate's SHA-256 is {found}, but {pinned} is pinned"
        )
    );
}

#[tokio::test]
async fn a_pinned_certificate_must_be_for_the_host_and_of_today() {
    let server = server("relay.test");
    let trust = Trust::only(Vec::new());
    let error = talk(&server, &trust, "other.test", pin(&server.certificate)).await.unwrap_err();
    assert!(error.to_string().ends_with("its certificate is for another name"), "{error}");

    let mut params = rcgen::CertificateParams::new(vec!["relay.test".into()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    let expired = server_of(params);
    let error = talk(&expired, &trust, "relay.test", pin(&expired.certificate)).await.unwrap_err();
    assert!(error.to_string().ends_with("its certificate has expired"), "{error}");
}

#[tokio::test]
async fn a_chain_is_checked_for_the_name_that_the_map_gives() {
    let server = server("relay.test");
    let trust = Trust::only(vec![server.certificate.clone()]);
    talk(&server, &trust, "relay.test", roots("relay.test")).await.unwrap();
    talk(&server, &trust, "front.test", roots("relay.test")).await.unwrap();
    let error = talk(&server, &trust, "relay.test", roots("front.test")).await.unwrap_err();
    assert!(error.to_string().ends_with("its certificate is for another name"), "{error}");

    let stranger = self::server("relay.test");
    let error = talk(&stranger, &trust, "relay.test", roots("relay.test")).await.unwrap_err();
    assert!(error.to_string().contains("signed by nobody"), "{error}");
    talk(&stranger, &trust, "relay.test", TlsCheck::Unchecked).await.unwrap();
}

#[tokio::test]
async fn an_authority_s_certificate_is_no_server_s() {
    let mut params = rcgen::CertificateParams::new(vec!["relay.test".into()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let server = server_of(params);
    let trust = Trust::only(vec![server.certificate.clone()]);
    let error = talk(&server, &trust, "relay.test", roots("relay.test")).await.unwrap_err();
    let said = "its certificate is an authority's, and a server needs one with basicConstraints CA:FALSE";
    assert!(error.to_string().ends_with(said), "{error}");
}

#[tokio::test]
async fn a_server_without_tls_is_told_as_such() {
    let (ours, mut theirs) = tokio::io::duplex(1024);
    theirs.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let error = Trust::only(Vec::new()).connect(ours, "relay.test", &TlsCheck::Unchecked).await.unwrap_err();
    assert!(error.to_string().ends_with("the other side does not speak TLS"), "{error}");
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, "hello").unwrap();
    let error = Trust::with_file(&path).unwrap_err().to_string();
    assert!(error.contains("ca.pem") && error.contains("no certificate"), "{error}");
    let error = Trust::with_file(&dir.path().join("none.pem")).unwrap_err().to_string();
    assert!(error.contains("No such file"), "{error}");
}
