use super::*;
use crate::key::hex;
use crate::wire::tests::{unhex_all, vectors};
use proptest::prelude::*;

fn golden() -> TransactionId {
    TransactionId(core::array::from_fn(|i| i as u8 + 1))
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A Binding request with these attributes.
fn request_with(cookie: bool, attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut id = [9; 16];
    if cookie {
        id[..4].copy_from_slice(&COOKIE);
    }
    message(BINDING_REQUEST, &id, attributes)
}

#[test]
fn request_and_responses_are_the_golden_bytes() {
    assert_eq!(
        hex(&request(golden())),
        "000100142112a4420102030405060708090a0b0c802200087461696c6e6f646580280004b32c370f"
    );
    let cases = [
        ("1.2.3.4:4254", "0101000c2112a4420102030405060708090a0b0c002000080001318c2010a746"),
        (
            "[2001:db8::1]:4254",
            "010100182112a4420102030405060708090a0b0c002000140002318c0113a9fa0102030405060708090a0b0d",
        ),
    ];
    for (mapped, wire) in cases {
        let response = Response { transaction: golden(), mapped: addr(mapped) };
        assert_eq!(hex(&response.emit()), wire);
        assert_eq!(Response::parse(&unhex_all(wire)), Ok(response));
        assert_eq!(answer(&request(golden()), addr(mapped)).unwrap(), unhex_all(wire));
    }
}

#[test]
fn the_vectors_of_rfc_5769_are_understood() {
    let file = vectors(include_str!("../../../testdata/rfc5769.json"));
    let wire = |name: &str| unhex_all(file["vectors"][name].as_str().unwrap());
    for (name, mapped) in [("2.2 IPv4 response", "mapped v4"), ("2.3 IPv6 response", "mapped v6")] {
        let response = Response::parse(&wire(name)).unwrap();
        assert_eq!(response.mapped, addr(file[mapped].as_str().unwrap()));
        assert_eq!(hex(&response.transaction.0), "b7e7a701bc34d686fa87dfae");
    }
    let request = wire("2.1 request");
    let packet = Packet::new_checked(&request).unwrap();
    assert!(fingerprint_holds(&packet, &request));
    let kinds: Vec<u16> = packet.attributes().map(|a| a.kind).collect();
    assert_eq!(kinds, [SOFTWARE, 0x0024, 0x8029, 0x0006, 0x0008, FINGERPRINT]);
    let from = addr("192.0.2.1:32853");
    assert_eq!(Response::parse(&answer(&request, from).unwrap()).unwrap().mapped, from);
    let mut forged = request;
    forged[40] ^= 1;
    assert_eq!(answer(&forged, from), None, "its fingerprint no longer holds");
}

#[test]
fn the_checksum_is_crc_32() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
}

#[test]
fn the_server_answers_generic_clients_within_64_bytes() {
    for from in ["192.0.2.7:9", "[2001:db8::7]:9", "[::ffff:192.0.2.7]:9"] {
        for bytes in [
            request_with(true, &[]),
            request_with(true, &[(SOFTWARE, b"a client with a name of its own that is long")]),
            request_with(true, &[(CHANGE_REQUEST, &[0; 4])]),
        ] {
            let answer = answer(&bytes, addr(from)).unwrap();
            assert!(answer.len() <= ANSWER_MAX, "{} bytes", answer.len());
            let mapped = Response::parse(&answer).unwrap().mapped;
            assert_eq!((mapped.ip(), mapped.port()), (addr(from).ip().to_canonical(), 9));
        }
    }
}

#[test]
fn a_request_without_the_cookie_gets_a_plain_mapped_address() {
    let bytes = request_with(false, &[]);
    let answer = answer(&bytes, addr("192.0.2.7:513")).unwrap();
    assert_eq!(answer[4..20], bytes[4..20], "all sixteen bytes are the transaction");
    assert_eq!(hex(&answer[20..]), "0001000800010201c0000207");
}

#[test]
fn a_request_that_wants_another_source_is_refused_rather_than_misled() {
    let change = |flags| request_with(true, &[(CHANGE_REQUEST, &[0, 0, 0, flags])]);
    for bytes in [change(6), change(2), request_with(true, &[(RESPONSE_PORT, &[0, 9, 0, 0])])] {
        let refused = answer(&bytes, addr("192.0.2.7:9")).unwrap();
        assert_eq!(Response::parse(&refused), Err(StunError::Refused(420)));
        assert!(refused.len() <= ANSWER_MAX);
    }
    let classic = request_with(false, &[(CHANGE_REQUEST, &[0, 0, 0, 6])]);
    assert_eq!(answer(&classic, addr("192.0.2.7:9")), None, "any answer would mislead");
}

