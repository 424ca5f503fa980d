use super::*;
use proto_core::time::Duration;

struct Pair {
    engines: [WgModel; 2],
    keys: [NodePublic; 2],
}

const T0: Time = Time::from_secs(10);

/// An IPv6 packet with this text in it.
fn inner(text: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, u8::try_from(text.len()).unwrap()];
    packet.resize(IPV6_HEADER_LEN, 0);
    packet.extend_from_slice(text);
    packet
}

fn engine(n: u64) -> (WgModel, NodePublic) {
    let secret = NodeSecret::generate(&Seed::from_u64(n));
    let key = secret.public();
    (WgModel::new(secret, 1_000_000, &Seed::from_u64(n)), key)
}

fn pair() -> Pair {
    let ((mut a, ka), (mut b, kb)) = (engine(1), engine(2));
    a.add_peer(kb);
    b.add_peer(ka);
    for engine in [&mut a, &mut b] {
        assert_eq!(engine.tick(&mut [0; 2_048], T0), None);
    }
    Pair { engines: [a, b], keys: [ka, kb] }
}

impl Pair {
    fn initiate(&mut self, from: usize, now: Time) -> Vec<u8> {
        let mut out = [0; 2_048];
        let len = self.engines[from].initiate(&self.keys[1 - from], &mut out, now).unwrap();
        out[..len].to_vec()
    }

    fn seal(&mut self, from: usize, text: &[u8], now: Time) -> (Sealed, Vec<u8>) {
        let mut out = [0; 2_048];
        let sealed = self.engines[from].seal(&self.keys[1 - from], &inner(text), &mut out, now);
        let len = match sealed {
            Sealed::Data(len) | Sealed::Initiation(len) => len,
            _ => 0,
        };
        (sealed, out[..len].to_vec())
    }

    /// What `to` makes of a datagram, and what it sends back.
    fn open(&mut self, to: usize, datagram: &[u8], now: Time) -> (Opened, Vec<u8>) {
        let mut out = [0; 2_048];
        let opened = self.engines[to].open(datagram, &mut out, now);
        let len = match opened {
            Opened::Reply(_, len) | Opened::Established(_, Some(len)) | Opened::Data(_, len) => len,
            _ => 0,
        };
        (opened, out[..len].to_vec())
    }

    fn connect(&mut self, now: Time) {
        let init = self.initiate(0, now);
        let (_, response) = self.open(1, &init, now);
        let (_, keepalive) = self.open(0, &response, now);
        assert_eq!(self.open(1, &keepalive, now).0, Opened::Keepalive(self.keys[0]));
    }

    fn ticks(&mut self, who: usize, from: Time, until: Time) -> Vec<(u64, usize)> {
        let mut out = [0; 2_048];
        let mut seen = Vec::new();
        while let Some(at) = self.engines[who].next_tick().filter(|at| *at <= until) {
            let at = at.max(from);
            while let Some((_, len)) = self.engines[who].tick(&mut out, at) {
                seen.push((at.since(T0).as_secs(), len));
            }
        }
        seen
    }
}

#[test]
fn a_handshake_has_the_real_sizes_and_carries_data_both_ways() {
    let mut p = pair();
    assert_eq!(p.seal(0, b"first", T0).0, Sealed::Waiting, "the core begins");
    let init = p.initiate(0, T0);
    assert_eq!(init.len(), 148);
    let (opened, response) = p.open(1, &init, T0);
    assert_eq!(opened, Opened::Reply(p.keys[0], 92));
    let (opened, keepalive) = p.open(0, &response, T0);
    assert_eq!(opened, Opened::Established(p.keys[1], Some(32)));
    assert_eq!(p.open(1, &keepalive, T0).0, Opened::Keepalive(p.keys[0]));
    let mut out = [0; 2_048];
    let len = p.engines[0].flush(&p.keys[1], &mut out, T0).unwrap();
    assert_eq!(p.open(1, &out[..len], T0).1, inner(b"first"));
    let (_, back) = p.seal(1, b"second", T0);
    assert_eq!(back.len(), 46 + OVERHEAD);
    assert!(!back.windows(6).any(|w| w == b"second"), "plaintext on the wire");
    assert_eq!(p.open(0, &back, T0), (Opened::Data(p.keys[1], 46), inner(b"second")));
}

#[test]
fn repeats_strangers_and_changed_packets_are_refused() {
    let mut p = pair();
    let init = p.initiate(0, T0);
    p.open(1, &init, T0);
    assert!(matches!(p.open(1, &init, T0).0, Opened::Refused(_)), "an old initiation");
    let mut p = pair();
    p.connect(T0);
    let (_, packet) = p.seal(0, b"hello", T0);
    let mut changed = packet.clone();
    changed[20] ^= 1;
    assert!(matches!(p.open(1, &changed, T0).0, Opened::Refused(_)));
    assert!(matches!(p.open(1, &packet, T0).0, Opened::Data(..)));
    assert_eq!(p.open(1, &packet, T0).0, Opened::Refused(session::REPLAY));
    let (mut stranger, _) = engine(3);
    stranger.add_peer(p.keys[0]);
    assert!(matches!(stranger.open(&packet, &mut [0; 2_048], T0), Opened::Refused(_)));
    assert!(matches!(stranger.open(&init, &mut [0; 2_048], T0), Opened::Refused(_)));
    let mut out = [0; 2_048];
    let len = stranger.initiate(&p.keys[0], &mut out, T0).unwrap();
    assert!(matches!(p.open(0, &out[..len], T0).0, Opened::Refused(_)), "nobody let it in");
}

