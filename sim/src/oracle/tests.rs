use super::*;
use crate::nat::{Nat, Protocol, Verdict};
use proto_core::seed::Seed;
use proto_core::time::{Duration, Time};
use std::net::{IpAddr, SocketAddr};

const KINDS: usize = 9;

fn profile(kind: usize, scope: FilterScope) -> NatProfile {
    let profile = NatProfile::new(Dependence::ALL[kind / 3], Dependence::ALL[kind % 3]);
    NatProfile { filter_scope: scope, ..profile }
}

/// A host behind a NAT that probes as the real ones do: to the advertised address, to wherever a probe came
/// from, and in answer to every probe.
struct Host {
    nat: Nat,
    inside: SocketAddr,
    targets: Vec<SocketAddr>,
    direct: bool,
}

impl Host {
    fn new(profile: NatProfile, seed: &Seed, n: u8) -> Self {
        let nat = Nat::new(profile, IpAddr::from([203, 0, 113, n]), &seed.fork_bytes(&[n]));
        Self { nat, inside: SocketAddr::from(([192, 168, n, 2], 41_641)), targets: Vec::new(), direct: false }
    }

    fn send(&mut self, now: Time, to: SocketAddr) -> Option<SocketAddr> {
        match self.nat.outbound(now, Protocol::Udp, (self.inside, to), true) {
            Verdict::Forward { src, .. } => Some(src),
            _ => None,
        }
    }

    fn receives(&mut self, now: Time, from: SocketAddr, to: SocketAddr) -> bool {
        to.ip() == self.nat.outside()
            && matches!(self.nat.inbound(now, Protocol::Udp, from, to), Verdict::Forward { .. })
    }
}

/// Whether the pair becomes direct on the bare NAT model, both ends agreeing.
fn simulate(a: NatProfile, b: NatProfile, seed: u64) -> Outcome {
    let seed = Seed::from_u64(seed);
    let mut hosts = [Host::new(a, &seed, 1), Host::new(b, &seed, 2)];
    let mut order = seed.fork("order").rng();
    let mut now = Time::from_secs(1);
    let stun = [SocketAddr::from(([198, 51, 100, 1], 3_478)), SocketAddr::from(([198, 51, 100, 2], 3_478))];
    for host in 0..2 {
        let seen: Vec<_> = stun.iter().filter_map(|s| hosts[host].send(now, *s)).collect();
        hosts[1 - host].targets.push(seen[0]);
    }
    for _ in 0..12 {
        let first = usize::from(order.permille(500));
        for tx in [first, 1 - first] {
            now += Duration::from_millis(50 + order.range(0..100));
            probe(&mut hosts, tx, now);
        }
    }
    match (hosts[0].direct, hosts[1].direct) {
        (true, true) => Outcome::Direct,
        (false, false) => Outcome::Relayed,
        half => panic!("one end alone thinks it is direct: {half:?}"),
    }
}

fn probe(hosts: &mut [Host; 2], tx: usize, now: Time) {
    let rx = 1 - tx;
    for to in hosts[tx].targets.clone() {
        let Some(from) = hosts[tx].send(now, to) else { continue };
        if !hosts[rx].receives(now, from, to) {
            continue;
        }
        if !hosts[rx].targets.contains(&from) {
            hosts[rx].targets.push(from);
        }
        let Some(answer) = hosts[rx].send(now, from) else { continue };
        if hosts[tx].receives(now, answer, from) {
            hosts[tx].direct = true;
            // The prober's next packet goes the way that has just been proven, so the other end knows too.
            hosts[rx].direct = true;
        }
    }
}

#[test]
fn the_nat_model_agrees_with_the_oracle_in_all_81_cells_in_both_scopes() {
    for scope in [FilterScope::Mapping, FilterScope::Endpoint] {
        let mut direct = 0;
        for cell in 0..KINDS * KINDS {
            let (a, b) = (profile(cell / KINDS, scope), profile(cell % KINDS, scope));
            let expected = outcome(Side::behind([&a]), Side::behind([&b]), scope);
            direct += usize::from(expected == Outcome::Direct);
            for seed in 0..20 {
                assert_eq!(simulate(a, b, seed), expected, "{scope:?} {a:?} with {b:?}, seed {seed}");
            }
        }
        assert_eq!(direct, if scope == FilterScope::Mapping { 45 } else { 49 });
    }
}

#[test]
fn the_endpoint_scope_has_a_one_line_form() {
    for cell in 0..KINDS * KINDS {
        let side = |kind| Side::behind([&profile(kind, FilterScope::Endpoint)]);
        let (a, b) = (side(cell / KINDS), side(cell % KINDS));
        let hard = |x: Side, y: Side| !x.advertises() && y.filtering == Dependence::AddressAndPort;
        let expected = if hard(a, b) || hard(b, a) { Outcome::Relayed } else { Outcome::Direct };
        assert_eq!(outcome(a, b, FilterScope::Endpoint), expected);
    }
}

#[test]
fn blocked_udp_and_nested_nats_compose() {
    let (cone, cgnat) = (NatProfile::full_cone(), NatProfile::port_restricted());
    let hard = Side::behind([&NatProfile::symmetric()]);
    let scope = FilterScope::Mapping;
    assert_eq!(outcome(Side::behind([&cone]), hard, scope), Outcome::Direct);
    assert_eq!(outcome(Side::behind([&cone, &cgnat]), hard, scope), Outcome::Relayed);
    assert_eq!(outcome(Side::behind([&NatProfile::udp_blocked()]), Side::OPEN, scope), Outcome::Relayed);
    assert_eq!(outcome(Side::behind([&NatProfile::linux()]), Side::behind([&cgnat]), scope), Outcome::Direct);
}
