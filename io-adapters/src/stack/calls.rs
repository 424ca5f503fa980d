//! What the owner does with streams and datagrams.

use super::{FlowId, Stack, Tunnel};
use crate::streams::StreamError;
use bytes::Bytes;
use proto_core::key::NodePublic;
use proto_core::time::Time;
use proto_core::wg::WgEngine;
use std::collections::VecDeque;

impl<W: WgEngine> Stack<W> {
    /// Opens a stream to `peer`. Nothing is sent until something is written; the first bytes travel in the
    /// first datagram, even if the connection is new.
    ///
    /// # Errors
    /// [`StreamError::NoPeer`] if the node has no tunnel to it, [`StreamError::TooMany`] if too many streams
    /// are open: [`super::StackEvent::Openable`] tells when another may be opened.
    pub fn open(&mut self, peer: &NodePublic, now: Time) -> Result<FlowId, StreamError> {
        let now = self.clock(now);
        let instant = self.instant(now);
        let tunnel = self.tunnels.get_mut(peer).ok_or(StreamError::NoPeer)?;
        let slot = tunnel.slot;
        let flow = tunnel.mux.open(instant).map(|local| FlowId::new(slot, local));
        self.mark(peer);
        flow
    }

    /// A stream's peer and what is kept of it.
    fn tunnel_of(&mut self, flow: FlowId) -> Result<(NodePublic, &mut Tunnel), StreamError> {
        // A name whose peer is gone is a stream that was lost with it.
        let key = self.slots.get(&flow.slot()).ok_or(StreamError::Lost)?;
        let tunnel = self.tunnels.get_mut(key).ok_or(StreamError::Lost)?;
        Ok((*key, tunnel))
    }

    /// Writes to a stream: how many bytes were taken, at least one unless `bytes` is empty.
    ///
    /// # Errors
    /// [`StreamError::Blocked`] if it takes nothing now ([`super::StackEvent::Writable`] tells when it does),
    /// [`StreamError::Stopped`] if the peer wants no more, [`StreamError::Lost`] if the connection is over,
    /// [`StreamError::Closed`] after `finish` or `reset`.
    pub fn write(&mut self, flow: FlowId, bytes: &[u8]) -> Result<usize, StreamError> {
        let (key, tunnel) = self.tunnel_of(flow)?;
        let written = tunnel.mux.write(flow.local(), bytes);
        self.mark(&key);
        written
    }

    /// Writes chunks to a stream without copying them: takes off the front what the stream takes, at least one
    /// byte unless there is none.
    ///
    /// # Errors
    /// As [`Stack::write`].
    pub fn write_chunks(&mut self, flow: FlowId, chunks: &mut VecDeque<Bytes>) -> Result<(), StreamError> {
        let (key, tunnel) = self.tunnel_of(flow)?;
        let written = tunnel.mux.write_chunks(flow.local(), chunks);
        self.mark(&key);
        written
    }

    /// Reads from a stream: how many bytes were put into `buffer`; 0 at its end (if `buffer` is not empty).
    ///
    /// # Errors
    /// [`StreamError::Blocked`] if there is nothing now ([`super::StackEvent::Readable`] tells when there is),
    /// [`StreamError::Reset`] if the peer reset it, [`StreamError::Lost`] if the connection is over,
    /// [`StreamError::Closed`] after `stop`.
    pub fn read(&mut self, flow: FlowId, buffer: &mut [u8]) -> Result<usize, StreamError> {
        let (key, tunnel) = self.tunnel_of(flow)?;
        let read = tunnel.mux.read(flow.local(), buffer);
        self.mark(&key);
        read
    }

    /// The next bytes of a stream without copying them, at most `max`; empty at its end.
    ///
    /// # Errors
    /// As [`Stack::read`].
    pub fn read_chunk(&mut self, flow: FlowId, max: usize) -> Result<Bytes, StreamError> {
        let (key, tunnel) = self.tunnel_of(flow)?;
        let read = tunnel.mux.read_chunk(flow.local(), max);
        self.mark(&key);
        read
    }

    /// The code with which the peer said that it reads no more of a stream, if it has: what is written then fails.
    pub fn stopped(&mut self, flow: FlowId) -> Option<u64> {
        self.tunnel_of(flow).ok()?.1.mux.stopped(flow.local())
    }

    /// Ends our half of a stream: the peer reads what was written, then the end.
    ///
    /// # Errors
    /// [`StreamError::Closed`], [`StreamError::Stopped`] or [`StreamError::Lost`].
    pub fn finish(&mut self, flow: FlowId) -> Result<(), StreamError> {
        let (key, tunnel) = self.tunnel_of(flow)?;
        let finished = tunnel.mux.finish(flow.local());
        self.mark(&key);
        finished
    }

    /// Abandons our half of a stream: the peer reads [`StreamError::Reset`] with this code.
    pub fn reset(&mut self, flow: FlowId, code: u32) {
        if let Ok((key, tunnel)) = self.tunnel_of(flow) {
            tunnel.mux.reset(flow.local(), code);
            self.mark(&key);
        }
    }

    /// Reads no more of a stream: the peer's writes fail with [`StreamError::Stopped`] and this code.
    pub fn stop(&mut self, flow: FlowId, code: u32) {
        if let Ok((key, tunnel)) = self.tunnel_of(flow) {
            tunnel.mux.stop(flow.local(), code);
            self.mark(&key);
        }
    }

    /// Nobody holds the stream any more: halves still open are reset and stopped with code 0 (a half that
    /// was finished goes on delivering), and the name is forgotten.
    pub fn release(&mut self, flow: FlowId) {
        if let Ok((key, tunnel)) = self.tunnel_of(flow) {
            tunnel.mux.release(flow.local());
            self.mark(&key);
        }
    }

    /// Streams of higher priority send first; 0 is what a stream begins with. What is above 0 also finds room
    /// when bulk streams have filled what may wait to be sent.
    pub fn set_priority(&mut self, flow: FlowId, priority: i32) {
        if let Ok((key, tunnel)) = self.tunnel_of(flow) {
            tunnel.mux.set_priority(flow.local(), priority);
            self.mark(&key);
        }
    }

    /// The smoothed round-trip time of the streams to a peer, once measured.
    pub fn rtt(&self, peer: &NodePublic) -> Option<core::time::Duration> {
        self.tunnels.get(peer)?.mux.rtt()
    }

    /// Sends a datagram inside the tunnel, unreliable but congestion controlled; the oldest waiting are
    /// dropped when too many wait.
    ///
    /// # Errors
    /// [`StreamError::NoPeer`], [`StreamError::TooLong`] or [`StreamError::Lost`].
    pub fn send_datagram(&mut self, peer: &NodePublic, bytes: Bytes, now: Time) -> Result<(), StreamError> {
        let now = self.clock(now);
        let instant = self.instant(now);
        let tunnel = self.tunnels.get_mut(peer).ok_or(StreamError::NoPeer)?;
        let sent = tunnel.mux.send_datagram(bytes, instant);
        self.mark(peer);
        sent
    }

    /// The next datagram of this peer; [`super::StackEvent::Datagrams`] tells when there is one again.
    pub fn receive_datagram(&mut self, peer: &NodePublic) -> Option<Bytes> {
        self.tunnels.get_mut(peer)?.mux.receive_datagram()
    }
}
