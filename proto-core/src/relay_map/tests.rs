use super::*;
use crate::limits;
use crate::wire::control::ToNode;
use proptest::prelude::*;

/// Written for this test with the shape of Tailscale's default map: 25 regions, a name beyond ASCII, nodes
/// that only answer STUN.
const DEFAULT_LIKE: &str = include_str!("../../testdata/relay_map_25.json");

/// What Tailscale gives its clients (login.tailscale.com/derpmap/default, as of September 2026): 28 regions, 88 nodes.
const TAILSCALE: &str = include_str!("../../testdata/tailscale_default_map.json");

const SMALL: &str = r#"{
  "Regions": {
    "900": {
      "RegionID": 900,
      "RegionCode": "home",
      "RegionName": "Home",
      "Nodes": [
        {
          "Name": "900a",
          "RegionID": 900,
          "HostName": "relay.example",
          "DERPPort": 8443
        }
      ]
    },
    "901": {
      "RegionID": 901,
      "RegionCode": "lab",
      "Nodes": [
        { "Name": "901a", "RegionID": 901, "HostName": "192.0.2.1" }
      ]
    }
  }
}"#;

fn small() -> RelayMap {
    RelayMap::parse(SMALL.as_bytes()).unwrap()
}

fn node(json: &str) -> RelayNode {
    serde_json::from_str(json).unwrap()
}

/// The words for [`SMALL`] with one mistake in it.
fn with(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    refused(&SMALL.replacen(from, to, 1))
}

