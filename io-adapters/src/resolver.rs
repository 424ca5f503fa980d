//! Names to addresses, by the operating system's resolver.

use proto_core::time::Duration;
use std::io;
use std::net::IpAddr;
use tokio::time::timeout;

/// The resolver has this long: resolv.conf's usual 5 s a server would eat the whole budget of a connection.
const PATIENCE: Duration = Duration::from_secs(4);
/// Addresses kept of one name.
const ADDRESSES_MAX: usize = 16;

/// The addresses of `name`, in the system's order; of a literal, itself.
///
/// # Errors
/// If the name is unknown, or the resolver takes longer than 4 s.
pub async fn resolve(name: &str) -> io::Result<Vec<IpAddr>> {
    if let Ok(literal) = name.parse() {
        return Ok(vec![literal]);
    }
    let lookup = tokio::net::lookup_host((name, 0));
    let found = timeout(PATIENCE, lookup).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let mut addresses = Vec::new();
    for address in found.map(|a| a.ip()) {
        if !addresses.contains(&address) && addresses.len() < ADDRESSES_MAX {
            addresses.push(address);
        }
    }
    Ok(addresses)
}
