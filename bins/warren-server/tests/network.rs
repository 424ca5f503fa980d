//! The server as nodes meet it: the coordinator, the relay map, STUN.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use io_adapters::access_url::COORDINATE;
use io_adapters::control::{ControlStream, connect};
use proto_core::id::{NodeId, RegionId};
use proto_core::key::{DiscoSecret, NodeSecret};
use proto_core::machine::{StreamProtocol, StreamTarget};
use proto_core::relay_map::RelayMap;
use proto_core::seed::Seed;
use proto_core::wire::control::{Hello, NodeInfo, NodeKind, ToNode, ToServer, VERSION};
use proto_core::wire::stun;
use serde_json::json;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use support::World;
use tokio::net::{TcpStream, UdpSocket};

/// For something that takes milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A node's connection to the coordinator, spoken by hand.
struct Node(ControlStream<TcpStream>);

impl Node {
    async fn connect(at: SocketAddr, token: &str) -> Self {
        let target = StreamTarget {
            protocol: StreamProtocol::Control,
            host: at.ip().to_string(),
            port: at.port(),
            addresses: vec![at.ip()],
            tls: None,
            path: COORDINATE.to_owned(),
            bearer: Some(token.to_owned()),
        };
        Self(connect(TcpStream::connect(at).await.unwrap(), &target).await.unwrap())
    }

    /// Connects, says hello and where it is; waits for the welcome.
    async fn join(at: SocketAddr, token: &str, seed: u64) -> (Self, NodeId) {
        let mut node = Self::connect(at, token).await;
        let seed = Seed::from_u64(seed);
        let node_key = NodeSecret::generate(&seed).public();
        let hello = Hello {
            version: VERSION.to_owned(),
            kind: NodeKind::Client,
            node_key,
            resume: None,
            build: "test 1.0".to_owned(),
        };
        node.say(&ToServer::Hello(hello)).await;
        let info = NodeInfo {
            id: NodeId(String::new()),
            node_key,
            disco_key: DiscoSecret::generate(&seed).public(),
            boot_id: 1,
            home: RegionId(999),
            endpoints: vec!["192.0.2.7:41641".parse().unwrap()],
            mapped: None,
            features: Vec::new(),
            direct_forbidden: None,
        };
        node.say(&ToServer::Node { node: info }).await;
        let welcome = node.until(|m| if let ToNode::Welcome(w) = m { Some(w.clone()) } else { None }).await;
        (node, welcome.id)
    }

    async fn say(&mut self, message: &ToServer) {
        self.0.queue(message.encode());
        poll_fn(|cx| self.0.poll_flush(cx)).await.unwrap();
    }

    /// The next message; none at the end.
    async fn next(&mut self) -> Option<ToNode> {
        let next = poll_fn(|cx| self.0.poll_message(cx));
        let bytes =
            tokio::time::timeout(PATIENCE, next).await.expect("the coordinator says nothing").ok()??;
        Some(ToNode::parse(&bytes).unwrap())
    }

    async fn until<R>(&mut self, wanted: impl Fn(&ToNode) -> Option<R>) -> R {
        loop {
            let message = self.next().await.expect("the stream ended");
            if let Some(found) = wanted(&message) {
                return found;
            }
        }
    }

    async fn refusal(&mut self) -> (Option<NodeId>, String, String) {
        self.until(|m| match m {
            ToNode::Refused { to, code, message } => Some((to.clone(), code.clone(), message.clone())),
            _ => None,
        })
        .await
    }
}

