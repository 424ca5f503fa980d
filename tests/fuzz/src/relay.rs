//! A relay's own readers: the heads of requests, the queue of a connection, a whole relay under its clients; and a
//! client under its relay.

use io_adapters::clock::Origin;
use io_adapters::relay_listener::http::{DerpRequest, HEAD_MAX, Head, no_content_fields};
use io_adapters::relay_listener::{RelayHandle, relay as start};
use proto_core::key::{NodePublic, NodeSecret};
use proto_core::limits;
use proto_core::machine::{Input, Machine, Output};
use proto_core::relay::{
    LinkCommand, LinkConfig, LinkEvent, PacketKind, RelayLink, RelayServerConfig, SendQueue,
};
use proto_core::relay_map::{RelayMap, RelayRegion};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use proto_core::wire::derp::{ClientInfo, Frame, FrameKind, MeshKey, decode, peek};
use std::collections::VecDeque;
use std::sync::LazyLock;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::runtime::Runtime;

/// What a browser's or a node's request begins with.
pub fn http_head(data: &[u8]) {
    let Ok(Some((head, length))) = Head::parse(data) else { return };
    assert!(length <= data.len() && length <= HEAD_MAX);
    assert!(head.path.starts_with('/'), "{head:?}");
    // It is the same head however it comes, and not before it is there.
    assert_eq!(Head::parse(&data[..length]).ok().flatten(), Some((head.clone(), length)));
    let cut = usize::from(data[0]).min(length - 1);
    assert!(matches!(Head::parse(&data[..cut]), Ok(None)), "a head in {cut} of {length} bytes");
    if let DerpRequest::WebSocket { key } = head.derp() {
        assert!(!key.contains(['\r', '\n']));
    }
    let _ = (head.bearer(), head.is_last());
    for (_, value) in no_content_fields(head.field("x-tailscale-challenge")) {
        assert!(!value.contains(['\r', '\n']), "{value:?}");
    }
}

/// One queue under pushes and takes, beside what it must give out.
pub fn relay_queue(data: &[u8]) {
    let from = NodePublic([5; 32]);
    let mut queue = SendQueue::default();
    // Control, disco, data: what waits, oldest first.
    let mut waiting: [VecDeque<Vec<u8>>; 3] = Default::default();
    let caps = [limits::RELAY_QUEUE_CONTROL, limits::RELAY_QUEUE_DISCO, limits::RELAY_QUEUE_DATA];
    let mut rest = data;
    while let Some(([what, size], after)) = rest.split_first_chunk::<2>() {
        rest = after;
        let size = usize::from(*size) << (what >> 4);
        let (lane, frame) = match what & 3 {
            0 => {
                let mut out = Vec::new();
                queue.take(size, &mut out);
                taken(&mut waiting, &out, size);
                continue;
            }
            1 => {
                let payload = [&b"TS\xf0\x9f\x92\xac"[..], &[1; 56], &vec![2; size.min(1_024)]].concat();
                queue.push(&from, &payload);
                let lane = if PacketKind::of(&payload) == PacketKind::Disco { 1 } else { 2 };
                (lane, Frame::RecvPacket { from, bytes: &payload }.to_bytes())
            }
            2 => {
                let payload = vec![4; size.min(65_536)];
                queue.push(&from, &payload);
                (2, Frame::RecvPacket { from, bytes: &payload }.to_bytes())
            }
            _ => {
                let frame = Frame::Ping([*what; 8]).to_bytes();
                queue.push_control(&frame);
                (0, frame)
            }
        };
        let (lane, (frames, bytes)) = (&mut waiting[lane], caps[lane]);
        let held = |lane: &VecDeque<Vec<u8>>| lane.iter().map(Vec::len).sum::<usize>();
        while !lane.is_empty() && (lane.len() >= frames || held(lane) + frame.len() > bytes) {
            lane.pop_front();
        }
        lane.push_back(frame);
        assert_eq!(queue.bytes(), waiting.iter().map(held).sum::<usize>());
        assert!(!queue.is_empty());
    }
    while !queue.is_empty() {
        let mut out = Vec::new();
        queue.take(1_000, &mut out);
        taken(&mut waiting, &out, 1_000);
    }
    assert!(waiting.iter().all(VecDeque::is_empty), "something was lost");
}

