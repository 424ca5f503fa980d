//! `warren port-forward`: ports and sockets of this machine that lead to a workspace's, and the other way.

use crate::cli::Global;
use crate::error::{CliError, Exit, Result};
use crate::forward::carry::{self, Target};
use crate::forward::link::{Link, own_host};
use crate::forward::reverse::{self, Reverse};
use crate::forward::spec::{self, Forward, Kind, PORTS_MAX, Place, SpecError};
use crate::forward::{totals, udp};
use crate::output::{self, Format};
use crate::stop::Stop;
use clap::builder::NonEmptyStringValueParser;
use io_adapters::local::{self, UnixSocket, Unusable};
use proto_core::stream::Header;
use serde::Serialize;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinSet;

/// Reach a workspace's ports as ports of this machine
#[derive(clap::Args, Debug)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["tcp", "udp", "unix", "reverse"]))]
#[command(after_help = "Examples:
  warren port-forward dev --tcp 8080              127.0.0.1:8080 and [::1]:8080 lead to port 8080
  warren port-forward dev --tcp 8080:80,0:5432    another port here; any free one
  warren port-forward dev --tcp 3000-3010         a range
  warren port-forward dev --tcp 0.0.0.0:8080:80   for this machine's neighbours as well
  warren port-forward dev --udp 5353:53           UDP; clients quiet for two minutes are forgotten
  warren port-forward dev --unix /tmp/docker.sock:/run/docker.sock
  warren port-forward dev --unix 5432:/run/postgresql/.s.PGSQL.5432
  warren port-forward dev --reverse 8080:3000     port 8080 of the workspace leads to port 3000 here

Each list may be given several times; 1000 ports in all. Connections wait up to 15 seconds for an agent that is away.")]
pub(crate) struct Args {
    /// The workspace, NAME or OWNER/NAME
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    workspace: String,
    #[arg(
        long,
        value_name = "SPEC",
        env = "WARREN_PORT_FORWARD_TCP",
        help = "TCP ports to forward: [BIND:]LOCAL[:REMOTE], ranges with a dash, several with commas"
    )]
    tcp: Vec<String>,
    /// UDP ports to forward, written alike
    #[arg(long, value_name = "SPEC", env = "WARREN_PORT_FORWARD_UDP")]
    udp: Vec<String>,
    #[arg(
        long,
        value_name = "SPEC",
        env = "WARREN_PORT_FORWARD_UNIX",
        help = "Unix sockets to forward: LOCAL[:REMOTE], a path at one end at least, a port at the other perhaps"
    )]
    unix: Vec<String>,
    #[arg(
        long,
        value_name = "SPEC",
        env = "WARREN_PORT_FORWARD_REVERSE",
        help = "Ports and sockets of the workspace that lead here: [BIND:]REMOTE[:LOCAL]"
    )]
    reverse: Vec<String>,
}

/// What is to be forwarded.
struct Wishes {
    tcp: Vec<Forward>,
    udp: Vec<Forward>,
    unix: Vec<Forward>,
    reverse: Vec<Forward>,
}

impl Wishes {
    fn read(args: &Args) -> Result<Self> {
        let mut room = PORTS_MAX;
        let mut read = |texts: &[String], kind| {
            spec::read(texts, kind, &mut room).map_err(|error| bad_spec(error, kind))
        };
        let wishes = Self {
            tcp: read(&args.tcp, Kind::Ports)?,
            udp: read(&args.udp, Kind::Ports)?,
            unix: read(&args.unix, Kind::Sockets)?,
            reverse: read(&args.reverse, Kind::Reverse)?,
        };
        Ok(wishes)
    }
}

fn bad_spec(error: SpecError, kind: Kind) -> CliError {
    if error.duplicate {
        return CliError::new(Exit::Usage, "DUPLICATE_PORT", error.to_string())
            .hint("one port here leads to one there: take another, or 0 for any that is free");
    }
    CliError::new(Exit::Usage, "BAD_PORT_SPEC", error.to_string()).hint(match kind {
        Kind::Ports => "write [BIND:]LOCAL[:REMOTE], such as 8080:80 or 127.0.0.1:3000-3010",
        Kind::Sockets => {
            "write LOCAL[:REMOTE], such as /tmp/docker.sock:/run/docker.sock or 8080:/run/web.sock"
        }
        Kind::Reverse => "write [BIND:]REMOTE[:LOCAL], such as 8080:3000 or /tmp/web.sock:3000",
    })
}