/// Asks the API until the answer is the one wanted.
async fn wait_for(world: &World, path: &str, token: &str, pointer: &str, wanted: &str) -> support::Answer {
    let since = Instant::now();
    loop {
        let answer = world.get(path, token).await;
        if answer.json.pointer(pointer).and_then(|v| v.as_str()) == Some(wanted) {
            return answer;
        }
        assert!(since.elapsed() < PATIENCE, "{pointer} does not become {wanted}: {answer:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_agent_is_seen_to_come_and_go() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let made = world.workspace(&alice, "dev").await;
    let token = made["agent_token"].as_str().unwrap();
    let (node, id) = Node::join(world.http, token, 1).await;
    assert_eq!(Some(id.0.as_str()), made["workspace"]["agents"][0]["id"].as_str());
    let path = "/api/v1/workspaces/dev";
    let here = wait_for(&world, path, &alice, "/agents/0/status", "connected").await;
    assert_eq!(here.text_at("/status"), "connected");
    assert_eq!(here.text_at("/agents/0/version"), "test 1.0");
    assert_eq!(here.text_at("/agents/0/last_seen"), "2026-01-01T00:00:00Z");

    world.advance_ms(60_000);
    drop(node);
    let gone = wait_for(&world, path, &alice, "/agents/0/status", "offline").await;
    assert_eq!(gone.text_at("/agents/0/version"), "test 1.0");
    wait_for(&world, path, &alice, "/agents/0/last_seen", "2026-01-01T00:01:00Z").await;
}

#[tokio::test]
async fn a_tunnel_leads_to_ones_own_agents_alone() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    let made = world.workspace(&alice, "dev").await;
    let (mut agent, agent_id) = Node::join(world.http, made["agent_token"].as_str().unwrap(), 1).await;

    let (mut stranger, _) = Node::join(world.http, &bob, 2).await;
    stranger.say(&ToServer::OpenTunnel { to: agent_id.clone() }).await;
    let (to, code, message) = stranger.refusal().await;
    assert_eq!((to.as_ref(), code.as_str()), (Some(&agent_id), "FORBIDDEN"));
    assert_eq!(message, format!("there is no agent {agent_id}, or you may not reach it"));

    let (mut client, client_id) = Node::join(world.http, &alice, 3).await;
    client.say(&ToServer::OpenTunnel { to: agent_id.clone() }).await;
    let peer = |m: &ToNode| if let ToNode::Peer { peer } = m { Some(peer.clone()) } else { None };
    assert_eq!(client.until(peer).await.id, agent_id);
    assert_eq!(agent.until(peer).await.id, client_id);
}

#[tokio::test]
async fn where_only_browsers_get_in_a_clients_tunnel_is_refused_with_a_sentence() {
    let world = World::with(|settings| settings.browser_only = true).await;
    let alice = world.set_up().await;
    let made = world.workspace(&alice, "dev").await;
    let (_agent, agent_id) = Node::join(world.http, made["agent_token"].as_str().unwrap(), 1).await;
    let (mut client, _) = Node::join(world.http, &alice, 2).await;
    client.say(&ToServer::OpenTunnel { to: agent_id.clone() }).await;
    let (to, code, message) = client.refusal().await;
    assert_eq!((to, code.as_str()), (Some(agent_id), "BROWSER_ONLY"));
    assert_eq!(message, "this server lets people in by browser only: its operator has set --browser-only");
}

#[tokio::test]
async fn a_deleted_workspaces_agent_is_told_and_stays_out() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let made = world.workspace(&alice, "dev").await;
    let token = made["agent_token"].as_str().unwrap();
    let (mut agent, _) = Node::join(world.http, token, 1).await;
    assert_eq!(world.ask("DELETE", "/api/v1/workspaces/dev", &alice, None).await.status, 204);
    let (to, code, message) = agent.refusal().await;
    assert_eq!(
        (to, code.as_str(), message.as_str()),
        (None, "EXPELLED", "the workspace \"dev\" was deleted")
    );
    while agent.next().await.is_some() {}

    // The refusal at the door reads as one by message, with the API's own sentence.
    let (to, code, message) = Node::connect(world.http, token).await.refusal().await;
    assert_eq!((to, code.as_str()), (None, "TOKEN_UNKNOWN"));
    assert_eq!(message, "the token is not known here: it is mistyped, revoked, or another server's");
}

