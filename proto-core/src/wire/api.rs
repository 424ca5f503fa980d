//! The documents of the server's REST API, `/api/v1`: JSON over HTTP, shared by the server and its clients.
//!
//! The same rule holds as for coordination messages: the format only grows. Unknown fields are ignored,
//! absent ones have defaults. Times are RFC 3339 in UTC.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST /api/v1/setup` | [`Setup`] | 201 [`Grant`] |
//! | `POST /api/v1/login` | [`Login`] | 200 [`Grant`] |
//! | `POST /api/v1/logout` | | 204 |
//! | `GET /api/v1/me` | | [`Me`] |
//! | `GET /api/v1/users` | | [`Users`] |
//! | `POST /api/v1/users` | [`CreateUser`] | 201 [`User`] |
//! | `GET /api/v1/workspaces` | | [`Workspaces`] |
//! | `POST /api/v1/workspaces` | [`CreateWorkspace`] | 201 [`CreatedWorkspace`] |
//! | `GET /api/v1/workspaces/NAME`, `…/OWNER/NAME` | | [`Workspace`] |
//! | `DELETE /api/v1/workspaces/NAME`, `…/OWNER/NAME` | | 204 |
//! | `GET /api/v1/buildinfo` | | [`BuildInfo`] |
//! | `GET /api/v1/derp-map` | | [`crate::relay_map::RelayMap`] |
//! | `GET /api/v1/coordinate` | | a WebSocket of [`super::control`] messages |
//!
//! Those about people, tokens and sharing are in the room `people`, those about web apps in `apps`.
//!
//! Every answer of 400 and above is a [`Problem`]. Tokens travel as `Authorization: Bearer …`, those of browsers as a
//! cookie; then whatever changes something, and every WebSocket, must come from a page of the server itself, by its
//! `Origin` or `Sec-Fetch-Site`. Every answer names the server's version in [`VERSION_HEADER`] and the request in
//! [`REQUEST_ID_HEADER`].

mod apps;
mod people;

pub use apps::{AppScheme, AppSharing, SetWebApp, WebApp, WebApps};
pub use people::{
    Access, AgentToken, Audit, AuditEntry, ChangePassword, ChangeUser, CreateToken, CreatedToken,
    LoginMethods, OidcMethod, Share, Shares, TokenInfo, TokenScope, TokenUse, Tokens,
};

use crate::id::{NodeId, RegionId};
use serde::{Deserialize, Serialize};

/// The header of every answer that names the server's version, so that a client learns of it without asking.
pub const VERSION_HEADER: &str = "warren-version";

/// The header of every answer that names the request, as the server's log does.
pub const REQUEST_ID_HEADER: &str = "warren-request-id";

/// Makes the first user, the owner, with the one-time token that the server prints at its first start.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Setup {
    /// The one-time token, `warren_setup_…`.
    pub token: String,
    /// The owner's name.
    pub username: String,
    /// The owner's password.
    pub password: String,
    /// Whether the token is to be kept in a cookie that scripts cannot read, instead of in the answer: for browsers.
    #[serde(default)]
    pub cookie: bool,
}

/// Asks for a session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Login {
    /// The user's name.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// Whether the token is to be kept in a cookie that scripts cannot read, instead of in the answer: for browsers.
    #[serde(default)]
    pub cookie: bool,
}

/// A new session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grant {
    /// The session token, `warren_session_…`. It is shown only here, and empty if it went into a cookie.
    pub token: String,
    /// When it ends.
    pub expires_at: String,
    /// Whose it is.
    pub user: User,
}

/// A login that is confirmed in a browser: what the program that asked for it needs (RFC 8628, section 3.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceLogin {
    /// What the program fetches its session with. Nobody else may see it.
    pub device_code: String,
    /// What the person compares and types, such as `WDJB-MJHT`.
    pub user_code: String,
    /// The page where that is done.
    pub verification_url: String,
    /// For how many seconds.
    pub expires_in: u64,
    /// Seconds from one question to the next.
    pub interval: u64,
}

/// Confirms a login that a program waits for, by a name and a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApproveDevice {
    /// The code that the program shows.
    pub user_code: String,
    /// Who confirms it.
    #[serde(flatten)]
    pub login: Login,
}

/// Confirms a login that a program waits for, by the session that the question comes with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ConfirmDevice {
    /// The code that the program shows.
    pub user_code: String,
}

/// Asks whether the login has been confirmed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AskDevice {
    /// [`DeviceLogin::device_code`].
    pub device_code: String,
}

/// The answer to [`AskDevice`].
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DeviceGrant {
    /// The session, once it was confirmed.
    pub grant: Option<Grant>,
}

/// What a person may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Owner,
    /// Users, health and settings.
    Admin,
    /// Own workspaces, and those shared with them. Roles that this build does not know are taken for it.
    #[default]
    #[serde(other)]
    Member,
}

impl Role {
    /// Whether this role sees and changes what belongs to others.
    #[must_use]
    pub const fn administers(self) -> bool {
        matches!(self, Self::Owner | Self::Admin)
    }
}