fn place(other_ip: Option<&str>, other_port: Option<u16>) -> Place {
    Place { origin: addr("192.0.2.1:3478"), other_ip: other_ip.map(|ip| ip.parse().unwrap()), other_port }
}

#[test]
fn a_server_of_two_addresses_answers_from_where_it_is_asked_to() {
    let quartet = place(Some("192.0.2.2"), Some(3_479));
    for (flags, from_where) in [
        (None, "192.0.2.1:3478"),
        (Some(0), "192.0.2.1:3478"),
        (Some(2), "192.0.2.1:3479"),
        (Some(4), "192.0.2.2:3478"),
        (Some(6), "192.0.2.2:3479"),
    ] {
        let value = [0, 0, 0, flags.unwrap_or(0)];
        let attributes: &[(u16, &[u8])] = if flags.is_some() { &[(CHANGE_REQUEST, &value)] } else { &[] };
        let reply = reply(&request_with(true, attributes), addr("203.0.113.7:9"), Some(&quartet)).unwrap();
        assert_eq!(quartet.changed(reply.change), Some(addr(from_where)));
        let told = Places::parse(&reply.bytes);
        assert_eq!(told.origin, Some(addr(from_where)));
        assert_eq!(told.other, Some(addr("192.0.2.2:3479")));
        assert_eq!(Response::parse(&reply.bytes).unwrap().mapped, addr("203.0.113.7:9"));
        assert!(reply.bytes.len() <= ANSWER_MAX, "{} bytes", reply.bytes.len());
    }
    let our_own = |change| reply(&request_changed(golden(), change), addr("203.0.113.7:9"), Some(&quartet));
    assert_eq!(our_own(Change::BOTH).unwrap().change, Change::BOTH);
    assert_eq!(our_own(Change::PORT).unwrap().change, Change::PORT);
    let six = reply(&request_with(true, &[]), addr("[2001:db8::7]:9"), Some(&quartet)).unwrap();
    assert!(six.bytes.len() <= ANSWER_MAX, "by IPv6 there is no room for addresses");
}

#[test]
fn a_server_of_one_address_changes_its_port_and_tells_no_other_address() {
    let (change_port, change_both) = ([0, 0, 0, 2], [0, 0, 0, 6]);
    let asked = |value: &[u8], place: &Place| {
        let bytes = request_with(true, &[(CHANGE_REQUEST, value)]);
        reply(&bytes, addr("203.0.113.7:9"), Some(place)).unwrap()
    };
    let one = place(None, Some(3_479));
    let reply_port = asked(&change_port, &one);
    assert_eq!(reply_port.change, Change::PORT);
    let told = Places::parse(&reply_port.bytes);
    assert_eq!((told.origin, told.other), (Some(addr("192.0.2.1:3479")), None), "RFC 5780, section 7.4");
    assert_eq!(told.second_port, Some(3_479));
    for (value, place) in [
        (&change_both[..], one),
        (&change_port, place(Some("192.0.2.2"), None)),
        (&[0, 0, 0, 8], one),
        (&[0, 0, 2], one),
    ] {
        let refused = asked(value, &place);
        assert_eq!(refused.change, Change::default(), "a refusal comes from where it was asked for");
        assert_eq!(Response::parse(&refused.bytes), Err(StunError::Refused(420)));
    }
}

#[test]
fn nobody_is_answered_at_another_address_than_their_own() {
    let quartet = place(Some("192.0.2.2"), Some(3_479));
    let victim = [0, 1, 0, 80, 198, 51, 100, 9];
    for attribute in [(RESPONSE_ADDRESS, &victim[..]), (RESPONSE_PORT, &[0, 80, 0, 0])] {
        let change: (u16, &[u8]) = (CHANGE_REQUEST, &[0, 0, 0, 6]);
        let refused = reply(&request_with(true, &[change, attribute]), addr("203.0.113.7:9"), Some(&quartet));
        assert_eq!(Response::parse(&refused.unwrap().bytes), Err(StunError::Refused(420)));
    }
}

#[test]
fn the_server_is_silent_to_everything_else() {
    let from = addr("192.0.2.7:9");
    let response = Response { transaction: golden(), mapped: from }.emit();
    let mut indication = request(golden());
    indication[1] = 0x11;
    let mut cut = request(golden()).to_vec();
    cut.pop();
    let mut wrong_fingerprint = request(golden());
    wrong_fingerprint[39] ^= 1;
    for bytes in [&response[..], &indication, &cut, &wrong_fingerprint, b"", b"GET / HTTP/1.1\r\n\r\n"] {
        assert_eq!(answer(bytes, from), None, "{}", hex(bytes));
    }
}

