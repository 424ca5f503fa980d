//! A lab of real Linux NATs: network namespaces joined by veth pairs, with nft rules between them.
//!
//! ```text
//!   alice ── nat-a ──┐
//!                    ├── internet ── server
//!   bob   ── nat-b ──┘
//! ```
//!
//! Everything lives in namespaces that the lab makes and removes; nothing can reach any other network.
//! It needs root, `ip` and `nft`, and says so.

mod nat;
mod slow;
mod town;

pub use nat::Nat;
pub use slow::{Passed, SlowWire};
pub use town::{INTERNET, Town};

use crate::Result;
use std::ffi::OsStr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The server's address, the only one without a NAT in front.
pub const SERVER: &str = "203.0.113.2";

/// The server's second address.
pub const SERVER_SECOND: &str = "203.0.113.3";
/// Two further ones, for another program's server.
pub const ELSEWHERE: [&str; 2] = ["203.0.113.4", "203.0.113.5"];

/// The outer address of the router in front of `bob`.
pub const BOB_OUTSIDE: &str = "192.0.2.2";

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    hosts: Vec<String>,
}

static LABS: AtomicU32 = AtomicU32::new(0);

impl Lab {
    /// A lab with these routers in front of `alice` and `bob`.
    ///
    /// # Errors
    /// Without root, `ip` or `nft`: with what to do.
    pub fn new(alice: Nat, bob: Nat) -> Result<Self> {
        require_root()?;
        let mut lab = Self::empty();
        for host in ["inet", "server", "nat-a", "nat-b", "alice", "bob"] {
            lab.host(host)?;
        }
        lab.join(("inet", "203.0.113.1/24"), ("server", "203.0.113.2/24"))?;
        for further in [SERVER_SECOND, ELSEWHERE[0], ELSEWHERE[1]] {
            lab.ok("server", &["ip", "address", "add", &format!("{further}/24"), "dev", "eth0"])?;
        }
        lab.join(("inet", "198.51.100.1/24"), ("nat-a", "198.51.100.2/24"))?;
        lab.join(("inet", "192.0.2.1/24"), ("nat-b", "192.0.2.2/24"))?;
        lab.join(("nat-a", "10.1.0.1/24"), ("alice", "10.1.0.2/24"))?;
        lab.join(("nat-b", "10.2.0.1/24"), ("bob", "10.2.0.2/24"))?;
        for (host, gateway) in [
            ("server", "203.0.113.1"),
            ("nat-a", "198.51.100.1"),
            ("nat-b", "192.0.2.1"),
            ("alice", "10.1.0.1"),
            ("bob", "10.2.0.1"),
        ] {
            lab.ok(host, &["ip", "route", "add", "default", "via", gateway])?;
        }
        for router in ["inet", "nat-a", "nat-b"] {
            lab.ok(router, &["sysctl", "-qw", "net.ipv4.ip_forward=1"])?;
        }
        lab.ok("nat-a", &["nft", &alice.rules("198.51.100.2", false)])?;
        lab.ok("nat-b", &["nft", &bob.rules(BOB_OUTSIDE, false)])?;
        Ok(lab)
    }

    fn empty() -> Self {
        let prefix = format!("w{}-{}", std::process::id(), LABS.fetch_add(1, Ordering::Relaxed));
        Self { prefix, hosts: Vec::new() }
    }

    /// A command that will run on `host`.
    #[must_use]
    pub fn command<S: AsRef<OsStr>>(&self, host: &str, program: S) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name(host)]).arg(program);
        command
    }

    /// Runs a command on `host` that must succeed; what it printed.
    ///
    /// # Errors
    /// If it fails, with what it said.
    pub fn ok(&self, host: &str, args: &[&str]) -> Result<String> {
        let [program, rest @ ..] = args else { return Err("no command".into()) };
        let out = self.command(host, program).args(rest).stdin(Stdio::null()).output();
        let out = out.map_err(|e| format!("can't run ip (package iproute2): {e}"))?;
        if out.status.success() {
            return Ok(String::from_utf8_lossy(&out.stdout).into_owned());
        }
        Err(format!("{} on {host}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr).trim()))
    }

    /// How many packets `host`'s router has translated, by its nft counter: a NAT that shows zero was not in
    /// the way.
    ///
    /// # Errors
    /// If nft prints no such counter.
    pub fn translated(&self, router: &str) -> Result<u64> {
        let text = self.ok(router, &["nft", "list", "counter", "ip", "lab", "translated"])?;
        let mut words = text.split_whitespace().skip_while(|w| *w != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).ok_or_else(|| format!("no counter in {text}"))
    }

    fn host(&mut self, host: &str) -> Result {
        let name = self.name(host);
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        let made = made.map_err(|e| format!("can't run ip (package iproute2): {e}"))?;
        if !made.status.success() {
            return Err(format!("ip netns add {name}: {}", String::from_utf8_lossy(&made.stderr).trim()));
        }
        self.hosts.push(name);
        self.ok(host, &["ip", "link", "set", "lo", "up"]).map(drop)
    }

    /// A wire between two hosts; each end is named eth0, eth1, … in the order of joining.
    fn join(&self, (a, address_a): (&str, &str), (b, address_b): (&str, &str)) -> Result {
        let (end_a, end_b, ns_b) = (self.free_link(a)?, self.free_link(b)?, self.name(b));
        self.ok(a, &["ip", "link", "add", &end_a, "type", "veth", "peer", "name", &end_b, "netns", &ns_b])?;
        for (host, end, address) in [(a, &end_a, address_a), (b, &end_b, address_b)] {
            self.ok(host, &["ip", "address", "add", address, "dev", end])?;
            self.ok(host, &["ip", "link", "set", end, "up"])?;
        }
        Ok(())
    }

    fn free_link(&self, host: &str) -> Result<String> {
        let links = self.ok(host, &["ip", "-o", "link"])?;
        Ok(format!("eth{}", links.lines().filter(|l| l.contains(" eth")).count()))
    }

    fn name(&self, host: &str) -> String {
        format!("{}-{host}", self.prefix)
    }
}

fn require_root() -> Result {
    let id = Command::new("id").arg("-u").output().map_err(|e| format!("can't run id: {e}"))?;
    if id.stdout.trim_ascii() == b"0" {
        return Ok(());
    }
    Err("the NAT lab makes network namespaces, which needs root\nhint: run `cargo xtask test` as root".into())
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.hosts {
            // Whatever still runs inside goes with it.
            if let Ok(pids) = Command::new("ip").args(["netns", "pids", name]).output() {
                let pids = String::from_utf8_lossy(&pids.stdout).into_owned();
                let pids: Vec<&str> = pids.split_whitespace().collect();
                if !pids.is_empty() {
                    let _ = Command::new("kill").arg("-9").args(&pids).status();
                }
            }
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}