/// The bytes taken are the frames at the front, whole, and as many as may be.
fn taken(waiting: &mut [VecDeque<Vec<u8>>; 3], mut out: &[u8], max: usize) {
    let length = out.len();
    let mut frames = 0;
    while !out.is_empty() {
        let next = waiting.iter_mut().find_map(VecDeque::pop_front).expect("a frame of nobody's");
        let Some(rest) = out.strip_prefix(&next[..]) else { panic!("not the next frame, or not whole") };
        out = rest;
        frames += 1;
    }
    assert!(length <= max || frames == 1, "{length} bytes of {max}");
    let next = waiting.iter().find_map(VecDeque::front).map_or(0, Vec::len);
    assert!(next == 0 || (frames > 0 && length + next > max), "{next} more bytes would have fit");
}

/// A running relay, and the greetings of two clients.
struct World {
    runtime: Runtime,
    relay: RelayHandle,
    hello: [Vec<u8>; 2],
}

/// The keys of the two clients: what the first says is fuzzed, the second hears what comes of it.
static KEYS: LazyLock<[NodePublic; 2]> = LazyLock::new(|| SECRETS.each_ref().map(NodeSecret::public));
static SECRETS: LazyLock<[NodeSecret; 2]> = LazyLock::new(|| [[1; 32], [2; 32]].map(NodeSecret::from_bytes));

thread_local! {
    static WORLD: World = World::new();
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let config = RelayServerConfig::new(NodeSecret::from_bytes([3; 32]));
        let (relay, task) = start(config, Seed::from_u64(1), Origin::now());
        runtime.spawn(task.run());
        let hello = SECRETS.each_ref().map(|secret| {
            let mut out = Vec::new();
            ClientInfo::default().emit(secret, &relay.public(), &mut Seed::from_u64(2).rng(), &mut out);
            out
        });
        Self { runtime, relay, hello }
    }

    /// A connection, and its end.
    fn connect(&self) -> (DuplexStream, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let relay = self.relay.clone();
        (ours, tokio::spawn(async move { relay.serve(Box::new(theirs), None).await }))
    }
}

/// What a client says: after its login, or, if the first byte says so, instead of it. The other bits of the first
/// byte say into what pieces it is cut.
pub fn relay(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else { return };
    let (cut, stranger) = (usize::from(first & 0x7f) + 1, first & 0x80 != 0);
    WORLD.with(|world| {
        world.runtime.block_on(async {
            let (mut one, one_ended) = world.connect();
            let (mut two, two_ended) = world.connect();
            if !stranger {
                log_in(&mut one, &world.hello[0]).await;
            }
            log_in(&mut two, &world.hello[1]).await;
            for piece in stream.chunks(cut) {
                if one.write_all(piece).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let _ = one.shutdown().await;
            one_ended.await.expect("the relay serves its connections");
            // What it says to itself comes after whatever the other has said to it.
            let end = Frame::SendPacket { to: KEYS[1], bytes: b"the end" }.to_bytes();
            two.write_all(&end).await.expect("the second is connected still");
            let heard = hear(&mut two).await;
            drop((one, two));
            two_ended.await.expect("the relay serves its connections");
            if !stranger {
                judge(stream, &heard);
            }
        });
    });
}

async fn log_in(io: &mut DuplexStream, hello: &[u8]) {
    io.write_all(hello).await.expect("a connection");
    let mut read = Vec::new();
    while frame_of(&read, FrameKind::ServerInfo).is_none() {
        assert!(io.read_buf(&mut read).await.expect("a connection") > 0, "the login is refused");
    }
}

/// Whether there is a frame of this kind among these bytes.
fn frame_of(mut bytes: &[u8], kind: FrameKind) -> Option<()> {
    while let Ok(Some((frame, length))) = decode(bytes) {
        if frame.kind() == kind as u8 {
            return Some(());
        }
        bytes = &bytes[length..];
    }
    None
}

/// The packets of the first client that come before the end.
async fn hear(io: &mut DuplexStream) -> Vec<Vec<u8>> {
    let (mut read, mut packets) = (Vec::new(), Vec::new());
    loop {
        while let Some((frame, length)) = decode(&read).expect("the relay speaks DERP") {
            if let Frame::RecvPacket { from, bytes } = frame {
                match (from == KEYS[0], bytes) {
                    (true, bytes) => packets.push(bytes.to_vec()),
                    (false, b"the end") => return packets,
                    (false, other) => panic!("a packet of nobody's: {other:?}"),
                }
            }
            read.drain(..length);
        }
        assert!(
            io.read_buf(&mut read).await.expect("a connection") > 0,
            "the relay closed the other connection"
        );
    }
}

/// What was heard is what was said, each kind of packet in its order, up to what ended the connection.
fn judge(mut stream: &[u8], heard: &[Vec<u8>]) {
    let (mut said, mut sure) = (Vec::new(), None);
    while let Some(header) = peek(stream).filter(|header| header.check().is_ok()) {
        let Some((frame, rest)) = stream.split_at_checked(header.frame_len()) else { break };
        stream = rest;
        match decode(frame) {
            Ok(Some((Frame::SendPacket { to, bytes }, _))) if to == KEYS[1] => said.push(bytes.to_vec()),
            Ok(Some((Frame::SendPacket { .. } | Frame::Ping(_) | Frame::NotePreferred(_), _))) => {}
            Ok(Some((frame, _))) if FrameKind::from_u8(frame.kind()).is_none() => {}
            // It may end the connection; what came along with it passes or not.
            _ => sure = sure.or(Some(said.len())),
        }
    }
    let sure = sure.unwrap_or(said.len());
    for kind in [PacketKind::Disco, PacketKind::Data] {
        let of = |packets: &[Vec<u8>]| -> Vec<Vec<u8>> {
            packets.iter().filter(|packet| PacketKind::of(packet) == kind).cloned().collect()
        };
        let (heard, said, least) = (of(heard), of(&said), of(&said[..sure]).len());
        assert!(
            said.starts_with(&heard),
            "{kind:?}: {} heard are not the first of {}",
            heard.len(),
            said.len()
        );
        assert!(heard.len() >= least, "{kind:?}: {} heard of {least}", heard.len());
    }
}

/// A region of one relay, at an address.
static REGION: LazyLock<RelayRegion> = LazyLock::new(|| {
    let map = r#"{"Regions": {"901": {"RegionID": 901, "RegionCode": "a", "RegionName": "A", "Nodes": [
        {"Name": "901a", "RegionID": 901, "HostName": "192.0.2.1", "IPv4": "192.0.2.1", "IPv6": "none"}]}}}"#;
    let map = RelayMap::parse(map.as_bytes()).expect("a map");
    map.regions.into_values().next().expect("a region")
});

