//! Proxies that people really have between a node and its relay.

use std::path::Path;
use std::process::Command;
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{Lab, Nat};

/// nginx as it is often set up: of upgrades it knows WebSockets alone, and drops any other.
fn nginx(listen: &str, server: &str, dir: &Path) -> Result<Command> {
    let folder = dir.display();
    let config = format!(
        r#"
daemon off;
user root;
pid {folder}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  log_format asked '$request_uri "$http_upgrade" $status';
  access_log {folder}/access.log asked;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  map $http_upgrade $kept {{ default ""; websocket websocket; }}
  map $http_upgrade $kept_connection {{ default close; websocket upgrade; }}
  server {{
    listen {listen};
    location / {{
      proxy_pass http://{server};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $kept;
      proxy_set_header Connection $kept_connection;
      proxy_read_timeout 1h;
    }}
  }}
}}
"#
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut nginx = Command::new("nginx");
    nginx.arg("-c").arg(file).arg("-p").arg(dir);
    Ok(nginx)
}

#[test]
fn where_nginx_drops_the_upgrade_relays_are_reached_through_websockets() -> Result {
    let (deployment, _nginx) = Deployment::start_behind(nginx)?;
    let token = deployment.create_workspace("dev")?;
    let agent = deployment.start_agent("dev", &token)?;
    let relayed = ["--disable-direct-connections", "--time", "1", "--direction", "down"];
    let report = deployment.json(&[&["speedtest", "dev"], &relayed[..]].concat())?;
    assert_eq!(report["path"], "relay warren", "{report:#}");
    assert!(report["total"]["bytes"].as_u64().unwrap_or(0) > 1_000_000, "{report:#}");
    assert!(agent.log().contains("through a WebSocket"), "{}", agent.log());

    // The proxy did drop it, and connections are logged when they are over.
    drop(agent);
    let asked = std::fs::read_to_string(deployment.path("access.log")).map_err(|e| e.to_string())?;
    assert!(asked.contains("/derp \"DERP\" 426"), "{asked}");
    assert!(asked.contains("/derp \"websocket\" 101"), "{asked}");
    Ok(())
}

/// Where the lab's proxy is, and what it wants to hear.
const PROXY: (&str, &str) = ("203.0.113.1", "8888");
const CREDENTIAL: (&str, &str) = ("ann", "s3cret");

/// tinyproxy on the lab's internet.
fn tinyproxy(lab: &Lab, deployment: &Deployment<'_>) -> Result<Running> {
    let ((address, port), (user, password)) = (PROXY, CREDENTIAL);
    let config =
        format!("Listen {address}\nPort {port}\nUser root\nTimeout 600\nBasicAuth {user} {password}\n");
    let file = deployment.path("tinyproxy.conf");
    std::fs::write(&file, config).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = lab.command("inet", "tinyproxy");
    command.arg("-d").arg("-c").arg(file);
    let mut proxy = Running::start(command, deployment.path("tinyproxy.log"))?;
    proxy.wait("tinyproxy", || {
        lab.ok("inet", &["ss", "-Hltn", "sport", "=", port]).ok().filter(|s| !s.is_empty())
    })?;
    Ok(proxy)
}

#[test]
fn where_only_a_proxy_leads_out_it_is_asked() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let _proxy = tinyproxy(&lab, &deployment)?;
    let ((address, port), (user, password)) = (PROXY, CREDENTIAL);
    let cage = format!(
        "table ip cage {{
            chain out {{
                type filter hook output priority filter;
                oifname lo accept
                ip daddr {address} tcp dport {port} accept
                reject
            }}
        }}"
    );
    lab.ok("alice", &["nft", &cage])?;
    let run = |proxy: Option<&str>, arguments: &[&str]| {
        let mut command = deployment.command()?;
        command.args(arguments);
        if let Some(password) = proxy {
            command.env("HTTP_PROXY", format!("http://{user}:{password}@{address}:{port}"));
        }
        command.output().map_err(|e| format!("can't start warren: {e}"))
    };
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let caged = run(None, &["workspaces", "list"])?;
    assert_eq!(caged.status.code(), Some(5), "{}", said(&caged.stderr));
    let wrong = run(Some("wrong"), &["workspaces", "list"])?;
    assert_eq!(wrong.status.code(), Some(5), "{}", said(&wrong.stderr));
    assert!(said(&wrong.stderr).contains("the user and password"), "{}", said(&wrong.stderr));

    let ping = run(Some(password), &["ping", "dev", "--count", "3", "--interval", "0.1", "-o", "json"])?;
    assert!(ping.status.success(), "{}", said(&ping.stderr));
    let report: serde_json::Value = serde_json::from_slice(&ping.stdout).map_err(|e| e.to_string())?;
    assert_eq!(report["path"], "relay warren", "{report:#}");
    assert_eq!(report["summary"]["received"], 3, "{report:#}");
    Ok(())
}
