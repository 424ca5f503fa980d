//! QUIC to one peer, without sockets or tasks: quinn-proto's endpoint and connections, and the streams on them.
//!
//! # Who is the client
//!
//! Whoever has the first bytes. A connection is made when a stream is opened and there is none, and those first
//! bytes travel in the first datagram, beside the client's hello, whichever side they come from: a rule by keys
//! would cost the other side a round trip. If both sides begin at once there are two connections, and both are
//! good; new streams go over the one whose client has the lower key, and the other serves the streams it has.
//!
//! # Restarts
//!
//! Each hello carries the boot id of its sender's process. A hello of another process ends the connections to
//! the earlier one, at once. A node that lost a connection's state answers its packets with stateless resets,
//! whose key belongs to the node and not to its process, so that the other end learns of a restart even before
//! the coordinator tells it.

use super::StreamError;
use super::config::{QuicConfig, STREAMS_MAX};
use super::controller::Steering;
use super::flow::{Flow, Held};
use super::link::{Link, Room};
use super::noop_crypto::Hello;
use bytes::{Bytes, BytesMut};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};
use proto_core::seed::{Rng, Seed};
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Dir, Endpoint, EndpointEvent, Event, Incoming,
    SendDatagramError, SendStream, StreamEvent, StreamId, Transmit, VarInt, WriteError,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Connections of one peer: one of each side's, and those of an earlier process while they are replaced.
const CONNECTIONS_MAX: usize = 4;
/// Answers of the endpoint itself (stateless resets, refusals) that wait to be sent.
const ANSWERS_MAX: usize = 8;
/// Bytes that are buffered for sending, at least and at most: between them twice the congestion window, so that
/// the connection is never short and a slow path does not queue what it cannot carry.
const SEND_WINDOW: (u64, u64) = (512 << 10, 64 << 20);
/// What streams of raised priority, and the first bytes of any, may use beyond that: bulk writers shall not keep
/// them from being heard.
const SEND_RESERVE: u64 = 256 << 10;
/// The first bytes of a stream, for [`SEND_RESERVE`].
const FIRST_BYTES: u64 = 4 << 10;

/// What happened to the streams of a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum MuxEvent {
    Incoming(u64),
    Readable(u64),
    Writable(u64),
    Openable,
    Delivered(u64),
    Datagrams,
}

/// QUIC to one peer.
pub(crate) struct Mux {
    endpoint: Endpoint,
    config: Arc<QuicConfig>,
    first_cids: Arc<Mutex<Rng>>,
    /// Our address inside the tunnel.
    us: Ipv6Addr,
    remote: SocketAddr,
    /// Whether our key is the lower one.
    lower: bool,
    links: BTreeMap<usize, Link>,
    flows: BTreeMap<u64, Flow>,
    names: BTreeMap<(usize, StreamId), u64>,
    next_flow: u64,
    events: VecDeque<MuxEvent>,
    answers: VecDeque<Vec<u8>>,
    scratch: Vec<u8>,
    /// What all streams hold.
    held: Held,
    open_blocked: bool,
    timeout: Option<Instant>,
}

/// The port that QUIC has inside the tunnel, at both ends ("Wr").
pub(crate) const INNER_PORT: u16 = 0x5772;

impl Mux {
    pub(crate) fn new(
        config: &Arc<QuicConfig>,
        seed: &Seed,
        (us, peer): (Ipv6Addr, Ipv6Addr),
        lower: bool,
    ) -> Self {
        let steering = Steering::new();
        Self {
            endpoint: Endpoint::new(
                Arc::new(config.endpoint(seed)),
                Some(Arc::new(config.server(&steering))),
                true,
                None,
            ),
            config: config.clone(),
            first_cids: Arc::new(Mutex::new(seed.fork("first cids").rng())),
            us,
            remote: SocketAddr::new(IpAddr::V6(peer), INNER_PORT),
            lower,
            links: BTreeMap::new(),
            flows: BTreeMap::new(),
            names: BTreeMap::new(),
            next_flow: 0,
            events: VecDeque::new(),
            answers: VecDeque::new(),
            scratch: Vec::new(),
            held: Held::default(),
            open_blocked: false,
            timeout: None,
        }
    }

