//! UDP at local ports: each program that sends there has a flow to the workspace.

use super::link::{Link, TOO_OLD};
use crate::output;
use bytes::Bytes;
use io_adapters::streams::StreamError;
use io_adapters::udp_flow::{Came, UdpFlow};
use proto_core::stream::CODE_UNKNOWN_SERVICE;
use proto_core::stream::udp::{DATAGRAM_MAX, UdpNotice};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

/// A client that says nothing and hears nothing for so long is forgotten (RFC 4787, REQ-5 asks NATs for two minutes).
pub(crate) const IDLE: Duration = Duration::from_secs(120);
/// Clients of one port at once. The one that has been quiet longest makes room.
const CLIENTS_MAX: usize = 256;
/// Datagrams of one client that wait, while the workspace is away for example.
const WAITING_MAX: usize = 64;
/// The same is not said again of a port within this time.
const SAID_AGAIN: Duration = Duration::from_secs(10);
/// After a failure to receive.
const PAUSE: Duration = Duration::from_millis(100);

/// A client's flow, from here.
struct Client {
    outgoing: mpsc::Sender<Bytes>,
    heard: Instant,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Serves a socket for ever.
pub(crate) async fn serve(link: Arc<Link>, socket: UdpSocket, remote: u16) {
    let port = Arc::new(Port { link, socket, remote, said: Mutex::default() });
    let mut clients: HashMap<SocketAddr, Client> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM_MAX];
    loop {
        let (len, from) = match port.socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // A client is gone before its answer came, which says nothing of others.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => {
                let words = format!("a datagram could not be received: {error}");
                output::warning("DATAGRAM_NOT_RECEIVED", &words);
                sleep(PAUSE).await;
                continue;
            }
        };
        let datagram = Bytes::copy_from_slice(buffer.get(..len).unwrap_or_default());
        if clients.get(&from).is_none_or(|client| client.outgoing.is_closed()) {
            clients.retain(|_, client| !client.outgoing.is_closed());
            if clients.len() >= CLIENTS_MAX {
                let quietest = clients.iter().min_by_key(|(_, client)| client.heard).map(|(from, _)| *from);
                quietest.and_then(|from| clients.remove(&from));
            }
            let (outgoing, waiting) = mpsc::channel(WAITING_MAX);
            let flow = Flow { port: port.clone(), client: from };
            let task = tokio::spawn(flow.run(waiting));
            clients.insert(from, Client { outgoing, heard: Instant::now(), task });
        }
        let Some(client) = clients.get_mut(&from) else { continue };
        client.heard = Instant::now();
        if client.outgoing.try_send(datagram).is_err() {
            port.link.totals.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// A port of this machine, and where it leads.
struct Port {
    link: Arc<Link>,
    socket: UdpSocket,
    remote: u16,
    /// What was last said of it, and when.
    said: Mutex<Option<(String, Instant)>>,
}

impl Port {
    /// Tells the person, who need not hear the same of every datagram.
    fn warn(&self, why: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.as_ref().is_none_or(|(what, when)| what != why || when.elapsed() >= SAID_AGAIN) {
            *said = Some((why.to_owned(), Instant::now()));
            let words = format!("datagrams to udp port {}: {why}", self.remote);
            output::warning("DATAGRAMS_DROPPED", &words);
        }
    }
}

/// One client of one port.
struct Flow {
    port: Arc<Port>,
    client: SocketAddr,
}

impl Flow {
    /// Carries its datagrams until nothing is said for a while, or the tunnel is over.
    async fn run(self, mut outgoing: mpsc::Receiver<Bytes>) {
        let Port { link, socket, remote, .. } = &*self.port;
        let totals = &link.totals;
        let _open = totals.connection();
        let mut flow = match link.flow(*remote).await {
            Ok((stream, datagrams)) => UdpFlow::opened(stream, datagrams),
            Err(why) => return self.port.warn(&why),
        };
        let mut until = Instant::now() + IDLE;
        let mut dropped = 0;
        loop {
            tokio::select! {
                datagram = outgoing.recv() => {
                    let Some(datagram) = datagram else { return };
                    totals.traffic.sent.fetch_add(datagram.len() as u64, Relaxed);
                    flow.send(&datagram);
                }
                came = flow.next() => match came {
                    Ok(Some(Came::Datagram(datagram))) => {
                        totals.traffic.received.fetch_add(datagram.len() as u64, Relaxed);
                        let _ = socket.send_to(&datagram, self.client).await;
                    }
                    Ok(Some(Came::Notice(UdpNotice::Ready))) => {}
                    Ok(Some(Came::Notice(notice))) => self.port.warn(&notice.to_string()),
                    Ok(None) => return,
                    // The next datagram of the client begins another flow.
                    Err(error) => return self.broken(&error),
                },
                () = sleep_until(until) => return,
            }
            until = Instant::now() + IDLE;
            let now = flow.dropped();
            if dropped == 0 && now > 0 {
                self.port
                    .warn("more comes than the way to the workspace takes, and what is beyond is dropped");
            }
            totals.dropped.fetch_add(now - dropped, Relaxed);
            dropped = now;
        }
    }

    fn broken(&self, error: &io::Error) {
        match StreamError::of(error) {
            Some(StreamError::Reset(code)) if code == u64::from(CODE_UNKNOWN_SERVICE) => {
                self.port.warn(TOO_OLD)
            }
            _ => tracing::debug!(port = self.port.remote, %error, "a flow ended early"),
        }
    }
}