fn refused(text: &str) -> String {
    RelayMap::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_map_like_tailscales_is_read_and_comes_back() {
    let map = RelayMap::parse(DEFAULT_LIKE.as_bytes()).unwrap();
    assert_eq!(map.regions.len(), 25);
    assert_eq!(map.region(RegionId(11)).unwrap().name, "São Paulo");
    assert_eq!(map.label(RegionId(4)), "fra");
    assert_eq!(map.label(RegionId(77)), "77");
    let frankfurt = map.region(RegionId(4)).unwrap();
    assert_eq!(
        (frankfurt.nodes.len(), frankfurt.relays().count(), frankfurt.stun_nodes().count()),
        (4, 3, 4)
    );
    assert!(frankfurt.can_be_home() && frankfurt.measurable());
    assert!(!map.region(RegionId(25)).unwrap().can_be_home());

    let text = map.to_json();
    assert!(text.contains("São Paulo"), "names are not escaped: some readers cannot undo it");
    assert_eq!(RelayMap::parse(text.as_bytes()).as_ref(), Ok(&map));
    assert_eq!(serde_json::from_str::<RelayMap>(&text).unwrap(), map);
    assert_eq!(serde_json::from_str::<RelayMap>(DEFAULT_LIKE).unwrap(), map);
    assert_eq!(map.validate(), Ok(()));
}

#[test]
fn tailscales_default_map_is_understood_to_the_last_node() {
    let map = RelayMap::parse(TAILSCALE.as_bytes()).unwrap();
    let codes: Vec<_> = map.regions.iter().map(|(id, region)| format!("{id} {}", region.code)).collect();
    assert_eq!(
        codes.join(", "),
        "1 nyc, 2 sfo, 3 sin, 4 fra, 5 syd, 6 blr, 7 tok, 8 lhr, 9 dfw, 10 sea, 11 sao, 12 ord, 13 den, 14 ams, 15 jnb, \
         16 mia, 17 lax, 18 par, 19 mad, 20 hkg, 21 tor, 22 waw, 23 dbi, 24 hnl, 25 nai, 26 nue, 27 iad, 28 hel"
    );
    assert_eq!(map.nodes().count(), 88);
    for (id, region) in &map.regions {
        assert!(region.can_be_home() && region.measurable() && !region.name.is_empty(), "{id}");
        assert_eq!(map.region_called(&region.name), Ok(*id));
        assert_eq!(map.region_called(&region.code), Ok(*id));
        for node in &region.nodes {
            let addresses = node.addresses(&[]);
            assert_eq!((addresses.len(), node.name_to_resolve()), (2, None), "{node:?}");
            assert_eq!((node.derp_port(), node.stun_port(), node.can_port_80), (443, Some(3478), true));
            assert_eq!(node.tls(), Some(TlsCheck::Roots { name: node.host.clone() }));
            assert_eq!(node.stun_addresses(&[]), addresses);
        }
    }
    assert_eq!(map.region(RegionId(11)).unwrap().longitude, Some(Millionths(-46_633_333)));
    assert_eq!(serde_json::from_str::<RelayMap>(TAILSCALE).unwrap(), map);
    assert_eq!(RelayMap::parse(map.to_json().as_bytes()), Ok(map));
}

/// A region of it may lose its relays and keep its STUN servers: it is then asked for STUN, and never home.
#[test]
fn a_region_that_only_answers_stun_is_measured_and_never_home() {
    let mut map = RelayMap::parse(TAILSCALE.as_bytes()).unwrap();
    let frankfurt = map.regions.get_mut(&RegionId(4)).unwrap();
    frankfurt.nodes.iter_mut().for_each(|node| node.stun_only = true);
    assert_eq!((frankfurt.relays().count(), frankfurt.stun_nodes().count()), (0, 5));
    assert!(frankfurt.measurable() && !frankfurt.can_be_home());
    assert!(map.region_called("fra").is_err());
    assert_eq!(map.validate(), Ok(()));
}

/// Numbers as names inside a tagged message are what serde stumbles over.
#[test]
fn a_map_travels_in_a_coordination_message() {
    let mut map = RelayMap::parse(DEFAULT_LIKE.as_bytes()).unwrap();
    map.home_params = Some(HomeParams { region_score: [(RegionId(4), Millionths::nearest(0.5))].into() });
    let message = ToNode::RelayMap { map };
    assert_eq!(ToNode::parse(&message.encode()), Ok(message));
}

#[test]
fn the_smallest_documents_are_read_leniently_from_a_message() {
    let map: RelayMap = serde_json::from_str(
        r#"{"Regions":{"7":{"Nodes":[{"HostName":"a"}],"Future":1},"8":{"Nodes":null}},"More":[]}"#,
    )
    .unwrap();
    assert_eq!(map.regions[&RegionId(7)].id, RegionId(7));
    assert_eq!(map.regions[&RegionId(7)].nodes[0].region, RegionId(7));
    assert!(!map.regions[&RegionId(8)].has_relay());
    assert_eq!(serde_json::from_str::<RelayMap>("{\"Regions\":null}").unwrap(), RelayMap::default());
    assert_eq!(RelayMap::default().to_json(), "{\"Regions\":{}}");
}

#[test]
fn names_of_fields_are_taken_in_any_case_and_null_is_absent() {
    let text = r#"{"regions":{"5":{"regioncode":"x","NODES":[{"name":"5a","hostname":"h","IPV4":null}]}},"HomeParams":null}"#;
    let map = RelayMap::parse(text.as_bytes()).unwrap();
    assert_eq!(map.region(RegionId(5)).unwrap().nodes[0].host, "h");
}

#[test]
fn mistakes_are_told_with_field_and_line() {
    let node = "\"HostName\": \"192.0.2.1\"";
    let long = "x".repeat(limits::RELAY_NAME_MAX + 1);
    let said = [
        with("\"HostName\": \"relay.example\",", ""),
        with("relay.example", "relay.example/derp"),
        with("relay.example", "relay.example\\r\\nX: y"),
        with("relay.example", &long),
        with("8443", "70000"),
        with("8443", "\"8443\""),
        with("8443", "84.5"),
        with(node, "\"HostName\": \"a\", \"IPv4\": \"192.0.2.300\""),
        with(node, "\"HostName\": \"a\", \"IPv6\": \"192.0.2.3\""),
        with(node, "\"HostName\": \"a\", \"STUNPort\": -2"),
        with(node, "\"HostName\": \"a\", \"STUNTestIP\": \"here\""),
        with(node, "\"HostName\": \"a\", \"CertName\": \"sha256-raw:abc\""),
        with(node, "\"HostName\": \"a\", \"STUNOnly\": 1"),
        with("\"901a\"", "\"900a\""),
        with("\"lab\"", "\"home\""),
        with("\"lab\"", "\"\""),
        with("\"RegionID\": 901,\n", "\"RegionID\": 902,\n"),
        with("\"RegionID\": 901, ", "\"RegionID\": 902, "),
        with("\"901\"", "\"900\""),
        with("\"901\"", "\"0901x\""),
        with("\"901\"", "\"0\""),
        with("\"901\"", "\"9\\u001b[2J\\n\""),
        with(node, "\"HostName\": \"a\", \"IPv4\": \"\\u001b[2J\""),
        with(
            "[\n        { \"Name\": \"901a\", \"RegionID\": 901, \"HostName\": \"192.0.2.1\" }\n      ]",
            "[]",
        ),
        with("\"Regions\"", "\"Relays\""),
        with("\"Regions\": {", "\"Regions\": [], \"x\": {"),
        with("8443", "8443,"),
        SMALL[..SMALL.len() - 20].to_owned(),
        "<!doctype html>".to_owned(),
        String::new(),
        "[1, 2]".to_owned(),
        "{}".to_owned(),
        "{\"Regions\": {}}".to_owned(),
        "[".repeat(100) + &"]".repeat(100),
    ];
    // The last ones are documents rather than words.
    let said: Vec<String> =
        said.iter().enumerate().map(|(i, text)| if i < 27 { text.clone() } else { refused(text) }).collect();
    insta::assert_snapshot!(said.join("\n").replace(&long, "(256 x)"), @r#"
    line 8: Regions.900.Nodes[0].HostName: is missing or empty
    line 11: Regions.900.Nodes[0].HostName: "relay.example/derp" is not a host name or an IP address
    line 11: Regions.900.Nodes[0].HostName: is longer than 255 bytes or has control characters
    line 11: Regions.900.Nodes[0].HostName: is longer than 255 bytes or has control characters
    line 12: Regions.900.Nodes[0].DERPPort: must be from 0 to 65535, not 70000
    line 12: Regions.900.Nodes[0].DERPPort: must be a whole number, not a text
    line 12: Regions.900.Nodes[0].DERPPort: must be a whole number, not a fraction
    line 20: Regions.901.Nodes[0].IPv4: must be an IPv4 address, "none" or empty, not "192.0.2.300"
    line 20: Regions.901.Nodes[0].IPv6: must be an IPv6 address, "none" or empty, not "192.0.2.3"
    line 20: Regions.901.Nodes[0].STUNPort: must be from -1 to 65535, not -2
    line 20: Regions.901.Nodes[0].STUNTestIP: must be an IP address or empty, not "here"
    line 20: Regions.901.Nodes[0].CertName: must end with the 64 hexadecimal digits of a SHA-256 after "sha256-raw:"
    line 20: Regions.901.Nodes[0].STUNOnly: must be true or false, not a number
    line 20: Regions.901.Nodes[0].Name: "900a" is already taken by a node of region 900 (line 3)
    line 18: Regions.901.RegionCode: "home" is already taken by region 900 (line 3)
    line 18: Regions.901.RegionCode: is missing or empty
    line 17: Regions.901.RegionID: is 902, but the region's key is 901
    line 20: Regions.901.Nodes[0].RegionID: is 902, but the region's key is 901
    line 16: Regions.900: "900" is already taken by the region before it (line 3)
    line 16: Regions.0901x: is not a region's number, which is from 1 to 9007199254740991
    line 16: Regions.0: is not a region's number, which is from 1 to 9007199254740991
    line 16: Regions.9\u{1b}[2J\n: is not a region's number, which is from 1 to 9007199254740991
    line 20: Regions.901.Nodes[0].IPv4: must be an IPv4 address, "none" or empty, not "\u{1b}[2J"
    line 19: Regions.901.Nodes: has no node: a region needs at least one relay or STUN server
    line 1: Regions: has no region: a relay map needs at least one
    line 2: Regions: must be an object, not a list
    line 13: not JSON: key must be a string at column 9
    line 20: not JSON: EOF while parsing a list at column 68
    line 1: not JSON: expected value at column 1
    line 1: not JSON: EOF while parsing a value at column 0
    line 1: must be an object, not a list
    line 1: Regions: has no region: a relay map needs at least one
    line 1: Regions: has no region: a relay map needs at least one
    line 1: is nested too deep for a relay map
    "#);
}

#[test]
fn a_text_that_is_no_text_or_too_long_is_refused() {
    assert_eq!(RelayMap::parse(&[0xff, 0xfe]).unwrap_err().line, Some(1));
    let long = vec![b' '; limits::RELAY_MAP_MAX + 1];
    assert_eq!(RelayMap::parse(&long).unwrap_err().problem, Problem::TooLong(long.len()));
}

#[test]
fn caps_hold() {
    let region = |id| {
        format!("\"{id}\":{{\"RegionCode\":\"c{id}\",\"Nodes\":[{{\"Name\":\"n{id}\",\"HostName\":\"h\"}}]}}")
    };
    let regions: Vec<String> = (1..=limits::RELAY_REGIONS_MAX + 1).map(region).collect();
    let text = format!("{{\"Regions\":{{{}}}}}", regions.join(","));
    assert_eq!(refused(&text), "line 1: Regions: has 257 entries, more than the 256 allowed");
    let nodes: Vec<String> =
        (0..=limits::RELAY_NODES_MAX).map(|i| format!("{{\"Name\":\"{i}\",\"HostName\":\"h\"}}")).collect();
    let text = format!("{{\"Regions\":{{\"1\":{{\"RegionCode\":\"c\",\"Nodes\":[{}]}}}}}}", nodes.join(","));
    assert_eq!(refused(&text), "line 1: Regions.1.Nodes: has 65 entries, more than the 64 allowed");
}

#[test]
fn maps_merge_unless_they_collide() {
    let map = small();
    let mut extra = RelayMap::parse(DEFAULT_LIKE.as_bytes()).unwrap();
    extra.omit_default_regions = true;
    let merged = map.merge(&extra).unwrap();
    assert_eq!(merged.regions.len(), 27);
    assert!(merged.omit_default_regions);
    assert_eq!(merged.validate(), Ok(()));

    let collide = |change: &dyn Fn(&mut RelayRegion)| {
        let mut region = map.regions[&RegionId(900)].clone();
        region.code = "other".into();
        region.nodes[0].name = "other".into();
        change(&mut region);
        let extra = RelayMap { regions: [(region.id, region)].into(), ..RelayMap::default() };
        map.merge(&extra).unwrap_err().to_string()
    };
    assert_eq!(collide(&|_| ()), "Regions.900: \"900\" is already taken by region 900 (Home)");
    let code = collide(&|region| (region.id, region.code) = (RegionId(7), "home".into()));
    assert_eq!(code, "Regions.7.RegionCode: \"home\" is already taken by region 900 (Home)");
    let name = collide(&|region| {
        region.id = RegionId(7);
        region.nodes[0].name = "901a".into();
    });
    assert_eq!(name, "Regions.7.Nodes[0].Name: \"901a\" is already taken by a node of region 901");
}

#[test]
fn ports_and_certificates_have_tailscales_defaults() {
    let plain = node(r#"{"HostName":"relay.example"}"#);
    let roots = |name: &str| Some(TlsCheck::Roots { name: name.into() });
    assert_eq!(
        (plain.stun_port(), plain.derp_port(), plain.tls()),
        (Some(3478), 443, roots("relay.example"))
    );
    let no_stun = node(r#"{"STUNPort":-1,"DERPPort":8443}"#);
    assert_eq!((no_stun.stun_port(), no_stun.derp_port()), (None, 8443));
    let http = node(r#"{"HostName":"h","ForceHTTP":true,"CertName":"x"}"#);
    assert_eq!((http.is_tls(), http.tls(), http.derp_port()), (false, None, 80));
    let fronted = node(r#"{"HostName":"h","CertName":"front.example"}"#);
    assert_eq!(fronted.tls(), roots("front.example"));
    let pinned = RelayNode { cert_name: format!("{PIN_PREFIX}{}", "ab".repeat(32)), ..plain };
    assert_eq!(pinned.tls(), Some(TlsCheck::Pinned { sha256: [0xab; 32] }));
    let broken = RelayNode { cert_name: "sha256-raw:xyz".into(), ..pinned };
    assert_eq!(broken.tls(), roots("sha256-raw:xyz"), "it fails closed");
    assert_eq!(node(r#"{"InsecureForTests":true}"#).tls(), Some(TlsCheck::Unchecked));
    let target = node(r#"{"HostName":"h","DERPPort":9}"#).stream_target(vec!["192.0.2.1".parse().unwrap()]);
    assert_eq!((target.host.as_str(), target.port, target.path.as_str()), ("h", 9, "/derp"));
}

#[test]
fn addresses_come_from_the_map_or_from_dns() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    let answer = [ip("2001:db8::9"), ip("192.0.2.9")];
    let cases: [(&str, Option<&str>, &str); 7] = [
        (r#"{"HostName":"h"}"#, Some("h"), "[2001:db8::9, 192.0.2.9]"),
        (r#"{"HostName":"h","IPv4":"192.0.2.1"}"#, Some("h"), "[192.0.2.1, 2001:db8::9]"),
        (r#"{"HostName":"h","IPv4":"192.0.2.1","IPv6":"2001:db8::1"}"#, None, "[192.0.2.1, 2001:db8::1]"),
        (r#"{"HostName":"h","IPv6":"none"}"#, Some("h"), "[192.0.2.9]"),
        (r#"{"HostName":"h","IPv4":"none","IPv6":"none"}"#, None, "[]"),
        (r#"{"HostName":"192.0.2.7"}"#, None, "[192.0.2.7]"),
        (r#"{"HostName":"2001:db8::7","IPv4":"192.0.2.1"}"#, None, "[192.0.2.1, 2001:db8::7]"),
    ];
    for (json, name, addresses) in cases {
        let node = node(json);
        assert_eq!(node.name_to_resolve(), name, "{json}");
        assert_eq!(format!("{:?}", node.addresses(&answer)), addresses, "{json}");
    }
    let moved = node(r#"{"HostName":"h","IPv4":"192.0.2.1","STUNTestIP":"127.0.0.1"}"#);
    assert_eq!(moved.stun_addresses(&answer), [ip("127.0.0.1")]);
}

#[test]
fn scores_are_factors_and_nonsense_is_ignored() {
    let scores = [(1, 0.5), (2, 0.0), (3, -1.0), (4, 1e300), (5, 1e-6)]
        .map(|(id, score)| (RegionId(id), Millionths::nearest(score)));
    let map =
        RelayMap { home_params: Some(HomeParams { region_score: scores.into() }), ..RelayMap::default() };
    let permille: Vec<u32> = (1..=6).map(|id| map.score_permille(RegionId(id))).collect();
    assert_eq!(permille, [500, 1_000, 1_000, 1_000_000, 1, 1_000]);
}

proptest! {
    /// A valid document with one character changed is read or refused, and where both readers take it they
    /// agree.
    #[test]
    fn one_wrong_character_never_confuses_the_reader(at in 0..SMALL.len(), byte in any::<u8>()) {
        let mut text = SMALL.as_bytes().to_vec();
        text[at] = byte;
        match RelayMap::parse(&text) {
            Ok(map) => {
                let again = RelayMap::parse(map.to_json().as_bytes());
                prop_assert_eq!(again, Ok(map));
            }
            Err(error) => {
                let lines = SMALL.lines().count() + 1;
                prop_assert!(error.line.is_some_and(|line| (1..=lines).contains(&line)), "{}", error);
                prop_assert!(!error.to_string().contains(['\n', '\r']), "{}", error);
            }
        }
    }

    #[test]
    fn the_line_told_is_the_line_of_the_mistake(blank_lines in 0..40_usize) {
        let text = SMALL.replacen("\"8443\"", "8443", 1).replacen("8443", &format!("{}\"x\"", "\n".repeat(blank_lines)), 1);
        prop_assert_eq!(RelayMap::parse(text.as_bytes()).unwrap_err().line, Some(12 + blank_lines));
    }
}
