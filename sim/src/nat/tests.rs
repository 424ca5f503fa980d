use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn nat(profile: NatProfile) -> Nat {
    Nat::new(profile, at("203.0.113.1:0").ip(), &Seed::from_u64(1))
}

fn out(nat: &mut Nat, now: Time, src: &str, dst: &str) -> Option<SocketAddr> {
    match nat.outbound(now, Protocol::Udp, (at(src), at(dst)), true) {
        Verdict::Forward { src, .. } => Some(src),
        _ => None,
    }
}

fn comes_in(nat: &mut Nat, now: Time, src: &str, dst: SocketAddr) -> bool {
    matches!(nat.inbound(now, Protocol::Udp, at(src), dst), Verdict::Forward { .. })
}

const IN: &str = "192.168.1.2:5001";
const T: Time = Time::from_secs(100);

fn later(secs: u64) -> Time {
    T + Duration::from_secs(secs)
}

#[test]
fn mappings_depend_on_what_the_profile_says() {
    let ports = |mapping| {
        let mut nat = nat(NatProfile::new(mapping, Dependence::AddressAndPort));
        ["198.51.100.1:1", "198.51.100.1:2", "198.51.100.2:1"]
            .map(|to| out(&mut nat, T, IN, to).unwrap().port())
    };
    assert_eq!(ports(Dependence::Independent), [5_001; 3]);
    let [a, b, c] = ports(Dependence::Address);
    assert!(a == b && b != c, "{a} {b} {c}");
    let [a, b, c] = ports(Dependence::AddressAndPort);
    assert!(a != b && b != c && a != c, "{a} {b} {c}");
}

#[test]
fn filters_depend_on_what_the_profile_says() {
    let lets_in = |filtering| {
        let mut nat = nat(NatProfile::new(Dependence::Independent, filtering));
        let mapped = out(&mut nat, T, IN, "198.51.100.1:1").unwrap();
        ["198.51.100.1:1", "198.51.100.1:2", "198.51.100.2:1"].map(|from| comes_in(&mut nat, T, from, mapped))
    };
    assert_eq!(lets_in(Dependence::Independent), [true, true, true]);
    assert_eq!(lets_in(Dependence::Address), [true, true, false]);
    assert_eq!(lets_in(Dependence::AddressAndPort), [true, false, false]);
}

#[test]
fn a_filter_belongs_to_the_mapping_or_to_the_endpoint() {
    for (filter_scope, expected) in [(FilterScope::Mapping, false), (FilterScope::Endpoint, true)] {
        let profile = NatProfile::new(Dependence::AddressAndPort, Dependence::Address);
        let mut nat = nat(NatProfile { filter_scope, ..profile });
        let first = out(&mut nat, T, IN, "198.51.100.1:1").unwrap();
        out(&mut nat, T, IN, "198.51.100.2:1").unwrap();
        assert_eq!(comes_in(&mut nat, T, "198.51.100.2:9", first), expected, "{filter_scope:?}");
    }
}

#[test]
fn a_mapping_lives_30_s_unanswered_and_120_s_answered() {
    let mut nat = nat(NatProfile::port_restricted());
    let mapped = out(&mut nat, T, IN, "198.51.100.1:1").unwrap();
    assert!(!comes_in(&mut nat, later(30), "198.51.100.1:1", mapped));
    let mapped = out(&mut nat, later(40), IN, "198.51.100.1:1").unwrap();
    assert!(comes_in(&mut nat, later(69), "198.51.100.1:1", mapped));
    assert!(comes_in(&mut nat, later(188), "198.51.100.1:1", mapped));
    assert!(!comes_in(&mut nat, later(308), "198.51.100.1:1", mapped));
    assert_eq!(nat.counters().expired, 2);
}

#[test]
fn without_inbound_refresh_only_our_own_packets_keep_a_mapping() {
    let mut nat = nat(NatProfile { refresh_inbound: false, ..NatProfile::port_restricted() });
    let mapped = out(&mut nat, T, IN, "198.51.100.1:1").unwrap();
    assert!(comes_in(&mut nat, later(20), "198.51.100.1:1", mapped));
    assert!(comes_in(&mut nat, later(119), "198.51.100.1:1", mapped));
    assert!(!comes_in(&mut nat, later(121), "198.51.100.1:1", mapped));
}

#[test]
fn ports_are_preserved_counted_up_or_taken_from_a_block() {
    let cone = NatProfile::full_cone();
    let mut preserving = nat(cone);
    let first = out(&mut preserving, T, IN, "198.51.100.1:1").unwrap().port();
    let second = out(&mut preserving, T, "192.168.1.3:5001", "198.51.100.1:1").unwrap().port();
    assert!(first == 5_001 && second != 5_001);

    let mut counting = nat(NatProfile { allocation: Allocation::Contiguous, ..NatProfile::symmetric() });
    let ports = [1, 2, 3].map(|p| out(&mut counting, T, IN, &format!("198.51.100.1:{p}")).unwrap().port());
    assert!(ports[1] == ports[0] + 1 && ports[2] == ports[1] + 1);

    let mut blocks = nat(NatProfile { allocation: Allocation::Block(4), ..NatProfile::symmetric() });
    let mut open = |inside: &str, n: u16| out(&mut blocks, T, inside, &format!("198.51.100.1:{n}"));
    assert!((1..=4).all(|n| open("100.64.0.2:9", n).is_some()));
    assert_eq!(open("100.64.0.2:9", 5), None, "the block is used up");
    assert!(open("100.64.0.3:9", 5).is_some(), "another customer has a block of its own");
    assert_eq!(blocks.counters().full, 1);

    let mut parity =
        nat(NatProfile { parity: true, allocation: Allocation::Random, ..NatProfile::full_cone() });
    assert!((0..20).all(|n| {
        out(&mut parity, T, &format!("192.168.1.2:{}", 6_000 + n), "198.51.100.1:1").unwrap().port() % 2
            == n % 2
    }));
}

