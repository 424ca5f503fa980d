//! Servers and agents that send orders to the terminal where sentences belong.

use super::*;
use io_adapters::access_url::control_target;
use proto_core::key::NodeSecret;
use proto_core::node::NodeConfig;
use proto_core::stream::{Header, ListenAnswer};
use proto_core::wire::control::NodeKind;
use std::io::{Read, Write};
use std::net::TcpListener;
use tokio::io::AsyncWriteExt;

/// It would name the window, clear the screen, and pass for a line of ours.
const ORDER: &str = "\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\r\nerror: a lie";

/// Runs an agent that answers so, for as long as the test does.
fn hostile_agent(deployment: &Deployment<'_>, token: &str) -> Result {
    let config = NodeConfig {
        node_key: NodeSecret::generate(&io_adapters::entropy::seed()),
        kind: NodeKind::Agent,
        control: Some(control_target(deployment.url(), token)?),
        build: format!("warren-agent 0.1.0{ORDER}"),
        direct_forbidden: None,
        guess_ports: true,
        map_ports: false,
        pins: std::collections::BTreeMap::new(),
        relay: None,
        relay_map: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let node = io_adapters::driver::start_here(config).await;
            while let Some(incoming) = node.accept().await {
                let ports = serde_json::json!({ "ports": [], "cut": false, "problem": ORDER });
                let answer = match incoming.header {
                    Header::Listen { listener: 0, .. } => ListenAnswer::Failed { why: ORDER.into() }.encode(),
                    Header::Listen { .. } => {
                        ListenAnswer::Listening { at: vec![ORDER.into()], port: 9 }.encode()
                    }
                    Header::Ports => ports.to_string().into_bytes(),
                    _ => continue,
                };
                let mut stream = incoming.stream;
                let _ = stream.write_all(&answer).await;
                let _ = stream.shutdown().await;
            }
        });
    });
    wait("the agent", || {
        let list = deployment.json(&["workspaces", "list"]).ok()?;
        (list[0]["status"] == "connected").then_some(())
    })
}

/// What a command has printed, of which nothing is an order.
fn harmless(out: &Output) -> String {
    let text = format!("{}{}", result(out), said(out));
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    assert!(!text.lines().any(|line| line.starts_with("error: a lie")), "{text}");
    text
}

#[test]
fn an_agent_gives_no_orders_to_the_terminal() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    hostile_agent(&deployment, &token)?;
    for form in ["table", "json"] {
        for (arguments, shown) in [
            (&["workspaces", "list"][..], true),
            (&["version", "dev"], true),
            (&["ports", "dev"], true),
            (&["status", "-t", "1"], true),
            (&["port-forward", "dev", "--reverse", "9:9"], true),
            (&["ping", "dev", "-c", "1", "-t", "1"], false),
        ] {
            let out = deployment.warren(&[arguments, &["-o", form]].concat())?;
            let text = harmless(&out);
            assert_eq!(text.contains("a lie"), shown, "{arguments:?}: {text}");
        }
    }
    Ok(())
}

#[test]
fn a_server_gives_no_orders_to_the_terminal() -> Result {
    let folder = tempfile::tempdir()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut head = [0; 4_096];
            let n = client.read(&mut head)?;
            let (status, body) = if head[..n].starts_with(b"GET /api/v1/workspaces ") {
                (
                    "404 Not Found",
                    serde_json::json!({ "code": ORDER, "title": ORDER, "detail": ORDER, "hint": ORDER, "nearest": [] }),
                )
            } else {
                ("200 OK", serde_json::json!({ "name": ORDER, "version": ORDER }))
            };
            let body = body.to_string();
            write!(
                client,
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
        }
        std::io::Result::Ok(())
    });
    let session = serde_json::json!({ "url": url, "token": "warren_session_00", "username": "alice" });
    std::fs::write(folder.path().join("session.json"), session.to_string())?;
    for form in ["table", "json"] {
        for arguments in [["workspaces", "list"].as_slice(), &["version"]] {
            let mut command = std::process::Command::new(tests::program("warren")?);
            command.args(arguments).args(["-o", form]).env("WARREN_CONFIG_DIR", folder.path());
            let text = harmless(&command.output()?);
            assert!(text.contains("a lie"), "{arguments:?}: {text}");
        }
    }
    Ok(())
}
