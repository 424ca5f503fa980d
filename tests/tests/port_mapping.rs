//! Port mappings by a real router: miniupnpd leads a port through a NAT that nobody could cross otherwise.

use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{Lab, Nat};

/// An outer address more of bob's router. miniupnpd maps nothing on those for documentation, which all others of the
/// lab are.
const OUTSIDE: &str = "8.8.4.2";

/// Two NATs that no technique crosses, a miniupnpd on bob's with these settings besides the usual, and a counter of
/// the packets that it led inside.
struct Mapped {
    lab: Lab,
    dir: tempfile::TempDir,
    router: Option<Running>,
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
        let mut mapped = Self { lab, dir, router: None };
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
            std::fs::read_to_string(&log).ok().filter(|said| said.contains("listening on port"))
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
        let text = self.lab.ok("nat-b", &["nft", "list", "counter", "inet", "upnp", "led"])?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
        words.nth(1).and_then(|n| n.parse().ok()).ok_or_else(|| format!("no counter in {text}"))
    }
}

const ALL: &str = "enable_natpmp=yes\nenable_upnp=yes";
const UPNP_ALONE: &str = "enable_natpmp=no\nenable_upnp=yes";

fn go_direct(settings: &str) -> Result {
    let mapped = Mapped::new(settings)?;
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
    let offered = netcheck_behind_the_router(&mapped, &deployment)?;
    let by_datagrams = settings == ALL;
    assert_eq!(
        [&offered["pcp"], &offered["nat_pmp"], &offered["upnp"]],
        [by_datagrams, by_datagrams, true],
        "{offered:#}"
    );
    assert!(offered["address"].as_str().unwrap_or_default().starts_with(OUTSIDE), "{offered:#}");
    assert_eq!(mapped.rules()?.len(), 1, "the check has given its own mapping back");
    // An agent that ends gives back what it was granted.
    agent.terminate()?;
    agent.end(Duration::from_secs(10))?;
    mapped.wait_for_rules(0, "the mapping was not given back")?;
    Ok(())
}

/// What `warren netcheck` says of the router where the agent is.
fn netcheck_behind_the_router(mapped: &Mapped, deployment: &Deployment<'_>) -> Result<serde_json::Value> {
    let mut command = Place::Lab(&mapped.lab).command("bob", "warren")?;
    command.env("WARREN_CONFIG_DIR", deployment.path("config")).args(["netcheck", "-o", "json"]);
    let out = command.output().map_err(|e| e.to_string())?;
    let said: serde_json::Value = serde_json::from_slice(&out.stdout)
        .map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&out.stderr)))?;
    Ok(said["port_mapping"].clone())
}

#[test]
fn two_symmetric_nats_are_crossed_through_a_port_mapped_by_pcp() -> Result {
    go_direct(ALL)
}

#[test]
fn two_symmetric_nats_are_crossed_through_a_port_mapped_by_upnp() -> Result {
    go_direct(UPNP_ALONE)
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
