//! Proxies that people really have between a node and its relay.

mod authority;

use authority::Authority;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{Lab, Nat, SERVER};

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

/// Where it is spoken to inside TLS.
const TLS_PORT: &str = "8889";

/// Starts what listens on this port of the lab's internet.
fn start_proxy(lab: &Lab, command: Command, log: PathBuf, port: &str) -> Result<Running> {
    let program = command.get_program().display().to_string();
    let mut proxy = Running::start(command, log)?;
    proxy.wait(&program, || {
        lab.ok("inet", &["ss", "-Hltn", "sport", "=", port]).ok().filter(|s| !s.is_empty())
    })?;
    Ok(proxy)
}

/// tinyproxy on the lab's internet, for those who know its password.
fn tinyproxy(lab: &Lab, deployment: &Deployment<'_>) -> Result<Running> {
    let (user, password) = CREDENTIAL;
    tinyproxy_with(lab, deployment, &format!("BasicAuth {user} {password}\n"))
}

fn tinyproxy_with(lab: &Lab, deployment: &Deployment<'_>, more: &str) -> Result<Running> {
    let (address, port) = PROXY;
    let config = format!("Listen {address}\nPort {port}\nUser root\nTimeout 600\n{more}");
    let file = deployment.path("tinyproxy.conf");
    std::fs::write(&file, config).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = lab.command("inet", "tinyproxy");
    command.arg("-d").arg("-c").arg(file);
    start_proxy(lab, command, deployment.path("tinyproxy.log"), port)
}

/// stunnel in front of it, with this authority's certificate.
fn stunnel(lab: &Lab, deployment: &Deployment<'_>, authority: &Authority) -> Result<Running> {
    let (address, port) = PROXY;
    let [certificate, key] = authority.identity();
    let config = format!(
        "foreground = yes\npid =\nsyslog = no\n[proxy]\naccept = {address}:{TLS_PORT}\n\
         connect = {address}:{port}\ncert = {certificate}\nkey = {key}\n"
    );
    let file = deployment.path("stunnel.conf");
    std::fs::write(&file, config).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut command = lab.command("inet", "stunnel");
    command.arg(file);
    start_proxy(lab, command, deployment.path("stunnel.log"), TLS_PORT)
}

/// Lets `alice` reach nothing but this port of the proxy.
fn cage(lab: &Lab, port: &str) -> Result {
    let address = PROXY.0;
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
    lab.ok("alice", &["nft", &cage]).map(drop)
}

/// Runs the command line, by this proxy if there is one.
fn run(deployment: &Deployment<'_>, proxy: Option<&str>, arguments: &[&str]) -> Result<Output> {
    let mut command = deployment.command()?;
    command.args(arguments);
    if let Some(proxy) = proxy {
        command.env("HTTP_PROXY", proxy).env("HTTPS_PROXY", proxy);
    }
    command.output().map_err(|e| format!("can't start warren: {e}"))
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whoever is in the cage meets nobody without the proxy, is told what is wrong with a wrong password, and reaches an
/// agent by the relay with the right one.
fn is_the_only_way_out(deployment: &Deployment<'_>, scheme: &str, port: &str) -> Result {
    let (address, (user, password)) = (PROXY.0, CREDENTIAL);
    let proxy = |password| format!("{scheme}://{user}:{password}@{address}:{port}");
    let caged = run(deployment, None, &["workspaces", "list"])?;
    assert_eq!(caged.status.code(), Some(5), "{}", said(&caged.stderr));
    let wrong = run(deployment, Some(&proxy("wrong")), &["workspaces", "list"])?;
    assert_eq!(wrong.status.code(), Some(5), "{}", said(&wrong.stderr));
    let hint = format!("the user and password belong into its address: {scheme}://");
    assert!(said(&wrong.stderr).contains(&hint), "{}", said(&wrong.stderr));

    reaches_an_agent(deployment, &proxy(password))
}

/// By the relay, since nothing else gets through.
fn reaches_an_agent(deployment: &Deployment<'_>, proxy: &str) -> Result {
    let ping = ["ping", "dev", "--count", "3", "--interval", "0.1", "-o", "json"];
    let ping = run(deployment, Some(proxy), &ping)?;
    assert!(ping.status.success(), "{}", said(&ping.stderr));
    let report: serde_json::Value = serde_json::from_slice(&ping.stdout).map_err(|e| e.to_string())?;
    assert_eq!(report["path"], "relay warren", "{report:#}");
    assert_eq!(report["summary"]["received"], 3, "{report:#}");
    Ok(())
}

#[test]
fn where_only_a_proxy_leads_out_it_is_asked() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let _proxy = tinyproxy(&lab, &deployment)?;
    cage(&lab, PROXY.1)?;
    is_the_only_way_out(&deployment, "http", PROXY.1)
}

