//! Many clients who say nothing, and clients who come and go.

use crate::Load;
use crate::client::{self, Client};
use proto_core::key::NodeSecret;
use serde_json::{Value, json};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Logins under way at once while a crowd assembles.
const ASSEMBLING: usize = 64;
/// Until the relay has given back what logins needed.
const SETTLE: Duration = Duration::from_secs(3);

/// `peers` clients, logged in one batch after the other.
pub(crate) async fn assemble(load: &Load) -> Result<Vec<Client>, String> {
    let mut clients = Vec::with_capacity(load.peers);
    for first in (0..load.peers).step_by(ASSEMBLING) {
        let batch: Vec<_> = (first..load.peers.min(first + ASSEMBLING))
            .map(|number| {
                let load = load.clone();
                tokio::task::spawn_local(async move { Client::log_in(&load, number).await })
            })
            .collect();
        for client in batch {
            clients.push(client.await.map_err(|e| e.to_string())??);
        }
    }
    Ok(clients)
}

pub(crate) async fn idle(load: &Load) -> Result<Value, String> {
    // The first clients make the relay load what it needs for any.
    let few = Load { peers: 16, ..load.clone() };
    drop(assemble(&few).await?);
    tokio::time::sleep(SETTLE).await;
    let before = load.relay.resident_kib().ok_or("idle needs pid=NUMBER of the relay")?;
    let began = Instant::now();
    let clients = assemble(load).await?;
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE + load.window()).await;
    let after = load.relay.resident_kib().ok_or("the relay is gone")?;
    Ok(json!({
        "clients": clients.len(),
        "kib_per_client": (after as f64 - before as f64) / clients.len() as f64,
        "relay_kib": after,
        "seconds_to_assemble": took,
    }))
}

pub(crate) async fn logins(load: &Load) -> Result<Value, String> {
    let (done, stop) = (Rc::new(Cell::new(0_u64)), Rc::new(Cell::new(false)));
    let (began, cpu) = (Instant::now(), load.relay.cpu());
    let tasks: Vec<_> = (0..load.peers)
        .map(|number| {
            let (load, done, stop) = (load.clone(), done.clone(), stop.clone());
            tokio::task::spawn_local(async move {
                let seed = client::seed(number);
                let secret = NodeSecret::generate(&seed);
                while !stop.get() {
                    let client = Client::log_in_as(&load, &secret, &seed).await;
                    drop(client.map_err(|e| format!("login: {e}"))?);
                    done.set(done.get() + 1);
                }
                Ok::<(), String>(())
            })
        })
        .collect();
    tokio::time::sleep(load.window()).await;
    let (logins, took) = (done.get(), began.elapsed());
    let spent = load.relay.cpu().zip(cpu).map(|(after, before)| after - before);
    stop.set(true);
    for task in tasks {
        task.await.map_err(|e| e.to_string())??;
    }
    Ok(json!({
        "logins": logins,
        "logins_per_second": logins as f64 / took.as_secs_f64(),
        "relay_us_per_login": spent.map(|ns| ns as f64 / 1e3 / logins as f64),
        "relay_core": spent.map(|ns| ns as f64 / took.as_nanos() as f64),
    }))
}
