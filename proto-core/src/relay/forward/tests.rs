use super::*;
use crate::seed::Seed;

const A: NodePublic = NodePublic([1; 32]);
const B: NodePublic = NodePublic([2; 32]);

fn disco_of(len: usize) -> Vec<u8> {
    let mut bytes = disco::MAGIC.to_vec();
    bytes.resize(len, 0);
    bytes
}

#[test]
fn disco_is_known_by_its_magic_and_a_whole_envelope() {
    assert_eq!(PacketKind::of(&disco_of(62)), PacketKind::Disco);
    assert_eq!(PacketKind::of(&disco_of(61)), PacketKind::Data);
    assert_eq!(PacketKind::of(&[4; 100]), PacketKind::Data);
}

#[test]
fn a_packet_goes_to_the_active_connection_and_the_first_one_is_told() {
    let mut table = ForwardTable::new(&Seed::from_u64(1));
    table.apply(TableChange { key: B, active: Some(StreamId(7)), connections: 1 }, Some("seven"));
    let mut sender = Sender::new(A, &table, Time::ZERO);
    let first = sender.forward(&table, &B, b"x", Time::ZERO);
    assert_eq!(first, Forwarded { to: Some(&"seven"), elsewhere: false, first: true, not_here: false });
    assert!(!sender.forward(&table, &B, b"x", Time::ZERO).first);
    assert!(!table.dormant(&B, StreamId(7)));
    table.apply(TableChange { key: B, active: Some(StreamId(8)), connections: 2 }, Some("eight"));
    assert!(table.dormant(&B, StreamId(7)) && !table.dormant(&B, StreamId(8)));
    assert_eq!(sender.forward(&table, &B, b"x", Time::ZERO).to, Some(&"eight"));
    table.apply(TableChange { key: B, active: None, connections: 0 }, None);
    assert_eq!(sender.forward(&table, &B, b"x", Time::ZERO).to, None);
    assert_eq!(sender.counters.packets_in, 4);
    assert_eq!(sender.counters.dropped(DropReason::UnknownDestination, PacketKind::Data), 1);
}

#[test]
fn only_a_seeker_is_told_that_a_peer_is_not_here_and_not_too_often() {
    let table = ForwardTable::<()>::new(&Seed::from_u64(1));
    let mut sender = Sender::new(A, &table, Time::ZERO);
    let mut notices =
        |payload: &[u8], now| (0..6).filter(|_| sender.forward(&table, &B, payload, now).not_here).count();
    assert_eq!(notices(&disco_of(61), Time::ZERO), 0);
    assert_eq!(notices(&disco_of(62), Time::ZERO), 3);
    assert_eq!(notices(&disco_of(62), Time::from_millis(999)), 0);
    assert_eq!(notices(&disco_of(62), Time::from_secs(1)), 1);
    assert_eq!(notices(&disco_of(62), Time::from_secs(100)), 3);
}

#[test]
fn a_sender_to_everybody_tells_of_each_once_and_then_seldom() {
    let mut table = ForwardTable::new(&Seed::from_u64(1));
    let mut sender = Sender::new(A, &table, Time::ZERO);
    let mut firsts = 0;
    for _ in 0..3 {
        for n in 0..2 * limits::RELAY_SEEN_MAX as u64 {
            let mut key = [0; 32];
            key[..8].copy_from_slice(&n.to_le_bytes());
            let key = NodePublic(key);
            table.apply(TableChange { key, active: Some(StreamId(n)), connections: 1 }, Some(()));
            firsts += usize::from(sender.forward(&table, &key, b"", Time::ZERO).first);
        }
    }
    assert_eq!(firsts, limits::RELAY_SEEN_MAX);
}
