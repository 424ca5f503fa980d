//! One transfer through everything that can happen to it, with the built programs behind real Linux NATs.

use serde_json::json;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place};
use tests::lab::{Lab, Nat, SERVER_SECOND};
use tests::relay::{Relay, metric};

/// Bytes of the file.
const SIZE: u64 = 1 << 30;
/// How long the transfer may stand still after a fault: a restarted server, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// What must have arrived after a fault before the next one comes.
const STRETCH: u64 = SIZE / 8;

#[test]
fn a_file_outlives_its_path_its_relay_its_address_and_its_server() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let relay = Relay::start(Place::Lab(&lab), SERVER_SECOND, folder.path(), &[])?;
    let map = write_map(&relay, folder.path())?;
    let arguments = ["--derp-config-path", &map, "--relay", "mortal"];
    let mut deployment = Deployment::start(Place::Lab(&lab), &arguments)?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let report = deployment.json(&["ping", "dev", "--until-direct", "--timeout", "20"])?;
    assert!(report["path"].as_str().unwrap_or_default().starts_with("direct"), "{report:#}");

    let (there, here) = (folder.path().join("there"), folder.path().join("here"));
    let there_text = there.display().to_string();
    let wanted = make_file(&there)?;
    let mut transfer = Transfer::start(&deployment, &there_text, &here)?;
    transfer.goes_on("at first")?;

    cut_direct(&lab)?;
    transfer.goes_on("after the direct path was cut")?;
    assert!(stopped(&lab)? > 0, "the cut stopped nothing");

    let carried = carried(&lab, &relay)?;
    assert!(carried > 100, "the relay carried {carried} packets: it was not in use");
    relay.process.kill()?;
    transfer.goes_on("after the relay was killed")?;

    for step in [
        &["ip", "address", "del", "10.1.0.2/24", "dev", "eth0"][..],
        &["ip", "address", "add", "10.1.0.3/24", "dev", "eth0"],
        &["ip", "route", "replace", "default", "via", "10.1.0.1"],
    ] {
        lab.ok("alice", step)?;
    }
    transfer.goes_on("after the client's address was changed")?;

    deployment.stop_server();
    std::thread::sleep(Duration::from_secs(1));
    deployment.start_server(&arguments)?;
    transfer.goes_on("after the server was restarted")?;

    transfer.end()?;
    assert_eq!(checksum(&here)?, wanted, "the file arrived changed\n{}", agent.log_end());
    Ok(())
}

/// Packets of nodes that the relay has taken, by its own count.
fn carried(lab: &Lab, relay: &Relay) -> Result<u64> {
    let url = format!("http://{}/metrics", relay.address("metrics_address")?);
    let script = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1]).read().decode())";
    let page = lab.ok("server", &["python3", "-c", script, &url])?;
    metric(&page, "warren_relay_packets_received_total{kind=\"data\"}")
}

/// A map whose one region is this relay.
fn write_map(relay: &Relay, folder: &Path) -> Result<String> {
    let (http, stun) = (relay.address("http_address")?, relay.address("stun_address")?);
    let node = json!({
        "Name": "7a", "RegionID": 7, "HostName": SERVER_SECOND, "IPv6": "none",
        "DERPPort": http.port(), "STUNPort": stun.port(), "ForceHTTP": true,
    });
    let region =
        json!({ "RegionID": 7, "RegionCode": "mortal", "RegionName": "The mortal", "Nodes": [node] });
    let file = folder.join("map.json");
    std::fs::write(&file, json!({ "Regions": { "7": region } }).to_string()).map_err(|e| e.to_string())?;
    Ok(file.display().to_string())
}

/// A file of bytes that nobody can guess, and its checksum.
fn make_file(path: &Path) -> Result<String> {
    let mut random =
        File::open("/dev/urandom").map(|f| std::io::Read::take(f, SIZE)).map_err(|e| e.to_string())?;
    let mut file = File::create(path).map_err(|e| e.to_string())?;
    std::io::copy(&mut random, &mut file).map_err(|e| format!("{}: {e}", path.display()))?;
    checksum(path)
}

fn checksum(path: &Path) -> Result<String> {
    let out = Command::new("sha256sum").arg(path).output().map_err(|e| format!("sha256sum: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.split_whitespace().next().map(str::to_owned).ok_or_else(|| format!("no checksum: {out:?}"))
}

/// Nothing passes between the two sites' routers by UDP any more.
fn cut_direct(lab: &Lab) -> Result {
    let rules = "table ip cut {
        counter stopped {}
        chain between {
            type filter hook forward priority filter;
            ip saddr { 198.51.100.2, 192.0.2.2 } ip daddr { 198.51.100.2, 192.0.2.2 } meta l4proto udp counter name stopped drop
        }
    }";
    lab.ok("inet", &["nft", rules]).map(drop)
}

/// Packets that the cut has stopped.
fn stopped(lab: &Lab) -> Result<u64> {
    let text = lab.ok("inet", &["nft", "list", "counter", "ip", "cut", "stopped"])?;
    let mut words = text.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|count| count.parse().ok()).ok_or_else(|| format!("no counter in {text}"))
}

/// A file on its way from the workspace.
struct Transfer<'a> {
    child: Child,
    here: &'a Path,
    said: std::path::PathBuf,
}

impl<'a> Transfer<'a> {
    fn start(deployment: &Deployment<'_>, there: &str, here: &'a Path) -> Result<Self> {
        let said = here.with_extension("said");
        let into = |path: &Path| File::create(path).map_err(|e| format!("{}: {e}", path.display()));
        let mut command = deployment.command()?;
        command.args(["ssh", "dev", "cat", there]).stdin(Stdio::null());
        let child = command.stdout(into(here)?).stderr(into(&said)?).spawn().map_err(|e| e.to_string())?;
        Ok(Self { child, here, said })
    }

    fn len(&self) -> u64 {
        std::fs::metadata(self.here).map_or(0, |file| file.len())
    }

    /// Waits until another stretch of the file has arrived, which must not be its last.
    fn goes_on(&mut self, when: &str) -> Result {
        let (before, began) = (self.len(), Instant::now());
        while self.len() < before + STRETCH {
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = std::fs::read_to_string(&self.said).unwrap_or_default();
                return Err(format!("{when} the transfer ended ({status}) at {} bytes: {said}", self.len()));
            }
            if began.elapsed() > PATIENCE {
                return Err(format!("{when} the transfer stands still at {} bytes", self.len()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn end(&mut self) -> Result {
        let status = self.child.wait().map_err(|e| e.to_string())?;
        let said = std::fs::read_to_string(&self.said).unwrap_or_default();
        if status.success() { Ok(()) } else { Err(format!("the transfer failed ({status}): {said}")) }
    }
}

impl Drop for Transfer<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
