//! The server's own node: it reaches the agents of workspaces for those who come by browser.
#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod support;

use io_adapters::access_url::control_target;
use io_adapters::clock::Origin;
use io_adapters::driver;
use io_adapters::handle::NodeHandle;
use io_adapters::transport::{Network, TokioListener, TokioNetwork};
use io_adapters::udp::BatchedUdp;
use io_adapters::wg::BoringTun;
use proto_core::id::NodeId;
use proto_core::key::NodeSecret;
use proto_core::node::NodeConfig;
use proto_core::stream::Header;
use proto_core::stream::ports::{Port, Ports, Program};
use proto_core::wire::control::{Forbidder, NodeKind};
use serde_json::{Value, json};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use support::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// For something that takes milliseconds, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// An agent that knows one answer. Each time it was asked, it tells whether a direct path was found.
struct Agent {
    node: NodeHandle,
    direct: mpsc::UnboundedReceiver<bool>,
}

impl Agent {
    async fn start(world: &World, token: &str, relayed: bool) -> Self {
        let mut config = agent_config(&format!("http://{}", world.http), token);
        config.direct_forbidden = relayed.then_some(Forbidder::Flag);
        let node = driver::start_here(config).await;
        let (told, direct) = mpsc::unbounded_channel();
        tokio::spawn(serve(node.clone(), relayed, told));
        Self { node, direct }
    }
}

/// An agent with a new key.
fn agent_config(url: &str, token: &str) -> NodeConfig {
    NodeConfig {
        node_key: NodeSecret::generate(&io_adapters::entropy::seed()),
        kind: NodeKind::Agent,
        control: Some(control_target(url, token).unwrap()),
        build: "test 1.0".into(),
        direct_forbidden: None,
        guess_ports: true,
        map_ports: false,
        pins: Default::default(),
        relay: None,
        relay_map: None,
    }
}

async fn serve(node: NodeHandle, relayed: bool, told: mpsc::UnboundedSender<bool>) {
    while let Some(mut incoming) = node.accept().await {
        assert_eq!(incoming.header, Header::Ports);
        let programs = vec![Program { pid: 7, name: "postgres".into() }];
        let ports = vec![Port { port: 5432, addresses: Vec::new(), programs }];
        let answer = Ports { ports, ..Ports::default() };
        incoming.stream.write_all(&serde_json::to_vec(&answer).unwrap()).await.unwrap();
        incoming.stream.shutdown().await.unwrap();
        let direct = !relayed && timeout(PATIENCE, incoming.peer.wait_direct()).await.is_ok();
        let _ = told.send(direct);
    }
}

async fn ports(world: &World, token: &str) -> support::Answer {
    world.get("/api/v1/workspaces/me/dev/ports", token).await
}