#[test]
fn a_client_reads_what_other_servers_write() {
    let id: [u8; 16] = [&COOKIE[..], &golden().0].concat().try_into().unwrap();
    let plain: &[u8] = &[0, 1, 0x10, 0x9e, 1, 2, 3, 4];
    let mut xored = plain.to_vec();
    xor_address(&mut xored, &id);
    let mapped = |attributes: &[(u16, &[u8])]| {
        Response::parse(&message(BINDING_SUCCESS, &id, attributes)).map(|r| r.mapped.to_string())
    };
    let good = Ok("1.2.3.4:4254".to_owned());
    assert_eq!(mapped(&[(XOR_MAPPED_ADDRESS_OLD, &xored)]), good);
    assert_eq!(mapped(&[(MAPPED_ADDRESS, plain)]), good);
    assert_eq!(mapped(&[(MAPPED_ADDRESS, &[0, 1, 0, 1, 9, 9, 9, 9]), (XOR_MAPPED_ADDRESS, &xored)]), good);
    assert_eq!(mapped(&[(SOFTWARE, b"odd"), (0x8028, &[0; 4]), (XOR_MAPPED_ADDRESS, &xored)]), good);
    assert_eq!(mapped(&[(MAPPED_ADDRESS, &[0, 3, 0, 1, 9, 9, 9, 9])]), Err(StunError::NoAddress));
    assert_eq!(mapped(&[(XOR_MAPPED_ADDRESS, &xored[..7])]), Err(StunError::NoAddress));
    assert_eq!(mapped(&[]), Err(StunError::NoAddress));

    let mut trailing = message(BINDING_SUCCESS, &id, &[(XOR_MAPPED_ADDRESS, &xored)]);
    trailing.extend_from_slice(b"beyond the length");
    assert_eq!(Response::parse(&trailing).map(|r| r.mapped.to_string()), good);

    let mut v4_in_v6 = [&[0, 2, 0x10, 0x9e][..], &[0; 10], &[0xff, 0xff, 1, 2, 3, 4]].concat();
    xor_address(&mut v4_in_v6, &id);
    assert_eq!(mapped(&[(XOR_MAPPED_ADDRESS, &v4_in_v6)]), good);
}

#[test]
fn a_client_refuses_what_is_no_answer() {
    assert_eq!(Response::parse(&request(golden())), Err(StunError::Type(BINDING_REQUEST)), "a hairpin");
    assert_eq!(Response::parse(&[]), Err(StunError::Malformed));
    let mut response = Response { transaction: golden(), mapped: addr("1.2.3.4:5") }.emit();
    assert_eq!(Response::parse(&response[..31]), Err(StunError::Malformed));
    response[4] = 0;
    assert_eq!(Response::parse(&response), Err(StunError::Cookie));
    response[0] = 0xc1;
    assert_eq!(Response::parse(&response), Err(StunError::Malformed));
}

#[test]
fn attributes_that_overrun_their_message_are_malformed() {
    let mut bytes = request_with(true, &[(SOFTWARE, b"four")]);
    bytes[23] = 5;
    assert_eq!(Packet::new_checked(&bytes), Err(StunError::Malformed));
    bytes[23] = 3;
    assert!(Packet::new_checked(&bytes).is_ok(), "padding");
    bytes[3] = 7;
    assert!(Packet::new_checked(&bytes[..27]).is_ok(), "padding that its server forgot");
    bytes[3] = 3;
    assert_eq!(Packet::new_checked(&bytes[..23]), Err(StunError::Malformed));
}

proptest! {
    #[test]
    fn what_the_server_says_the_client_reads(id in any::<[u8; 12]>(), ip in any::<[u8; 16]>(), port in any::<u16>(), v4 in any::<bool>()) {
        let ip = if v4 { IpAddr::from(*ip.first_chunk::<4>().unwrap()) } else { IpAddr::from(ip) };
        let from = SocketAddr::new(ip, port);
        let bytes = answer(&request(TransactionId(id)), from).unwrap();
        prop_assert_eq!(crate::wire::classify(&bytes), crate::wire::Kind::Stun);
        let expected = Response { transaction: TransactionId(id), mapped: SocketAddr::new(ip.to_canonical(), port) };
        prop_assert_eq!(Response::parse(&bytes), Ok(expected));
        prop_assert_eq!(expected.emit(), bytes);
    }

    #[test]
    fn a_broken_request_never_gets_a_long_answer(flips in proptest::collection::vec(0..320_usize, 1..4), extra in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut bytes = request(golden()).to_vec();
        for bit in flips {
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        bytes.extend(extra);
        let quartet = place(Some("192.0.2.2"), Some(3_479));
        for from in ["[2001:db8::7]:9", "203.0.113.7:9"] {
            let answer = reply(&bytes, addr(from), Some(&quartet)).map(|reply| reply.bytes).unwrap_or_default();
            prop_assert!(answer.len() <= ANSWER_MAX);
        }
    }
}
