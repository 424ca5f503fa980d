//! Web apps: what listens in a workspace, opened in a browser.
//!
//! | room | what it is |
//! | --- | --- |
//! | `address` | the names of apps: what stands before the wildcard's suffix |
//! | `subdomain`, `path` | the two ways in |
//! | `access`, `credential`, `ticket` | who may open what: decided, looked at again, carried by the browser |
//! | `guard` | whose page a request comes from |
//! | `headers` | what of a header passes, and what never does |
//! | `proxy`, `connect`, `http2` | the way to the app and back, through the tunnel |
//! | `page` | what a person sees instead of an app |

pub(crate) mod access;
pub(crate) mod address;
mod connect;
mod credential;
mod guard;
mod headers;
mod http2;
mod page;
pub(crate) mod path;
mod proxy;
pub(crate) mod subdomain;
pub(crate) mod ticket;

pub(crate) use address::Name;
pub(crate) use page::Trouble;

use crate::app::App;
use crate::hub::Hub;
use crate::node::OwnNode;
use crate::places::Places;
use crate::settings::{AccessUrl, Settings};
use crate::store::{AgentRow, WorkspaceRow};
use access::{Denied, Remembered};
use address::Wildcard;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, HeaderMap,
};
use connect::Connector;
use core::sync::atomic::{AtomicI64, Ordering};
use headers::Unfit;
use http2::Http2;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use io_adapters::relay_stream::tls::Trust;
use proto_core::id::NodeId;
use proto_core::wire::api::AppSharing;
use std::sync::Arc;
use std::time::Duration;
use ticket::Keys;

/// How long a connection to an app is kept for the next request: less than the 5 s after which Node's servers, the most
/// impatient of the usual ones, close theirs.
const IDLE: Duration = Duration::from_secs(4);
/// Connections kept for each app and who asks it.
const IDLE_MAX: usize = 64;
/// Requests and WebSockets under way at once. Each holds two connections, some 50 KiB, as long as it lasts.
const OPEN_MAX: usize = 20_000;
/// Those to all apps of one owner, be it one visitor who opens them or many: a browser has some ten for a page.
const OPEN_PER_OWNER_MAX: usize = 4_000;
/// Those to the apps of one workspace: a tunnel has 1,024 streams, and its terminals need some.
const OPEN_PER_WORKSPACE_MAX: usize = 768;

/// What apps need at hand.
pub(crate) struct Apps {
    /// Where apps have origins of their own.
    pub(crate) wildcard: Option<Wildcard>,
    /// Whether they open on paths of the dashboard's origin.
    pub(crate) path_apps: bool,
    /// The most that an app may be shared.
    pub(crate) max_sharing: AppSharing,
    pub(crate) keys: Keys,
    pub(crate) remembered: Remembered,
    client: Client<Connector, Body>,
    http2: Http2,
    /// By the name of the workspace's owner, and by the workspace's.
    open: [Arc<Places<String>>; 2],
    /// When something was last taken from somebody, in unix milliseconds: what was decided before counts no more.
    changed: AtomicI64,
}

impl Apps {
    pub(crate) fn new(
        settings: &Settings,
        access: &AccessUrl,
        key: [u8; 32],
        (node, hub): (&Arc<OwnNode>, &Arc<Hub>),
        now: i64,
    ) -> Self {
        let connector = Connector { node: Arc::clone(node), hub: Arc::clone(hub), trust: Trust::system() };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_MAX)
            .http1_title_case_headers(true)
            .build(connector.clone());
        Self {
            wildcard: settings.wildcard_access_url.as_ref().map(|url| Wildcard::new(url, access)),
            path_apps: !settings.disable_path_apps,
            max_sharing: settings.max_app_sharing.into(),
            keys: Keys::new(key),
            remembered: Remembered::default(),
            client,
            http2: Http2::new(connector),
            open: [OPEN_PER_OWNER_MAX, OPEN_PER_WORKSPACE_MAX].map(|own| Places::new(OPEN_MAX, own)),
            // What was taken from somebody before this server began is not known.
            changed: AtomicI64::new(now),
        }
    }

    /// What was decided until now counts no more.
    pub(crate) fn changed(&self, now: i64) {
        self.changed.fetch_max(now, Ordering::Relaxed);
    }

    /// How many requests and WebSockets are under way.
    pub(crate) fn count(&self) -> usize {
        self.open[0].count()
    }

    pub(crate) fn changed_at(&self) -> i64 {
        self.changed.load(Ordering::Relaxed)
    }
}

