//! What becomes of forwarded connections when the person moves, a path is cut or the agent is started anew: Redis and
//! DNS between two sites behind NATs.

use super::*;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver};
use tests::lab::{Lab, Nat};

/// Redis's own port: the sites' networks are nobody else's.
const REDIS: &str = "6379";
/// The port of the DNS server.
const DNS: &str = "5300";
/// How long an answer may take on a busy machine, where nothing is in the way.
const SOON: Duration = Duration::from_secs(10);

/// `bob` has the workspace, with Redis and a DNS server in it; `alice` is the person, with a Redis of her own.
struct Sites<'a> {
    lab: &'a Lab,
    deployment: Deployment<'a>,
    agent: Running,
    token: String,
    _services: Vec<Running>,
}

impl<'a> Sites<'a> {
    fn start(lab: &'a Lab) -> Result<Self> {
        let deployment = Deployment::start(Place::Lab(lab), &[])?;
        let token = deployment.create_workspace("dev")?;
        let agent = deployment.start_agent("dev", &token)?;
        let mut services = Vec::new();
        for host in ["alice", "bob"] {
            let mut redis = lab.command(host, "redis-server");
            redis.args(["--bind", "127.0.0.1", "--port", REDIS, "--save", ""]).current_dir(deployment.dir());
            let mut redis = Running::start(redis, deployment.path(&format!("redis-{host}.log")))?;
            redis.wait("redis-server", || lab.ok(host, &["redis-cli", "-p", REDIS, "ping"]).ok())?;
            lab.ok(host, &["redis-cli", "-p", REDIS, "set", "host", host])?;
            services.push(redis);
        }
        let mut dns = lab.command("bob", "dnsmasq");
        dns.args([
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--conf-file=/dev/null",
            "--pid-file=",
        ]);
        dns.args(["--user=root", "--listen-address=127.0.0.1", "--bind-interfaces"]);
        dns.args([&format!("--port={DNS}"), "--address=/db.dev.test/192.0.2.7"]);
        services.push(Running::start(dns, deployment.path("dnsmasq.log"))?);
        Ok(Self { lab, deployment, agent, token, _services: services })
    }

    /// Forwards to Redis, to the DNS server, and from the workspace to the Redis here.
    fn forward(&self) -> Result<Forwarding> {
        let (tcp, udp) = (format!("0:{REDIS}"), format!("0:{DNS}"));
        Forwarding::start(&self.deployment, &["--tcp", &tcp, "--udp", &udp, "--reverse", &tcp])
    }

    fn dig(&self, at: SocketAddr) -> Result<String> {
        let (host, port) = (format!("@{}", at.ip()), at.port().to_string());
        let dig = ["dig", &host, "-p", &port, "+short", "+tries=5", "+timeout=2", "db.dev.test", "A"];
        Ok(self.lab.ok("alice", &dig)?)
    }

    /// Whether all three ways lead to where they should.
    fn leads(&self, to: &[SocketAddr; 3]) -> Result {
        let [tcp, udp, reverse] = *to;
        assert_eq!(Redis::open(self.lab, "alice", tcp)?.asks("GET host")?, "bob");
        assert_eq!(self.dig(udp)?, "192.0.2.7\n");
        assert_eq!(Redis::open(self.lab, "bob", reverse)?.asks("GET host")?, "alice");
        Ok(())
    }

    /// Waits until the way of the only tunnel is of this kind.
    fn goes(&self, kind: &str) -> Result {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let tunnels = self.deployment.tunnels("dev")?;
            let kinds: Vec<_> = tunnels.iter().map(|tunnel| &tunnel["path"]["kind"]).collect();
            if kinds == [kind] {
                return Ok(());
            }
            assert!(Instant::now() < until, "it is not {kind}: {tunnels:#?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Nothing that matches passes between the sites any more.
    fn cut(&self, what: &str) -> Result {
        let rules = format!(
            "table ip cut {{
                counter stopped {{}}
                chain cutting {{ type filter hook forward priority filter; {what} counter name stopped drop; }}
            }}"
        );
        self.lab.ok("inet", &["nft", &rules])?;
        Ok(())
    }

    /// It passes again, and something was stopped.
    fn heal(&self) -> Result {
        let stopped = self.lab.ok("inet", &["nft", "list", "counter", "ip", "cut", "stopped"])?;
        assert!(!stopped.contains("packets 0 "), "nothing was cut: {stopped}");
        self.lab.ok("inet", &["nft", "delete", "table", "ip", "cut"])?;
        Ok(())
    }
}

/// Where the forwards of [`Sites::forward`] listen, one address of each.
fn ends(forwarding: &Forwarding) -> [SocketAddr; 3] {
    // In the order of their lines.
    let [udp, tcp, reverse] = [0, 1, 2].map(|line| forwarding.at(line)[0]);
    [tcp, udp, reverse]
}

/// `redis-cli`, which holds its connection and is asked by its input.
struct Redis {
    child: Child,
    into: ChildStdin,
    said: Receiver<String>,
}

impl Redis {
    fn open(lab: &Lab, host: &str, at: SocketAddr) -> Result<Self> {
        let mut client = lab.command(host, "redis-cli");
        client.args(["-h", &at.ip().to_string(), "-p", &at.port().to_string()]);
        let mut child = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (into, out) = (child.stdin.take().ok_or("no input")?, child.stdout.take().ok_or("no output")?);
        let (says, said) = mpsc::channel();
        std::thread::spawn(move || {
            BufReader::new(out).lines().map_while(|line| says.send(line.ok()?).ok()).count()
        });
        Ok(Self { child, into, said })
    }

    fn sends(&mut self, command: &str) -> Result {
        Ok(writeln!(self.into, "{command}")?)
    }

