//! Addresses to listen on: how they are written, why one can't be had, and the certificate for one.

use crate::{Fault, io_words};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;
use io_adapters::certificate::{Certificate, CertificateError};
use std::path::Path;

/// An address to listen on, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.eq_ignore_ascii_case("none") {
            return Ok(Self(None));
        }
        let address = text
            .parse()
            .map_err(|_| "an address has the form 127.0.0.1:7080 or [::1]:7080, or is \"none\"".to_owned())?;
        Ok(Self(Some(address)))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("none"),
        }
    }
}

/// The fault of an address that can't be listened on, by TCP or UDP; `flag` is the setting that says where.
#[must_use]
pub fn busy(error: &std::io::Error, protocol: &str, address: SocketAddr, flag: &str) -> Fault {
    let port = address.port();
    let (code, hint) = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let list = if protocol == "UDP" { "ss -lunp" } else { "ss -ltnp" };
            (
                "PORT_BUSY",
                format!(
                    "`{list} 'sport = :{port}'` shows who has it; stop that, or choose another with `--{flag} ADDRESS`"
                ),
            )
        }
        std::io::ErrorKind::PermissionDenied => (
            "PORT_FORBIDDEN",
            format!(
                "ports below 1024 need the capability CAP_NET_BIND_SERVICE; choose another with `--{flag} ADDRESS`"
            ),
        ),
        _ => (
            "ADDRESS_UNUSABLE",
            format!("`ip address` shows this machine's addresses; choose one with `--{flag} ADDRESS`"),
        ),
    };
    Fault::new(code, format!("can't listen on {protocol} {address}: {}", io_words(error)), hint)
}

/// Whether a STUN server at `address` may use `second` besides.
///
/// # Errors
/// If `address` is all of the machine's, or they cannot answer the same clients.
pub fn second_address(address: SocketAddr, second: Option<IpAddr>) -> Result<(), Fault> {
    let Some(second) = second else { return Ok(()) };
    let family = if second.is_ipv4() { "IPv4" } else { "IPv6" };
    let apart = address.is_ipv4() == second.is_ipv4() && address.ip() != second;
    if apart && !address.ip().is_unspecified() {
        return Ok(());
    }
    Err(Fault::new(
        "STUN_ADDRESSES",
        format!("the STUN server can't have the second address {second} beside {address}"),
        format!("give it another {family} address of this machine with `--stun-address IP:PORT`"),
    ))
}

/// The certificate of HTTPS, whose three settings go together; none if none of them is set.
///
/// # Errors
/// If only some are set, or the files can't be used.
pub fn certificate(
    address: Listen,
    certificate: Option<&Path>,
    key: Option<&Path>,
) -> Result<Option<Certificate>, Fault> {
    match (address.0, certificate, key) {
        (None, None, None) => Ok(None),
        (Some(_), Some(certificate), Some(key)) => {
            Certificate::read(certificate, key).map(Some).map_err(|error| bad_certificate(&error))
        }
        _ => Err(Fault::new(
            "TLS_INCOMPLETE",
            "HTTPS needs all three of --tls-address, --tls-cert-file and --tls-key-file, and only some are set",
            "give the missing ones, or none of them for plain HTTP",
        )),
    }
}

/// The fault of a certificate that can't be used.
#[must_use]
pub fn bad_certificate(error: &CertificateError) -> Fault {
    Fault::new(
        "CERTIFICATE_UNUSABLE",
        error.to_string(),
        "give PEM files with `--tls-cert-file` and `--tls-key-file`, readable by this user; \
         the server's certificate comes first, then its chain",
    )
}
