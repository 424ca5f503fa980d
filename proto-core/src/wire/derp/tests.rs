use super::*;
use crate::key::{NodePublic, NodeSecret, SharedBox, hex};
use crate::seed::Seed;
use crate::time::Duration;
use crate::wire::tests::{key_bytes, nonce, unhex_all};
use proptest::prelude::*;

fn client() -> NodeSecret {
    NodeSecret::from_bytes(key_bytes(0x10, 0x11, 0x51))
}

fn server() -> NodeSecret {
    NodeSecret::from_bytes(key_bytes(0x20, 0x22, 0x62))
}

fn client_to_server() -> SharedBox {
    client().shared(&server().public())
}

const CLIENT: &str = "7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13";
const SERVER: &str = "0faa684ed28867b97f4a6a2dee5df8ce974e76b7018e3f22a1c4cf2678570f20";
const NONCE: &str = "000102030405060708090a0b0c0d0e0f1011121314151617";

#[test]
fn frames_are_the_golden_bytes() {
    let (client, server) = (client().public(), server().public());
    let cases = [
        (Frame::ServerKey { key: server }, format!("0100000028 44455250f09f9491 {SERVER}")),
        (Frame::SendPacket { to: server, bytes: b"hi" }, format!("0400000022 {SERVER} 6869")),
        (Frame::RecvPacket { from: client, bytes: b"hi" }, format!("0500000022 {CLIENT} 6869")),
        (Frame::KeepAlive, "0600000000".into()),
        (Frame::NotePreferred(true), "070000000101".into()),
        (Frame::PeerGone { peer: client, reason: GoneReason::NotHere }, format!("0800000021 {CLIENT} 01")),
        (
            Frame::PeerPresent {
                peer: client,
                address: Some("192.0.2.1:12345".parse().unwrap()),
                flags: PresentFlags::REGULAR,
            },
            format!("0900000033 {CLIENT} 00000000000000000000ffffc0000201 3039 01"),
        ),
        (Frame::Ping([1, 2, 3, 4, 5, 6, 7, 8]), "1200000008 0102030405060708".into()),
        (
            Frame::Restarting {
                reconnect_in: Duration::from_millis(1_500),
                try_for: Duration::from_millis(5_000),
            },
            "1500000008 000005dc 00001388".into(),
        ),
    ];
    for (frame, wire) in cases {
        let wire = unhex_all(&wire);
        assert_eq!(hex(&frame.to_bytes()), hex(&wire), "{frame:?}");
        assert_eq!(decode(&wire), Ok(Some((frame, wire.len()))));
    }
}

#[test]
fn greetings_are_the_golden_bytes() {
    let mut out = Vec::new();
    ClientInfo::default().emit_with(&client(), &server().public(), nonce(), &mut out);
    let wire = format!(
        "0200000068 {CLIENT} {NONCE}
         a858a062bb55fbd0e565bf952225b5e220ae6ff32ce093a7548f0f9efd7331db8b94711fe4546f1ed0d738121d94abe3"
    );
    assert_eq!(hex(&out), hex(&unhex_all(&wire)));
    let Ok(Some((Frame::ClientInfo { key, sealed }, _))) = decode(&out) else { panic!() };
    assert_eq!(key, client().public());
    assert_eq!(ClientInfo::open(sealed, &server().shared(&key)), Ok(ClientInfo::default()));

    let mut out = Vec::new();
    ServerInfo::default().emit_with(&client_to_server(), nonce(), &mut out);
    let wire = format!("0300000035 {NONCE} a9f96672359ffb53a9a765041e0e895820ae6ff32ce093a7548f0f9eac");
    assert_eq!(hex(&out), hex(&unhex_all(&wire)));
    let Ok(Some((Frame::ServerInfo { sealed }, _))) = decode(&out) else { panic!() };
    assert_eq!(ServerInfo::open(sealed, &client_to_server()), Ok(ServerInfo::default()));
}

