//! How long a packet is under way, beside whatever else the relay has to do.

use crate::Load;
use crate::client::Client;
use proto_core::wire::derp::{Frame, decode};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// From one packet to the next.
const EVERY: Duration = Duration::from_millis(1);
/// Numbers of clients that no crowd reaches.
const NUMBERS: [usize; 2] = [1_000_001, 1_000_002];

pub(crate) async fn run(load: &Load) -> Result<Value, String> {
    let mut sender = Client::log_in(load, NUMBERS[0]).await?;
    let mut receiver = Client::log_in(load, NUMBERS[1]).await?;
    let (to, size) = (receiver.key, load.size.max(8));
    let origin = Instant::now();
    let packets = (load.window().as_micros() / EVERY.as_micros()) as usize;
    let received = Rc::new(RefCell::new(Vec::with_capacity(packets)));
    let micros = received.clone();
    let receiving = tokio::task::spawn_local(async move {
        let mut kept = receiver.read;
        while micros.borrow().len() < packets {
            if receiver.io.read_buf(&mut kept).await? == 0 {
                break;
            }
            let mut at = 0;
            while let Some((frame, len)) = decode(&kept[at..]).map_err(std::io::Error::other)? {
                at += len;
                if let Frame::RecvPacket { bytes, .. } = frame
                    && let Some(sent) = bytes.first_chunk::<8>()
                {
                    let now = origin.elapsed().as_nanos() as u64;
                    micros.borrow_mut().push((now - u64::from_be_bytes(*sent)) as f64 / 1e3);
                }
            }
            kept.drain(..at);
        }
        Ok::<_, std::io::Error>(())
    });
    let mut tick = tokio::time::interval(EVERY);
    let mut payload = vec![0; size];
    for _ in 0..packets {
        tick.tick().await;
        payload[..8].copy_from_slice(&(origin.elapsed().as_nanos() as u64).to_be_bytes());
        let frame = Frame::SendPacket { to, bytes: &payload }.to_bytes();
        sender.io.write_all(&frame).await.map_err(|e| format!("the sender: {e}"))?;
        sender.io.flush().await.map_err(|e| format!("the sender: {e}"))?;
    }
    // What was dropped on the way never comes.
    if let Ok(ended) = tokio::time::timeout(Duration::from_secs(1), receiving).await {
        ended.map_err(|e| e.to_string())?.map_err(|e| format!("the receiver: {e}"))?;
    }
    let mut micros = received.take();
    if micros.is_empty() {
        return Err("not one packet of the quiet pair came through".into());
    }
    micros.sort_by(f64::total_cmp);
    let at = |permille: usize| micros.get((micros.len() * permille).div_ceil(1_000).max(1) - 1);
    Ok(
        json!({ "lost": packets - micros.len(), "p50_us": at(500), "p99_us": at(990), "max_us": micros.last() }),
    )
}
