use super::*;
use crate::key::{DiscoSecret, NodeSecret, hex};
use crate::seed::Seed;
use crate::wire::tests::{key_bytes, nonce, unhex_all, vectors};
use proptest::prelude::*;

fn a() -> DiscoSecret {
    DiscoSecret::from_bytes(key_bytes(0x30, 0x33, 0x73))
}

fn b() -> DiscoSecret {
    DiscoSecret::from_bytes(key_bytes(0x40, 0x44, 0x44))
}

fn golden_tx() -> TxId {
    TxId(core::array::from_fn(|i| i as u8 + 1))
}

/// Seals `message` from `from` to `to`, compares, and opens the bytes again at the other end.
fn agrees(message: &Message, from: &DiscoSecret, to: &DiscoSecret, nonce: [u8; NONCE_LEN], wire: &str) {
    let wire = unhex_all(wire);
    let sealed = message.seal_with(from.public(), &from.shared(&to.public()), nonce);
    assert_eq!(hex(&sealed), hex(&wire));
    let envelope = Envelope::new_checked(&wire).unwrap();
    assert_eq!(envelope.sender, from.public());
    assert_eq!(envelope.open(&to.shared(&envelope.sender)).as_ref(), Ok(message));
}

#[test]
fn ping_and_pong_are_the_golden_bytes() {
    let client = NodeSecret::from_bytes(key_bytes(0x10, 0x11, 0x51)).public();
    let ping = Message::Ping { tx: golden_tx(), node_key: Some(client), padding: 0 };
    agrees(
        &ping,
        &a(),
        &b(),
        nonce(),
        "5453f09f92ac 7b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14
         000102030405060708090a0b0c0d0e0f1011121314151617
         02e19fe7bbeb54d1b7db7dc5b6ed03900b2ab5b6b0be4a2331697278faf480e74d3947b6448a1caa335a3391033248f9a206d2916a09bc71c56886798341",
    );
    let pong = Message::Pong { tx: golden_tx(), source: "2.3.4.5:1234".parse().unwrap() };
    agrees(
        &pong,
        &b(),
        &a(),
        nonce(),
        "5453f09f92ac ff2ee45601ec1b67310c7790404585ae697331eee1c1f8cf2419731c1fff3e6b
         000102030405060708090a0b0c0d0e0f1011121314151617
         3144eb386eafb65e50453a35b3157d42082ab5b6b0be4a2331697278faf4fba9dda2f9c9baced8cf6e8532ef67b9af73",
    );
}

