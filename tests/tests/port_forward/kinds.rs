//! UDP, Unix sockets, and the other way round.

use super::*;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};

#[test]
fn a_name_is_asked_for_by_udp_of_a_real_dns_server() -> Result {
    let (deployment, _agent, _) = deployed()?;
    let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut dns = Command::new("dnsmasq");
    dns.args([
        "--keep-in-foreground",
        "--no-resolv",
        "--no-hosts",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
    ]);
    dns.args(["--listen-address=127.0.0.1", "--bind-interfaces", "--edns-packet-max=4096"]);
    dns.args([&format!("--port={port}"), "--address=/db.dev.test/192.0.2.7"]);
    // An answer that is longer than a packet of the tunnel may be at first.
    for n in 0..12 {
        dns.arg(format!("--txt-record=long.dev.test,{n}{}", "x".repeat(250)));
    }
    let _dns = Running::start(dns, deployment.path("dnsmasq.log"))?;
    let forwarding = Forwarding::start(&deployment, &["--udp", &format!("0:{port}")])?;
    assert!(forwarding.lines[0].ends_with(&format!(" -> udp port {port} of dev")), "{:?}", forwarding.lines);
    let dig = |at: SocketAddr, arguments: &[&str]| -> Result<String> {
        let mut dig = Command::new("dig");
        dig.args([
            &format!("@{}", at.ip()),
            "-p",
            &at.port().to_string(),
            "+short",
            "+tries=3",
            "+timeout=5",
        ]);
        let out = dig.args(arguments).stdin(Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    };
    for at in forwarding.at(0) {
        assert_eq!(dig(at, &["db.dev.test", "A"])?, "192.0.2.7\n", "by {at}");
        let long = dig(at, &["long.dev.test", "TXT", "+notcp", "+ignore", "+bufsize=4096"])?;
        assert_eq!(long.lines().count(), 12, "by {at}: {long}");
    }
    forwarding.stop()
}

#[test]
fn datagrams_of_every_length_come_back_and_where_nobody_is_it_is_said() -> Result {
    let (deployment, _agent, _) = deployed()?;
    // On the second loopback alone, as some programs are.
    let echo = UdpSocket::bind("[::1]:0")?;
    let port = echo.local_addr()?.port();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok((len, from)) = echo.recv_from(&mut buffer) {
            let _ = echo.send_to(&buffer[..len], from);
        }
    });
    let nobody = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
    let specs = [format!("0:{port}"), format!("0:{nobody}")];
    let mut forwarding = Forwarding::start(&deployment, &["--udp", &specs[0], "--udp", &specs[1]])?;
    let to = forwarding.at(0)[0];
    let clients = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    for (n, length) in [0, 1, 500, 1_200, 1_400, 9_000, 20_000, 60_000].into_iter().enumerate() {
        for client in &clients {
            client.set_read_timeout(Some(Duration::from_secs(10)))?;
            client.send_to(&vec![n as u8; length], to)?;
        }
        for client in &clients {
            let mut back = vec![0; 65_536];
            let (len, from) = client.recv_from(&mut back)?;
            assert_eq!((len, from), (length, to));
            assert!(back[..len].iter().all(|byte| *byte == n as u8));
        }
    }
    clients[0].send_to(b"anybody?", forwarding.at(1)[0])?;
    let line = forwarding.says("warning: datagrams")?;
    assert_eq!(line, format!("warning: datagrams to udp port {nobody}: nothing listens on that port"));
    forwarding.stop()
}

/// A program at a Unix socket that sends everything back.
fn unix_echo(path: &std::path::Path) -> Result {
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for visitor in listener.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &visitor, &mut &visitor));
        }
    });
    Ok(())
}

fn unix_round_trip(path: &std::path::Path) -> Result<Vec<u8>> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    (&stream).write_all(b"through a socket")?;
    stream.shutdown(Shutdown::Write)?;
    let mut back = Vec::new();
    (&stream).read_to_end(&mut back)?;
    Ok(back)
}

