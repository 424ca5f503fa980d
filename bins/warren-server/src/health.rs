//! Is the server well? Checks that do what users and nodes do: they ask the access URL, exchange messages through
//! every relay of the map, and ask every STUN server.

mod checks;
mod probe;

use crate::app::App;
use io_adapters::relay_stream::Dialer;
use io_adapters::relay_stream::proxy::Proxies;
use io_adapters::relay_stream::tls::Trust;
use io_adapters::transport::TokioNetwork;
use proto_core::id::RegionId;
use proto_core::key::NodeSecret;
use proto_core::machine::StreamProtocol;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, watch};
use utoipa::ToSchema;

/// How long what was seen is good: whoever looks at a page twice makes the server look once.
const FRESH: Duration = Duration::from_secs(10);
/// How often it looks by itself, so that metrics and logs know.
pub(crate) const EVERY: Duration = Duration::from_secs(60);
/// How long a single check may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How well something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    /// It works.
    Ok,
    /// It works, with less than it should have.
    Warning,
    /// It does not work.
    Error,
}

/// One check and what it found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub(crate) struct Check {
    /// A code that programs may rely on, such as `ACCESS_URL`.
    pub(crate) code: &'static str,
    /// What was checked, for people.
    pub(crate) name: String,
    /// What came out.
    pub(crate) status: Level,
    /// What was seen, one sentence.
    pub(crate) detail: String,
    /// What is likely to be behind it, if it is not well.
    pub(crate) cause: Option<&'static str>,
    /// What to do about it.
    pub(crate) remedy: Option<&'static str>,
    /// When, RFC 3339.
    pub(crate) checked_at: String,
    /// How long it took, in milliseconds.
    pub(crate) duration_ms: u64,
}

/// What was seen of one relay or STUN server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct NodeSeen {
    /// The round trip of a message through its relay, if it has one.
    pub(crate) derp: Option<Result<Duration, String>>,
    /// The round trip to its STUN server, if it has one.
    pub(crate) stun: Option<Result<Duration, String>>,
    /// How long it took to find that out.
    pub(crate) took: Duration,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The checks, in the order of what depends on what.
    pub(crate) checks: Vec<Check>,
    /// The nodes of the relay map, by region and name.
    pub(crate) nodes: BTreeMap<(RegionId, String), NodeSeen>,
}

impl Seen {
    /// The worst of all.
    pub(crate) fn level(&self) -> Level {
        self.checks.iter().map(|check| check.status).max().unwrap_or(Level::Ok)
    }
}

/// Who looks, and what was seen last.
pub(crate) struct Health {
    /// The key that messages through relays are exchanged under.
    key: NodeSecret,
    dialer: Dialer<TokioNetwork>,
    /// How relays are asked: as nodes are told to ask them.
    protocol: StreamProtocol,
    looking: Mutex<Option<Instant>>,
    seen: watch::Sender<Arc<Seen>>,
}

impl Health {
    /// Nothing was seen yet.
    pub(crate) fn new(key: [u8; 32], websockets: bool) -> Self {
        let dialer =
            Dialer { network: TokioNetwork, trust: Trust::system(), proxies: Proxies::from_environment() };
        let key = NodeSecret::from_bytes(key);
        let protocol = if websockets { StreamProtocol::DerpInWebSocket } else { StreamProtocol::Derp };
        Self { key, dialer, protocol, looking: Mutex::default(), seen: watch::channel(Arc::default()).0 }
    }

    /// Whether this is the key of our own messages: relays that ask who may use them let it in.
    pub(crate) fn is_own_key(&self, key: &proto_core::key::NodePublic) -> bool {
        self.key.public() == *key
    }

    /// What was seen last, at whatever time.
    pub(crate) fn last(&self) -> Arc<Seen> {
        Arc::clone(&self.seen.borrow())
    }

    /// What is seen now, or was a moment ago. Those who ask at once wait for one answer.
    pub(crate) async fn look(&self, app: &App) -> Arc<Seen> {
        let mut looked = self.looking.lock().await;
        if looked.is_none_or(|at| at.elapsed() >= FRESH) {
            let seen = Arc::new(checks::all(self, app).await);
            self.seen.send_replace(seen);
            *looked = Some(Instant::now());
        }
        self.last()
    }
}

/// Looks again and again, and says in the log what has changed.
pub(crate) async fn watch(app: Arc<App>) {
    let mut before = BTreeMap::new();
    loop {
        let seen = app.health.look(&app).await;
        for check in &seen.checks {
            let was = before.insert((check.code, check.name.clone()), check.status);
            match (was, check.status) {
                (Some(was), now) if was == now => {}
                (None, Level::Ok) => {}
                (_, Level::Ok) => tracing::info!(code = check.code, "{} is well again", check.name),
                (_, _) => tracing::warn!(code = check.code, "{}: {}", check.name, check.detail),
            }
        }
        tokio::time::sleep(EVERY).await;
    }
}