#[tokio::test]
async fn logging_out_ends_the_sessions_of_that_token_alone() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let login = serde_json::json!({ "username": "alice", "password": "correct horse" });
    let second = world.post("/api/v1/login", "", login).await.text_at("/token");
    let made = world.workspace(&alice, "dev").await;
    let (mut agent, agent_id) = Node::join(world.http, made["agent_token"].as_str().unwrap(), 1).await;
    let (mut one, one_id) = Node::join(world.http, &alice, 2).await;
    let (mut two, two_id) = Node::join(world.http, &second, 3).await;
    let peer = |m: &ToNode| if let ToNode::Peer { peer } = m { Some(peer.id.clone()) } else { None };
    for (node, id) in [(&mut one, &one_id), (&mut two, &two_id)] {
        node.say(&ToServer::OpenTunnel { to: agent_id.clone() }).await;
        assert_eq!((node.until(peer).await, agent.until(peer).await), (agent_id.clone(), id.clone()));
    }
    // A session that has lost its connection has tunnels still: it must go too.
    drop(one);
    let lost = |m: &ToNode| if let ToNode::PeerLost { id, .. } = m { Some(id.clone()) } else { None };
    assert_eq!(agent.until(lost).await, one_id);
    assert_eq!(world.post("/api/v1/logout", &alice, serde_json::json!({})).await.status, 204);
    let gone = |m: &ToNode| match m {
        ToNode::PeerGone { id, reason } => Some((id.clone(), reason.clone())),
        _ => None,
    };
    let why = "the session was ended by logging out".to_owned();
    assert_eq!(agent.until(gone).await, (one_id, why.clone()));
    assert_eq!(world.post("/api/v1/logout", &second, serde_json::json!({})).await.status, 204);
    assert_eq!(two.refusal().await, (None, "EXPELLED".to_owned(), why.clone()));
    assert_eq!(agent.until(gone).await, (two_id, why));
}

#[tokio::test]
async fn a_changed_relay_map_reaches_the_nodes() {
    let map = |code: &str| {
        format!(
            "{{\"Regions\": {{\"900\": {{\"RegionID\": 900, \"RegionCode\": \"{code}\", \"Nodes\": [{{\"Name\": \"a\", \
             \"RegionID\": 900, \"HostName\": \"relay.example.com\"}}]}}}}}}"
        )
    };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map.json");
    std::fs::write(&path, map("first")).unwrap();
    let world = World::with(|settings| {
        settings.derp_config_path = Some(path.clone());
        settings.derp_config_refresh = 1;
    })
    .await;
    let alice = world.set_up().await;
    let (mut node, _) = Node::join(world.http, &alice, 1).await;
    let code = |m: &ToNode| match m {
        ToNode::RelayMap { map } => Some(map.regions[&RegionId(900)].code.clone()),
        _ => None,
    };
    assert_eq!(node.until(code).await, "first");
    std::fs::write(&path, "{").unwrap();
    world.server().reload().await;
    std::fs::write(&path, map("second")).unwrap();
    world.server().reload().await;
    assert_eq!(node.until(code).await, "second", "the broken map in between is not told");
    std::fs::write(&path, map("third")).unwrap();
    assert_eq!(node.until(code).await, "third", "it is read again without being asked to");
}

#[tokio::test]
async fn a_stopping_server_says_when_to_come_back() {
    let mut world = World::new().await;
    let alice = world.set_up().await;
    let (mut node, _) = Node::join(world.http, &alice, 1).await;
    let stopping = tokio::spawn(world.server.take().unwrap().stop());
    let after = node.until(|m| match m {
        ToNode::Draining { retry_after_ms } => Some(*retry_after_ms),
        _ => None,
    });
    assert!(after.await > 0);
    while node.next().await.is_some() {}
    stopping.await.unwrap();
    assert!(TcpStream::connect(world.http).await.is_err(), "it still listens");
}

