//! The documents that nodes and servers in the field send. They may be added to and never changed: a test here
//! that fails after a change of a type means that the change breaks somebody's running agent.

use super::*;
use crate::id::RegionId;
use crate::relay_map::RelayMap;

const NODE_KEY: &str = "nodekey:7b4e909bbe7ffe44c465a220037d608ee35897d31ef972f07f74892cb0f73f13";
const DISCO_KEY: &str = "discokey:7b0d47d93427f8311160781c7c733fd89f88970aef490d8aa0ee19a4cb8a1b14";

fn id(text: &str) -> NodeId {
    NodeId(text.into())
}

fn node() -> NodeInfo {
    NodeInfo {
        id: id("agent-1"),
        node_key: NODE_KEY.parse().unwrap(),
        disco_key: DISCO_KEY.parse().unwrap(),
        boot_id: u64::MAX,
        home: RegionId(900),
        endpoints: vec!["192.0.2.7:41641".parse().unwrap(), "[2001:db8::7]:41641".parse().unwrap()],
        mapped: None,
        features: vec![FEATURE_OPENED.into()],
        direct_forbidden: None,
    }
}

const NODE: &str = r#"{"id":"agent-1","node_key":"NODE_KEY","disco_key":"DISCO_KEY","boot_id":18446744073709551615,"home":900,"endpoints":["192.0.2.7:41641","[2001:db8::7]:41641"],"features":["opened"]}"#;

fn document(text: &str) -> String {
    text.replace("NODE_KEY", NODE_KEY).replace("DISCO_KEY", DISCO_KEY)
}

/// The message is written as this document and the document is read as this message.
fn to_server(message: &ToServer, golden: &str) {
    let golden = document(golden);
    assert_eq!(String::from_utf8(message.encode()).unwrap(), golden);
    assert_eq!(ToServer::parse(golden.as_bytes()).as_ref(), Ok(message));
}

fn to_node(message: &ToNode, golden: &str) {
    let golden = document(golden);
    assert_eq!(String::from_utf8(message.encode()).unwrap(), golden);
    assert_eq!(ToNode::parse(golden.as_bytes()).as_ref(), Ok(message));
}

