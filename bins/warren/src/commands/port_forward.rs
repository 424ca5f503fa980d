//! `warren port-forward`: ports of this machine that lead to a workspace's.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::forward::spec::{self, Forward};
use crate::forward::tcp::{Link, listen};
use crate::output::{self, Format};
use futures_util::future::join_all;
use serde::Serialize;
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Reach a workspace's ports as ports of this machine
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren port-forward dev --tcp 8080              127.0.0.1:8080 and [::1]:8080 lead to port 8080
  warren port-forward dev --tcp 8080:80,0:5432    another port here; any free one
  warren port-forward dev --tcp 3000-3010         a range
  warren port-forward dev --tcp 0.0.0.0:8080:80   for this machine's neighbours as well")]
pub(crate) struct Args {
    /// The workspace, NAME or OWNER/NAME
    workspace: String,
    // Not a doc comment: rustdoc takes the brackets for links.
    #[arg(
        long,
        required = true,
        value_name = "SPEC",
        env = "WARREN_PORT_FORWARD_TCP",
        help = "What to forward: [BIND:]LOCAL[:REMOTE], ranges with a dash, several with commas"
    )]
    tcp: Vec<String>,
}

/// One forwarded port, as it is.
#[derive(Serialize)]
struct Forwarded {
    protocol: &'static str,
    /// Where this machine listens.
    local: Vec<String>,
    remote_port: u16,
}

impl Forwarded {
    fn new(forward: &Forward, listeners: &[TcpListener]) -> Self {
        let at = |listener: &TcpListener| listener.local_addr().ok().as_ref().map(SocketAddr::to_string);
        Self {
            protocol: "tcp",
            local: listeners.iter().filter_map(at).collect(),
            remote_port: forward.remote,
        }
    }

    fn words(&self, workspace: &str) -> String {
        format!("{} -> port {} of {workspace}", self.local.join(" and "), self.remote_port)
    }
}

/// Forwards until it is told to stop.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut forwards = Vec::new();
    for text in &args.tcp {
        forwards.extend(spec::parse(text).map_err(|error| {
            CliError::new(Exit::Usage, "BAD_PORT_SPEC", error.to_string())
                .hint("write [BIND:]LOCAL[:REMOTE], such as 8080:80 or 127.0.0.1:3000-3010")
        })?);
    }
    // Ports first: whoever has one wrong need not wait for the network to hear of it.
    let mut open = Vec::new();
    for forward in &forwards {
        open.push((forward, listen(forward).await?));
    }
    let link = Link::open(global, &args.workspace).await?;
    let shown: Vec<_> = open.iter().map(|(forward, listeners)| Forwarded::new(forward, listeners)).collect();
    match global.output {
        Format::Json => output::json(&shown),
        Format::Table => shown.iter().for_each(|one| output::line(one.words(&args.workspace))),
    }
    let serve = open
        .iter()
        .flat_map(|(forward, listeners)| listeners.iter().map(|listener| link.serve(listener, forward)));
    tokio::select! {
        biased;
        stopped = stopped() => stopped?,
        _ = join_all(serve) => {}
    }
    link.close().await;
    Ok(())
}

/// Waits until the person has had enough.
async fn stopped() -> Result {
    let no_signals = |error: std::io::Error| {
        CliError::new(Exit::Failed, "NO_SIGNALS", format!("signals cannot be caught here: {error}"))
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
