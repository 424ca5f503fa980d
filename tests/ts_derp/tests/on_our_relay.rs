//! Tailscale's Rust client on our relay, and its STUN prober on our STUN server.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tests::Result;
use tests::deployment::Place;
use tests::relay::Relay;
use tokio::time::timeout;
use ts_derp::Client;
use ts_derp_tests::{Io, fast_start, plain, relay};
use ts_keys::{NodeKeyPair, NodePublicKey};

/// For something that takes milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);
/// 65,504 is the most that it sends and takes.
const SIZES: [usize; 4] = [1, 1_280, 1_400, 65_504];

struct World {
    relay: Relay,
    _dir: TempDir,
}

impl World {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir().map_err(text)?;
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).map_err(text)?;
        let [certificate, key] =
            ["cert.pem", "key.pem"].map(|name| dir.path().join(name).display().to_string());
        std::fs::write(&certificate, certified.cert.pem()).map_err(text)?;
        std::fs::write(&key, certified.signing_key.serialize_pem()).map_err(text)?;
        let tls = ["--tls-address", "127.0.0.1:0", "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let relay = Relay::start(Place::Here, "127.0.0.1", dir.path(), &tls)?;
        Ok(Self { relay, _dir: dir })
    }

    fn http(&self) -> Result<SocketAddr> {
        self.relay.address("http_address")
    }

    fn https(&self) -> Result<SocketAddr> {
        self.relay.address("tls_address")
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Runs a test that must come to its end in time.
fn run(test: impl Future<Output = Result>) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(text)?;
    runtime.block_on(async { timeout(PATIENCE, test).await.map_err(text)? })
}

async fn pass<A: Io, B: Io>(from: (&Client<A>, NodePublicKey), to: (&Client<B>, NodePublicKey)) -> Result {
    for size in SIZES {
        let sent: Vec<u8> = (0..size as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        from.0.send_one(to.1, &sent).await.map_err(text)?;
        let (key, heard) = to.0.recv_one().await.map_err(text)?;
        assert!(key == from.1 && heard.as_ref() == sent, "{size} bytes: {} came", heard.len());
    }
    Ok(())
}

#[test]
fn its_stock_dial_by_tls_carries_packets_both_ways() -> Result {
    let world = World::start()?;
    let info = relay(world.https()?);
    run(async {
        let keys = [NodeKeyPair::random(), NodeKeyPair::random()];
        let a = Client::connect([&info], &keys[0]).await.map_err(text)?;
        let b = Client::connect([&info], &keys[1]).await.map_err(text)?;
        pass((&a, keys[0].public), (&b, keys[1].public)).await?;
        pass((&b, keys[1].public), (&a, keys[0].public)).await
    })
}

#[test]
fn plain_upgrade_and_fast_start_meet_each_other_and_the_stock_dial() -> Result {
    let world = World::start()?;
    let (http, https) = (world.http()?, world.https()?);
    let info = relay(https);
    run(async {
        let keys = [NodeKeyPair::random(), NodeKeyPair::random(), NodeKeyPair::random()];
        let plain = plain(http, &keys[0]).await.map_err(text)?;
        let fast = fast_start(https, &keys[1]).await.map_err(text)?;
        let stock = Client::connect([&info], &keys[2]).await.map_err(text)?;
        pass((&plain, keys[0].public), (&fast, keys[1].public)).await?;
        pass((&fast, keys[1].public), (&stock, keys[2].public)).await?;
        pass((&stock, keys[2].public), (&plain, keys[0].public)).await
    })
}

/// It fails on frames that it does not expect, and expects few.
#[test]
fn it_outlives_its_peer_and_hears_nothing_that_it_cannot_read() -> Result {
    let world = World::start()?;
    let http = world.http()?;
    run(async {
        let keys = [NodeKeyPair::random(), NodeKeyPair::random(), NodeKeyPair::random()];
        let a = plain(http, &keys[0]).await.map_err(text)?;
        let gone = plain(http, &keys[1]).await.map_err(text)?;
        pass((&gone, keys[1].public), (&a, keys[0].public)).await?;
        drop(gone);
        // To whom is not there any more, and to whom never was.
        a.send_one(keys[1].public, b"late").await.map_err(text)?;
        a.send_one(NodeKeyPair::random().public, b"nobody").await.map_err(text)?;
        let b = plain(http, &keys[2]).await.map_err(text)?;
        pass((&b, keys[2].public), (&a, keys[0].public)).await?;
        pass((&a, keys[0].public), (&b, keys[2].public)).await
    })
}

#[test]
fn its_stun_prober_learns_its_address() -> Result {
    let world = World::start()?;
    let server = world.relay.address("stun_address")?;
    run(async {
        let prober = ts_netcheck::StunProber::try_new().await.map_err(text)?;
        for _ in 0..3 {
            let (took, seen) = prober.measure(server).await.map_err(text)?;
            assert!(seen.ip().is_loopback() && seen.port() != 0, "{seen}");
            assert!(took < PATIENCE, "{took:?}");
        }
        Ok(())
    })
}
