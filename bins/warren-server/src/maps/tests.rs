use super::{Sources, embedded};
use crate::settings::{AccessUrl, Settings};
use proto_core::relay_map::RelayMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn url(text: &str) -> AccessUrl {
    text.parse().unwrap()
}

fn own() -> RelayMap {
    embedded(&Settings::defaults(), &url("https://warren.example.com"), Some(3478))
}

#[test]
fn the_embedded_region_follows_the_access_url_and_the_stun_socket() {
    let show = |url_text: &str, change: &dyn Fn(&mut Settings), stun| {
        let mut settings = Settings::defaults();
        change(&mut settings);
        let map = embedded(&settings, &url(url_text), stun);
        assert!(map.validate().is_ok() || map.regions.is_empty(), "{map:?}");
        serde_json::to_string_pretty(&map).unwrap()
    };
    let advertise = |to: &'static str| move |s: &mut Settings| s.stun_advertise = Some(to.parse().unwrap());
    let cases = [
        ("a name with TLS", show("https://warren.example.com", &|_| (), Some(3478))),
        ("an address without", show("http://192.0.2.1:7080", &|_| (), Some(3479))),
        ("IPv6, no STUN", show("https://[2001:db8::1]:8443", &|_| (), None)),
        (
            "behind a proxy that carries no UDP: STUN elsewhere",
            show("https://warren.example.com", &advertise("203.0.113.5:3478"), Some(3478)),
        ),
        (
            "the same host through a forwarded port",
            show("https://warren.example.com", &advertise("warren.example.com:13478"), Some(3478)),
        ),
        (
            "no relay, other STUN servers besides",
            show(
                "https://warren.example.com",
                &|s| {
                    s.derp_server_enable = false;
                    s.stun_servers = vec!["stun.example.com:19302".parse().unwrap()];
                },
                Some(3478),
            ),
        ),
        ("nothing", show("https://warren.example.com", &|s| s.derp_server_enable = false, None)),
    ];
    let text: Vec<String> = cases.iter().map(|(what, map)| format!("## {what}\n{map}")).collect();
    insta::assert_snapshot!(text.join("\n\n"));
}

fn map_of(id: u64, code: &str) -> String {
    format!(
        "{{\n \"Regions\": {{\n  \"{id}\": {{\n   \"RegionID\": {id},\n   \"RegionCode\": \"{code}\",\n   \
         \"Nodes\": [\n    {{\"Name\": \"{id}x\", \"RegionID\": {id}, \"HostName\": \"relay.example.com\"}}\n   ]\n  }}\n }}\n}}\n"
    )
}

fn sources(directory: &Path, path: Option<&str>, url: Option<String>, own: RelayMap) -> Sources {
    let mut settings = Settings::defaults();
    settings.derp_config_path = path.map(|name| directory.join(name));
    settings.derp_config_url = url;
    Sources::new(&settings, own, directory)
}

#[tokio::test]
async fn a_bad_map_is_refused_with_its_field_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let mut said = Vec::new();
    let cases = [
        ("no-json.json", "{\n \"Regions\": {\n".to_owned()),
        ("no-regions.json", "{}".to_owned()),
        ("empty.json", "{\n \"Regions\": {\n  \"900\": {\n   \"RegionID\": 900, \"RegionCode\": \"a\",\n   \"Nodes\": []\n  }\n }\n}".to_owned()),
        ("collides.json", map_of(999, "mine")),
        ("same-code.json", map_of(900, "warren")),
    ];
    for (name, text) in cases {
        std::fs::write(directory.path().join(name), text).unwrap();
        let fault = sources(directory.path(), Some(name), None, own()).load().await.unwrap_err();
        said.push(fault.to_string());
    }
    said.push(
        sources(directory.path(), Some("absent.json"), None, own()).load().await.unwrap_err().to_string(),
    );
    said.push(
        sources(directory.path(), None, None, RelayMap::default()).load().await.unwrap_err().to_string(),
    );
    let text = said.join("\n\n").replace(&directory.path().display().to_string(), "DIR");
    insta::assert_snapshot!(text);
}

/// An HTTP server that answers with whatever stands in the slot; nothing there closes the connection.
async fn web(slot: Arc<Mutex<String>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let answer = slot.lock().unwrap().clone();
            let mut head = [0; 1024];
            let _ = tcp.read(&mut head).await;
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_url_is_fetched_merged_and_outlived_by_its_last_good_copy() {
    let directory = tempfile::tempdir().unwrap();
    let slot = Arc::new(Mutex::new(String::new()));
    let address = web(Arc::clone(&slot)).await;
    let say = |text: String| *slot.lock().unwrap() = text;
    let fetched = format!("http://{address}/map");
    std::fs::write(directory.path().join("file.json"), map_of(901, "file")).unwrap();
    let sources_of = |url: String| sources(directory.path(), Some("file.json"), Some(url), own());
    let sources = sources_of(fetched.clone());
    let codes = |map: &RelayMap| map.regions.values().map(|r| r.code.clone()).collect::<Vec<_>>().join(" ");

    assert_eq!(sources.load().await.unwrap_err().code, "RELAY_MAP_UNREACHABLE", "there is no copy yet");
    say(ok("{}"));
    assert_eq!(sources.load().await.unwrap_err().code, "RELAY_MAP_INVALID", "there is no copy yet");
    say(format!("HTTP/1.1 302 Found\r\nLocation: http://{address}/other\r\nContent-Length: 0\r\n\r\n"));
    let endless = sources.load().await.unwrap_err();
    assert!(endless.message.ends_with("it was sent elsewhere more than 3 times"), "{endless}");

    say(ok(&map_of(900, "web")));
    let loaded = sources.load().await.unwrap();
    assert_eq!((codes(&loaded.map).as_str(), loaded.warning), ("web file warren", None));
    for bad in [String::new(), ok("{}"), ok(&map_of(901, "collides")), "HTTP/1.1 500 Oh\r\n\r\n".to_owned()] {
        say(bad.clone());
        let loaded = sources.load().await.unwrap();
        assert_eq!(codes(&loaded.map), "web file warren", "{bad}");
        assert!(loaded.warning.unwrap().ends_with("; its last good copy is used"));
    }
    // Another URL's copy is not this one's.
    let other = sources_of(format!("http://{address}/other")).load().await.unwrap_err();
    assert_eq!(other.code, "RELAY_MAP_UNREACHABLE");
}
