use super::*;
use crate::nat::portmap;
use crate::peer::Source;
use crate::time::Duration;
use core::net::SocketAddr;

const FINE: Evidence = Evidence {
    direct_forbidden: None,
    udp: Some(true),
    ipv4: Some(true),
    ipv6: Some(false),
    mapping: Mapping::Independent,
    grade: None,
    mapped: false,
};

fn addr() -> SocketAddr {
    "198.51.100.7:41641".parse().unwrap()
}

fn failed(outcome: Outcome) -> PathStory {
    let tried = Tried { addr: addr(), source: Source::Coordinator, probes: 5, outcome };
    PathStory::Failed { attempt: 1, tried: vec![tried] }
}

fn found() -> PathStory {
    PathStory::Direct {
        addr: addr(),
        source: Source::CallMeMaybe,
        latency: Duration::from_millis(9),
        after: Duration::from_millis(63),
    }
}

#[test]
fn each_cause_has_its_sentence_and_its_side() {
    let hard = Evidence { mapping: Mapping::Varies, ..FINE };
    let blocked = Evidence { udp: Some(false), ..FINE };
    let forbidden = |by| Evidence { direct_forbidden: Some(by), ..FINE };
    let v6_only = Evidence { ipv4: Some(false), ipv6: Some(true), ..FINE };
    let silent = || vec![failed(Outcome::Silent)];
    let lost = |why| vec![found(), PathStory::Lost { addr: addr(), why }, failed(Outcome::Silent)];
    let cases = [
        (FINE, FINE, vec![]),
        (FINE, FINE, vec![found()]),
        (FINE, FINE, silent()),
        (FINE, FINE, vec![failed(Outcome::HeardOnly)]),
        (FINE, FINE, vec![PathStory::Failed { attempt: 1, tried: vec![] }]),
        (FINE, FINE, lost(Loss::NoData)),
        (FINE, FINE, lost(Loss::Silent)),
        (hard, FINE, silent()),
        (FINE, hard, silent()),
        (hard, hard, silent()),
        (blocked, FINE, silent()),
        (FINE, blocked, silent()),
        (forbidden(Forbidder::Flag), FINE, vec![]),
        (forbidden(Forbidder::Variable), FINE, vec![]),
        (forbidden(Forbidder::File), FINE, vec![]),
        (FINE, forbidden(Forbidder::Flag), vec![]),
        (FINE, forbidden(Forbidder::File), vec![]),
        (FINE, forbidden(Forbidder::Unknown), vec![]),
        (forbidden(Forbidder::Flag), forbidden(Forbidder::Variable), vec![]),
        (forbidden(Forbidder::Server), forbidden(Forbidder::Server), vec![]),
        (forbidden(Forbidder::Flag), forbidden(Forbidder::Server), vec![]),
        (FINE, v6_only, silent()),
    ];
    let lines: Vec<_> = cases
        .iter()
        .map(|(ours, theirs, story)| {
            let verdict = pair(ours, theirs, story);
            format!("{} {:?}: {verdict}", verdict.reason.code(), verdict.side)
        })
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_netcheck_ends_with_one_sentence() {
    let report = |udp, mapping| Report { udp, ipv4: true, mapping, ..Report::default() };
    let mapped = portmap::Mapped {
        protocol: portmap::Protocol::Pcp,
        external: "198.51.100.7:41641".parse().unwrap(),
        port: 41_641,
    };
    let mapped = Router { mapped: Some(mapped), ..Router::default() };
    let mut lines: Vec<_> = [
        report(None, Mapping::Unknown),
        report(Some(false), Mapping::Unknown),
        report(Some(true), Mapping::None),
        report(Some(true), Mapping::Independent),
        report(Some(true), Mapping::Varies),
        report(Some(true), Mapping::Unknown),
    ]
    .iter()
    .map(|report| network(report, &Router::default()).to_string())
    .collect();
    lines.push(network(&report(Some(true), Mapping::Varies), &mapped).to_string());
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_a_peer_names_tells_what_it_has() {
    let info = |endpoints: &[&str]| NodeInfo {
        id: crate::id::NodeId("a".into()),
        node_key: crate::key::NodePublic([1; 32]),
        disco_key: crate::key::DiscoPublic([2; 32]),
        boot_id: 1,
        home: crate::id::RegionId(1),
        endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
        mapped: None,
        features: vec![],
        direct_forbidden: None,
    };
    let peer = Evidence::theirs(&info(&["10.0.0.1:1", "[2001:db8::1]:1"]));
    assert_eq!((peer.ipv4, peer.ipv6, peer.udp), (Some(false), Some(true), Some(true)));
    let peer = Evidence::theirs(&info(&["10.0.0.1:1"]));
    assert_eq!((peer.udp, peer.direct_forbidden), (None, None));
    let peer = Evidence::theirs(&info(&[]));
    assert_eq!(peer.direct_forbidden, Some(Forbidder::Unknown));
}
