//! What the server says once it is ready: to people on stdout, to programs in the ready file.

use crate::fault::{Fault, io_words};
use crate::server::Server;
use io_adapters::private_file;
use serde_json::json;
use std::fmt::Write as _;
use std::path::Path;

/// The page where the owner is made, with the token where a browser keeps it to itself.
fn setup_link(server: &Server, token: &str) -> String {
    format!("{}/setup#{token}", server.access_url())
}

/// The text for people. Its last line is the same at every start: scripts may wait for "ready".
#[must_use]
pub fn text(server: &Server) -> String {
    let mut out = String::new();
    if let Some(token) = server.setup_token() {
        let link = setup_link(server, token);
        let rule = "━".repeat(link.chars().count() + 2);
        // Writing to a string does not fail. There are no lines at the sides, so that the link can be
        // selected whole.
        let _ = writeln!(
            out,
            "{rule}\n Welcome to Warren. Make the owner with this link, which works once:\n\n {link}\n{rule}"
        );
    }
    let addresses = server.addresses();
    let mut places = Vec::new();
    places.extend(addresses.http.map(|address| format!("http {address}")));
    places.extend(addresses.tls.map(|address| format!("https {address}")));
    places.extend(addresses.stun.map(|address| format!("stun {address}")));
    places.extend(addresses.metrics.map(|address| format!("metrics {address}")));
    let _ = writeln!(out, "warren-server is ready at {} ({})", server.access_url(), places.join(", "));
    out
}

/// Writes the file for programs, at once and readable by this user alone: it may hold the setup token.
///
/// # Errors
/// If it cannot be written.
pub fn write_ready_file(server: &Server, path: &Path) -> Result<(), Fault> {
    let addresses = server.addresses();
    let document = json!({
        "schema_version": 1,
        "pid": std::process::id(),
        "access_url": server.access_url().to_string(),
        "http_address": addresses.http,
        "tls_address": addresses.tls,
        "stun_address": addresses.stun,
        "metrics_address": addresses.metrics,
        "setup_token": server.setup_token(),
        "setup_url": server.setup_token().map(|token| setup_link(server, token)),
    });
    let written = private_file::write(path, format!("{document:#}\n").as_bytes());
    written.map_err(|error| {
        Fault::new(
            "READY_FILE_UNWRITABLE",
            format!("can't write the ready file {}: {}", path.display(), io_words(&error)),
            "check the path and its permissions",
        )
    })
}