/// What another implementation sealed opens here, and what it says is sealed here to the same bytes.
#[test]
fn messages_of_an_independent_implementation_agree() {
    let file = vectors(include_str!("../../../testdata/disco_tsrs_0.6.1.json"));
    let text = |name: &str| file[name].as_str().unwrap().to_owned();
    let (sender, receiver) = (DiscoSecret::from_bytes([1; 32]), DiscoSecret::from_bytes([2; 32]));
    assert_eq!(sender.public().to_string(), text("sender_pub"));
    assert_eq!(receiver.public().to_string(), text("receiver_pub"));
    let nonce: [u8; NONCE_LEN] = unhex_all(&text("nonce")).try_into().unwrap();
    let mut read = String::new();
    for name in ["ping", "ping_pad20", "pong_v4", "pong_v6", "call_me_maybe"] {
        let wire = text(name);
        let bytes = unhex_all(&wire);
        let message =
            Envelope::new_checked(&bytes).unwrap().open(&receiver.shared(&sender.public())).unwrap();
        agrees(&message, &sender, &receiver, nonce, &wire);
        read += &format!("{message:?}\n");
    }
    insta::assert_snapshot!(read, @r"
    Ping { tx: tx:61626364, node_key: Some(n:0303030303), padding: 0 }
    Ping { tx: tx:61626364, node_key: Some(n:0303030303), padding: 20 }
    Pong { tx: tx:61626364, source: 192.0.2.7:41641 }
    Pong { tx: tx:61626364, source: [2001:db8::7]:41641 }
    CallMeMaybe { endpoints: [192.0.2.7:41641, [2001:db8::7]:41641] }
    ");
}

#[test]
fn sizes_on_the_wire_are_tailscales() {
    let seal = |message: Message| message.seal_with(a().public(), &a().shared(&b().public()), nonce()).len();
    let (tx, source) = (golden_tx(), "[2001::1]:9".parse().unwrap());
    assert_eq!(seal(Message::Ping { tx, node_key: None, padding: 0 }), 92);
    assert_eq!(seal(Message::Ping { tx, node_key: Some(NodePublic([9; 32])), padding: 0 }), 124);
    assert_eq!(seal(Message::Pong { tx, source }), 110);
    assert_eq!(seal(Message::CallMeMaybe { endpoints: vec![source; 3] }), 80 + 18 * 3);
}

#[test]
fn later_versions_may_say_more_and_never_less() {
    let parse = |hexes: &str| Message::parse(&unhex_all(hexes));
    let tx = "0102030405060708090a0b0c";
    assert_eq!(parse(&format!("0100{}", &tx[2..])), Err(DiscoError::Short));
    assert!(matches!(parse(&format!("0100{tx}")), Ok(Message::Ping { node_key: None, padding: 0, .. })));
    assert_eq!(parse(&format!("0200{tx}00")), Err(DiscoError::Short));
    let pong = format!("0200{tx}00000000000000000000ffff0203040504d2ffff");
    assert!(matches!(parse(&pong), Ok(Message::Pong { source, .. }) if source.to_string() == "2.3.4.5:1234"));
    assert_eq!(parse("8000 0000002a"), Ok(Message::Opened { round: 42 }));
    assert_eq!(parse("8001 0000002a ffee"), Ok(Message::Opened { round: 42 }));
    assert_eq!(parse("8000 00002a"), Err(DiscoError::Short));
    assert_eq!(parse("0400"), Err(DiscoError::UnknownType(4)));
    assert_eq!(parse("7f00"), Err(DiscoError::UnknownType(0x7f)));
    assert_eq!(parse("01"), Err(DiscoError::Short));
}

#[test]
fn an_odd_call_me_maybe_is_empty_and_a_huge_one_is_capped() {
    let parse = |version, payload: Vec<u8>| Message::parse(&[vec![CALL_ME_MAYBE, version], payload].concat());
    let empty = Ok(Message::CallMeMaybe { endpoints: Vec::new() });
    assert_eq!(parse(0, Vec::new()), empty);
    assert_eq!(parse(0, vec![1; 19]), empty);
    assert_eq!(parse(1, vec![1; 18]), empty);
    let Ok(Message::CallMeMaybe { endpoints }) = parse(0, vec![1; 18 * 3_000]) else { panic!() };
    assert_eq!(endpoints.len(), limits::CALL_ME_MAYBE_MAX);
}

#[test]
fn only_the_two_keys_open_an_envelope_and_no_flipped_bit_passes() {
    let message = Message::Opened { round: 1 };
    let sealed = message.seal(a().public(), &a().shared(&b().public()), &mut Seed::from_u64(1).rng());
    let open = |bytes: &[u8]| Envelope::new_checked(bytes).map(|e| e.open(&b().shared(&a().public())));
    assert_eq!(open(&sealed), Some(Ok(message)));
    let stranger = DiscoSecret::from_bytes([5; 32]);
    let envelope = Envelope::new_checked(&sealed).unwrap();
    assert_eq!(envelope.open(&stranger.shared(&a().public())), Err(DiscoError::Sealed));
    for bit in HEADER_LEN * 8..sealed.len() * 8 {
        let mut bytes = sealed.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&bytes), Some(Err(DiscoError::Sealed)), "bit {bit}");
    }
    for length in 0..sealed.len() {
        assert!(!matches!(open(&sealed[..length]), Some(Ok(_))), "{length} bytes");
    }
}

#[test]
fn a_relay_takes_only_whole_envelopes_for_disco() {
    let mut bytes = MAGIC.to_vec();
    bytes.resize(61, 0);
    assert!(looks_like(&bytes) && !looks_like_relayed(&bytes));
    bytes.push(0);
    assert!(looks_like_relayed(&bytes));
    bytes[5] ^= 1;
    assert!(!looks_like_relayed(&bytes));
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    // An IPv4 address mapped into IPv6 comes back as IPv4, so none such is drawn.
    let v4 = any::<[u8; 4]>().prop_map(IpAddr::from);
    let v6 = any::<[u8; 16]>().prop_map(|ip| Ipv6Addr::from(ip).to_canonical());
    (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

fn any_message() -> impl Strategy<Value = Message> {
    let tx = || any::<[u8; 12]>().prop_map(TxId);
    prop_oneof![
        (tx(), 0..32_usize).prop_map(|(tx, padding)| Message::Ping { tx, node_key: None, padding }),
        (tx(), any::<[u8; 32]>(), 0..1_500_usize).prop_map(|(tx, key, padding)| Message::Ping {
            tx,
            node_key: Some(NodePublic(key)),
            padding
        }),
        (tx(), any_address()).prop_map(|(tx, source)| Message::Pong { tx, source }),
        proptest::collection::vec(any_address(), 0..20)
            .prop_map(|endpoints| Message::CallMeMaybe { endpoints }),
        any::<u32>().prop_map(|round| Message::Opened { round }),
    ]
}

proptest! {
    #[test]
    fn every_message_comes_back_as_it_was_sent(message in any_message(), seed in any::<u64>()) {
        let sealed = message.seal(a().public(), &a().shared(&b().public()), &mut Seed::from_u64(seed).rng());
        prop_assert_eq!(crate::wire::classify(&sealed), crate::wire::Kind::Disco);
        let opened = Envelope::new_checked(&sealed).unwrap().open(&b().shared(&a().public()));
        prop_assert_eq!(opened, Ok(message));
    }
}
