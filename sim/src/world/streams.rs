//! Streams: what processes open and write, and what the streams tell them.

use super::queue::Event;
use super::server::{HTTP_PORT, StreamInput};
use super::tcp::{End, Listening, Notice, TcpEvent};
use super::{Process, World};
use crate::topology::HostId;
use crate::trace::Happening;
use proto_core::id::StreamId;
use proto_core::machine::{Input, StreamTarget};

impl World {
    pub(super) fn stream_out(&mut self, id: HostId, stream: StreamId, bytes: Option<Vec<u8>>) {
        let end = End { host: id, process: self.hosts[id.0].number, stream };
        let len = bytes.as_ref().map_or(0, Vec::len);
        let numbers = [id.0 as u64, stream.0, 0, len as u64];
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::StreamBytes, numbers, || {
            format!("{name} on {stream:?}: {len} bytes{}", if len == 0 { ", the end" } else { "" })
        });
        match bytes {
            Some(bytes) => {
                self.checks.wire(self.now, &bytes);
                self.tcp.write(self.now, end, bytes, &mut self.net);
            }
            None => self.tcp.close(self.now, end, &mut self.net),
        }
    }

    pub(super) fn open(&mut self, id: HostId, stream: StreamId, target: StreamTarget) {
        let numbers = [id.0 as u64, stream.0, u64::from(target.port), 0];
        let name = self.net.host_name(id);
        self.trace.note(self.now, Happening::Stream, numbers, || {
            format!("{name} opens {stream:?} to {}:{} ({:?})", target.host, target.port, target.protocol)
        });
        let end = End { host: id, process: self.hosts[id.0].number, stream };
        self.tcp.open(self.now, end, target);
    }

    pub(super) fn stream(&mut self, event: TcpEvent) {
        let now = self.now;
        match event {
            TcpEvent::Connect(conn) => {
                let hosts = &self.hosts;
                let listens = |host: HostId, target: &StreamTarget| match &hosts[host.0].process {
                    Process::Server(s) if target.port == HTTP_PORT && s.serves(target.protocol) => {
                        Listening::Yes
                    }
                    Process::Off => Listening::Off,
                    _ => Listening::No,
                };
                self.tcp.connect(now, conn, &mut self.net, listens);
            }
            TcpEvent::Accept(conn) => {
                if let Some(host) = self.tcp.server_of(conn)
                    && let Process::Server(server) = &mut self.hosts[host.0].process
                {
                    let stream = server.name();
                    let process = self.hosts[host.0].number;
                    self.tcp.accept(conn, End { host, process, stream });
                    let target = self.tcp.target(conn).cloned();
                    if let (Some(target), Process::Server(server)) = (target, &mut self.hosts[host.0].process)
                    {
                        server.accept(stream, target.protocol, target.bearer.as_deref(), now);
                        self.drive(host);
                    }
                }
            }
            TcpEvent::Connected(conn) => self.tcp.connected(now, conn, &mut self.net),
            TcpEvent::Arrive(conn, heading, piece) => {
                self.tcp.arrive(now, (conn, heading), piece, &mut self.net)
            }
            TcpEvent::Retry(conn, heading) => self.tcp.retry(now, (conn, heading), &mut self.net),
        }
    }

    /// Puts what the streams want into the queue and tells the processes what they must know, until both are
    /// done.
    pub(super) fn settle_streams(&mut self) {
        loop {
            for (at, event) in std::mem::take(&mut self.tcp.events) {
                self.schedule(at, Event::Tcp(event));
            }
            let Some(notice) = self.tcp.notices.pop_front() else { break };
            self.tell(&notice);
        }
    }

    fn tell(&mut self, notice: &Notice) {
        let (end, input) = match notice {
            Notice::Opened(end) => (*end, None),
            Notice::Bytes(end, bytes) => (*end, Some(StreamInput::Bytes(end.stream, bytes))),
            Notice::Credit(end, credit) => (*end, Some(StreamInput::Credit(end.stream, *credit))),
            Notice::Closed(end, why) => (*end, Some(StreamInput::Closed(end.stream, why))),
        };
        let host = &mut self.hosts[end.host.0];
        if host.number != end.process {
            return;
        }
        if let Some(StreamInput::Closed(stream, why)) = input {
            let name = self.net.host_name(end.host);
            let numbers = [end.host.0 as u64, stream.0, 1, 0];
            self.trace.note(self.now, Happening::Stream, numbers, || format!("{name}: {stream:?} {why}"));
        }
        match (&mut host.process, input) {
            (Process::Node(node), input) => {
                let local = node.local(self.now);
                match input {
                    None => node.stack.handle(Input::StreamOpened { stream: end.stream }, local),
                    Some(input) => node.stack.handle(input.input(), local),
                }
                node.stack.end_of_batch(local);
            }
            (Process::Server(server), input) => {
                server.stream(input.unwrap_or(StreamInput::Opened(end.stream)), self.now);
            }
            (Process::Off, _) => return,
        }
        self.drive(end.host);
    }
}
