//! The server's API as this program uses it.

use crate::error::{CliError, Exit, Result};
use crate::plain;
use crate::session::Session;
use crate::skew;
use io_adapters::http::{HttpClient, HttpError, Request, percent_encoded};
use io_adapters::relay_stream::proxy::ProxyError;
use proto_core::wire::api::{
    AskDevice, BuildInfo, CreateWorkspace, CreatedWorkspace, DeviceGrant, DeviceLogin, Grant, Login, Me,
    Problem, Setup, VERSION_HEADER, WebApp, Workspace, Workspaces,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A server, with a token once logged in.
pub(crate) struct Api {
    client: HttpClient,
    url: String,
    token: Option<String>,
    /// Whether a server of another version is warned of.
    warns: bool,
}

impl Api {
    /// The API of the server at `url`, without a login.
    pub(crate) fn new(url: &str) -> Self {
        let client = HttpClient::new(concat!("warren/", env!("CARGO_PKG_VERSION")));
        Self { client, url: url.trim_end_matches('/').to_string(), token: None, warns: true }
    }

    /// The API with the token of an earlier login.
    pub(crate) fn logged_in(session: &Session) -> Self {
        Self { token: Some(session.token.clone()), ..Self::new(&session.url) }
    }

    /// The same, for who says more about versions than a warning.
    pub(crate) fn without_warning(self) -> Self {
        Self { warns: false, ..self }
    }

    /// Makes the owner of a new server, by the one-time token it printed.
    pub(crate) async fn setup(&self, setup: &Setup) -> Result<Grant> {
        self.post("/api/v1/setup", setup).await
    }

    /// A session for a name and a password.
    pub(crate) async fn login(&self, login: &Login) -> Result<Grant> {
        self.post("/api/v1/login", login).await
    }

    /// Begins a login that a person confirms in a browser.
    pub(crate) async fn begin_device_login(&self) -> Result<DeviceLogin> {
        self.parse(&self.bytes("POST", "/api/v1/login/device", None).await?)
    }

    /// The session of such a login, once it has been confirmed.
    pub(crate) async fn device_grant(&self, device_code: &str) -> Result<Option<Grant>> {
        let ask = AskDevice { device_code: device_code.to_owned() };
        Ok(self.post::<DeviceGrant>("/api/v1/login/device/token", &ask).await?.grant)
    }

    /// Ends the session.
    pub(crate) async fn logout(&self) -> Result {
        self.bytes("POST", "/api/v1/logout", None).await.map(drop)
    }

    /// Who the token belongs to.
    pub(crate) async fn me(&self) -> Result<Me> {
        self.get("/api/v1/me").await
    }

    /// What the server is.
    pub(crate) async fn build_info(&self) -> Result<BuildInfo> {
        self.get("/api/v1/buildinfo").await
    }

    /// The workspaces that this person may see.
    pub(crate) async fn workspaces(&self) -> Result<Vec<Workspace>> {
        Ok(self.get::<Workspaces>("/api/v1/workspaces").await?.workspaces)
    }

    /// One workspace, by `name` or `owner/name`.
    pub(crate) async fn workspace(&self, name: &str) -> Result<Workspace> {
        self.get(&workspace_path(name)).await
    }

    /// A web app of a workspace.
    pub(crate) async fn app(&self, workspace: &Workspace, slug: &str) -> Result<WebApp> {
        let workspace = format!("{}/{}", workspace.owner, workspace.name);
        self.get(&format!("{}/apps/{}", workspace_path(&workspace), percent_encoded(slug))).await
    }

    /// Makes a workspace.
    pub(crate) async fn create_workspace(&self, name: &str) -> Result<CreatedWorkspace> {
        self.post("/api/v1/workspaces", &CreateWorkspace { name: name.to_string() }).await
    }

    /// Deletes a workspace and revokes its agent's token.
    pub(crate) async fn delete_workspace(&self, name: &str) -> Result {
        self.bytes("DELETE", &workspace_path(name), None).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.parse(&self.bytes("GET", path, None).await?)
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        let body = serde_json::to_string(body).unwrap_or_default();
        self.parse(&self.bytes("POST", path, Some(body)).await?)
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T> {
        let read = serde_json::from_slice(bytes).map(plain::document).and_then(serde_json::from_value);
        read.map_err(|e| {
            CliError::new(
                Exit::Failed,
                "BAD_ANSWER",
                format!("the answer of {} makes no sense: {e}", self.url),
            )
            .hint(
                "is this the address of a Warren server, and of this program's version? See `warren version`",
            )
        })
    }

    async fn bytes(&self, method: &str, path: &str, json: Option<String>) -> Result<Vec<u8>> {
        let url = format!("{}{path}", self.url);
        let request = Request { method, url: &url, bearer: self.token.as_deref(), json };
        let answer = self.client.send(request).await.map_err(|e| self.unreachable(&e))?;
        if let Some(version) = answer.header(VERSION_HEADER).filter(|_| self.warns) {
            skew::warn(version);
        }
        if (200..300).contains(&answer.status) {
            Ok(answer.body)
        } else {
            Err(self.refused(answer.status, &answer.body))
        }
    }

    fn unreachable(&self, error: &HttpError) -> CliError {
        if matches!(error, HttpError::Url { .. }) {
            return CliError::new(Exit::Usage, "BAD_URL", error.to_string())
                .hint("an address looks like https://warren.example.com");
        }
        let sentence = format!("can't reach the server at {}: {error}", self.url);
        let hint = match error {
            HttpError::Tls(_) | HttpError::Proxy(ProxyError::Tls { .. }) => {
                "if the certificate is of an authority of your own, or of a proxy that opens TLS, set SSL_CERT_FILE to that authority's file"
            }
            _ => "is the server running, and is the address right? `warren login URL` takes another",
        };
        CliError::new(Exit::Unreachable, "SERVER_UNREACHABLE", sentence).hint(hint)
    }

    fn refused(&self, status: u16, body: &[u8]) -> CliError {
        let exit = match status {
            401 | 403 => Exit::Forbidden,
            404 => Exit::NotFound,
            502..=504 => Exit::Unreachable,
            _ => Exit::Failed,
        };
        let read = serde_json::from_slice(body).map(plain::document).and_then(serde_json::from_value);
        let Some(problem) = read.ok().filter(|problem: &Problem| !problem.code.is_empty()) else {
            let sentence = format!("{} answered with HTTP status {status}", self.url);
            return CliError::new(exit, "HTTP_STATUS", sentence)
                .hint("is this the address of a Warren server?");
        };
        let sentence = if problem.detail.is_empty() { problem.title } else { problem.detail };
        let mut error = CliError::new(exit, &problem.code, sentence);
        error.hint = Some(problem.hint).filter(|h| !h.is_empty());
        if error.hint.is_none() && !problem.nearest.is_empty() {
            error = error.hint(format!("did you mean {}?", problem.nearest.join(", ")));
        }
        error
    }
}

fn workspace_path(name: &str) -> String {
    format!("/api/v1/workspaces/{}", percent_encoded(name))
}
