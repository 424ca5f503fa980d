//! What is said of an agent of an earlier version, which knows no service of these.

use super::agent_of_old::old_agent;
use super::*;
use std::net::UdpSocket;

#[test]
fn an_agent_that_is_too_old_is_named_at_once() -> Result {
    let deployment = Deployment::start(Place::Here, &[])?;
    let token = deployment.create_workspace("dev")?;
    old_agent(&deployment, &token)?;
    let mut forwarding = Forwarding::start(&deployment, &["--tcp", "0:80", "--udp", "0:53"])?;
    let tcp =
        forwarding.lines.iter().position(|line| line.ends_with("-> port 80 of dev")).ok_or("no line")?;
    let began = Instant::now();
    assert!(round_trip(forwarding.at(tcp)[0], b"").is_err());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let line = forwarding.says("warning: a connection")?;
    insta::assert_snapshot!(line, @"warning: a connection to port 80 was closed: the workspace's agent is too old for this (UNKNOWN_SERVICE): put a newer warren-agent there");
    UdpSocket::bind("127.0.0.1:0")?.send_to(b"?", forwarding.at(1 - tcp)[0])?;
    let line = forwarding.says("warning: datagrams")?;
    insta::assert_snapshot!(line, @"warning: datagrams to udp port 53: the workspace's agent is too old for this (UNKNOWN_SERVICE): put a newer warren-agent there");
    forwarding.stop()?;
    let out = deployment.warren(&["port-forward", "dev", "--reverse", "8080:80"])?;
    assert_eq!(out.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8_lossy(&out.stderr), @r"
    error: can't listen in the workspace: the workspace's agent is too old for this (UNKNOWN_SERVICE): put a newer warren-agent there
    hint: `warren workspaces list` shows the agent's version
    code: UNKNOWN_SERVICE
    ");
    Ok(())
}
