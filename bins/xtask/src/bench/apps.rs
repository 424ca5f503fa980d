//! `cargo xtask bench apps`: a web app, nginx, opened through the server and the tunnel as a browser opens it, beside the same
//! nginx without them: a large download, and small answers over connections that are kept.

use super::Figure;
use crate::setup;
use crate::shell::{self, Result, command};
use ::tests::deployment::{Deployment, Place, Running, free_address};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// Bytes of the large file.
const LARGE: u64 = 1 << 30;
/// Bytes of a small answer.
const SMALL: usize = 1 << 10;
/// Connections that small answers are asked over at once.
const CONNECTIONS: &str = "32";

/// Where the app is asked, and what is sent along.
struct Way {
    address: String,
    headers: Vec<String>,
}

/// Measures.
///
/// # Errors
/// If a program fails, with what it said.
pub(super) fn run(runs: usize, seconds: u32) -> Result<Vec<Figure>> {
    setup::install(setup::BENCH_APPS)?;
    let deployment = Deployment::start(Place::Here, &["--wildcard-access-url", "*.apps.localhost"])?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let (_nginx, local) = nginx(&deployment)?;
    let through = open(&deployment, &local.address)?;
    let [mut large, mut large_local, mut small, mut small_local, mut slow] = [const { Vec::new() }; 5];
    // The first one finds the direct path.
    download(&through)?;
    for run in 1..=runs {
        println!("web apps, run {run} of {runs}");
        large.push(download(&through)?);
        large_local.push(download(&local)?);
        let (rate, late) = requests(&through, seconds)?;
        small.push(rate);
        slow.push(late);
        small_local.push(requests(&local, seconds)?.0);
    }
    Ok(vec![
        Figure::median("app_download_mbit", "Mbit/s", large).compared("the same without it", &large_local),
        Figure::median("app_requests", "1/s", small).compared("the same without it", &small_local),
        Figure::median("app_request_p99_ms", "ms", slow),
    ])
}

/// The app.
fn nginx(deployment: &Deployment<'_>) -> Result<(Running, Way)> {
    let address = free_address()?;
    let folder = deployment.path("nginx");
    let io = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(&folder).map_err(io)?;
    // Without blocks on the disk: it is read as zeros.
    std::fs::File::create(folder.join("large")).and_then(|file| file.set_len(LARGE)).map_err(io)?;
    std::fs::write(folder.join("small"), vec![b'x'; SMALL]).map_err(io)?;
    // nginx's workers are somebody else where it is started by root.
    set_readable(deployment.dir()).and_then(|()| set_readable(&folder)).map_err(io)?;
    let here = folder.display();
    let config = format!(
        "daemon off; worker_processes 1; pid {here}/pid; error_log {here}/error.log;\n\
         events {{ worker_connections 512; }}\n\
         http {{ access_log off; sendfile on; keepalive_requests 1000000000; client_body_temp_path {here}/body;\n\
         proxy_temp_path {here}/proxy; fastcgi_temp_path {here}/fastcgi; uwsgi_temp_path {here}/uwsgi;\n\
         scgi_temp_path {here}/scgi; server {{ listen {address}; root {here}; }} }}\n"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config).map_err(io)?;
    let command = command("nginx", &["-p", &here.to_string(), "-c", &file.to_string_lossy()]);
    let mut nginx = Running::start(command, deployment.path("nginx.log"))?;
    nginx.wait("nginx", || std::net::TcpStream::connect(&address).ok())?;
    Ok((nginx, Way { address, headers: Vec::new() }))
}

fn set_readable(folder: &Path) -> std::io::Result<()> {
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))
}

/// Makes an app of it, for its owner alone, and logs in.
fn open(deployment: &Deployment<'_>, address: &str) -> Result<Way> {
    let server = deployment.url();
    let login = json!({ "username": "alice", "password": "correct horse battery staple" });
    let token = ask(server, "POST", "/login", None, &login)?["token"].as_str().unwrap_or_default().to_owned();
    let bearer = format!("Authorization: Bearer {token}");
    let port: u16 = address.rsplit(':').next().and_then(|port| port.parse().ok()).ok_or("no port")?;
    let app = json!({ "port": port, "sharing": "owner" });
    let app = ask(server, "PUT", "/workspaces/me/dev/apps/bench", Some(&bearer), &app)?;
    let host = app["url"].as_str().and_then(|url| url.split('/').nth(2)).ok_or_else(|| format!("{app}"))?;
    let address = server.split('/').nth(2).ok_or("no host")?.to_owned();
    Ok(Way { address, headers: vec![format!("Host: {host}"), bearer] })
}

fn ask(server: &str, method: &str, path: &str, bearer: Option<&str>, body: &Value) -> Result<Value> {
    let mut curl = curl(method, &format!("{server}/api/v1{path}"), bearer);
    curl.args(["--json", &body.to_string()]);
    let text = shell::output(curl)?;
    serde_json::from_str(&text).map_err(|e| format!("{path}: {e}: {text}"))
}

fn curl<'a>(method: &str, url: &str, headers: impl IntoIterator<Item = &'a str>) -> Command {
    let mut curl =
        command("curl", &["--silent", "--show-error", "--fail", "--noproxy", "*", "-X", method, url]);
    for header in headers {
        curl.args(["-H", header]);
    }
    curl
}

/// How fast the large file comes, in megabits a second.
fn download(way: &Way) -> Result<f64> {
    let url = format!("http://{}/large", way.address);
    let mut curl = curl("GET", &url, way.headers.iter().map(String::as_str));
    curl.args(["-o", "/dev/null", "-w", "%{size_download} %{time_total}"]);
    let text = shell::output(curl)?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [bytes, seconds] if bytes == LARGE as f64 && seconds > 0.0 => Ok(bytes * 8.0 / seconds / 1e6),
        _ => Err(format!("curl: {text}")),
    }
}

/// How many small answers come a second, and how late one in a hundred is, in milliseconds.
fn requests(way: &Way, seconds: u32) -> Result<(f64, f64)> {
    let mut wrk = command("wrk", &["-t1", "-c", CONNECTIONS, "-d", &format!("{seconds}s"), "--latency"]);
    for header in &way.headers {
        wrk.args(["-H", header]);
    }
    wrk.arg(format!("http://{}/small", way.address));
    let text = shell::output(wrk)?;
    let value = |name: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next().map(str::to_owned)
    };
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("wrk: {text}"));
    }
    let rate = value("Requests/sec:").and_then(|rate| rate.parse().ok());
    rate.zip(value("99%").as_deref().and_then(milliseconds)).ok_or_else(|| format!("wrk: {text}"))
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, scale) = [("us", 1e-3), ("ms", 1.0), ("s", 1e3)]
        .iter()
        .find_map(|(unit, scale)| text.strip_suffix(unit).map(|number| (number, *scale)))?;
    Some(number.parse::<f64>().ok()? * scale)
}