#[test]
fn a_thousand_packets_may_come_late_but_each_only_once() {
    let mut p = pair();
    p.connect(T0);
    let packets: Vec<_> = (0..3_000_u32).map(|n| p.seal(0, &n.to_le_bytes(), T0).1).collect();
    assert!(matches!(p.open(1, &packets[2_000], T0).0, Opened::Data(..)));
    for n in [1_999, 1_500, 1_000, 990] {
        assert!(matches!(p.open(1, &packets[n], T0).0, Opened::Data(..)), "{n}");
        assert_eq!(p.open(1, &packets[n], T0).0, Opened::Refused(session::REPLAY), "{n}");
    }
    assert_eq!(p.open(1, &packets[900], T0).0, Opened::Refused(session::REPLAY));
    assert!(matches!(p.open(1, &packets[2_999], T0).0, Opened::Data(..)));
    assert_eq!(p.open(1, &packets[1_501], T0).0, Opened::Refused(session::REPLAY));
}

#[test]
fn an_unanswered_initiation_is_repeated_every_5_s_and_given_up_after_90() {
    let mut p = pair();
    p.initiate(0, T0);
    let seen = p.ticks(0, T0, T0 + Duration::from_secs(300));
    assert_eq!(seen, (1..18).map(|n| (n * 5, 148)).collect::<Vec<_>>());
    assert_eq!(p.engines[0].next_tick(), None, "nothing revives it");
    let later = T0 + Duration::from_secs(300);
    assert_eq!(p.seal(0, b"x", later).0, Sealed::Waiting, "but the core");
    p.initiate(0, later);
    assert_eq!(p.ticks(0, later, later + Duration::from_secs(6)), [(305, 148)]);
}

#[test]
fn the_initiator_renews_after_120_s_of_use_and_old_sessions_end_after_180() {
    let mut p = pair();
    p.connect(T0);
    let later = T0 + Duration::from_secs(121);
    let (_, packet) = p.seal(0, b"x", later);
    p.open(1, &packet, later);
    let run = later + Duration::from_millis(250);
    assert_eq!(p.ticks(0, later, run).first(), Some(&(121, 148)));
    assert_eq!(p.ticks(1, later, run), [(121, 32)], "the responder only keeps alive");
    let end = T0 + Duration::from_secs(181);
    p.ticks(1, later, end);
    assert!(matches!(p.seal(1, b"x", end).0, Sealed::Initiation(148)));
}

#[test]
fn silence_after_data_asks_for_a_handshake_and_data_without_answer_for_a_keepalive() {
    let mut p = pair();
    p.connect(T0);
    let (_, packet) = p.seal(0, b"x", T0 + Duration::from_secs(1));
    assert_eq!(p.ticks(0, T0, T0 + Duration::from_secs(16)).first(), Some(&(15, 148)));
    let mut p2 = pair();
    p2.connect(T0);
    drop(packet);
    let (_, packet) = p2.seal(0, b"x", T0 + Duration::from_secs(1));
    p2.open(1, &packet, T0 + Duration::from_secs(1));
    assert_eq!(p2.ticks(1, T0, T0 + Duration::from_secs(30)), [(10, 32)]);
}

#[test]
fn crossing_initiations_both_come_to_a_session() {
    let mut p = pair();
    let (a, b) = (p.initiate(0, T0), p.initiate(1, T0));
    let (_, answer_a) = p.open(1, &a, T0);
    let (_, answer_b) = p.open(0, &b, T0);
    let (opened, keep_a) = p.open(0, &answer_a, T0);
    assert!(matches!(opened, Opened::Established(..)));
    let (opened, keep_b) = p.open(1, &answer_b, T0);
    assert!(matches!(opened, Opened::Established(..)));
    p.open(1, &keep_a, T0);
    p.open(0, &keep_b, T0);
    for (from, text) in [(0, b"one"), (1, b"two")] {
        let (_, packet) = p.seal(from, text, T0);
        assert_eq!(p.open(1 - from, &packet, T0).1, inner(text));
    }
}

#[test]
fn a_reset_forgets_the_session_and_packets_wait_for_the_next_handshake() {
    let mut p = pair();
    p.connect(T0);
    let key = p.keys[1];
    p.engines[0].reset(&key);
    let later = T0 + Duration::from_secs(1);
    assert_eq!(p.seal(0, b"x", later).0, Sealed::Waiting);
    p.connect(later);
    let mut out = [0; 2_048];
    let len = p.engines[0].flush(&key, &mut out, later).unwrap();
    assert_eq!(p.open(1, &out[..len], later).1, inner(b"x"));
}
