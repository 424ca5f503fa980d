use super::*;
use crate::key::hex;
use proptest::prelude::*;

/// Bytes of hexadecimal digits with any white space between them.
pub(super) fn unhex_all(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A file of `testdata`.
pub(super) fn vectors(json: &str) -> serde_json::Value {
    serde_json::from_str(json).unwrap()
}

/// The secret keys of the golden vectors: a first, a repeated and a last byte.
pub(super) fn key_bytes(first: u8, middle: u8, last: u8) -> [u8; 32] {
    let mut bytes = [middle; 32];
    bytes[0] = first;
    bytes[31] = last;
    bytes
}

/// The golden vectors' nonce, 0 to 0x17.
pub(super) fn nonce() -> [u8; crate::key::NONCE_LEN] {
    core::array::from_fn(|i| i as u8)
}

#[test]
fn datagrams_are_told_apart() {
    let with_len = |head: &[u8], len: usize| {
        let mut bytes = head.to_vec();
        bytes.resize(len, 0xa5);
        bytes
    };
    let stun = stun::request(stun::TransactionId([7; 12]));
    let cases: [(Vec<u8>, Kind); 18] = [
        (stun.to_vec(), Kind::Stun),
        (stun[..20].to_vec(), Kind::Stun),
        (stun[..19].to_vec(), Kind::Unknown),
        (with_len(&disco::MAGIC, 38), Kind::Disco),
        (with_len(&disco::MAGIC, 37), Kind::Unknown),
        (with_len(&[1, 0, 0, 0], 148), Kind::WireGuard),
        (with_len(&[1, 0, 0, 0], 149), Kind::Unknown),
        (with_len(&[2, 0, 0, 0], 92), Kind::WireGuard),
        (with_len(&[3, 0, 0, 0], 64), Kind::WireGuard),
        (with_len(&[4, 0, 0, 0], 32), Kind::WireGuard),
        (with_len(&[4, 0, 0, 0], 1_452), Kind::WireGuard),
        (with_len(&[4, 0, 0, 0], 31), Kind::Unknown),
        (with_len(&[4, 0, 0, 1], 64), Kind::Unknown),
        (with_len(&[5, 0, 0, 0], 64), Kind::Unknown),
        // An initiation whose sender index happens to be STUN's cookie is still WireGuard.
        (with_len(&[1, 0, 0, 0, 0x21, 0x12, 0xa4, 0x42], 148), Kind::WireGuard),
        // An old STUN request without the cookie is nothing that a node asked for.
        (with_len(&[0, 1, 0, 0], 20), Kind::Unknown),
        (Vec::new(), Kind::Unknown),
        (vec![0xff; 9_000], Kind::Unknown),
    ];
    for (bytes, kind) in cases {
        assert_eq!(classify(&bytes), kind, "{} bytes {}", bytes.len(), hex(&bytes[..bytes.len().min(8)]));
    }
}

proptest! {
    #[test]
    fn every_reader_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = classify(&bytes);
        let _ = stun::Response::parse(&bytes);
        let _ = stun::answer(&bytes, "192.0.2.1:1".parse().unwrap());
        let _ = disco::Message::parse(&bytes);
        let _ = disco::Envelope::new_checked(&bytes);
        let _ = derp::decode(&bytes);
        let _ = derp::ClientInfo::parse(&bytes);
        let _ = derp::ServerInfo::parse(&bytes);
        let _ = control::ToNode::parse(&bytes);
        let _ = control::ToServer::parse(&bytes);
    }
}
