//! What the relay says once it is ready: to people on stdout, to programs in the ready file.

use crate::relay::Relay;
use io_adapters::private_file;
use serde_json::json;
use std::path::Path;
use warren_settings::{Fault, io_words};

/// The line for people; scripts may wait for its "ready".
pub(crate) fn text(relay: &Relay) -> String {
    let addresses = relay.addresses();
    let mut places = Vec::new();
    places.extend(addresses.http.map(|address| format!("http {address}")));
    places.extend(addresses.tls.map(|address| format!("https {address}")));
    places.extend(addresses.stun.map(|address| format!("stun {address}")));
    places.extend(addresses.metrics.map(|address| format!("metrics {address}")));
    format!("warren-relay is ready ({})\n", places.join(", "))
}

/// Writes the file for programs, at once.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_ready_file(relay: &Relay, path: &Path) -> Result<(), Fault> {
    let addresses = relay.addresses();
    let document = json!({
        "schema_version": 1,
        "pid": std::process::id(),
        "public_key": relay.public().to_string(),
        "http_address": addresses.http,
        "tls_address": addresses.tls,
        "stun_address": addresses.stun,
        "metrics_address": addresses.metrics,
    });
    private_file::write(path, format!("{document:#}\n").as_bytes()).map_err(|error| {
        Fault::new(
            "READY_FILE_UNWRITABLE",
            format!("can't write the ready file {}: {}", path.display(), io_words(&error)),
            "check the path and its permissions",
        )
    })
}
