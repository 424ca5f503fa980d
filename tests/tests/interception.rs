//! Networks that look into TLS: a real nginx on the router ends every TLS connection to the server, with a
//! certificate of the network's own authority, and makes another one to the server.

mod authority;

use authority::Authority;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tests::Result;
use tests::deployment::{Deployment, Place, Running};
use tests::lab::{Lab, Nat, SERVER};

/// How long nginx may take to end on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where nginx listens on the router.
const PORT: u16 = 8443;

/// The server's name at nginx, which checks names only, no addresses.
const NAME: &str = "warren.test";

/// What an interceptor does with a request's `Upgrade` field.
#[derive(Clone, Copy)]
enum Lets {
    /// Hands on whatever it says.
    Everything,
    /// Hands on that to a WebSocket alone.
    WebSockets,
}

/// `alice`'s network: the deployment outside, and the interceptor.
struct World<'a> {
    deployment: Deployment<'a>,
    lab: &'a Lab,
    /// Who vouches for the interceptor.
    network: Authority,
    nginx: Option<Running>,
}

impl<'a> World<'a> {
    /// A server with TLS, an agent, and nobody in between yet.
    fn start(lab: &'a Lab) -> Result<(Self, Running)> {
        let public = Authority::new()?;
        public.renew(&[SERVER, NAME])?;
        let [certificate, key] = public.identity();
        let tls = format!("{SERVER}:0");
        let arguments = ["--tls-address", &tls, "--tls-cert-file", &certificate, "--tls-key-file", &key];
        let deployment = Deployment::start_trusting(Place::Lab(lab), &arguments, Some(&public.roots()))?;
        let token = deployment.create_workspace("dev")?;
        let agent = deployment.start_agent("dev", &token)?;
        let world = Self { deployment, lab, network: Authority::new()?, nginx: None };
        let before = world.ping(&public)?;
        assert!(before.status.success(), "with nobody in between: {}", said(&before));
        world.network.renew(&[SERVER])?;
        // The authority of the outside is what nginx itself goes by.
        let outside = std::fs::read_to_string(public.roots()).map_err(|e| e.to_string())?;
        world.network.write("outside.pem", &outside)?;
        let port = world.server_port()?;
        let redirect = format!(
            "table ip interception {{
                counter intercepted {{}}
                chain in {{
                    type nat hook prerouting priority dstnat;
                    iifname eth1 ip daddr {SERVER} tcp dport {port} counter name intercepted redirect to :{PORT}
                }}
            }}"
        );
        lab.ok("nat-a", &["nft", &redirect])?;
        Ok((world, agent))
    }

    fn server_port(&self) -> Result<&str> {
        let url = self.deployment.url();
        url.strip_prefix("https://")
            .and_then(|u| u.rsplit(':').next())
            .ok_or_else(|| format!("no TLS: {url}"))
    }

    /// Puts an interceptor of this kind in between.
    fn intercept(&mut self, lets: Lets) -> Result {
        self.nginx = None;
        let dir = self.deployment.dir().display();
        let [certificate, key] = self.network.identity();
        let outside = self.network.roots().with_file_name("outside.pem");
        let outside = outside.display();
        let port = self.server_port()?;
        let kept = match lets {
            Lets::Everything => "default $http_upgrade",
            Lets::WebSockets => "default \"\"; websocket websocket",
        };
        let config = format!(
            r#"
daemon off;
user root;
pid {dir}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  log_format asked '$request_uri "$http_upgrade" $status';
  access_log {dir}/access.log asked;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  map $http_upgrade $kept {{ {kept}; }}
  map $kept $kept_connection {{ "" close; default upgrade; }}
  server {{
    listen {PORT} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    location / {{
      proxy_pass https://{SERVER}:{port};
      proxy_ssl_verify on;
      proxy_ssl_name {NAME};
      proxy_ssl_trusted_certificate {outside};
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
        let file = self.deployment.path("nginx.conf");
        std::fs::write(&file, config).map_err(|e| e.to_string())?;
        let _ = std::fs::remove_file(self.deployment.path("access.log"));
        let mut nginx = self.lab.command("nat-a", "nginx");
        nginx.arg("-c").arg(file).arg("-p").arg(self.deployment.dir());
        let mut nginx = Running::start(nginx, self.deployment.path("nginx.log"))?;
        let listens = ["ss", "-Hltn", "sport", "=", &PORT.to_string()];
        nginx.wait("nginx", || self.lab.ok("nat-a", &listens).ok().filter(|s| !s.is_empty()))?;
        self.nginx = Some(nginx);
        Ok(())
    }

    /// A relayed ping of somebody who trusts this authority alone.
    fn ping(&self, trusted: &Authority) -> Result<Output> {
        let mut ping = self.deployment.command()?;
        ping.env("SSL_CERT_FILE", trusted.roots()).args(["--disable-direct-connections", "ping", "dev"]);
        ping.args(["--count", "3", "--interval", "0.1", "-o", "json"]);
        ping.output().map_err(|e| format!("can't start warren: {e}"))
    }

    /// The pings of somebody who trusts the network's authority pass; what nginx was asked meanwhile.
    fn passes(&mut self, lets: Lets) -> Result<String> {
        self.intercept(lets)?;
        let ping = self.ping(&self.network)?;
        let mut nginx = self.nginx.take().ok_or("no nginx")?;
        assert!(ping.status.success(), "{}{}", said(&ping), nginx.log());
        let report: serde_json::Value = serde_json::from_slice(&ping.stdout).map_err(|e| e.to_string())?;
        assert_eq!(report["path"], "relay warren", "{report:#}");
        assert_eq!(report["summary"]["received"], 3, "{report:#}");
        // Connections are logged when they are over, and so they are when nginx has come to its end by itself.
        let quit = Command::new("kill").args(["-QUIT", &nginx.id().to_string()]).status();
        quit.map_err(|e| e.to_string())?;
        let began = Instant::now();
        while nginx.is_alive() {
            assert!(began.elapsed() < PATIENCE, "nginx does not end: {}", nginx.log());
            std::thread::sleep(Duration::from_millis(20));
        }
        std::fs::read_to_string(self.deployment.path("access.log")).map_err(|e| e.to_string())
    }
}

fn said(out: &Output) -> String {
    [&out.stdout, &out.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[test]
fn behind_an_interceptor_the_relay_is_reached_by_whoever_trusts_it_and_the_others_are_told() -> Result {
    let lab = Lab::new(Nat::PortRestricted, Nat::PortRestricted)?;
    let (mut world, _agent) = World::start(&lab)?;

    // Its certificate tells no relay's key, so the login does not go with the request.
    let asked = world.passes(Lets::Everything)?;
    assert!(asked.contains("/derp \"DERP\" 101"), "{asked}");
    assert!(!asked.contains("/derp \"websocket\""), "{asked}");

    let asked = world.passes(Lets::WebSockets)?;
    assert!(asked.contains("/derp \"DERP\" 426"), "{asked}");
    assert!(asked.contains("/derp \"websocket\" 101"), "{asked}");

    // Whoever goes by others is told what to do.
    world.intercept(Lets::Everything)?;
    let stranger = world.ping(&Authority::new()?)?;
    assert_eq!(stranger.status.code(), Some(5), "{}", said(&stranger));
    let mut stranger = world.deployment.command()?;
    let another = Authority::new()?;
    let stranger = stranger.env("SSL_CERT_FILE", another.roots()).arg("status").output();
    let stranger = stranger.map_err(|e| e.to_string())?;
    assert_eq!(stranger.status.code(), Some(5), "{}", said(&stranger));
    insta::assert_snapshot!(said(&stranger).replace(world.deployment.url(), "URL"), @"
    error: can't reach the server at URL: TLS failed: the TLS handshake with 203.0.113.2 failed: its certificate is signed by nobody that this system trusts
    hint: if the certificate is of an authority of your own, or of a proxy that opens TLS, set SSL_CERT_FILE to that authority's file
    code: SERVER_UNREACHABLE
    ");
    let counted = lab.ok("nat-a", &["nft", "list", "counter", "ip", "interception", "intercepted"])?;
    assert!(!counted.contains("packets 0 "), "nobody was intercepted: {counted}");
    Ok(())
}
