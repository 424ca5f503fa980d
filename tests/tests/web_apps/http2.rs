//! HTTP/2 towards browsers, by curl: the dashboard and an app, which sees nothing of it.

#[path = "../authority/mod.rs"]
pub(crate) mod authority;

use crate::{PASSWORD, app, words};
use authority::Authority;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::process::Command;
use tests::Result;
use tests::deployment::{Deployment, Place};

/// A browser: what it was told to keep, and whom it believes.
struct Curl {
    jar: PathBuf,
    roots: PathBuf,
}

/// What came back.
#[derive(Debug)]
struct Told {
    body: String,
    version: String,
    status: String,
}

impl Curl {
    /// Asks; `version` is curl's flag.
    fn ask(&self, version: &str, arguments: &[&str]) -> Result<Told> {
        let mut curl = Command::new("curl");
        curl.args([version, "--silent", "--show-error", "--max-time", "60", "--cacert"]).arg(&self.roots);
        curl.arg("--cookie").arg(&self.jar).arg("--cookie-jar").arg(&self.jar);
        curl.args(["--write-out", "\n%{http_version} %{http_code}"]).args(arguments);
        let out = curl.output().map_err(words)?;
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        let (body, end) = text.rsplit_once('\n').ok_or_else(|| format!("{out:?}"))?;
        let (version, status) = end.split_once(' ').ok_or("no status")?;
        Ok(Told { body: body.to_owned(), version: version.to_owned(), status: status.to_owned() })
    }

    /// Asks by HTTP/2, and gets it.
    fn get(&self, arguments: &[&str]) -> Result<String> {
        let told = self.ask("--http2", arguments)?;
        let good = told.version == "2" && told.status.starts_with('2');
        if good { Ok(told.body) } else { Err(format!("{arguments:?}: {told:?}")) }
    }
}

fn json_of(text: &str) -> Result<Value> {
    serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_that_ask_for_http_2_get_it_and_apps_see_nothing_of_it() -> Result {
    let authority = Authority::new()?;
    authority.renew(&["127.0.0.1"])?;
    let [certificate, key] = authority.identity();
    let arguments = ["--tls-address", "127.0.0.1:0", "--tls-cert-file", &certificate, "--tls-key-file", &key];
    let deployment = Deployment::start_trusting(Place::Here, &arguments, Some(&authority.roots()))?;
    let token = deployment.create_workspace("dev")?;
    let _agent = deployment.start_agent("dev", &token)?;
    let port = app::start(None).await?.port();
    let curl = Curl { jar: deployment.path("cookies.txt"), roots: authority.roots() };
    let server = deployment.url();

    assert!(curl.get(&[server])?.contains("<title>Warren</title>"));
    let old = curl.ask("--http1.1", &[server])?;
    assert_eq!((old.version.as_str(), old.status.as_str()), ("1.1", "200"), "{old:?}");
    let (origin, kind) = (format!("Origin: {server}"), "Content-Type: application/json");
    let login = json!({ "username": "alice", "password": PASSWORD, "cookie": true }).to_string();
    curl.get(&["-H", &origin, "-H", kind, "--data", &login, &format!("{server}/api/v1/login")])?;
    let app = json!({ "name": "Notes", "port": port, "sharing": "owner" }).to_string();
    let api = format!("{server}/api/v1/workspaces/me/dev/apps/notes");
    let made = curl.get(&["-H", &origin, "-H", kind, "-X", "PUT", "--data", &app, &api])?;
    let url = json_of(&made)?["url"].as_str().ok_or("no address")?.to_owned();

    // The session's cookie and the app's own, each in a field of its own.
    let seen =
        json_of(&curl.get(&["-H", "Cookie: mine=1", "-H", "Cookie: too=2", &format!("{url}echo")])?)?;
    let field = |name: &str| {
        let pairs = seen["headers"].as_array().into_iter().flatten();
        let named: Vec<_> = pairs.filter(|pair| pair[0] == name).map(|pair| pair[1].clone()).collect();
        named
    };
    assert_eq!(field("cookie"), ["mine=1; too=2"], "{seen}");
    assert_eq!(field("host").len(), 1, "{seen}");
    assert!(!seen.to_string().contains("warren_session"), "{seen}");

    let many = vec![7_u8; 24 << 20];
    let hash: String = Sha256::digest(&many).iter().map(|byte| format!("{byte:02x}")).collect();
    let file = deployment.path("many");
    std::fs::write(&file, many).map_err(words)?;
    let file = file.display().to_string();
    let answer = curl.get(&["-H", &origin, "--upload-file", &file, &format!("{url}upload")])?;
    assert_eq!(json_of(&answer)?, json!({ "bytes": 24 << 20, "sha256": hash }));
    assert_eq!(curl.get(&[&format!("{url}bytes/{}", 24 << 20)])?.len(), 24 << 20);
    // Events come as they are sent: the stream itself never ends.
    let events = curl.ask("--http2", &["--no-buffer", "--max-time", "4", &format!("{url}events")])?;
    assert!(events.version == "2" && events.body.contains("data: 0\n\ndata: 1\n\n"), "{events:?}");
    Ok(())
}