#[test]
fn what_a_node_says_is_the_golden_document() {
    let hello = Hello {
        version: VERSION.into(),
        kind: NodeKind::Agent,
        node_key: NODE_KEY.parse().unwrap(),
        resume: Some("r1".into()),
        build: "warren-agent 0.1.0".into(),
    };
    let direct = PathReport {
        address: Some("192.0.2.7:41641".parse().unwrap()),
        relay: None,
        latency_us: Some(1_500),
        received_bytes: 7,
        sent_bytes: 8,
        sentence: "direct to 192.0.2.7:41641".into(),
        side: "between".into(),
        remedy: None,
    };
    to_server(
        &ToServer::Path { peer: id("agent-1"), path: direct },
        r#"{"type":"path","peer":"agent-1","path":{"address":"192.0.2.7:41641","latency_us":1500,"received_bytes":7,"sent_bytes":8,"sentence":"direct to 192.0.2.7:41641","side":"between"}}"#,
    );
    let relayed =
        PathReport { relay: Some(RegionId(900)), remedy: Some("allow UDP".into()), ..Default::default() };
    to_server(
        &ToServer::Path { peer: id("agent-1"), path: relayed },
        r#"{"type":"path","peer":"agent-1","path":{"relay":900,"received_bytes":0,"sent_bytes":0,"sentence":"","side":"","remedy":"allow UDP"}}"#,
    );
    to_server(
        &ToServer::Hello(hello.clone()),
        r#"{"type":"hello","version":"1.0","kind":"agent","node_key":"NODE_KEY","resume":"r1","build":"warren-agent 0.1.0"}"#,
    );
    to_server(
        &ToServer::Hello(Hello { resume: None, kind: NodeKind::Server, ..hello }),
        r#"{"type":"hello","version":"1.0","kind":"server","node_key":"NODE_KEY","build":"warren-agent 0.1.0"}"#,
    );
    to_server(&ToServer::Node { node: node() }, &format!(r#"{{"type":"node","node":{NODE}}}"#));
    to_server(&ToServer::OpenTunnel { to: id("agent-1") }, r#"{"type":"open_tunnel","to":"agent-1"}"#);
    to_server(&ToServer::CloseTunnel { to: id("agent-1") }, r#"{"type":"close_tunnel","to":"agent-1"}"#);
    to_server(&ToServer::Ready { peer: id("agent-1") }, r#"{"type":"ready","peer":"agent-1"}"#);
    to_server(&ToServer::Ping { id: 7 }, r#"{"type":"ping","id":7}"#);
    to_server(&ToServer::Bye, r#"{"type":"bye"}"#);
}

#[test]
fn what_the_coordinator_says_is_the_golden_document() {
    let welcome = Welcome {
        version: VERSION.into(),
        id: id("agent-1"),
        resume: "r2".into(),
        direct: false,
        build: "warren-server 0.1.0".into(),
        relay: None,
        relay_websockets: false,
        browser_only: false,
    };
    to_node(
        &ToNode::Welcome(Welcome { relay: Some("fra".into()), relay_websockets: true, ..welcome.clone() }),
        r#"{"type":"welcome","version":"1.0","id":"agent-1","resume":"r2","direct":false,"build":"warren-server 0.1.0","relay":"fra","relay_websockets":true}"#,
    );
    to_node(
        &ToNode::Welcome(Welcome { direct: true, browser_only: true, ..welcome.clone() }),
        r#"{"type":"welcome","version":"1.0","id":"agent-1","resume":"r2","direct":true,"build":"warren-server 0.1.0","browser_only":true}"#,
    );
    to_node(
        &ToNode::Welcome(welcome),
        r#"{"type":"welcome","version":"1.0","id":"agent-1","resume":"r2","direct":false,"build":"warren-server 0.1.0"}"#,
    );
    let map = r#"{"Regions":{"900":{"RegionID":900,"RegionCode":"home","RegionName":"Zuhause über allem","Nodes":[{"Name":"900a","RegionID":900,"HostName":"relay.example","DERPPort":8080,"ForceHTTP":true}]}}}"#;
    to_node(
        &ToNode::RelayMap { map: RelayMap::parse(map.as_bytes()).unwrap() },
        &format!(r#"{{"type":"relay_map","map":{map}}}"#),
    );
    to_node(&ToNode::Peer { peer: node() }, &format!(r#"{{"type":"peer","peer":{NODE}}}"#));
    for (by, name) in [
        (Forbidder::Flag, "flag"),
        (Forbidder::Variable, "variable"),
        (Forbidder::File, "file"),
        (Forbidder::Server, "server"),
    ] {
        let peer = NodeInfo { direct_forbidden: Some(by), ..node() };
        let document = NODE.replace('}', &format!(r#","direct_forbidden":"{name}"}}"#));
        to_node(&ToNode::Peer { peer }, &format!(r#"{{"type":"peer","peer":{document}}}"#));
    }
    let lost = |closed| ToNode::PeerLost { id: id("agent-1"), closed };
    to_node(&lost(false), r#"{"type":"peer_lost","id":"agent-1"}"#);
    to_node(&lost(true), r#"{"type":"peer_lost","id":"agent-1","closed":true}"#);
    to_node(
        &ToNode::PeerGone { id: id("agent-1"), reason: "the workspace was deleted".into() },
        r#"{"type":"peer_gone","id":"agent-1","reason":"the workspace was deleted"}"#,
    );
    to_node(&ToNode::PeerReady { id: id("agent-1") }, r#"{"type":"peer_ready","id":"agent-1"}"#);
    to_node(
        &ToNode::Refused { to: Some(id("agent-1")), code: "FORBIDDEN".into(), message: "no".into() },
        r#"{"type":"refused","to":"agent-1","code":"FORBIDDEN","message":"no"}"#,
    );
    to_node(
        &ToNode::Refused { to: None, code: "VERSION".into(), message: "too old".into() },
        r#"{"type":"refused","code":"VERSION","message":"too old"}"#,
    );
    to_node(&ToNode::Spread { over_ms: 5_000 }, r#"{"type":"spread","over_ms":5000}"#);
    to_node(&ToNode::Pong { id: 7 }, r#"{"type":"pong","id":7}"#);
    to_node(&ToNode::Draining { retry_after_ms: 1_500 }, r#"{"type":"draining","retry_after_ms":1500}"#);
}

/// The least that an old node or server may send.
#[test]
fn absent_fields_have_their_defaults() {
    let parse = |text: &str| ToServer::parse(document(text).as_bytes()).unwrap();
    let ToServer::Hello(hello) = parse(r#"{"type":"hello","version":"1.0","node_key":"NODE_KEY"}"#) else {
        panic!()
    };
    assert_eq!((hello.kind, hello.resume, hello.build.as_str()), (NodeKind::Client, None, ""));
    let ToServer::Node { node } =
        parse(r#"{"type":"node","node":{"node_key":"NODE_KEY","disco_key":"DISCO_KEY"}}"#)
    else {
        panic!()
    };
    assert_eq!((node.boot_id, node.home, node.endpoints.len(), node.features.len()), (0, RegionId(0), 0, 0));

    let parse = |text: &str| ToNode::parse(text.as_bytes()).unwrap();
    let ToNode::Welcome(welcome) = parse(r#"{"type":"welcome","version":"1.0","id":"n"}"#) else { panic!() };
    assert!(welcome.direct && welcome.resume.is_empty());
    assert_eq!(parse(r#"{"type":"draining"}"#), ToNode::Draining { retry_after_ms: 0 });
    assert_eq!(
        parse(r#"{"type":"peer_gone","id":"n"}"#),
        ToNode::PeerGone { id: id("n"), reason: String::new() }
    );
    assert!(matches!(parse(r#"{"type":"refused","code":"X"}"#), ToNode::Refused { to: None, .. }));
}

#[test]
fn what_later_versions_add_is_ignored() {
    let node = |text: &str| ToNode::parse(text.as_bytes());
    assert_eq!(node(r#"{"type":"from_the_future","with":{"any":["thing"]}}"#), Ok(ToNode::Unknown));
    assert_eq!(node(r#"{"more":1,"type":"pong","id":1,"and":{"more":null}}"#), Ok(ToNode::Pong { id: 1 }));
    let server = |text: &str| ToServer::parse(document(text).as_bytes());
    assert_eq!(server(r#"{"type":"from_the_future"}"#), Ok(ToServer::Unknown));
    let hello = r#"{"type":"hello","version":"1.7","kind":"toaster","node_key":"NODE_KEY","signature":"ab"}"#;
    assert!(matches!(server(hello), Ok(ToServer::Hello(Hello { kind: NodeKind::Unknown, .. }))));
    let with_more = document(NODE).replacen('{', r#"{"owner_signature":{"by":"x"},"#, 1);
    assert_eq!(serde_json::from_str::<NodeInfo>(&with_more).unwrap(), super::tests::node());
}

#[test]
fn what_is_no_message_is_refused_in_a_sentence() {
    let said: Vec<String> = [
        "",
        "{}",
        "[]",
        "null",
        r#"{"type":"pong"}"#,
        r#"{"type":"pong","id":-1}"#,
        r#"{"type":"peer_lost","id":7}"#,
        r#"{"type":"peer","peer":{"node_key":"nodekey:00","disco_key":""}}"#,
        r#"{"type":"relay_map","map":{"Regions":{"x":{}}}}"#,
        r#"{"type":"pong","id":1} and more"#,
    ]
    .iter()
    .map(|text| ToNode::parse(text.as_bytes()).unwrap_err().to_string())
    .collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    not a coordination message: EOF while parsing a value at line 1 column 0
    not a coordination message: missing field `type` at line 1 column 2
    not a coordination message: missing field `type` at line 1 column 2
    not a coordination message: invalid type: null, expected internally tagged enum ToNode at line 1 column 4
    not a coordination message: missing field `id`
    not a coordination message: invalid value: integer `-1`, expected u64
    not a coordination message: invalid type: integer `7`, expected a string
    not a coordination message: the key is not 64 hexadecimal digits
    not a coordination message: the region "x" is not a number
    not a coordination message: trailing characters at line 1 column 24
    "#);
    let long = vec![b' '; limits::CONTROL_MESSAGE_MAX + 1];
    assert_eq!(ToServer::parse(&long), Err(ControlError::TooLong(long.len())));
    let deep = format!(r#"{{"type":"pong","id":1,"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(ToNode::parse(deep.as_bytes()), Err(ControlError::Json(_))), "no stack is spent on it");
}
