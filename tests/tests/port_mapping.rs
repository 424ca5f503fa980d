//! Port mappings by a real router: miniupnpd leads a port through a NAT that nobody could cross otherwise.

use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{Lab, Nat, SERVER};

/// An outer address more of bob's router. miniupnpd maps nothing on those for documentation, which all others of the
/// lab are.
const OUTSIDE: &str = "8.8.4.2";

/// Two NATs that no technique crosses, a miniupnpd on bob's with these settings besides the usual, and a counter of
/// the packets that it led inside.
struct Mapped {
    lab: Lab,
    dir: tempfile::TempDir,
    router: Option<Running>,
    /// The last of what it says when it starts.
    ready: &'static str,
}

impl Mapped {
    fn new(settings: &str) -> Result<Self> {
        let lab = Lab::new(Nat::Symmetric, Nat::Symmetric)?;
        lab.ok("nat-b", &["ip", "address", "add", &format!("{OUTSIDE}/32"), "dev", "eth0"])?;
        lab.ok("inet", &["ip", "route", "add", OUTSIDE, "via", tests::lab::BOB_OUTSIDE])?;
        let rules = "table inet upnp {
            counter led {}
            chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
            chain postrouting { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
            chain forward { type filter hook forward priority filter; jump miniupnpd; }
            chain seen {
                type filter hook forward priority filter + 1;
                iifname eth0 ct status dnat counter name led
            }
            chain prerouting_miniupnpd {}
            chain postrouting_miniupnpd {}
            chain miniupnpd {}
        }";
        lab.ok("nat-b", &["nft", rules])?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let usual = format!(
            "ext_ifname=eth0\next_ip={OUTSIDE}\nlistening_ip=eth1\nipv6_disable=yes\nsystem_uptime=no\n\
             secure_mode=yes\nuuid=7ba105fb-97c1-4064-aeed-f236aaa14d9b\nupnp_table_name=upnp\n\
             upnp_nat_table_name=upnp\n{settings}\n"
        );
        std::fs::write(dir.path().join("miniupnpd.conf"), usual).map_err(|e| e.to_string())?;
        let upnp = settings.contains("enable_upnp=yes");
        let ready = if upnp { "HTTP listening on port" } else { "Listening for NAT-PMP" };
        let mut mapped = Self { lab, dir, router: None, ready };
        mapped.start_router()?;
        Ok(mapped)
    }

    fn start_router(&mut self) -> Result {
        let path = |name: &str| self.dir.path().join(name);
        let mut command = self.lab.command("nat-b", "miniupnpd");
        command.arg("-d").arg("-f").arg(path("miniupnpd.conf")).arg("-P").arg(path("pid"));
        let mut router = Running::start(command, path("miniupnpd.log"))?;
        let log = router.log_path().to_path_buf();
        router.wait("miniupnpd", || {
            std::fs::read_to_string(&log).ok().filter(|said| said.contains(self.ready))
        })?;
        self.router = Some(router);
        Ok(())
    }

    /// Its rules that lead a port inside.
    fn rules(&self) -> Result<Vec<String>> {
        let chain =
            self.lab.ok("nat-b", &["nft", "list", "chain", "inet", "upnp", "prerouting_miniupnpd"])?;
        Ok(chain.lines().filter(|line| line.contains("dnat")).map(|line| line.trim().to_owned()).collect())
    }

