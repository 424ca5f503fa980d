//! What every request needs at hand.

use crate::api::terminal::Terminals;
use crate::apps::Apps;
use crate::auth::device::Devices;
use crate::auth::guesses::Guesses;
use crate::auth::oidc::Provider;
use crate::auth::password::Passwords;
use crate::auth::rates::Rates;
use crate::changes::Changes;
use crate::clock::Clock;
use crate::health::Health;
use crate::hub::Hub;
use crate::metrics::Requests;
use crate::node::OwnNode;
use crate::settings::{AccessUrl, Network};
use crate::store::Store;
use crate::tunnels::Tunnels;
use proto_core::relay_map::RelayMap;
use std::sync::Arc;
use tokio::sync::watch;

/// The server's parts, shared by all requests.
pub(crate) struct App {
    /// What is remembered.
    pub(crate) store: Arc<dyn Store>,
    /// What time it is.
    pub(crate) clock: Clock,
    /// Where passwords are hashed and checked.
    pub(crate) passwords: Passwords,
    /// Who guessed wrong, and how often.
    pub(crate) guesses: Guesses,
    /// Logins that wait to be confirmed in a browser.
    pub(crate) devices: Devices,
    /// Who asked about node keys that nobody here has, and how often.
    pub(crate) key_guesses: Guesses,
    /// Whose failed logins were noted in the audit log, and how many.
    pub(crate) failed_logins: Guesses,
    /// The OpenID Connect provider to log in by, if there is one.
    pub(crate) oidc: Option<Provider>,
    /// Tells whoever serves somebody for long to look again whether he may.
    pub(crate) revocations: watch::Sender<()>,
    /// How many requests each token and each address has left.
    pub(crate) rates: Rates,
    /// Proxies whose word on their clients' addresses counts.
    pub(crate) trusted_proxies: Vec<Network>,
    /// Where users and agents find this server.
    pub(crate) access_url: AccessUrl,
    /// The coordinator, the relay, and who is there.
    pub(crate) hub: Arc<Hub>,
    /// The server's own node: the way into workspaces.
    pub(crate) node: Arc<OwnNode>,
    /// Web apps, and who was let to them.
    pub(crate) apps: Apps,
    /// Who has terminals open in browsers.
    pub(crate) terminals: Arc<Terminals>,
    /// The tunnels to workspaces, as nodes tell of them.
    pub(crate) tunnels: Arc<Tunnels>,
    /// Requests answered.
    pub(crate) requests: Requests,
    /// Whether all is well.
    pub(crate) health: Health,
    /// What those who follow the server live are told.
    pub(crate) changes: Changes,
    /// The settings in force, and where they come from.
    pub(crate) settings: Vec<warren_settings::Row>,
    /// When it was started, unix milliseconds, and under which name.
    pub(crate) started: (i64, uuid::Uuid),
    /// The relay map in force.
    pub(crate) relay_map: watch::Receiver<RelayMap>,
    /// True once the server is about to stop.
    pub(crate) draining: watch::Receiver<bool>,
    /// Why the STUN server answers nobody, while that is so.
    pub(crate) stun_down: watch::Receiver<Option<String>>,
}

/// A handle to them.
pub(crate) type Shared = Arc<App>;

impl App {
    /// Some token, person or share is good no more: connections that depend on one end.
    pub(crate) fn revoked(&self) {
        self.apps.changed(self.clock.now());
        self.revocations.send_replace(());
    }
}
