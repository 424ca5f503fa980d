//! What each fuzz target does with its bytes: once for cargo-fuzz and once for the ordinary test that replays
//! the corpus. A target panics if a reader does, or if what was read and written again is not what was read.

use proto_core::key::{DiscoPublic, DiscoSecret, NodePublic, NodeSecret, SharedBox};
use proto_core::relay_map::RelayMap;
use proto_core::seed::Seed;
use proto_core::wire::control::{ToNode, ToServer};
use proto_core::wire::{classify, derp, disco, stun};
use proto_core::{limits, stream};
use std::net::SocketAddr;
use std::sync::LazyLock;

mod relay;

pub use relay::{http_head, relay, relay_link, relay_queue};

/// A target.
pub type Target = fn(&[u8]);

/// Every target by the name of its corpus.
pub const TARGETS: [(&str, Target); 12] = [
    ("stun", stun),
    ("disco", disco),
    ("derp", derp),
    ("derp_login", derp_login),
    ("http_head", http_head),
    ("relay", relay),
    ("relay_link", relay_link),
    ("relay_queue", relay_queue),
    ("control", control),
    ("relay_map", relay_map),
    ("stream_header", stream_header),
    ("exec_frame", exec_frame),
];

/// A disco peer and what we share with it. The curve's arithmetic is done once: it would take nearly all of the time.
static DISCO: LazyLock<(DiscoPublic, SharedBox)> = LazyLock::new(|| {
    let (us, peer) = (DiscoSecret::from_bytes([1; 32]), DiscoSecret::from_bytes([2; 32]).public());
    (peer, us.shared(&peer))
});

/// A node, a relay, and what they share.
static LOGIN: LazyLock<(NodeSecret, NodePublic, SharedBox)> = LazyLock::new(|| {
    let (node, relay) = (NodeSecret::from_bytes([1; 32]), NodeSecret::from_bytes([2; 32]));
    let shared = relay.shared(&node.public());
    (node, relay.public(), shared)
});

/// A datagram at a STUN server, and as a server's answer at a client.
pub fn stun(data: &[u8]) {
    let _ = classify(data);
    let from = SocketAddr::from(([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7], 41_641));
    if let Some(answer) = stun::answer(data, from) {
        assert!(answer.len() <= stun::ANSWER_MAX, "an answer of {} bytes", answer.len());
        match stun::Response::parse(&answer) {
            Ok(response) => assert_eq!(response.mapped, from),
            Err(error) => {
                assert!(matches!(error, stun::StunError::Cookie | stun::StunError::Refused(420)), "{error}")
            }
        }
    }
    let place = stun::Place {
        origin: ([192, 0, 2, 1], 3_478).into(),
        other_ip: Some([192, 0, 2, 2].into()),
        other_port: Some(3_479),
    };
    for from in [from, ([203, 0, 113, 7], 41_641).into()] {
        if let Some(reply) = stun::reply(data, from, Some(&place)) {
            assert!(reply.bytes.len() <= stun::ANSWER_MAX, "a reply of {} bytes", reply.bytes.len());
            let _ = stun::Places::parse(&reply.bytes);
        }
    }
    let _ = stun::Places::parse(data);
    if let Ok(response) = stun::Response::parse(data) {
        assert_eq!(stun::Response::parse(&response.emit()), Ok(response));
    }
}

/// A datagram that claims to be disco, and the plaintext of one.
pub fn disco(data: &[u8]) {
    let (peer, shared) = &*DISCO;
    if let Some(envelope) = disco::Envelope::new_checked(data) {
        let _ = envelope.open(shared);
    }
    let Ok(message) = disco::Message::parse(data) else { return };
    let sealed = message.seal(*peer, shared, &mut Seed::from_u64(1).rng());
    assert_eq!(classify(&sealed), proto_core::wire::Kind::Disco);
    let again = disco::Envelope::new_checked(&sealed).map(|envelope| envelope.open(shared));
    // Longer padding than is ever sent is read and cut.
    if data.len() < limits::DISCO_PADDING_MAX {
        assert_eq!(again, Some(Ok(message)));
    }
}

/// A DERP stream: the first byte says into what pieces it is cut.
pub fn derp(data: &[u8]) {
    let Some((cut, stream)) = data.split_first() else { return };
    let whole = whole_frames(stream);
    let mut decoder = derp::Decoder::new();
    let mut pieces = Vec::new();
    let mut failed = false;
    for piece in stream.chunks(usize::from(*cut) + 1) {
        let mut frames = decoder.feed(piece);
        while !failed {
            match frames.next() {
                Ok(Some(frame)) => pieces.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(_) => failed = true,
            }
        }
        drop(frames);
        assert!(decoder.held() <= derp::FRAME_HEADER_LEN + limits::DERP_SERVER_INFO_MAX);
    }
    assert_eq!(pieces, whole);
}