impl App {
    /// Where a workspace's app opens; empty if there is no way to one.
    pub(crate) fn app_url(&self, workspace: &WorkspaceRow, slug: &str) -> String {
        match &self.apps.wildcard {
            Some(wildcard) => format!("{}/", wildcard.origin(&wildcard.app(workspace, slug))),
            None if self.apps.path_apps => {
                format!("{}/@{}/{}/apps/{slug}/", self.access_url, workspace.owner, workspace.name)
            }
            None => String::new(),
        }
    }

    /// Where a port of a workspace's agent that is connected opens, if ports have addresses here.
    pub(crate) fn port_url(&self, workspace: &WorkspaceRow, port: u16) -> Option<String> {
        let wildcard = self.apps.wildcard.as_ref()?;
        let here = |agent: &&AgentRow| self.hub.presence(&NodeId(agent.id.clone())).is_some();
        let agent = workspace.agents.iter().find(here)?;
        Some(format!("{}/", wildcard.origin(&wildcard.port(workspace, agent, port))))
    }
}

/// The page for somebody who does not get to an app.
fn denied(why: &Denied) -> Trouble {
    match why {
        Denied::Nothing => {
            let kind = (StatusCode::NOT_FOUND, "APP_NOT_FOUND", "there is no such app for you");
            Trouble::new(kind, why.to_string(), "ask whoever told you of it to share it with you")
        }
        Denied::LoginFirst => {
            let kind = (StatusCode::UNAUTHORIZED, "LOGIN_REQUIRED", "log in first");
            Trouble::new(
                kind,
                why.to_string(),
                "open it in a browser tab of its own, which leads to the login page",
            )
        }
        Denied::OnlyLooks => {
            let kind = (StatusCode::FORBIDDEN, "SCOPE_TOO_SMALL", "the token may only look");
            Trouble::new(
                kind,
                "the token was made for looking, and this changes or opens something",
                "use a token of the scope \"all\"",
            )
        }
        Denied::Store(error) => {
            tracing::error!("an app was not opened: {error}");
            let kind = (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "the server failed");
            Trouble::new(kind, "the server could not look up the app", "the server's log says why").passing()
        }
    }
}

/// The answer to a page elsewhere that uses a visitor's login.
fn foreign(origin: &str) -> Trouble {
    let kind = (StatusCode::FORBIDDEN, "CROSS_ORIGIN_REFUSED", "not from a page of this app");
    let detail = format!("another site's page asked {origin} for this with your login");
    Trouble::new(kind, detail, "the app's owner can name sites that may ask it")
}

fn unfit(why: Unfit) -> Trouble {
    let (status, code) = match why {
        Unfit::Framing => (StatusCode::BAD_REQUEST, "REQUEST_UNFIT"),
        Unfit::Method => (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED"),
    };
    Trouble::new((status, code, "the request will not do"), why.to_string(), "")
}

/// Takes an app's word on other sites' pages out.
fn strip_cors(headers: &mut HeaderMap) {
    for name in [
        ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_ALLOW_CREDENTIALS,
        ACCESS_CONTROL_ALLOW_METHODS,
        ACCESS_CONTROL_ALLOW_HEADERS,
        ACCESS_CONTROL_MAX_AGE,
    ] {
        headers.remove(name);
    }
}