#[test]
fn unix_sockets_lead_to_sockets_and_ports_and_are_gone_afterwards() -> Result {
    let (deployment, _agent, _) = deployed()?;
    let (near, far) = (deployment.path("near.sock"), deployment.path("far.sock"));
    unix_echo(&far)?;
    // Somebody left one behind.
    drop(UnixListener::bind(&near)?);
    let port = echo()?.port();
    let other = deployment.path("other.sock");
    let specs = [
        format!("{}:{}", near.display(), far.display()),
        format!("{}:{port}", other.display()),
        format!("0:{}", far.display()),
        format!("0:{}", deployment.path("nobody.sock").display()),
    ];
    let arguments: Vec<&str> = specs.iter().flat_map(|spec| ["--unix", spec]).collect();
    let mut forwarding = Forwarding::start(&deployment, &arguments)?;
    assert_eq!(std::fs::metadata(&near)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(unix_round_trip(&near)?, b"through a socket");
    assert_eq!(unix_round_trip(&other)?, b"through a socket");
    assert_eq!(round_trip(forwarding.at(2)[0], b"from a port")?, b"from a port");
    assert!(round_trip(forwarding.at(3)[0], b"x").is_err());
    let line = forwarding.says("warning: a connection")?;
    assert!(line.ends_with("nobody.sock was closed: the workspace has no such socket"), "{line}");
    let out = deployment.warren(&["port-forward", "dev", "--unix", &specs[0]])?;
    let said = String::from_utf8_lossy(&out.stderr).replace(&deployment.dir().display().to_string(), "DIR");
    insta::assert_snapshot!(said, @r"
    error: can't listen on DIR/near.sock: another program listens there
    hint: stop that program, or name another path
    code: PORT_IN_USE
    ");
    forwarding.stop()?;
    assert!(!near.exists() && !other.exists());
    Ok(())
}

#[test]
fn the_workspaces_ports_lead_here_and_do_so_again_after_the_agent_was_killed() -> Result {
    let (deployment, agent, token) = deployed()?;
    let here = echo()?.port();
    let (there, local) = (deployment.path("there.sock"), deployment.path("local.sock"));
    unix_echo(&local)?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let specs =
        [format!("0:{here}"), format!("{}:{}", there.display(), local.display()), format!("0:{nobody}")];
    let arguments: Vec<&str> = specs.iter().flat_map(|spec| ["--reverse", spec]).collect();
    let mut forwarding = Forwarding::start(&deployment, &arguments)?;
    let at = forwarding.at(0);
    assert_eq!((at.len(), at[0].port()), (2, at[1].port()));
    for to in &at {
        assert_eq!(round_trip(*to, b"the other way")?, b"the other way");
    }
    assert_eq!(std::fs::metadata(&there)?.permissions().mode() & 0o777, 0o600);
    assert_eq!(unix_round_trip(&there)?, b"through a socket");
    assert!(round_trip(forwarding.at(2)[0], b"").is_err());
    let line = forwarding.says("warning: a connection")?;
    assert_eq!(
        line,
        format!(
            "warning: a connection from the workspace to port {nobody} here was closed: nothing listens there"
        )
    );

    // What is taken there is said.
    let taken = format!("{}:{here}", at[0].port());
    let out = deployment.warren(&["port-forward", "dev", "--reverse", &taken])?;
    let said = String::from_utf8_lossy(&out.stderr).replace(&at[0].port().to_string(), "PORT");
    assert_eq!(out.status.code(), Some(1));
    insta::assert_snapshot!(said.replace(&here.to_string(), "HERE"), @r#"
    error: can't listen on port PORT of workspace "dev": another program listens there
    hint: stop that program, or take another: --reverse 0:HERE takes any free port and prints it
    code: PORT_IN_USE
    "#);

    agent.kill()?;
    drop(agent);
    let _agent = deployment.start_agent("dev", &token)?;
    forwarding.says(&format!("the workspace listens again at {}", at[0]))?;
    assert_eq!(round_trip(at[0], b"the same port")?, b"the same port");
    let to = at[0];
    forwarding.stop()?;
    // Nobody listens there for somebody who has gone.
    let until = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(to).is_ok() {
        assert!(Instant::now() < until, "the workspace listens still");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