/// One forwarded port or socket, as it is.
#[derive(Default, Serialize)]
struct Forwarded {
    protocol: &'static str,
    /// `reverse` if the workspace listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    /// Where this machine listens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    local: Vec<String>,
    /// Where the workspace listens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    remote: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_path: Option<String>,
}

impl Forwarded {
    fn new(protocol: &'static str, local: Vec<String>, to: &Place) -> Self {
        let (remote_port, remote_path) = parts(to);
        Self { protocol, local, remote_port, remote_path, ..Self::default() }
    }

    fn reverse(forward: &Forward, at: &[String]) -> Self {
        let protocol = if matches!(forward.from, Place::Path(_)) { "unix" } else { "tcp" };
        let (local_port, local_path) = parts(&forward.to);
        Self {
            protocol,
            direction: Some("reverse"),
            remote: at.to_vec(),
            local_port,
            local_path,
            ..Self::default()
        }
    }

    fn words(&self, workspace: &str) -> String {
        let udp = if self.protocol == "udp" { "udp " } else { "" };
        let place = |port: Option<u16>, path: &Option<String>| match (port, path) {
            (Some(port), _) => format!("{udp}port {port}"),
            (None, path) => path.clone().unwrap_or_default(),
        };
        if self.direction.is_some() {
            let here = place(self.local_port, &self.local_path);
            return format!("{} of {workspace} -> {here} here", self.remote.join(" and "));
        }
        format!(
            "{} -> {} of {workspace}",
            self.local.join(" and "),
            place(self.remote_port, &self.remote_path)
        )
    }
}

fn parts(place: &Place) -> (Option<u16>, Option<String>) {
    match place {
        Place::Port(port) => (Some(*port), None),
        Place::Path(path) => (None, Some(path.clone())),
    }
}

/// What listens here.
enum Listening {
    Tcp(Vec<TcpListener>, Target),
    Udp(Vec<UdpSocket>, u16),
    Unix(UnixSocket, Target),
}

impl Listening {
    /// Opens what is listened at here, before anybody waits for the network.
    async fn open(wishes: &Wishes) -> Result<Vec<(Self, Forwarded)>> {
        let mut open = Vec::new();
        for forward in &wishes.udp {
            let (Place::Port(port), Place::Port(to)) = (&forward.from, &forward.to) else { continue };
            let sockets = local::udp(&forward.binds(), *port).await.map_err(|e| taken("udp", forward, &e))?;
            let at = sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect();
            open.push((Self::Udp(sockets, *to), Forwarded::new("udp", texts(at), &forward.to)));
        }
        let streams = wishes.tcp.iter().map(|f| ("tcp", f)).chain(wishes.unix.iter().map(|f| ("unix", f)));
        for (flag, forward) in streams {
            let target = target(forward);
            match &forward.from {
                Place::Port(port) => {
                    let listeners = local::tcp(&forward.binds(), *port).await;
                    let listeners = listeners.map_err(|e| taken(flag, forward, &e))?;
                    let at = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
                    open.push((Self::Tcp(listeners, target), Forwarded::new("tcp", texts(at), &forward.to)));
                }
                Place::Path(path) => {
                    let socket =
                        UnixSocket::bind(Path::new(path)).await.map_err(|e| taken(flag, forward, &e))?;
                    let at = vec![path.clone()];
                    open.push((Self::Unix(socket, target), Forwarded::new("unix", at, &forward.to)));
                }
            }
        }
        Ok(open)
    }

    fn serve(self, link: &Arc<Link>, tasks: &mut JoinSet<()>) {
        match self {
            Self::Tcp(listeners, target) => {
                for listener in listeners {
                    tasks.spawn(carry::serve(link.clone(), listener, target.clone()));
                }
            }
            Self::Udp(sockets, port) => {
                for socket in sockets {
                    tasks.spawn(udp::serve(link.clone(), socket, port));
                }
            }
            Self::Unix(socket, target) => _ = tasks.spawn(carry::serve(link.clone(), socket, target)),
        }
    }
}