/// A person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct User {
    /// The person's identifier, a UUID.
    pub id: String,
    /// The name to log in with.
    pub name: String,
    /// What the person may do.
    #[serde(default)]
    pub role: Role,
    /// Since when.
    #[serde(default)]
    pub created_at: String,
    /// Whether the person is locked out.
    #[serde(default)]
    pub disabled: bool,
}

/// Who the bearer of a session token is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Me {
    /// The person.
    pub user: User,
    /// When the session ends.
    #[serde(default)]
    pub expires_at: String,
}

/// Makes a user; for owners and admins.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateUser {
    /// The name.
    pub username: String,
    /// The first password.
    pub password: String,
    /// The role, a member's if absent.
    #[serde(default)]
    pub role: Role,
}

/// All users.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Users {
    /// Ordered by name.
    pub users: Vec<User>,
}

/// Makes a workspace with one agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateWorkspace {
    /// Its name, one DNS label.
    pub name: String,
}

/// A workspace just made.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedWorkspace {
    /// The workspace.
    pub workspace: Workspace,
    /// Its agent's token, `warren_agent_…`. It is shown only here.
    pub agent_token: String,
    /// The command that starts the agent in the workspace.
    #[serde(default)]
    pub command: String,
}

/// The workspaces that the asker may see.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Workspaces {
    /// Ordered by owner and name.
    pub workspaces: Vec<Workspace>,
}

/// A workspace.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Workspace {
    /// Its identifier, a UUID.
    pub id: String,
    /// Its name, unique for its owner.
    pub name: String,
    /// Its owner's name.
    pub owner: String,
    /// Why the asker sees it.
    #[serde(default)]
    pub access: Access,
    /// Connected if an agent is.
    #[serde(default)]
    pub status: AgentStatus,
    /// When it was made.
    #[serde(default)]
    pub created_at: String,
    /// Its agents.
    #[serde(default)]
    pub agents: Vec<Agent>,
    /// The path of its best tunnel; absent if it has none.
    #[serde(default)]
    pub path: Option<WorkspacePath>,
    /// That path's round trip, if it is direct and known.
    #[serde(default)]
    pub latency_ms: Option<f64>,
    /// Bytes of data that came from the workspace through that tunnel.
    #[serde(default)]
    pub rx_bytes: Option<u64>,
    /// Bytes of data that went to the workspace.
    #[serde(default)]
    pub tx_bytes: Option<u64>,
}

/// Which way a tunnel leads.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkspacePath {
    /// Directly, or through a relay.
    #[serde(default)]
    pub kind: PathKind,
    /// The relay's region by its short name, if it is relayed.
    #[serde(default)]
    pub relay: Option<String>,
    /// The agent's address, if it is direct.
    #[serde(default)]
    pub address: Option<String>,
}

/// The kinds of paths.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// Straight to the peer.
    Direct,
    /// Through a relay.
    Relay,
    /// No way is known.
    #[default]
    #[serde(other)]
    None,
}

/// Whether an agent is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AgentStatus {
    /// It holds a session with the coordinator.
    Connected,
    /// It does not.
    #[default]
    #[serde(other)]
    Offline,
}

/// A workspace's agent.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Agent {
    /// Who it is for the coordinator: what a client opens its tunnel to.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub id: NodeId,
    /// Its name within the workspace.
    pub name: String,
    /// Whether it is there.
    #[serde(default)]
    pub status: AgentStatus,
    /// When it was last there; absent if never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<String>,
    /// Its program and version; absent if it was never there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The region of its home relay, while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<u64>))]
    pub home_relay: Option<RegionId>,
    /// Its node key, while it is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub node_key: Option<crate::key::NodePublic>,
}

/// What the server is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BuildInfo {
    /// `warren-server`.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The version of coordination that it speaks.
    #[serde(default)]
    pub coordination: String,
    /// Where users and agents find the server.
    #[serde(default)]
    pub access_url: String,
    /// Whether the owner is still to be made with the one-time token.
    #[serde(default)]
    pub setup_required: bool,
}

/// Why a request was not done (RFC 9457, `application/problem+json`).
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The HTTP status.
    #[serde(default)]
    pub status: u16,
    /// A code that programs may rely on, such as `WORKSPACE_NOT_FOUND`.
    #[serde(default)]
    pub code: String,
    /// The kind of problem in a few words, the same for every occurrence.
    #[serde(default)]
    pub title: String,
    /// What happened this time, one sentence.
    #[serde(default)]
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// The request, as the answer's header [`REQUEST_ID_HEADER`] and the server's log name it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// Existing names like the one that was not found, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_roles_and_states_read_as_the_weaker_one() {
        assert_eq!(serde_json::from_str::<Role>("\"emperor\"").unwrap(), Role::Member);
        assert_eq!(serde_json::from_str::<AgentStatus>("\"asleep\"").unwrap(), AgentStatus::Offline);
        assert_eq!(serde_json::to_string(&Role::Owner).unwrap(), "\"owner\"");
    }

    #[test]
    fn an_old_server_without_the_newer_fields_is_understood() {
        let workspace: Workspace =
            serde_json::from_str(r#"{"id":"1","name":"dev","owner":"alice","colour":"red"}"#).unwrap();
        assert_eq!(workspace.status, AgentStatus::Offline);
        assert!(workspace.agents.is_empty());
    }
}