#[test]
fn a_client_info_is_read_as_go_reads_it() {
    let parse = |json: &str| ClientInfo::parse(json.as_bytes());
    let bare = ClientInfo { version: 0, can_ack_pings: false, ..ClientInfo::default() };
    assert_eq!(parse("{}"), Ok(bare.clone()));
    assert_eq!(parse("null"), Ok(bare.clone()));
    assert_eq!(
        parse(r#"{"Version":77,"canackpings":true}"#).map(|i| (i.version, i.can_ack_pings)),
        Ok((77, true))
    );
    // What tailscale-rs sends: names that nobody knows are no reason to refuse.
    assert_eq!(parse(r#"{"can_ack_pings":true,"is_prober":false,"mesh_key":"none"}"#), Ok(bare));
    let key = "AB".repeat(32);
    let mesh = parse(&format!(r#"{{"MESHKEY":"{key}"}}"#)).unwrap().mesh_key.unwrap();
    assert_eq!(mesh, MeshKey([0xab; 32]));
    assert_eq!(format!("{mesh:?}"), "MeshKey(..)");
    for refused in [
        r#"{"meshKey":""}"#,
        r#"{"meshKey":"none"}"#,
        r#"{"meshKey":7}"#,
        r#"{"version":"2"}"#,
        r#"{"version":2.5}"#,
        r#"{"CanAckPings":1}"#,
        r#"{"AppName":[]}"#,
    ] {
        assert!(matches!(parse(refused), Err(LoginError::Field(_))), "{refused}");
    }
    assert!(matches!(parse("[]"), Err(LoginError::Json(_))));
    assert!(matches!(parse("{"), Err(LoginError::Json(_))));
}

#[test]
fn greetings_with_every_field_come_back() {
    let info = ClientInfo {
        version: 3,
        can_ack_pings: false,
        mesh_key: Some(MeshKey([7; 32])),
        is_prober: true,
        app_name: "a \"name\"\n".into(),
    };
    let mut out = Vec::new();
    info.emit(&client(), &server().public(), &mut Seed::from_u64(1).rng(), &mut out);
    let Ok(Some((Frame::ClientInfo { key, sealed }, _))) = decode(&out) else { panic!() };
    assert_eq!(ClientInfo::open(sealed, &server().shared(&key)), Ok(info));
    assert_eq!(ClientInfo::open(sealed, &client().shared(&client().public())), Err(LoginError::Sealed));

    let info = ServerInfo { version: 2, bytes_per_second: 500_000, burst: 1_000_000 };
    let mut out = Vec::new();
    info.emit(&client_to_server(), &mut Seed::from_u64(1).rng(), &mut out);
    let Ok(Some((Frame::ServerInfo { sealed }, _))) = decode(&out) else { panic!() };
    assert_eq!(ServerInfo::open(sealed, &client_to_server()), Ok(info));
}

#[test]
fn payloads_that_a_kind_cannot_have_are_malformed() {
    let short = [0; 31];
    let cases: [(u8, &[u8], bool); 22] = [
        (0x01, b"DERP", false),
        (0x01, &[0; 40], false),
        (0x02, &short, false),
        (0x04, &short, false),
        (0x04, &[0; 32], true),
        (0x05, &short, false),
        (0x06, b"later", true),
        (0x07, b"", false),
        (0x07, &[1, 1], false),
        (0x08, &short, false),
        (0x08, &[0; 32], true),
        (0x09, &[0; 50], true),
        (0x0a, &[0; 63], false),
        (0x0a, &[0; 64], true),
        (0x10, b"", true),
        (0x10, b"x", false),
        (0x11, &[0; 33], false),
        (0x12, &[0; 7], false),
        (0x12, &[0; 1_000], true),
        (0x12, &[0; 1_001], false),
        (0x13, &[0; 9], true),
        (0x15, &[0; 7], false),
    ];
    for (kind, payload, fine) in cases {
        let frame = Frame::parse(kind, payload);
        assert_eq!(!matches!(frame, Frame::Malformed { .. }), fine, "{kind:#04x} of {} bytes", payload.len());
    }
}

#[test]
fn older_and_newer_peers_are_understood() {
    let key = [7; 32];
    let with = |more: &[u8]| [&key[..], more].concat();
    let peer = NodePublic(key);
    assert_eq!(Frame::parse(8, &key), Frame::PeerGone { peer, reason: GoneReason::Disconnected });
    assert_eq!(Frame::parse(8, &with(&[9, 9])), Frame::PeerGone { peer, reason: GoneReason::Other(9) });
    let present = |bytes: &[u8]| match Frame::parse(9, bytes) {
        Frame::PeerPresent { address, flags, .. } => (address.map(|a| a.to_string()), flags.0),
        other => panic!("{other:?}"),
    };
    assert_eq!(present(&key), (None, 0));
    let mut more = [0; 18];
    more[17] = 9;
    assert_eq!(present(&with(&more)), (Some("[::]:9".into()), 0));
    assert_eq!(present(&with(&[&more[..], &[0x0c, 1, 2]].concat())), (Some("[::]:9".into()), 0x0c));
    assert_eq!(Frame::parse(0x14, b"bad \xff"), Frame::Health { problem: "bad " });
    assert_eq!(Frame::parse(0x7f, b"x"), Frame::Unknown { kind: 0x7f, bytes: b"x" });
}

#[test]
fn a_header_of_the_hot_path_is_a_frames_beginning() {
    let to = server().public();
    let frame = Frame::SendPacket { to, bytes: b"hello" }.to_bytes();
    assert_eq!(frame[..37], packet_header(FrameKind::SendPacket, &to, 5));
}

#[test]
fn a_frame_longer_than_its_kind_may_be_ends_the_stream() {
    let header = |kind: u8, payload: u32| [&[kind][..], &payload.to_be_bytes()].concat();
    assert_eq!(decode(&header(4, 32 + 65_536)), Ok(None));
    assert_eq!(decode(&header(4, 32 + 65_537)), Err(DerpError::TooLong { kind: 4, payload: 65_569 }));
    assert!(decode(&header(0x7f, u32::MAX)).is_ok(), "unknown frames have no limit");
    let mut decoder = Decoder::new();
    assert!(decoder.feed(&header(2, 262_145)).next().is_err());
    assert_eq!(decoder.held(), 0);
}

#[test]
fn a_relay_keeps_less_than_a_node_does() {
    let header = [&[FrameKind::ServerInfo as u8][..], &300_000_u32.to_be_bytes()].concat();
    assert_eq!(Decoder::new().feed(&header).next(), Ok(None));
    let too_long = DerpError::TooLong { kind: 3, payload: 300_000 };
    assert_eq!(Decoder::for_relay().feed(&header).next(), Err(too_long));
    let mut decoder = Decoder::for_relay();
    assert_eq!(decoder.feed(&header[..2]).next(), Ok(None));
    assert_eq!(decoder.feed(&header[2..]).next(), Err(too_long));
}

#[test]
fn unknown_frames_are_skipped_however_long_and_nothing_of_them_is_kept() {
    let mut decoder = Decoder::new();
    let header = [0x7f, 0, 0x0f, 0x42, 0x40]; // a million bytes
    assert_eq!(decoder.feed(&header[..3]).next(), Ok(None));
    assert_eq!(decoder.feed(&header[3..]).next(), Ok(None));
    for _ in 0..999 {
        assert_eq!(decoder.feed(&[0; 1_000]).next(), Ok(None));
        assert_eq!(decoder.held(), 0);
    }
    let mut last = vec![0; 1_000];
    Frame::KeepAlive.emit(&mut last);
    assert_eq!(decoder.feed(&last).next(), Ok(Some(Frame::KeepAlive)));
}

#[test]
fn a_caller_that_stops_early_loses_nothing() {
    let mut bytes = Frame::Ping([1; 8]).to_bytes();
    Frame::Ping([2; 8]).emit(&mut bytes);
    Frame::Ping([3; 8]).emit(&mut bytes);
    let mut decoder = Decoder::new();
    assert_eq!(decoder.feed(&bytes[..20]).next(), Ok(Some(Frame::Ping([1; 8]))));
    assert_eq!(decoder.feed(&bytes[20..]).next(), Ok(Some(Frame::Ping([2; 8]))));
    assert_eq!(decoder.feed(&[]).next(), Ok(Some(Frame::Ping([3; 8]))));
    assert_eq!(decoder.feed(&[]).next(), Ok(None));
    assert_eq!(decoder.held(), 0);
}

fn any_frame_bytes() -> impl Strategy<Value = Vec<u8>> {
    let payload = proptest::collection::vec(any::<u8>(), 0..90);
    (0..0x18_u8, payload).prop_map(|(kind, payload)| Frame::Unknown { kind, bytes: &payload }.to_bytes())
}

proptest! {
    /// However a stream is cut, the same frames come out, and they are those that the whole buffer holds.
    #[test]
    fn cuts_make_no_difference(frames in proptest::collection::vec(any_frame_bytes(), 0..12), cuts in proptest::collection::vec(1..40_usize, 1..80)) {
        let stream = frames.concat();
        let mut whole = Vec::new();
        let mut at = 0;
        while let Some((frame, length)) = decode(&stream[at..]).unwrap() {
            if !matches!(frame, Frame::Unknown { .. }) {
                whole.push(format!("{frame:?}"));
            }
            at += length;
        }
        prop_assert_eq!(at, stream.len());

        let mut decoder = Decoder::new();
        let mut pieces = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle().take(stream.len() + 1) {
            let (piece, later) = rest.split_at((*cut).min(rest.len()));
            rest = later;
            let mut fed = decoder.feed(piece);
            while let Some(frame) = fed.next().unwrap() {
                pieces.push(format!("{frame:?}"));
            }
        }
        prop_assert_eq!(pieces, whole);
        prop_assert_eq!(decoder.held(), 0);
    }

    #[test]
    fn a_decoder_keeps_at_most_one_frame(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..50)) {
        let mut decoder = Decoder::new();
        for chunk in &chunks {
            let mut fed = decoder.feed(chunk);
            while let Ok(Some(_)) = fed.next() {}
            drop(fed);
            prop_assert!(decoder.held() <= FRAME_HEADER_LEN + crate::limits::DERP_SERVER_INFO_MAX);
        }
    }

    /// Reading and writing again gives the bytes that were read, but for what later versions may append.
    #[test]
    fn frames_come_back_as_they_were_sent(kind in 0..0x18_u8, payload in proptest::collection::vec(any::<u8>(), 0..90)) {
        let frame = Frame::parse(kind, &payload);
        let bytes = frame.to_bytes();
        match frame {
            Frame::Malformed { .. } => prop_assert!(bytes.is_empty()),
            _ => prop_assert_eq!(decode(&bytes), Ok(Some((frame, bytes.len())))),
        }
    }
}