fn texts(addresses: Vec<SocketAddr>) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

fn target(forward: &Forward) -> Target {
    let header = match &forward.to {
        Place::Port(port) => Header::Tcp { to: own_host(*port) },
        Place::Path(path) => Header::Unix { path: path.clone() },
    };
    Target { header, words: forward.to.words().into() }
}

fn taken(flag: &str, forward: &Forward, unusable: &Unusable) -> CliError {
    let is_path = matches!(forward.from, Place::Path(_));
    let (code, why, hint) = match unusable.error.kind() {
        io::ErrorKind::AddrInUse if is_path => (
            "PORT_IN_USE",
            "another program listens there".to_owned(),
            "stop that program, or name another path".to_owned(),
        ),
        io::ErrorKind::AddrInUse => {
            let hint = format!(
                "stop the program that has it, or take another: --{flag} 0:{} takes any free port and prints it",
                forward.to
            );
            ("PORT_IN_USE", "another program listens there".to_owned(), hint)
        }
        io::ErrorKind::PermissionDenied => {
            let hint = if is_path {
                "name a path in a folder that this user may write"
            } else {
                "ports below 1024 are for root: take a higher one"
            };
            ("PORT_FORBIDDEN", "this user may not".to_owned(), hint.to_owned())
        }
        _ => {
            let hint = if is_path {
                "name a path that is free, in a folder that is there"
            } else {
                "is this an address of this machine?"
            };
            ("PORT_UNUSABLE", unusable.error.to_string(), hint.to_owned())
        }
    };
    CliError::new(Exit::Failed, code, format!("can't listen on {}: {why}", unusable.at)).hint(hint)
}

/// Forwards until it is told to stop.
pub(crate) async fn run(global: &Global, args: Args) -> Result {
    let mut stop = Stop::new()?;
    let wishes = Wishes::read(&args)?;
    if let Err(error) = io_adapters::process::open_files() {
        tracing::warn!(%error, "the number of connections stays limited");
    }
    // Ports first: whoever has one wrong need not wait for the network to hear of it.
    let open = Listening::open(&wishes).await?;
    let begun = tokio::select! {
        biased;
        () = stop.wanted() => return Ok(()),
        begun = begin(global, &args.workspace, wishes.reverse) => begun?,
    };
    let mut shown = Vec::new();
    let mut tasks = JoinSet::new();
    for (listening, forwarded) in open {
        shown.push(forwarded);
        listening.serve(&begun.link, &mut tasks);
    }
    shown.extend(begun.reverse.iter().map(|(wish, reverse)| Forwarded::reverse(wish, &reverse.at)));
    match global.output {
        Format::Json => output::json(&shown),
        Format::Table => shown.iter().for_each(|one| output::line(one.words(&args.workspace))),
    }
    let live = global.output == Format::Table && output::has_status();
    let Begun { link, reverse } = begun;
    for (_, reverse) in reverse {
        tasks.spawn(reverse.hold(link.clone()));
    }
    let totals = async { if live { totals::show(&link).await } else { std::future::pending().await } };
    let ended = tokio::select! {
        biased;
        () = stop.wanted() => Ok(()),
        error = link.shut_out() => Err(error),
        () = totals => Ok(()),
    };
    output::end_status();
    // Whoever listens stops, and what it left in the file system goes.
    tasks.shutdown().await;
    link.close().await;
    ended
}

/// What there is once the workspace is reached.
struct Begun {
    link: Arc<Link>,
    reverse: Vec<(Forward, Reverse)>,
}

/// Reaches the workspace, and has it listen.
async fn begin(global: &Global, workspace: &str, wishes: Vec<Forward>) -> Result<Begun> {
    let link = Link::open(global, workspace).await?;
    if !wishes.is_empty() {
        tokio::spawn(reverse::serve(link.clone(), link.node().clone(), wishes.clone()));
    }
    let mut reverse = Vec::new();
    for (wish, number) in wishes.into_iter().zip(0..) {
        let listening = Reverse::listen(&link, &wish, number).await?;
        reverse.push((wish, listening));
    }
    Ok(Begun { link, reverse })
}
