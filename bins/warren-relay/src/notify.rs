//! Words to the service manager (systemd's sd_notify): a datagram to the socket that `NOTIFY_SOCKET` names. Without
//! one, nobody is told.

use rustix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The relay serves, from the start or again after a reload.
pub(crate) fn ready() {
    tell("READY=1\nSTATUS=ready");
}

/// Files are being read again.
pub(crate) fn reloading() {
    // The manager compares this with its own clock, to know that a later READY belongs to this reload.
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading files again"));
}

/// The relay is about to stop.
pub(crate) fn stopping() {
    tell("STOPPING=1\nSTATUS=draining");
}

/// How far the draining has come.
pub(crate) fn draining(clients: usize) {
    tell(&format!("STATUS=draining: {clients} clients are still here"));
}

fn tell(words: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return };
    if let Err(error) = send(&name, words) {
        tracing::warn!("can't tell the service manager at {}: {error}", name.display());
    }
}

fn send(name: &OsStr, words: &str) -> io::Result<()> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    UnixDatagram::unbound()?.send_to_addr(words.as_bytes(), &address).map(drop)
}