    /// Uses `config` for connections made from now on.
    pub(crate) fn set_config(&mut self, config: &Arc<QuicConfig>) {
        self.config = config.clone();
    }

    // --- Packets ------------------------------------------------------------------------------------------

    /// A QUIC datagram of this peer. [`Mux::settle`] must follow before anything else is asked.
    pub(crate) fn receive(&mut self, datagram: BytesMut, now: Instant) {
        self.scratch.clear();
        match self.endpoint.handle(now, self.remote, None, None, datagram, &mut self.scratch) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(link) = self.links.get_mut(&handle.0) {
                    link.connection.handle_event(event);
                    link.dirty = true;
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(incoming, now),
            Some(DatagramEvent::Response(transmit)) => self.answer(&transmit),
            None => {}
        }
    }

    fn answer(&mut self, transmit: &Transmit) {
        if self.answers.len() < ANSWERS_MAX
            && let Some(bytes) = self.scratch.get(..transmit.size)
        {
            self.answers.push_back(bytes.to_vec());
        }
    }

    fn accept(&mut self, incoming: Incoming, now: Instant) {
        let steering = Steering::new();
        let server = Arc::new(self.config.server(&steering));
        self.scratch.clear();
        let (handle, connection) = match self.endpoint.accept(incoming, now, &mut self.scratch, Some(server))
        {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(transmit) = error.response {
                    self.answer(&transmit);
                }
                return;
            }
        };
        let Some(hello) = hello_of(&connection) else {
            // A hello fits in one datagram. Whoever sends it in pieces is not one of us.
            self.endpoint.handle_event(handle, EndpointEvent::drained());
            return;
        };
        steering.set_buffer(hello.receive_buffer);
        self.replace(&hello);
        let link = Link::new(connection, steering, Some(hello));
        self.links.insert(handle.0, link);
    }

    /// Ends the connections that a new one with this hello replaces: those to another process of the peer, and
    /// what the same process has given up in favour of the new one.
    fn replace(&mut self, hello: &Hello) {
        let over = |link: &Link| link.hello.is_some_and(|h| h.boot_id != hello.boot_id || !link.client);
        let mut gone: Vec<_> = self.links.iter().filter(|(_, l)| over(l)).map(|(&h, _)| h).collect();
        let kept = self.links.len() - gone.len();
        if kept >= CONNECTIONS_MAX {
            gone.extend(self.links.keys().filter(|h| !gone.contains(h)).take(1).copied().collect::<Vec<_>>());
        }
        for handle in gone {
            self.lose(handle);
        }
    }

    /// Does what follows from packets, timers and calls: drains the connections' own events.
    pub(crate) fn settle(&mut self, now: Instant) {
        let dirty: Vec<_> = self.links.iter().filter(|(_, l)| l.dirty).map(|(&h, _)| h).collect();
        for handle in dirty {
            self.settle_link(handle);
        }
        self.reschedule(now);
    }

    fn settle_link(&mut self, handle: usize) {
        loop {
            let Some(link) = self.links.get_mut(&handle) else { return };
            link.dirty = false;
            let mut idle = true;
            while let Some(event) = link.connection.poll_endpoint_events() {
                idle = false;
                if let Some(event) = self.endpoint.handle_event(ConnectionHandle(handle), event) {
                    link.connection.handle_event(event);
                }
            }
            while let Some(link) = self.links.get_mut(&handle) {
                let Some(event) = link.connection.poll() else { break };
                idle = false;
                self.on_event(handle, event);
            }
            if idle {
                return;
            }
        }
    }

    fn on_event(&mut self, handle: usize, event: Event) {
        match event {
            Event::HandshakeDataReady | Event::DatagramsUnblocked => {}
            Event::Connected => self.connected(handle),
            Event::ConnectionLost { reason } => {
                tracing::debug!(peer = %self.remote.ip(), %reason, "connection lost");
                self.lose(handle);
            }
            Event::DatagramReceived => self.events.push_back(MuxEvent::Datagrams),
            Event::Stream(StreamEvent::Opened { dir }) => self.opened(handle, dir),
            Event::Stream(StreamEvent::Readable { id }) => self.readable(handle, id),
            Event::Stream(StreamEvent::Writable { id }) => self.writable(handle, id),
            Event::Stream(StreamEvent::Stopped { id, .. }) => {
                // Who has nothing to write just now is to know as well.
                if let Some(&flow) = self.names.get(&(handle, id)) {
                    self.events.push_back(MuxEvent::Writable(flow));
                }
            }
            Event::Stream(StreamEvent::Finished { id }) => {
                if let Some(&flow) = self.names.get(&(handle, id)) {
                    self.events.push_back(MuxEvent::Delivered(flow));
                }
            }
            Event::Stream(StreamEvent::Available { .. }) => {
                if std::mem::take(&mut self.open_blocked) {
                    self.events.push_back(MuxEvent::Openable);
                }
            }
        }
    }

    fn connected(&mut self, handle: usize) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        if link.hello.is_none()
            && let Some(hello) = hello_of(&link.connection)
        {
            link.steering.set_buffer(hello.receive_buffer);
            link.hello = Some(hello);
            let earlier = |l: &Link| l.hello.is_some_and(|h| h.boot_id != hello.boot_id);
            let gone: Vec<_> = self.links.iter().filter(|(_, l)| earlier(l)).map(|(&h, _)| h).collect();
            for handle in gone {
                self.lose(handle);
            }
        }
    }

    /// The connection is over, without a farewell: its streams are lost.
    fn lose(&mut self, handle: usize) {
        if self.links.remove(&handle).is_none() {
            return;
        }
        self.endpoint.handle_event(ConnectionHandle(handle), EndpointEvent::drained());
        self.names.retain(|(of, _), _| *of != handle);
        for (&name, flow) in self.flows.iter_mut().filter(|(_, f)| f.handle == handle && !f.lost) {
            flow.lost = true;
            self.events.push_back(MuxEvent::Readable(name));
            self.events.push_back(MuxEvent::Writable(name));
        }
        if std::mem::take(&mut self.open_blocked) {
            self.events.push_back(MuxEvent::Openable);
        }
    }

    /// The peer is another process now: nothing that was said to the earlier one counts. Connections that are
    /// known to be to this process stay.
    pub(crate) fn restarted(&mut self, boot_id: u64, now: Instant) {
        let stale = |link: &Link| match link.hello {
            Some(hello) => hello.boot_id != boot_id,
            // Our hello was heard, but by whom? If by the earlier process, the new one will never answer.
            None => link.connection.stats().udp_rx.datagrams > 0,
        };
        let gone: Vec<_> = self.links.iter().filter(|(_, link)| stale(link)).map(|(&h, _)| h).collect();
        for handle in gone {
            self.lose(handle);
        }
        self.reschedule(now);
    }

    /// Ends every connection.
    pub(crate) fn lose_all(&mut self, now: Instant) {
        let all: Vec<_> = self.links.keys().copied().collect();
        for handle in all {
            self.lose(handle);
        }
        self.reschedule(now);
    }

    /// Packets travel another way from now on: what was measured of the earlier one says nothing.
    pub(crate) fn path_changed(&mut self, now: Instant) {
        for link in self.links.values_mut() {
            link.connection.path_changed(now);
            link.dirty = true;
        }
    }

    /// QUIC packets to send, of equal length (the last may be shorter) and no more than there is room for, into
    /// `out`, which is cleared first: the length of each, none if there is nothing to send now.
    pub(crate) fn transmit(&mut self, room: Room, out: &mut Vec<u8>, now: Instant) -> Option<usize> {
        let segment = self.next_packets(room, out, now);
        self.reschedule(now);
        segment
    }

    fn next_packets(&mut self, room: Room, out: &mut Vec<u8>, now: Instant) -> Option<usize> {
        out.clear();
        if let Some(answer) = self.answers.pop_front() {
            out.extend_from_slice(&answer);
            return Some(answer.len());
        }
        for link in self.links.values_mut() {
            let max = room.packets(link.connection.current_mtu());
            if let Some(transmit) = link.transmit(max, out, now) {
                out.truncate(transmit.size);
                return Some(transmit.segment_size.unwrap_or(transmit.size));
            }
        }
        None
    }

    /// When [`Mux::expire`] is to be called.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// Fires the timers that are due.
    pub(crate) fn expire(&mut self, now: Instant) {
        self.links.values_mut().for_each(|link| link.expire(now));
        self.settle(now);
    }

    fn reschedule(&mut self, now: Instant) {
        self.timeout = self.links.values_mut().filter_map(|link| link.due(now)).min();
    }

    pub(crate) fn event(&mut self) -> Option<MuxEvent> {
        self.events.pop_front()
    }

    // --- Streams ------------------------------------------------------------------------------------------

    fn opened(&mut self, handle: usize, dir: Dir) {
        let Some(link) = self.links.get_mut(&handle) else { return };
        while let Some(id) = link.connection.streams().accept(dir) {
            let name = self.next_flow;
            self.next_flow += 1;
            self.flows.insert(name, Flow::new(handle, id));
            self.names.insert((handle, id), name);
            self.events.push_back(MuxEvent::Incoming(name));
        }
        let open = link.connection.streams().remote_open_streams(Dir::Bi);
        if open * 4 >= u64::from(link.permitted) * 3 && link.permitted < STREAMS_MAX {
            link.permitted = (link.permitted * 2).min(STREAMS_MAX);
            link.connection.set_max_concurrent_streams(Dir::Bi, VarInt::from_u32(link.permitted));
        }
    }

    fn readable(&mut self, handle: usize, id: StreamId) {
        let Some(&name) = self.names.get(&(handle, id)) else { return };
        let (Some(flow), Some(link)) = (self.flows.get_mut(&name), self.links.get_mut(&handle)) else {
            return;
        };
        self.held.replace(flow.held(), Held::default());
        flow.pull(&mut link.connection, self.held);
        self.held.replace(Held::default(), flow.held());
        if flow.read_blocked && flow.is_readable() {
            flow.read_blocked = false;
            self.events.push_back(MuxEvent::Readable(name));
        }
    }

    fn writable(&mut self, handle: usize, id: StreamId) {
        let Some(&name) = self.names.get(&(handle, id)) else { return };
        if let Some(flow) = self.flows.get_mut(&name)
            && std::mem::take(&mut flow.write_blocked)
        {
            self.events.push_back(MuxEvent::Writable(name));
        }
    }

    /// The connection for new streams, made if there is none.
    fn link_for_opening(&mut self, now: Instant) -> Result<usize, StreamError> {
        // Of several, the one whose client has the lower key; of those, the youngest.
        let best = self.links.iter().filter(|(_, l)| !l.connection.is_closed());
        if let Some((&handle, _)) = best.max_by_key(|(handle, link)| (link.client == self.lower, **handle)) {
            return Ok(handle);
        }
        let steering = Steering::new();
        let config = self.config.client(self.us, &steering, &self.first_cids);
        let (handle, connection) =
            self.endpoint.connect(now, config, self.remote, "peer").map_err(|_| StreamError::Lost)?;
        let link = Link::new(connection, steering, None);
        self.links.insert(handle.0, link);
        Ok(handle.0)
    }

    pub(crate) fn open(&mut self, now: Instant) -> Result<u64, StreamError> {
        let handle = self.link_for_opening(now)?;
        let Some(link) = self.links.get_mut(&handle) else { return Err(StreamError::Lost) };
        let Some(id) = link.connection.streams().open(Dir::Bi) else {
            self.open_blocked = true;
            return Err(StreamError::TooMany);
        };
        let name = self.next_flow;
        self.next_flow += 1;
        self.flows.insert(name, Flow::new(handle, id));
        self.names.insert((handle, id), name);
        Ok(name)
    }

    /// A stream and its connection, if that still stands; `act` may change what is to be sent.
    fn with<T>(
        &mut self,
        name: u64,
        act: impl FnOnce(&mut Flow, Option<&mut Link>, Held) -> Result<T, StreamError>,
    ) -> Result<T, StreamError> {
        let flow = self.flows.get_mut(&name).ok_or(StreamError::Closed)?;
        // Handles are used again: a lost stream's may name another connection by now.
        let link = if flow.lost { None } else { self.links.get_mut(&flow.handle) };
        let mut link = link;
        if let Some(link) = &mut link {
            link.dirty = true;
        }
        self.held.replace(flow.held(), Held::default());
        let result = act(flow, link, self.held);
        self.held.replace(Held::default(), flow.held());
        result
    }

    pub(crate) fn read(&mut self, name: u64, buffer: &mut [u8]) -> Result<usize, StreamError> {
        self.with(name, |flow, link, others| flow.read(link.map(|l| &mut l.connection), others, buffer))
    }

    pub(crate) fn read_chunk(&mut self, name: u64, max: usize) -> Result<Bytes, StreamError> {
        self.with(name, |flow, link, others| flow.read_chunk(link.map(|l| &mut l.connection), others, max))
    }

    pub(crate) fn write(&mut self, name: u64, bytes: &[u8]) -> Result<usize, StreamError> {
        self.write_with(name, |stream| stream.write(bytes))
    }

    pub(crate) fn write_chunks(
        &mut self,
        name: u64,
        chunks: &mut VecDeque<Bytes>,
    ) -> Result<(), StreamError> {
        self.write_with(name, |stream| {
            let written = stream.write_chunks(chunks.make_contiguous())?;
            chunks.drain(..written.chunks);
            Ok(written.bytes)
        })?;
        Ok(())
    }

    fn write_with(
        &mut self,
        name: u64,
        write: impl FnOnce(&mut SendStream<'_>) -> Result<usize, WriteError>,
    ) -> Result<usize, StreamError> {
        self.with(name, |flow, link, _| {
            let Some(link) = link else { return flow.write_with(None, write) };
            let usual = (2 * link.steering.window()).clamp(SEND_WINDOW.0, SEND_WINDOW.1);
            let first = flow.written < FIRST_BYTES;
            let reserve = if first || flow.priority > 0 { SEND_RESERVE } else { 0 };
            link.connection.set_send_window(usual + reserve);
            let written = flow.write_with(Some(&mut link.connection), write);
            link.connection.set_send_window(usual);
            written
        })
    }

    /// The code with which the peer said that it reads no more of a stream, if it has.
    pub(crate) fn stopped(&mut self, name: u64) -> Option<u64> {
        let flow = self.flows.get(&name).filter(|flow| !flow.lost)?;
        let link = self.links.get_mut(&flow.handle)?;
        link.connection.send_stream(flow.id).stopped().ok().flatten().map(VarInt::into_inner)
    }

    pub(crate) fn finish(&mut self, name: u64) -> Result<(), StreamError> {
        self.with(name, |flow, link, _| flow.finish(link.map(|l| &mut l.connection)))
    }

    pub(crate) fn reset(&mut self, name: u64, code: u32) {
        let _ = self.with(name, |flow, link, _| {
            flow.reset(link.map(|l| &mut l.connection), code);
            Ok(())
        });
    }

    pub(crate) fn stop(&mut self, name: u64, code: u32) {
        let _ = self.with(name, |flow, link, _| {
            flow.stop(link.map(|l| &mut l.connection), code);
            Ok(())
        });
    }

    pub(crate) fn release(&mut self, name: u64) {
        let _ = self.with(name, |flow, link, _| {
            flow.release(link.map(|l| &mut l.connection));
            Ok(())
        });
        if let Some(flow) = self.flows.remove(&name).filter(|flow| !flow.lost) {
            self.names.remove(&(flow.handle, flow.id));
        }
    }

    pub(crate) fn set_priority(&mut self, name: u64, priority: i32) {
        let _ = self.with(name, |flow, link, _| {
            flow.priority = priority;
            if let Some(link) = link {
                let _ = link.connection.send_stream(flow.id).set_priority(priority);
            }
            Ok(())
        });
    }

    pub(crate) fn send_datagram(&mut self, bytes: Bytes, now: Instant) -> Result<(), StreamError> {
        let handle = self.link_for_opening(now)?;
        let Some(link) = self.links.get_mut(&handle) else { return Err(StreamError::Lost) };
        link.dirty = true;
        link.connection.datagrams().send(bytes, true).map_err(|error| match error {
            SendDatagramError::TooLarge => StreamError::TooLong,
            _ => StreamError::Blocked,
        })
    }

    pub(crate) fn receive_datagram(&mut self) -> Option<Bytes> {
        self.links.values_mut().find_map(|link| link.connection.datagrams().recv())
    }

    /// The smoothed round-trip time of the connection that new streams use.
    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.links.values().filter(|link| link.hello.is_some()).map(|link| link.connection.rtt()).next()
    }
}

fn hello_of(connection: &Connection) -> Option<Hello> {
    connection.crypto_session().peer_identity()?.downcast::<Hello>().ok().map(|hello| *hello)
}