/// The known frames of a stream that is there at once; each must survive being written and read again.
fn whole_frames(mut stream: &[u8]) -> Vec<String> {
    let mut frames = Vec::new();
    while let Ok(Some((frame, length))) = derp::decode(stream) {
        let bytes = frame.to_bytes();
        match frame {
            derp::Frame::Malformed { .. } => assert!(bytes.is_empty()),
            _ => assert_eq!(derp::decode(&bytes), Ok(Some((frame, bytes.len())))),
        }
        if !matches!(frame, derp::Frame::Unknown { .. }) {
            frames.push(format!("{frame:?}"));
        }
        stream = &stream[length..];
    }
    frames
}

/// The greetings inside a DERP login's boxes, sealed and open.
pub fn derp_login(data: &[u8]) {
    let (node, relay, shared) = &*LOGIN;
    let _ = derp::ClientInfo::open(data, shared);
    let _ = derp::ServerInfo::open(data, shared);
    let mut rng = Seed::from_u64(1).rng();
    let mut out = Vec::new();
    if let Ok(info) = derp::ClientInfo::parse(data) {
        info.emit(node, relay, &mut rng, &mut out);
        let again = match derp::decode(&out) {
            Ok(Some((derp::Frame::ClientInfo { sealed, .. }, _))) => derp::ClientInfo::open(sealed, shared),
            other => panic!("not a greeting: {other:?}"),
        };
        assert_eq!(again, Ok(info));
    }
    out.clear();
    if let Ok(info) = derp::ServerInfo::parse(data) {
        info.emit(shared, &mut rng, &mut out);
        let again = match derp::decode(&out) {
            Ok(Some((derp::Frame::ServerInfo { sealed }, _))) => derp::ServerInfo::open(sealed, shared),
            other => panic!("not a greeting: {other:?}"),
        };
        assert_eq!(again, Ok(info));
    }
}

/// A coordination message, at either end.
pub fn control(data: &[u8]) {
    if let Ok(message) = ToServer::parse(data) {
        assert_eq!(ToServer::parse(&message.encode()), Ok(message));
    }
    if let Ok(message) = ToNode::parse(data) {
        assert_eq!(ToNode::parse(&message.encode()), Ok(message));
    }
    // The text form of a key is the only field with a reader of its own.
    if let Ok(text) = core::str::from_utf8(data) {
        let _ = text.parse::<NodePublic>();
    }
}

/// A relay map's document.
pub fn relay_map(data: &[u8]) {
    match RelayMap::parse(data) {
        Ok(map) => {
            assert_eq!(map.validate(), Ok(()));
            assert_eq!(RelayMap::parse(map.to_json().as_bytes()).as_ref(), Ok(&map));
            for node in map.nodes() {
                let _ = (
                    node.tls(),
                    node.stun_port(),
                    node.derp_port(),
                    node.addresses(&[]),
                    node.name_to_resolve(),
                );
            }
            assert!(map.merge(&map).is_err());
        }
        Err(error) => assert!(!error.to_string().contains(['\n', '\r', '\u{1b}']), "{error:?}"),
    }
}

/// What a stream inside a tunnel begins with.
pub fn stream_header(data: &[u8]) {
    if let Ok(Some((header, length))) = stream::Header::decode(data) {
        assert!(length <= data.len());
        let bytes = header.encode();
        assert_eq!(stream::Header::decode(&bytes), Ok(Some((header, bytes.len()))));
    }
}

/// Frames of a program's stream, from either end.
pub fn exec_frame(data: &[u8]) {
    use stream::exec::{Ask, FRAME_MAX, HEAD_LEN, Head, Told};
    let mut rest = data;
    while let Ok(Some(head)) = Head::decode(rest) {
        assert!(head.length <= FRAME_MAX);
        let Some(held) = rest.get(HEAD_LEN..HEAD_LEN + head.length) else { return };
        rest = &rest[HEAD_LEN + head.length..];
        // What is written again reads the same; a kind that is not known has no bytes of its own.
        if let Ok(ask) = Ask::parse(head.kind, held)
            && ask != Ask::Unknown
        {
            let again = ask.encode();
            assert_eq!(Ask::parse(head.kind, &again[HEAD_LEN..]), Ok(ask));
        }
        if let Ok(told) = Told::parse(head.kind, held)
            && told != Told::Unknown
        {
            let again = told.encode();
            assert_eq!(Told::parse(head.kind, &again[HEAD_LEN..]), Ok(told));
        }
    }
}