#[test]
fn a_proxy_that_asks_for_no_password_is_given_none() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let deployment = Deployment::start(Place::Lab(&lab), &[])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let _proxy = tinyproxy_with(&lab, &deployment, "")?;
    cage(&lab, PROXY.1)?;
    reaches_an_agent(&deployment, &format!("http://{}:{}", PROXY.0, PROXY.1))
}

#[test]
fn where_only_a_proxy_with_tls_leads_out_it_is_asked_for_a_plain_server() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let authority = Authority::new()?;
    authority.renew(&[PROXY.0])?;
    let deployment = Deployment::start_trusting(Place::Lab(&lab), &[], Some(&authority.roots()))?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let _proxy = tinyproxy(&lab, &deployment)?;
    let _tls = stunnel(&lab, &deployment, &authority)?;
    cage(&lab, TLS_PORT)?;
    is_the_only_way_out(&deployment, "https", TLS_PORT)
}

#[test]
fn tls_to_a_server_goes_inside_tls_to_a_proxy_that_is_trusted() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let authority = Authority::new()?;
    authority.renew(&[PROXY.0, SERVER])?;
    let [certificate, key] = authority.identity();
    let tls = format!("{SERVER}:0");
    let arguments = ["--tls-address", &tls, "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let deployment = Deployment::start_trusting(Place::Lab(&lab), &arguments, Some(&authority.roots()))?;
    assert!(deployment.url().starts_with("https://"), "{}", deployment.url());
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let _proxy = tinyproxy(&lab, &deployment)?;
    let trusted = stunnel(&lab, &deployment, &authority)?;
    cage(&lab, TLS_PORT)?;
    is_the_only_way_out(&deployment, "https", TLS_PORT)?;

    // Another in its place is not given the password.
    drop(trusted);
    let stranger = Authority::new()?;
    stranger.renew(&[PROXY.0])?;
    let _stranger = stunnel(&lab, &deployment, &stranger)?;
    let (address, (user, password)) = (PROXY.0, CREDENTIAL);
    let asked_before =
        std::fs::read_to_string(deployment.path("tinyproxy.log")).map_err(|e| e.to_string())?;
    let proxy = format!("https://{user}:{password}@{address}:{TLS_PORT}");
    let refused = run(&deployment, Some(&proxy), &["workspaces", "list"])?;
    assert_eq!(refused.status.code(), Some(5), "{}", said(&refused.stderr));
    insta::assert_snapshot!(said(&refused.stderr).replace(deployment.url(), "URL"), @"
    error: can't reach the server at URL: the proxy 203.0.113.1:8889 cannot be used: the TLS handshake with 203.0.113.1 failed: its certificate is signed by nobody that this system trusts
    hint: if the certificate is of an authority of your own, or of a proxy that opens TLS, set SSL_CERT_FILE to that authority's file
    code: SERVER_UNREACHABLE
    ");
    let asked = std::fs::read_to_string(deployment.path("tinyproxy.log")).map_err(|e| e.to_string())?;
    assert_eq!(asked, asked_before);
    Ok(())
}