/// Asks until the agent is connected.
async fn ports_of_a_connected_agent(world: &World, token: &str) -> String {
    let asking = async {
        loop {
            let answer = ports(world, token).await;
            if answer.status == 200 {
                return answer.text;
            }
            assert_eq!(answer.text_at("/code"), "AGENT_OFFLINE", "{answer:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, asking).await.unwrap()
}

const ANSWER: &str = r#"{"ports":[{"port":5432,"process":"postgres","protocol":"tcp"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_server_asks_an_agent_and_finds_a_direct_path_to_it() {
    // As where only browsers get in: what holds for people's nodes does not hold for the server's own.
    let world = World::with(|settings| settings.browser_only = true).await;
    let alice = world.set_up().await;
    let made = world.workspace(&alice, "dev").await;
    assert_eq!(ports(&world, &alice).await.text_at("/code"), "AGENT_OFFLINE");
    let token = made["agent_token"].as_str().unwrap();
    let mut agent = Agent::start(&world, token, false).await;
    assert_eq!(ports_of_a_connected_agent(&world, &alice).await, ANSWER);
    assert_eq!(timeout(PATIENCE, agent.direct.recv()).await.unwrap(), Some(true));

    // An agent that was set up anew has another key, and is reached all the same.
    agent.node.shutdown().await;
    let agent = Agent::start(&world, token, true).await;
    assert_eq!(ports_of_a_connected_agent(&world, &alice).await, ANSWER);

    // Nobody else gets in.
    let bob = world.user(&alice, "bob", "member").await;
    assert_eq!(world.get("/api/v1/workspaces/alice/dev/ports", &bob).await.status, 404);
    agent.node.shutdown().await;
}

/// Asks for the tunnels to the workspace until one is as wanted.
async fn tunnel(world: &World, token: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let asking = async {
        loop {
            let answer = world.get("/api/v1/workspaces/me/dev/tunnels", token).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            last = answer.json;
            if let Some(found) = last["tunnels"].as_array().unwrap().iter().find(|tunnel| wanted(tunnel)) {
                return found.clone();
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let found = timeout(PATIENCE, asking).await;
    found.unwrap_or_else(|_| panic!("no such tunnel: {last:#}"))
}

/// Reads live events until one of this name has come.
async fn told(world: &World, token: &str, name: &str) {
    let mut tcp = TcpStream::connect(world.http).await.unwrap();
    let head = format!(
        "GET /api/v1/events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n",
        world.http
    );
    tcp.write_all(head.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let reading = async {
        while !String::from_utf8_lossy(&read).contains(&format!("event: {name}\n")) {
            assert!(tcp.read_buf(&mut read).await.unwrap() > 0, "the stream has ended");
        }
    };
    timeout(PATIENCE, reading).await.expect("the event did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paths_to_a_workspace_are_shown_to_those_who_may_see_it() {
    let world = World::new().await;
    let alice = world.set_up().await;
    let bob = world.user(&alice, "bob", "member").await;
    let made = world.workspace(&alice, "dev").await;
    let mut agent = Agent::start(&world, made["agent_token"].as_str().unwrap(), false).await;
    assert_eq!(ports_of_a_connected_agent(&world, &alice).await, ANSWER);
    assert_eq!(timeout(PATIENCE, agent.direct.recv()).await.unwrap(), Some(true));
    let server = tunnel(&world, &alice, |tunnel| tunnel["path"]["kind"] == "direct").await;
    assert_eq!((&server["kind"], &server["user"]), (&json!("server"), &Value::Null));
    assert!(server["latency_ms"].as_f64().unwrap() > 0.0, "{server:#}");
    assert_eq!(server["history"][0]["event"], "opened");
    assert!(server["verdict"]["sentence"].as_str().unwrap().starts_with("direct to "), "{server:#}");

    // A person's client, which lets nothing but relays in.
    let mut config = agent_config(&format!("http://{}", world.http), &alice);
    (config.kind, config.direct_forbidden) = (NodeKind::Client, Some(Forbidder::Flag));
    let client = driver::start_here(config).await;
    let id = NodeId(made["workspace"]["agents"][0]["id"].as_str().unwrap().to_owned());
    let peer = client.open_tunnel(id).await.unwrap();
    timeout(PATIENCE, peer.wait_reachable()).await.unwrap().unwrap();
    let mut stream = peer.open(&Header::Ports).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let used = |tunnel: &Value| tunnel["kind"] == "client" && tunnel["rx_bytes"].as_u64() > Some(0);
    let hers = tunnel(&world, &alice, used).await;
    assert_eq!((&hers["user"], &hers["path"]["kind"]), (&json!("alice"), &json!("relay")), "{hers:#}");
    assert_eq!(hers["path"]["relay"], "warren");
    assert_eq!(hers["verdict"]["whose"], "client", "{hers:#}");

    // The list names the better of both, and whoever follows live is told.
    let list = world.get("/api/v1/workspaces", &alice).await.json;
    assert_eq!(list["workspaces"][0]["path"]["kind"], "direct", "{list:#}");
    assert!(list["workspaces"][0]["rx_bytes"].as_u64().unwrap() > 0);
    assert_eq!(world.get("/api/v1/workspaces/alice/dev/tunnels", &bob).await.status, 404);
    let (_, ()) = tokio::join!(
        async {
            // Something passes, so that there is something to tell.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let mut stream = peer.open(&Header::Ports).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        },
        told(&world, &alice, "tunnels")
    );

    // A client that has left has no tunnel.
    client.shutdown().await;
    let gone = async {
        while world.get("/api/v1/workspaces/me/dev/tunnels", &alice).await.json["tunnels"][1].is_object() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("it is still shown");
    agent.node.shutdown().await;
}

/// A network whose resolver knows one name more: the host's own.
#[derive(Clone)]
struct Outside;

impl Network for Outside {
    type Udp = BatchedUdp;
    type Tcp = TcpStream;
    type Listener = TokioListener;

    async fn bind_udp(&self, address: SocketAddr) -> io::Result<BatchedUdp> {
        TokioNetwork.bind_udp(address).await
    }

    async fn connect_tcp(&self, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        TokioNetwork.connect_tcp(to, timeout).await
    }

    async fn listen_tcp(&self, on: SocketAddr) -> io::Result<TokioListener> {
        TokioNetwork.listen_tcp(on).await
    }

    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        if name == OUTER_NAME {
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        } else {
            TokioNetwork.resolve(name).await
        }
    }

    fn interfaces(&self) -> Vec<IpAddr> {
        TokioNetwork.interfaces()
    }
}

/// A name that no resolver knows (RFC 6761, section 6.4).
const OUTER_NAME: &str = "warren.invalid";

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_find_itself_by_its_own_name_is_at_its_relay_all_the_same() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{OUTER_NAME}:{}", free.port());
    let world = World::with(|settings| {
        settings.http_address = free.to_string().parse().unwrap();
        settings.access_url = Some(url.parse().unwrap());
        settings.block_direct_connections = true;
    })
    .await;
    let alice = world.set_up().await;
    let made = world.workspace(&alice, "dev").await;
    let mut config = agent_config(&url, made["agent_token"].as_str().unwrap());
    config.direct_forbidden = Some(Forbidder::Server);
    let engine = BoringTun::new(&config.node_key);
    let node = driver::start(driver::Settings::new(config), Outside, engine, Origin::now()).await;
    let (told, _direct) = mpsc::unbounded_channel();
    tokio::spawn(serve(node.clone(), true, told));
    assert_eq!(ports_of_a_connected_agent(&world, &alice).await, ANSWER);
    node.shutdown().await;
}
