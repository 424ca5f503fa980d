//! What is said in a tunnel appears neither on the wire nor at the relay: packet captures of a session, relayed
//! and direct, searched for a known pattern.

use io_adapters::speedtest::PATTERN;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place};
use tests::lab::{Lab, Nat, SERVER};

/// Plaintext that holds 64 bytes of the pattern in a row holds one of its 32-byte blocks whole.
const BLOCK: usize = 32;

struct Capture {
    tcpdump: Child,
    file: PathBuf,
}

impl Capture {
    fn start(lab: &Lab, host: &str, folder: &Path) -> Result<Self> {
        let file = folder.join(format!("{host}.pcap"));
        let log = std::fs::File::create(folder.join(format!("{host}.tcpdump"))).map_err(|e| e.to_string())?;
        let mut tcpdump = lab.command(host, "tcpdump");
        tcpdump
            .args(["-i", "any", "--immediate-mode", "-U", "-s", "0", "-w"])
            .arg(&file)
            .stdin(Stdio::null())
            .stderr(log);
        let tcpdump = tcpdump.spawn().map_err(|e| format!("can't start tcpdump: {e}"))?;
        let capture = Self { tcpdump, file };
        let began = Instant::now();
        while !std::fs::metadata(&capture.file).is_ok_and(|m| m.len() > 0) {
            assert!(began.elapsed() < Duration::from_secs(10), "tcpdump on {host} does not begin");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(capture)
    }

    /// Stops it and gives what it caught.
    fn finish(mut self) -> Vec<u8> {
        let _ = std::process::Command::new("kill").args(["-INT", &self.tcpdump.id().to_string()]).status();
        let _ = self.tcpdump.wait();
        std::fs::read(&self.file).expect("a capture")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.tcpdump.kill();
        let _ = self.tcpdump.wait();
    }
}

/// How many of the pattern's blocks stand in `bytes`.
fn blocks_in(bytes: &[u8]) -> usize {
    let blocks: std::collections::BTreeSet<&[u8]> = PATTERN.chunks_exact(BLOCK).collect();
    assert_eq!(blocks.len(), PATTERN.len() / BLOCK, "the pattern's blocks differ from each other");
    // Captures are large: only where a block's first two bytes stand is the rest looked at.
    let mut begins = vec![false; 1 << 16];
    for block in &blocks {
        begins[usize::from(u16::from_be_bytes([block[0], block[1]]))] = true;
    }
    let may = |at: &usize| begins[usize::from(u16::from_be_bytes([bytes[*at], bytes[at + 1]]))];
    let last = bytes.len().saturating_sub(BLOCK - 1);
    (0..last).filter(may).filter(|at| blocks.contains(&bytes[*at..*at + BLOCK])).count()
}

#[test]
fn the_payload_is_nowhere_to_be_seen() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    for (path, arguments) in
        [("relay", ["--disable-direct-connections", "--time", "1"]), ("direct", ["--direct", "--time", "1"])]
    {
        let wire = Capture::start(&lab, "inet", deployment.dir())?;
        let relay = Capture::start(&lab, "server", deployment.dir())?;
        let report = deployment.json(&[&["speedtest", "dev"][..], &arguments].concat())?;
        let (wire, relay) = (wire.finish(), relay.finish());
        assert!(report["path"].as_str().unwrap_or_default().starts_with(path), "{report:#}");
        let carried = report["total"]["bytes"].as_u64().unwrap_or(0);
        assert!(carried > 1_000_000, "{report:#}");
        assert!(wire.len() as u64 > carried / 2, "{path}: the capture on the wire missed the session");
        if path == "relay" {
            assert!(relay.len() as u64 > carried / 2, "the capture at the relay missed the session");
        }
        assert_eq!(blocks_in(&wire), 0, "{path}: plaintext on the wire");
        assert_eq!(blocks_in(&relay), 0, "{path}: plaintext at the relay");
    }
    Ok(())
}

#[test]
fn the_search_finds_the_payload_where_it_is_sent_in_the_clear() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let file = folder.path().join("pattern");
    std::fs::write(&file, PATTERN).map_err(|e| e.to_string())?;
    let wire = Capture::start(&lab, "inet", folder.path())?;
    let send = format!("cat {} > /dev/udp/{SERVER}/9", file.display());
    lab.ok("alice", &["bash", "-c", &send])?;
    std::thread::sleep(Duration::from_millis(300));
    assert!(blocks_in(&wire.finish()) >= PATTERN.len() / BLOCK, "the pattern was sent and not found");
    Ok(())
}