    /// Waits until it has so many rules.
    fn wait_for_rules(&self, count: usize, what: &str) -> Result<Vec<String>> {
        let began = Instant::now();
        loop {
            let rules = self.rules()?;
            if rules.len() == count {
                return Ok(rules);
            }
            if began.elapsed() > Duration::from_secs(15) {
                let log = self.router.as_ref().map(Running::log).unwrap_or_default();
                return Err(format!("{what}: {rules:?}\n{log}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Packets that it led inside.
    fn led(&self) -> Result<u64> {
        counted(&self.lab, "upnp", "led")
    }
}

/// Packets that a counter of bob's router has seen.
fn counted(lab: &Lab, table: &str, counter: &str) -> Result<u64> {
    let text = lab.ok("nat-b", &["nft", "list", "counter", "inet", table, counter])?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|n| n.parse().ok()).ok_or_else(|| format!("no counter in {text}"))
}

const ALL: &str = "enable_natpmp=yes\nenable_upnp=yes";

/// What bob's router speaks.
#[derive(Clone, Copy, PartialEq)]
enum Speaks {
    All,
    /// miniupnpd knows no setting for that: its PCP is kept from it.
    NatPmpAlone,
    UpnpAlone,
}

impl Speaks {
    fn router(self) -> Result<Mapped> {
        match self {
            Self::All => Mapped::new(ALL),
            Self::UpnpAlone => Mapped::new("enable_natpmp=no\nenable_upnp=yes"),
            Self::NatPmpAlone => {
                let mapped = Mapped::new("enable_natpmp=yes\nenable_upnp=no")?;
                // The first byte is the version: 0 for NAT-PMP, 2 for PCP.
                let rules = "table inet old {
                    counter pcp {}
                    chain own {
                        type filter hook input priority filter - 1;
                        udp dport 5351 @th,64,8 2 counter name pcp drop
                    }
                }";
                mapped.lab.ok("nat-b", &["nft", rules])?;
                Ok(mapped)
            }
        }
    }
}

fn go_direct(speaks: Speaks) -> Result {
    let mapped = speaks.router()?;
    let deployment = Deployment::start(Place::Lab(&mapped.lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let mut agent = deployment.start_agent("dev", &token)?;
    mapped.wait_for_rules(1, "the agent's mapping")?;
    let report = deployment.json(&["ping", "dev", "--until-direct", "--timeout", "20"])?;
    let path = report["path"].as_str().unwrap_or_default().to_owned();
    assert!(path.starts_with("direct") && path.contains(OUTSIDE), "{report:#}");
    let speed = deployment.json(&["speedtest", "dev", "--direct", "--time", "1"])?;
    assert!(speed["total"]["bytes"].as_u64().unwrap_or(0) > 1_000_000, "{speed:#}");
    assert!(mapped.led()? > 100, "the path did not lead through the mapping: {}", mapped.led()?);
    for router in ["nat-a", "nat-b"] {
        assert!(mapped.lab.translated(router)? > 0, "{router} translated nothing: it was not in the way");
    }
    let offered = deployment.json_on("bob", &["netcheck"])?["port_mapping"].clone();
    let (spoken, protocol) = match speaks {
        Speaks::All => ([true, true, true], "PCP"),
        Speaks::NatPmpAlone => ([false, true, false], "NAT-PMP"),
        Speaks::UpnpAlone => ([false, false, true], "UPnP"),
    };
    assert_eq!([&offered["pcp"], &offered["nat_pmp"], &offered["upnp"]], spoken, "{offered:#}");
    assert_eq!(offered["protocol"], protocol, "{offered:#}");
    assert!(offered["address"].as_str().unwrap_or_default().starts_with(OUTSIDE), "{offered:#}");
    assert_eq!(mapped.rules()?.len(), 1, "the check has given its own mapping back");
    if speaks == Speaks::NatPmpAlone {
        let kept = counted(&mapped.lab, "old", "pcp")?;
        assert!(kept > 0, "no PCP was spoken: nothing was kept from the router");
    }
    // An agent that ends gives back what it was granted.
    agent.terminate()?;
    agent.end(Duration::from_secs(10))?;
    mapped.wait_for_rules(0, "the mapping was not given back")?;
    Ok(())
}

#[test]
fn two_symmetric_nats_are_crossed_through_a_port_mapped_by_pcp() -> Result {
    go_direct(Speaks::All)
}

#[test]
fn two_symmetric_nats_are_crossed_through_a_port_mapped_by_nat_pmp() -> Result {
    go_direct(Speaks::NatPmpAlone)
}

#[test]
fn two_symmetric_nats_are_crossed_through_a_port_mapped_by_upnp() -> Result {
    go_direct(Speaks::UpnpAlone)
}

/// The search for UPnP takes seconds, and many commands end before it does.
#[test]
fn a_command_that_ends_at_once_leaves_no_mapping_behind() -> Result {
    let mapped = Mapped::new("enable_natpmp=yes\nenable_upnp=no")?;
    let deployment = Deployment::start(Place::Lab(&mapped.lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    mapped.wait_for_rules(1, "the agent's mapping")?;
    let mut command = deployment.command_on("bob")?;
    command.args(["ping", "dev", "--count", "2", "--interval", "1"]);
    let began = Instant::now();
    let mut command = Running::start(command, deployment.path("ping.log"))?;
    mapped.wait_for_rules(2, "the command's mapping")?;
    let status = command.end(Duration::from_secs(20))?;
    assert!(status.success(), "{}", command.log());
    assert_eq!(mapped.rules()?.len(), 1, "its mapping is left, {:?} after it began", began.elapsed());
    Ok(())
}

/// A router that answers everything, and nothing truly: no lie becomes an address of ours, none makes us ask others,
/// and the agent lives on.
#[test]
fn a_router_that_lies_gains_nothing() -> Result {
    let lab = Lab::new(Nat::Symmetric, Nat::Symmetric)?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let path = |name: &str| dir.path().join(name);
    let say = |mode: &str| std::fs::write(path("mode"), mode).map_err(|e| e.to_string());
    std::fs::write(path("router.py"), include_str!("port_mapping/hostile_router.py"))
        .map_err(|e| e.to_string())?;
    say("short")?;
    let mut command = lab.command("server", "python3");
    command.args(["-u", "-m", "http.server", "8888", "--bind", SERVER, "--directory"]).arg(dir.path());
    let mut victim = Running::start(command, path("victim.log"))?;
    let address = format!("{SERVER}:8888");
    let fetch = format!("import urllib.request as r; r.urlopen('http://{address}/router.py')");
    victim.wait("the victim", || lab.ok("bob", &["python3", "-c", &fetch]).ok())?;
    let mut command = lab.command("nat-b", "python3");
    command.args(["-u"]).arg(path("router.py")).args(["10.2.0.1", &address]).arg(path("mode"));
    let mut router = Running::start(command, path("router.log"))?;
    let log = router.log_path().to_path_buf();
    let said = || std::fs::read_to_string(&log).unwrap_or_default();
    router.wait("the router", || said().contains("ready").then_some(()))?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let mut agent = deployment.start_agent("dev", &token)?;
    for (mode, asked) in [
        ("short", &["pcp", "nat-pmp 0", "search"] as &[_]),
        ("nothing", &["pcp", "nat-pmp 1", "get /root.xml"]),
        ("nowhere", &["pcp", "search"]),
        ("elsewhere", &["nat-pmp 1", "get /root.xml"]),
        ("silent", &["nat-pmp 1", "get /root.xml"]),
        ("huge", &["pcp", "nat-pmp 0", "post GetExternalIPAddress"]),
        ("liar", &["pcp"]),
    ] {
        say(mode)?;
        let report = deployment.json_on("bob", &["netcheck"])?;
        let mapping = &report["port_mapping"];
        for what in asked {
            assert!(said().contains(&format!("{mode} {what}")), "{mode}: not asked {what}\n{}", said());
        }
        // It speaks well for once, so that all of this is known to be read.
        let told = mode == "liar";
        assert_eq!(
            mapping["address"].as_str().is_some_and(|a| a.starts_with("8.8.8.8:")),
            told,
            "{report:#}"
        );
        assert!(told || mapping["address"].is_null(), "{mode}: {report:#}\n{}", said());
        let verdict = report["verdict"].as_str().unwrap_or_default();
        assert!(!verdict.contains("leads a port"), "{mode}: no server sees that address: {verdict}");
    }
    assert!(agent.is_alive(), "{}", agent.log());
    let fetched = victim.log().lines().filter(|line| line.contains("HTTP/1.")).count();
    assert_eq!(fetched, 1, "only the first was ours:\n{}", victim.log());
    Ok(())
}

#[test]
fn without_a_mapping_the_same_two_stay_on_the_relay() -> Result {
    let mapped = Mapped::new(ALL)?;
    let deployment = Deployment::start(Place::Lab(&mapped.lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let mut command = deployment.agent_command("dev", &token)?;
    command.env("WARREN_DISABLE_PORT_MAPPING", "true");
    let _agent = deployment.start_agent_by(command, "dev")?;
    let report = deployment.json(&["ping", "dev", "--count", "6", "--interval", "1"])?;
    assert!(report["path"].as_str().unwrap_or_default().starts_with("relay"), "{report:#}");
    assert_eq!((mapped.rules()?.len(), mapped.led()?), (0, 0));
    Ok(())
}

/// A router that starts anew has forgotten everything, and says so; and what it granted for a minute is renewed before
/// that is over.
#[test]
fn a_mapping_outlives_its_lifetime_and_the_router() -> Result {
    let mut mapped = Mapped::new(&format!("{ALL}\nmin_lifetime=59\nmax_lifetime=60"))?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let lab = &mapped.lab;
    let deployment = Deployment::start(Place::Lab(lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let command = deployment.agent_command("dev", &token)?;
    let _agent = Running::start(command, dir.path().join("agent.log"))?;
    let granted = mapped.wait_for_rules(1, "the agent's mapping")?;
    // Renewed after 30 s and after 60 s; what is seen within the next 20 s is not the third time.
    std::thread::sleep(Duration::from_secs(66));
    assert_eq!(mapped.rules()?, granted, "a minute's mapping after more than a minute");
    drop(deployment);
    mapped.router = None;
    for chain in ["prerouting_miniupnpd", "postrouting_miniupnpd", "miniupnpd"] {
        mapped.lab.ok("nat-b", &["nft", "flush", "chain", "inet", "upnp", chain])?;
    }
    assert!(mapped.rules()?.is_empty());
    mapped.start_router()?;
    mapped.wait_for_rules(1, "the mapping after the router's restart")?;
    Ok(())
}
