use super::*;
use proptest::prelude::*;
use proto_core::seed::Seed;
use proto_core::wg::{INITIATION_LEN, OVERHEAD};

struct Side {
    engine: BoringTun,
    key: NodePublic,
}

fn side(n: u64) -> Side {
    let secret = NodeSecret::generate(&Seed::from_u64(n));
    Side { engine: BoringTun::new(&secret), key: secret.public() }
}

fn pair() -> (Side, Side) {
    let (mut a, mut b) = (side(1), side(2));
    a.engine.add_peer(b.key);
    b.engine.add_peer(a.key);
    (a, b)
}

/// The shortest IPv6 packet that boringtun lets pass, with `text` as its payload.
fn inner(text: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
    packet.resize(40, 0);
    packet.extend_from_slice(text);
    packet
}

impl Side {
    fn open(&mut self, datagram: &[u8]) -> (Opened, Vec<u8>) {
        let mut out = vec![0; datagram.len().max(INITIATION_LEN)];
        let opened = self.engine.open(datagram, &mut out, Time::ZERO);
        let length = match opened {
            Opened::Data(_, n)
            | Opened::Reply(_, n)
            | Opened::Established(_, Some(n))
            | Opened::Cookie(n) => n,
            _ => 0,
        };
        out.truncate(length);
        (opened, out)
    }

    fn seal(&mut self, peer: &NodePublic, packet: &[u8]) -> (Sealed, Vec<u8>) {
        let mut out = vec![0; (packet.len() + OVERHEAD).max(INITIATION_LEN)];
        let sealed = self.engine.seal(peer, packet, &mut out, Time::ZERO);
        let length = match sealed {
            Sealed::Data(n) | Sealed::Initiation(n) => n,
            _ => 0,
        };
        out.truncate(length);
        (sealed, out)
    }

    fn initiate(&mut self, peer: &NodePublic) -> Vec<u8> {
        let mut out = vec![0; INITIATION_LEN];
        let length = self.engine.initiate(peer, &mut out, Time::ZERO).unwrap();
        out.truncate(length);
        out
    }

    fn flush(&mut self, peer: &NodePublic) -> Vec<Vec<u8>> {
        let mut out = vec![0; 2_000];
        std::iter::from_fn(|| self.engine.flush(peer, &mut out, Time::ZERO).map(|n| out[..n].to_vec()))
            .collect()
    }
}

/// A handshake that `a` begins.
fn handshake(a: &mut Side, b: &mut Side) {
    let initiation = a.initiate(&b.key);
    let (reply, response) = b.open(&initiation);
    assert_eq!(reply, Opened::Reply(a.key, 92));
    let (established, keepalive) = a.open(&response);
    assert_eq!(established, Opened::Established(b.key, Some(32)));
    assert_eq!(b.open(&keepalive).0, Opened::Keepalive(a.key));
}

#[test]
fn what_waits_for_the_first_session_is_flushed_by_either_side() {
    let (mut a, mut b) = pair();
    assert_eq!(a.seal(&b.key, &inner(b"one")).0, Sealed::Waiting, "the core begins the first handshake");
    assert_eq!(b.seal(&a.key, &inner(b"two")).0, Sealed::Waiting);
    assert_eq!(a.flush(&b.key), Vec::<Vec<u8>>::new());
    handshake(&mut a, &mut b);
    let sealed = a.flush(&b.key);
    assert_eq!(b.open(&sealed[0]), (Opened::Data(a.key, 43), inner(b"one")));
    let sealed = b.flush(&a.key);
    assert_eq!(a.open(&sealed[0]), (Opened::Data(b.key, 43), inner(b"two")));
}

#[test]
fn sealed_bytes_hide_the_payload_and_pass_only_once() {
    let (mut a, mut b) = pair();
    handshake(&mut a, &mut b);
    let pattern: Vec<u8> = (0..1_024).map(|i| (i % 251) as u8).collect();
    let (sealed, bytes) = a.seal(&b.key, &inner(&pattern));
    assert_eq!(sealed, Sealed::Data(40 + 1_024 + OVERHEAD));
    assert!(!bytes.windows(16).any(|w| pattern.windows(16).any(|p| p == w)), "the payload shows");
    assert_eq!(b.open(&bytes).0, Opened::Data(a.key, 40 + 1_024));
    assert!(matches!(b.open(&bytes).0, Opened::Refused(_)), "a replay");
}