/// What a relay says to a client of ours, from the first byte on: the first byte says into what pieces it is cut.
pub fn relay_link(data: &[u8]) {
    let Some((cut, said)) = data.split_first() else { return };
    // Half of them are a relay's, which listens to more.
    let mesh = (cut & 0x80 != 0).then_some(MeshKey([1; 32]));
    let config = LinkConfig { identity: SECRETS[0].clone(), region: REGION.clone(), streams: 0..16, mesh };
    let mut link = RelayLink::new(config, Seed::from_u64(1), Time::ZERO);
    link.handle(Input::Command(LinkCommand::Connect), Time::ZERO);
    let opened = core::iter::from_fn(|| link.poll()).find_map(|output| match output {
        Output::Open { stream, .. } => Some(stream),
        _ => None,
    });
    let stream = opened.expect("it dials at once");
    let mut now = Time::ZERO;
    link.handle(Input::StreamOpened { stream }, now);
    let (mut up, mut packets) = (false, Vec::new());
    for piece in said.chunks(usize::from(*cut) + 1) {
        now += Duration::from_micros(100);
        link.handle(Input::StreamBytes { stream, bytes: piece }, now);
        while let Some(output) = link.poll() {
            match output {
                Output::Write { bytes, .. } => whole(&bytes),
                Output::Event(LinkEvent::Up { .. }) => up = true,
                Output::Event(LinkEvent::Packet { from, bytes }) => {
                    assert!(up, "a packet before the login");
                    packets.push((from, bytes));
                }
                Output::Event(LinkEvent::Down { why }) => {
                    assert!(!why.contains(['\n', '\r', '\u{1b}']), "{why:?}")
                }
                _ => {}
            }
        }
    }
    // Nothing is heard that was not said, and in that order.
    let mut rest = said;
    for (from, bytes) in packets {
        loop {
            let Ok(Some((frame, length))) = decode(rest) else { panic!("a packet that nobody sent") };
            rest = &rest[length..];
            if frame == (Frame::RecvPacket { from, bytes: &bytes }) {
                break;
            }
        }
    }
}

/// What a client writes is whole frames that a relay takes.
fn whole(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let Ok(Some((frame, length))) = decode(bytes) else { panic!("half a frame: {bytes:?}") };
        let (known, broken) =
            (FrameKind::from_u8(frame.kind()).is_some(), matches!(frame, Frame::Malformed { .. }));
        assert!(known && !broken, "{frame:?}");
        bytes = &bytes[length..];
    }
}