#[test]
fn an_early_probe_takes_the_tuple_on_linux_and_nowhere_else() {
    let race = |profile: NatProfile| {
        let mut nat = nat(profile);
        let advertised = out(&mut nat, T, IN, "198.51.100.1:3478").unwrap();
        assert_eq!(advertised.port(), 5_001);
        assert!(!comes_in(&mut nat, T, "198.51.100.9:7", advertised), "the peer is early");
        let used = out(&mut nat, later(1), IN, "198.51.100.9:7").unwrap();
        let sticky = out(&mut nat, later(29), IN, "198.51.100.9:7").unwrap();
        assert_eq!(used, sticky);
        let again = out(&mut nat, later(70), IN, "198.51.100.9:7").unwrap();
        assert_eq!(again.port(), 5_001, "after a long silence the port is back");
        (used.port() == 5_001, nat.counters().poisoned)
    };
    assert_eq!(race(NatProfile::port_restricted()), (true, 0));
    assert_eq!(race(NatProfile::linux()), (false, 1));
    let mixed = NatProfile { unsolicited: Unsolicited::AcceptAndTrack, ..NatProfile::port_restricted() };
    assert_eq!(race(mixed), (false, 1));
}

#[test]
fn hairpins_turn_round_only_where_they_are_allowed() {
    let verdict = |hairpin| {
        let mut nat = nat(NatProfile { hairpin, ..NatProfile::full_cone() });
        let mapped = out(&mut nat, T, IN, "198.51.100.1:1").unwrap();
        nat.outbound(T, Protocol::Udp, (at("192.168.1.3:6000"), mapped), true)
    };
    assert_eq!(verdict(Hairpin::Off), Verdict::Drop(DropReason::Hairpin));
    let (inside, outside) = (at("192.168.1.3:6000"), at("203.0.113.1:6000"));
    assert_eq!(verdict(Hairpin::Internal), Verdict::Hairpin { src: inside, dst: at(IN) });
    assert_eq!(verdict(Hairpin::External), Verdict::Hairpin { src: outside, dst: at(IN) });
}

#[test]
fn a_firewall_rewrites_nothing_and_lets_only_answers_in() {
    let mut nat = nat(NatProfile::firewall());
    let inside = at("203.0.113.50:5001");
    let kept = nat.outbound(T, Protocol::Udp, (inside, at("198.51.100.1:1")), true);
    assert_eq!(kept, Verdict::Forward { src: inside, dst: at("198.51.100.1:1") });
    assert!(comes_in(&mut nat, T, "198.51.100.1:1", inside));
    assert!(!comes_in(&mut nat, T, "198.51.100.2:1", inside));
    assert!(!comes_in(&mut nat, T, "198.51.100.1:1", at("203.0.113.51:5001")));
}

#[test]
fn a_reboot_forgets_and_blocked_udp_stays_inside() {
    let mut nat = nat(NatProfile::full_cone());
    let mapped = out(&mut nat, T, IN, "198.51.100.1:1").unwrap();
    nat.reboot(Some(at("203.0.113.2:0").ip()));
    assert!(!comes_in(&mut nat, T, "198.51.100.1:1", mapped));
    assert_eq!(out(&mut nat, T, IN, "198.51.100.1:1").unwrap().ip(), at("203.0.113.2:0").ip());

    let mut blocked =
        super::Nat::new(NatProfile::udp_blocked(), at("203.0.113.1:0").ip(), &Seed::from_u64(1));
    assert_eq!(out(&mut blocked, T, IN, "198.51.100.1:1"), None);
    assert_eq!(blocked.counters().blocked, 1);
}

#[test]
fn tcp_has_a_table_of_its_own_and_a_reboot_breaks_what_was_open() {
    let (inside, server) = (at(IN), at("198.51.100.1:443"));
    for (mid_stream, expected) in [
        (MidStream::Silence, Verdict::Drop(DropReason::MidStream)),
        (MidStream::Reset, Verdict::Reject),
        (MidStream::PickUp, Verdict::Forward { src: at("203.0.113.1:5001"), dst: server }),
    ] {
        let tcp = TcpRules { mid_stream, ..NatProfile::udp_blocked().tcp };
        let mut nat = nat(NatProfile { tcp, ..NatProfile::udp_blocked() });
        let tcp = |nat: &mut Nat, now, opening| nat.outbound(now, Protocol::Tcp, (inside, server), opening);
        let Verdict::Forward { src, .. } = tcp(&mut nat, T, true) else { panic!("TCP is not UDP") };
        assert_eq!(nat.inbound(T, Protocol::Tcp, server, src), Verdict::Forward { src: server, dst: inside });
        assert!(
            matches!(tcp(&mut nat, later(7_000), false), Verdict::Forward { .. }),
            "long idle times are allowed"
        );
        nat.reboot(None);
        assert_eq!(tcp(&mut nat, later(7_001), false), expected);
    }
}

#[test]
fn the_table_is_bounded_and_expiry_makes_room() {
    let mut nat = nat(NatProfile { max_mappings: 3, ..NatProfile::symmetric() });
    for n in 1..=3 {
        assert!(out(&mut nat, T, IN, &format!("198.51.100.1:{n}")).is_some());
    }
    assert_eq!(out(&mut nat, T, IN, "198.51.100.1:4"), None);
    assert!(out(&mut nat, later(31), IN, "198.51.100.1:4").is_some());
    assert_eq!(nat.mappings(), 1);
}