    fn hears(&self, patience: Duration) -> Option<String> {
        self.said.recv_timeout(patience).ok()
    }

    fn asks(&mut self, command: &str) -> Result<String> {
        self.sends(command)?;
        Ok(self.hears(SOON).ok_or_else(|| format!("no answer to {command} within {SOON:?}"))?)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn who_moves_keeps_connections_and_makes_new_ones_at_once() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let sites = Sites::start(&lab)?;
    let forwarding = sites.forward()?;
    let to = ends(&forwarding);
    sites.leads(&to)?;
    sites.goes("direct")?;
    let mut held = Redis::open(&lab, "alice", to[0])?;
    let id = held.asks("CLIENT ID")?;

    // Another network: no address, no route, then others.
    lab.ok("alice", &["ip", "address", "flush", "dev", "eth0"])?;
    let mut waiting = Redis::open(&lab, "alice", to[0])?;
    waiting.sends("PING")?;
    assert_eq!(waiting.hears(Duration::from_secs(2)), None, "nothing comes without an address");
    lab.ok("alice", &["ip", "address", "add", "10.1.0.77/24", "dev", "eth0"])?;
    lab.ok("alice", &["ip", "route", "add", "default", "via", "10.1.0.1"])?;
    let moved = Instant::now();
    assert_eq!(waiting.hears(SOON).as_deref(), Some("PONG"), "{}", forwarding.running.log());
    println!("what waited goes on {:?} after the move", moved.elapsed());
    let began = Instant::now();
    sites.leads(&to)?;
    println!("new ones work, all three within {:?}", began.elapsed());
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(held.asks("CLIENT ID")?, id, "it is the same connection still");
    sites.goes("direct")?;
    assert_eq!(forwarding.running.log().matches("warning").count(), 0, "{}", forwarding.running.log());
    forwarding.stop()
}

#[test]
fn a_path_that_is_cut_is_replaced_and_where_none_is_left_it_is_said() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let sites = Sites::start(&lab)?;
    let mut forwarding = sites.forward()?;
    let to = ends(&forwarding);
    sites.goes("direct")?;
    let mut held = Redis::open(&lab, "alice", to[0])?;
    let id = held.asks("CLIENT ID")?;

    // The direct path alone: the relay takes over, for new ones as for those that are there.
    sites
        .cut("ip saddr { 198.51.100.2, 192.0.2.2 } ip daddr { 198.51.100.2, 192.0.2.2 } meta l4proto udp")?;
    let cut = Instant::now();
    sites.leads(&to)?;
    println!("new ones work within {:?} of the cut", cut.elapsed());
    assert_eq!(held.asks("CLIENT ID")?, id, "it is the same connection still");
    sites.goes("relay")?;
    sites.heal()?;

    // All paths: who comes now waits, and is told why it was for nothing; who stays is there afterwards.
    sites.cut("")?;
    let cut = Instant::now();
    let mut hopeless = Redis::open(&lab, "alice", to[0])?;
    hopeless.sends("PING")?;
    let line = forwarding.says("warning: a connection to port")?;
    println!("told {:?} after the cut: {line}", cut.elapsed());
    assert!(cut.elapsed() > Duration::from_secs(10), "it was given up after {:?}", cut.elapsed());
    insta::assert_snapshot!(line, @r#"warning: a connection to port 6379 was closed: workspace "dev" did not answer within 15s"#);
    let refused = hopeless.hears(SOON);
    assert_ne!(refused.as_deref(), Some("PONG"));
    sites.heal()?;
    let healed = Instant::now();
    sites.leads(&to)?;
    println!("new ones work within {:?} of the healing", healed.elapsed());
    assert_eq!(held.asks("CLIENT ID")?, id, "it is the same connection still");
    forwarding.stop()
}

#[test]
fn an_agent_that_is_started_anew_ends_connections_and_new_ones_work_at_once() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let mut sites = Sites::start(&lab)?;
    let mut forwarding = sites.forward()?;
    let to = ends(&forwarding);
    sites.leads(&to)?;
    let mut held = Redis::open(&lab, "alice", to[0])?;
    let id = held.asks("CLIENT ID")?;

    // It is told to end, as by an update, and another one takes its place.
    lab.ok("bob", &["kill", "-TERM", &sites.agent.id().to_string()])?;
    sites.agent.end(SOON)?;
    let ended = Instant::now();
    let line = forwarding.says("warning: a connection was closed")?;
    insta::assert_snapshot!(line, @r#"warning: a connection was closed: lost workspace "dev": the node has left"#);
    let mut waiting = Redis::open(&lab, "alice", to[0])?;
    waiting.sends("PING")?;
    forwarding.says("connections wait up to 15s for it")?;
    sites.agent = sites.deployment.start_agent("dev", &sites.token)?;
    let back = Instant::now();
    assert_eq!(waiting.hears(SOON).as_deref(), Some("PONG"), "{}", forwarding.running.log());
    println!(
        "{:?} without an agent; what waited goes on {:?} after its return",
        back - ended,
        back.elapsed()
    );
    forwarding.says("the workspace listens again at")?;
    sites.leads(&to)?;
    println!("new ones work, all three within {:?} of its return", back.elapsed());

    // Redis's client connects anew by itself, as most programs do.
    let answers = (0..10).find_map(|_| {
        // What meets the end of the old connection has no answer.
        held.sends("CLIENT ID").ok()?;
        held.hears(Duration::from_secs(1))
    });
    let answer = answers.ok_or("the client does not connect anew")?;
    assert!(answer != id && answer.parse::<u64>().is_ok(), "{answer}");
    forwarding.stop()
}