#[test]
fn peers_are_told_apart_and_strangers_are_not_answered() {
    let (mut a, mut b) = pair();
    let (mut c, mut stranger) = (side(3), side(4));
    b.engine.add_peer(c.key);
    c.engine.add_peer(b.key);
    stranger.engine.add_peer(b.key);
    handshake(&mut c, &mut b);
    handshake(&mut a, &mut b);
    for from in [&mut a, &mut c] {
        let sealed = from.seal(&b.key, &inner(b"x")).1;
        assert_eq!(b.open(&sealed).0, Opened::Data(from.key, 41));
    }
    let initiation = stranger.initiate(&b.key);
    assert_eq!(b.open(&initiation).0, Opened::Refused("from a stranger"));
    b.engine.remove_peer(&a.key);
    let sealed = a.seal(&b.key, &inner(b"x")).1;
    assert!(matches!(b.open(&sealed).0, Opened::Refused(_)));
    assert_eq!(b.seal(&a.key, &inner(b"x")).0, Sealed::Dropped);
}

#[test]
fn after_a_reset_nothing_passes_until_a_new_handshake() {
    let (mut a, mut b) = pair();
    handshake(&mut a, &mut b);
    let old = b.seal(&a.key, &inner(b"late")).1;
    a.engine.reset(&b.key);
    assert_eq!(a.seal(&b.key, &inner(b"x")).0, Sealed::Waiting);
    assert!(matches!(a.open(&old).0, Opened::Refused(_)));
    handshake(&mut a, &mut b);
    assert_eq!(a.flush(&b.key).len(), 1);
}

#[test]
fn a_restarted_peer_is_met_again() {
    let (mut a, mut b) = pair();
    handshake(&mut a, &mut b);
    // Time stamps of initiations must grow, and they count in nanoseconds.
    let mut again = side(2);
    again.engine.add_peer(a.key);
    handshake(&mut again, &mut a);
    let sealed = a.seal(&again.key, &inner(b"hello")).1;
    assert_eq!(again.open(&sealed).0, Opened::Data(a.key, 45));
}

#[test]
fn both_sides_may_begin_at_once() {
    let (mut a, mut b) = pair();
    let (from_a, from_b) = (a.initiate(&b.key), b.initiate(&a.key));
    let (_, to_b) = a.open(&from_b);
    let (_, to_a) = b.open(&from_a);
    let (_, keep_a) = a.open(&to_a);
    let (_, keep_b) = b.open(&to_b);
    b.open(&keep_a);
    a.open(&keep_b);
    let sealed = a.seal(&b.key, &inner(b"x")).1;
    assert_eq!(b.open(&sealed).0, Opened::Data(a.key, 41));
    let sealed = b.seal(&a.key, &inner(b"y")).1;
    assert_eq!(a.open(&sealed).0, Opened::Data(b.key, 41));
}

#[test]
fn what_waits_is_bounded() {
    let (mut a, b) = pair();
    let results: Vec<_> = (0..100).map(|_| a.seal(&b.key, &inner(b"x")).0).collect();
    assert_eq!(results.iter().filter(|r| **r == Sealed::Waiting).count(), WAITING_MAX);
    assert_eq!(results[99], Sealed::Dropped);
}

#[test]
fn a_flood_of_handshakes_is_asked_for_cookies() {
    let (mut a, mut b) = pair();
    b.engine.source(Some("192.0.2.1".parse().unwrap()));
    let mut cookies = 0;
    for _ in 0..HANDSHAKES_PER_SECOND + 10 {
        // Each is a new one; time stamps that do not grow are refused, but count.
        let initiation = a.initiate(&b.key);
        if let (Opened::Cookie(64), cookie) = b.open(&initiation) {
            cookies += 1;
            assert_eq!(a.open(&cookie).0, Opened::Refused("a cookie, kept"));
        }
    }
    assert!(cookies > 0);
    // With the cookie the next initiation is answered although the flood goes on.
    let initiation = a.initiate(&b.key);
    assert!(matches!(b.open(&initiation).0, Opened::Reply(..)));
}

#[test]
fn timers_run_for_every_peer_and_name_the_next_run() {
    let (mut a, b) = pair();
    assert_eq!(a.engine.next_tick(), Some(Time::ZERO));
    let mut out = vec![0; 2_000];
    assert_eq!(a.engine.tick(&mut out, Time::ZERO), None);
    assert_eq!(a.engine.next_tick(), Some(Time::ZERO + TICK));
    assert_eq!(a.engine.tick(&mut out, Time::ZERO), None, "not due yet");
    a.engine.remove_peer(&b.key);
    assert_eq!(a.engine.tick(&mut out, Time::from_secs(1)), None);
    assert_eq!(a.engine.next_tick(), None, "without peers there is nothing to run");
}

proptest! {
    #[test]
    fn hostile_datagrams_are_refused_and_never_panic(
        kind in 0u8..6,
        mut bytes in proptest::collection::vec(any::<u8>(), 4..200),
        length in prop_oneof![Just(148usize), Just(92), Just(64), 4usize..200],
    ) {
        let (mut a, mut b) = pair();
        handshake(&mut a, &mut b);
        bytes.resize(length, 0);
        bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
        prop_assert!(matches!(b.open(&bytes).0, Opened::Refused(_)));
    }
}
