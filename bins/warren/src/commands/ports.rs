//! `warren ports`: what listens in a workspace, and how to reach it from here.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::output::{self, Format};
use crate::tunnel::{self, Tunnel};
use clap::builder::NonEmptyStringValueParser;
use io_adapters::streams::StreamError;
use proto_core::stream::ports::{ANSWER_MAX, Port, Ports, Program, Reach};
use proto_core::stream::{CODE_UNKNOWN_SERVICE, Header};
use serde::Serialize;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

/// List the TCP ports that programs of a workspace listen on
#[derive(clap::Args, Debug)]
#[command(after_help = "Examples:
  warren ports dev            each port with its program and the command that leads to it
  warren ports dev -o json    the same for scripts")]
pub(crate) struct Args {
    /// The workspace, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    workspace: String,
    /// Seconds to wait for the answer
    #[arg(short, long, env = "WARREN_PORTS_TIMEOUT", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    timeout: u64,
}

#[derive(Serialize)]
struct Row {
    port: u16,
    addresses: Vec<IpAddr>,
    reach: Reach,
    programs: Vec<Program>,
    /// The command that leads to it; none where it can't be reached through the workspace's loopback.
    command: Option<String>,
}

#[derive(Serialize)]
struct Document {
    workspace: String,
    path: String,
    ports: Vec<Row>,
    /// Whether there are more ports than are listed.
    cut: bool,
}

/// Lists.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let tunnel = tunnel::open(global, &args.workspace).await?;
    let asked = tokio::time::timeout(
        Duration::from_secs(args.timeout),
        tunnel.ask::<Ports>(&Header::Ports, ANSWER_MAX),
    )
    .await;
    let answer = match asked {
        Ok(answer) => answer.map_err(|error| no_answer(&tunnel, &error)),
        Err(_) => Err(tunnel.gone(&format!("no reply after {}s", args.timeout))),
    };
    let path = tunnel.path();
    tunnel.client.node.shutdown().await;
    let Ports { ports, cut, problem } = answer?;
    if let Some(problem) = problem {
        return Err(CliError::new(Exit::Failed, "PORTS_UNKNOWN", problem));
    }
    let rows = ports.into_iter().map(|port| Row::new(port, &args.workspace)).collect();
    let document = Document { workspace: args.workspace, path, ports: rows, cut };
    match global.output {
        Format::Json => output::json(&document),
        Format::Table => show(&document),
    }
    Ok(())
}

fn no_answer(tunnel: &Tunnel, error: &io::Error) -> CliError {
    let name = &tunnel.workspace.name;
    let source = error.get_ref().and_then(|e| e.downcast_ref::<StreamError>());
    match source {
        Some(StreamError::Reset(code)) if *code == u64::from(CODE_UNKNOWN_SERVICE) => {
            let sentence = format!("the agent of workspace \"{name}\" is too old to tell its ports");
            CliError::new(Exit::Failed, "AGENT_TOO_OLD", sentence)
                .hint(format!("start a newer agent there; `warren version {name}` prints the versions"))
        }
        _ if error.kind() == io::ErrorKind::InvalidData || error.kind() == io::ErrorKind::UnexpectedEof => {
            let sentence = format!("the answer of workspace \"{name}\" makes no sense: {error}");
            CliError::new(Exit::Failed, "BAD_ANSWER", sentence)
                .hint(format!("`warren version {name}` prints the versions of both sides"))
        }
        _ => tunnel.gone(&error.to_string()),
    }
}

impl Row {
    fn new(port: Port, workspace: &str) -> Self {
        let reach = port.reach();
        let command = (reach != Reach::Addresses).then(|| command(workspace, port.port));
        Self { port: port.port, addresses: port.addresses, reach, programs: port.programs, command }
    }

    fn cells(&self) -> Vec<String> {
        let reach = match self.reach {
            Reach::AllInterfaces => "all interfaces".to_owned(),
            Reach::Loopback => "loopback".to_owned(),
            Reach::Addresses => self.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", "),
        };
        let mut names: Vec<&str> = self.programs.iter().map(|program| program.name.as_str()).collect();
        names.dedup();
        let names = if names.is_empty() { "-".to_owned() } else { names.join(", ") };
        vec![self.port.to_string(), reach, names, self.command.clone().unwrap_or_else(|| "-".to_owned())]
    }
}

/// The command that leads to a port. Ports below 1024 are for root here, so others stand for them.
fn command(workspace: &str, port: u16) -> String {
    match port {
        0..1024 => format!("warren port-forward {workspace} --tcp {}:{port}", 8_000 + port),
        _ => format!("warren port-forward {workspace} --tcp {port}"),
    }
}

fn show(document: &Document) {
    if document.ports.is_empty() {
        output::note(format!("nothing listens in workspace {}", document.workspace));
        return;
    }
    let cells: Vec<_> = document.ports.iter().map(Row::cells).collect();
    output::line(output::table(&["PORT", "LISTENS ON", "PROGRAM", "COMMAND"], &cells));
    if document.cut {
        output::note(format!("only the first {} ports are listed", document.ports.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_says_who_can_reach_it_and_how() {
        let port = |port, addresses: &[&str], names: &[&str]| Port {
            port,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            programs: names.iter().map(|name| Program { pid: 7, name: (*name).to_owned() }).collect(),
        };
        let ports = [
            port(80, &["0.0.0.0", "::"], &["nginx", "nginx"]),
            port(5_432, &["127.0.0.1", "::1"], &["postgres"]),
            port(8_080, &["192.0.2.7", "2001:db8::7"], &["node", "\u{1b}[31mred"]),
            port(9_000, &["127.0.0.1"], &[]),
        ];
        let cells: Vec<_> = ports.into_iter().map(|port| Row::new(port, "dev").cells()).collect();
        insta::assert_snapshot!(output::table(&["PORT", "LISTENS ON", "PROGRAM", "COMMAND"], &cells), @r"
        PORT  LISTENS ON              PROGRAM         COMMAND
        80    all interfaces          nginx           warren port-forward dev --tcp 8080:80
        5432  loopback                postgres        warren port-forward dev --tcp 5432
        8080  192.0.2.7, 2001:db8::7  node, �[31mred  -
        9000  loopback                -               warren port-forward dev --tcp 9000
        ");
    }
}