#[tokio::test]
async fn keys_and_names_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut keys = Vec::new();
    for _ in 0..2 {
        let server = warren_server::Server::start(support::settings(&directory)).await.unwrap();
        let http = server.addresses().http.unwrap();
        let mut request = hyper::Request::get("/derp").header("Host", "x");
        request = request.header("Connection", "Upgrade").header("Upgrade", "DERP");
        let answer = support::head(http, request.body(Default::default()).unwrap()).await;
        keys.push(answer.headers["derp-public-key"].clone());
        server.stop().await;
    }
    assert_eq!(keys[0], keys[1]);
}

/// Asks the STUN server that the map names; the address it says it sees, and ours.
async fn seen_through(map: &RelayMap, names: &[(&str, SocketAddr)]) -> Vec<(SocketAddr, SocketAddr)> {
    let mut seen = Vec::new();
    for node in map.nodes().filter(|node| node.stun_port().is_some()) {
        let known = names.iter().find(|(name, _)| *name == node.host).map(|(_, at)| at.ip());
        let ip = known.or_else(|| node.literal_addresses().first().copied()).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let transaction = stun::TransactionId::generate(&mut Seed::from_u64(1).rng());
        socket.send_to(&stun::request(transaction), (ip, node.stun_port().unwrap())).await.unwrap();
        let mut answer = [0; 64];
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.unwrap().unwrap();
        let response = stun::Response::parse(&answer[..length]).unwrap();
        seen.push((response.mapped, socket.local_addr().unwrap()));
    }
    seen
}

#[tokio::test]
async fn stun_is_found_beside_the_access_url_and_where_it_is_advertised() {
    // On its own: the relay's record says where the STUN socket is.
    let world = World::with(|s| s.stun_address = "127.0.0.1:0".parse().unwrap()).await;
    let map = world.server().relay_map();
    let region = &map.regions[&RegionId(999)];
    assert_eq!(region.nodes.len(), 1);
    assert_eq!(region.nodes[0].stun_port(), world.server().addresses().stun.map(|at| at.port()));
    let seen = seen_through(&map, &[]).await;
    assert_eq!(seen[0].0, seen[0].1);

    // Behind a proxy that carries no UDP: the access URL is the proxy's, and the STUN socket has another name.
    let port = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let world = World::with(|s| {
        s.access_url = Some("https://warren.example.com".parse().unwrap());
        s.stun_address = format!("127.0.0.1:{port}").parse().unwrap();
        s.stun_advertise = Some(format!("stun.example.com:{port}").parse().unwrap());
    })
    .await;
    let map = world.server().relay_map();
    let [relay, stun] = map.regions[&RegionId(999)].nodes.as_slice() else { panic!("{map:?}") };
    assert_eq!(
        (relay.host.as_str(), relay.stun_port(), relay.stun_only),
        ("warren.example.com", None, false)
    );
    assert_eq!(
        (stun.host.as_str(), stun.stun_port(), stun.stun_only),
        ("stun.example.com", Some(port), true)
    );
    let seen = seen_through(&map, &[("stun.example.com", world.server().addresses().stun.unwrap())]).await;
    assert_eq!(seen.len(), 1, "the relay's own record must not be asked");
    assert_eq!(seen[0].0, seen[0].1);
}

#[tokio::test]
async fn blocked_direct_connections_are_said_in_the_welcome() {
    for blocked in [false, true] {
        let world = World::with(|settings| settings.block_direct_connections = blocked).await;
        let alice = world.set_up().await;
        let mut node = Node::connect(world.http, &alice).await;
        let hello = json!({
            "type": "hello", "version": VERSION, "node_key": NodeSecret::generate(&Seed::from_u64(1)).public()
        });
        node.0.queue(hello.to_string().into_bytes());
        poll_fn(|cx| node.0.poll_flush(cx)).await.unwrap();
        let direct = node.until(|m| if let ToNode::Welcome(w) = m { Some(w.direct) } else { None }).await;
        assert_eq!(direct, !blocked);
    }
}
