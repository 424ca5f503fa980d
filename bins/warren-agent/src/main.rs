//! `warren-agent`: reads the arguments and hands over.

mod args;
mod services;

use args::Args;
use io_adapters::handle::NodeHandle;
use proto_core::coord::code;
use proto_core::node::{NodeConfig, NodeEvent, SessionState};
use proto_core::relay_map::RelayMap;
use proto_core::wire::control::NodeKind;
use services::Services;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use warren_settings::Stop;

/// This program and its version, as others are told.
const BUILD: &str = concat!("warren-agent ", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    warren_settings::run_on_one_thread(start()).unwrap_or_else(|fault| end(Stop::Fault(fault)))
}

async fn start() -> ExitCode {
    let args = match Args::read(std::env::args_os()) {
        Ok(args) => args,
        Err(stop) => return end(stop),
    };
    let filter = match tracing_subscriber::EnvFilter::try_new(&args.log) {
        Ok(filter) => filter,
        Err(error) => return end(Stop::Fault(warren_settings::bad_log_filter(&args.log, &error))),
    };
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_ansi(colours).with_writer(std::io::stderr).with_env_filter(filter).init();
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("error: {error}\n").as_bytes());
            ExitCode::from(error.exit)
        }
    }
}

/// Ends before anything has begun.
fn end(stop: Stop) -> ExitCode {
    use std::io::Write as _;
    match stop {
        Stop::Print(text) => {
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Stop::Usage(error) => error.exit(),
        Stop::Fault(fault) => {
            let _ = writeln!(std::io::stderr(), "error: {}\nhint: {}", fault.message, fault.hint);
            ExitCode::from(2)
        }
    }
}

/// Why the agent ended, for a person.
#[derive(Debug)]
struct Failure {
    exit: u8,
    sentence: String,
    hint: &'static str,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nhint: {}", self.sentence, self.hint)
    }
}

async fn run(args: Args) -> Result<(), Failure> {
    let began = Instant::now();
    let token = args.token()?;
    let control = io_adapters::access_url::control_target(&args.url, &token).map_err(|e| Failure {
        exit: 2,
        sentence: e.to_string(),
        hint: "--url is the server's address, such as https://warren.example.com",
    })?;
    let state = args.state_dir()?;
    let key_file = state.join("node.key");
    let node_key = io_adapters::private_file::node_key(&key_file).map_err(|e| Failure {
        exit: 1,
        sentence: format!("can't use the node key in {}: {e}", key_file.display()),
        hint: "name a folder that this user may write with --state-dir; a damaged key can be moved away, but people will be asked about the new one",
    })?;
    let ssh = services::ssh::Server::new(&state, &node_key.public()).map_err(|e| Failure {
        exit: 1,
        sentence: format!("can't use the SSH host key: {e}"),
        hint: "name a folder that this user may write with --state-dir; a damaged key can be moved away, but people's known_hosts have the old one",
    })?;
    let config = NodeConfig {
        node_key,
        kind: NodeKind::Agent,
        control: Some(control),
        build: BUILD.into(),
        direct_forbidden: args.direct_forbidden,
        guess_ports: !args.disable_port_guessing,
        map_ports: !args.disable_port_mapping,
        // People come and go with keys of their own; the coordinator says who may come.
        pins: std::collections::BTreeMap::new(),
        relay: args.relay.clone(),
        relay_map: None,
    };
    if let Err(error) = io_adapters::process::open_files() {
        tracing::warn!(%error, "the number of connections stays limited");
    }
    let node = io_adapters::driver::start_here(config).await;
    let terminals = services::terminals::Terminals::new(Duration::from_secs(args.terminal_idle_limit));
    let services = Services { ssh, terminals, node: node.clone(), began };
    serve(&node, services, args.relay.as_deref()).await
}

/// Serves until it is told to stop, or the server refuses it for good.
async fn serve(node: &NodeHandle, services: Services, relay: Option<&str>) -> Result<(), Failure> {
    let services = Arc::new(services);
    let mut events = node.events();
    let stop = |e: std::io::Error| Failure {
        exit: 1,
        sentence: e.to_string(),
        hint: "signals cannot be caught here",
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(stop)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(stop)?;
    let mut ended = Ok(());
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            event = events.next() => match event {
                Some(NodeEvent::Session(SessionState::Refused { code, message })) if code::is_final(&code) => {
                    ended = Err(refused(&code, &message));
                    break;
                }
                Some(event) => {
                    report(&event);
                    if let (NodeEvent::RelayMap(map), Some(relay)) = (&event, relay) {
                        report_choice(map, relay);
                    }
                }
                None => break,
            },
            incoming = node.accept() => match incoming {
                Some(incoming) => { tokio::spawn(services::serve(services.clone(), incoming)); }
                None => break,
            },
        }
    }
    node.shutdown().await;
    ended
}

fn refused(why: &str, message: &str) -> Failure {
    Failure {
        exit: 3,
        sentence: format!("the server refuses this agent: {message} ({why})"),
        hint: if why == code::REPLACED {
            "another agent has connected with this token: each agent needs one of its own, by `warren workspaces create`"
        } else {
            "is the token right, and does the workspace still exist? `warren workspaces create` prints a token once"
        },
    }
}

/// Whether the map has the relay that was chosen. If it has not, a later one may: until then home is measured.
fn report_choice(map: &RelayMap, relay: &str) {
    match map.region_called(relay) {
        Ok(region) => tracing::info!(region = map.label(region), "the relay chosen is this agent's home"),
        Err(unknown) => {
            tracing::warn!("--relay: {unknown}; the nearest is used until there is one of that name")
        }
    }
}

fn report(event: &NodeEvent) {
    match event {
        NodeEvent::Session(SessionState::Up(welcome)) => {
            tracing::info!(id = %welcome.id, "connected to the server")
        }
        NodeEvent::Session(SessionState::Down { why }) => {
            tracing::warn!(why, "lost the server; tunnels go on")
        }
        NodeEvent::Session(SessionState::Refused { code, message }) => {
            tracing::warn!(code, "the server refuses us for now, trying again in a minute: {message}")
        }
        NodeEvent::PeerUp { id, .. } => tracing::info!(peer = %id, "a peer may come"),
        NodeEvent::PeerDown { id, why, .. } => tracing::info!(peer = %id, why, "a peer left"),
        NodeEvent::Story { key, story } => tracing::info!(peer = ?key, ?story, "path"),
        NodeEvent::RelayHealth { region, problem } if problem.is_empty() => {
            tracing::info!(%region, "the relay's complaint is over");
        }
        NodeEvent::RelayHealth { region, problem } => tracing::warn!(%region, "the relay says: {problem}"),
        NodeEvent::RelayDown { region, why } => tracing::warn!(%region, why, "lost a relay"),
        event => tracing::debug!(?event, "node"),
    }
}
