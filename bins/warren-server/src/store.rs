//! What the server remembers: users, workspaces, agents and tokens, behind one port.

use crate::auth::TokenKind;
use futures_util::future::BoxFuture;
use proto_core::wire::api::{Role, TokenScope};

pub(crate) mod apps;
pub(crate) mod migrate;
pub(crate) mod people;
mod sqlite;
#[cfg(test)]
mod tests;

pub(crate) use apps::Apps;
pub(crate) use people::People;
pub(crate) use sqlite::{Location, SqliteStore};

/// What a store answers, later.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Workspaces of one owner: bounds what one person's script can make of the database.
pub(crate) const WORKSPACES_PER_OWNER_MAX: i64 = 1_000;

/// Node keys remembered of one token: a machine has one, and a few more when its state was lost.
pub(crate) const KEYS_PER_TOKEN_MAX: i64 = 16;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The name is in use.
    #[error("the name is taken")]
    Taken,
    /// The row is not there, or no longer.
    #[error("it does not exist")]
    Missing,
    /// There are as many as there may be.
    #[error("there are too many")]
    TooMany,
    /// Nobody would be left who owns the server.
    #[error("the last owner stays")]
    LastOwner,
    /// The database failed.
    #[error("the database failed: {0}")]
    Database(String),
}

/// A person.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct UserRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) role: Role,
    /// A PHC string; empty if the person has no password here.
    pub(crate) password_hash: String,
    /// Unix milliseconds.
    pub(crate) created_at: i64,
    /// Since when the person is locked out, in unix milliseconds.
    pub(crate) disabled_at: Option<i64>,
}

/// A workspace with its owner's name and its agents.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WorkspaceRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) owner_id: String,
    pub(crate) owner: String,
    /// Unix milliseconds.
    pub(crate) created_at: i64,
    pub(crate) agents: Vec<AgentRow>,
    /// Whether it is known to be shared with whoever asks.
    pub(crate) shared: bool,
}

impl WorkspaceRow {
    /// Whether it is this person's own.
    pub(crate) fn is_of(&self, user: &UserRow) -> bool {
        self.owner_id == user.id
    }

    /// What everybody may call it: `owner/name`.
    pub(crate) fn path(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }
}

/// An agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AgentRow {
    pub(crate) id: String,
    pub(crate) name: String,
    /// Unix milliseconds.
    pub(crate) last_seen_at: Option<i64>,
    pub(crate) version: Option<String>,
}

/// A token that is known, perhaps expired, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TokenRow {
    pub(crate) id: String,
    pub(crate) kind: TokenKind,
    pub(crate) sha256: Vec<u8>,
    pub(crate) user: Option<UserRow>,
    pub(crate) agent_id: Option<String>,
    /// What it may be used for.
    pub(crate) scope: TokenScope,
    /// Unix milliseconds; never if absent.
    pub(crate) expires_at: Option<i64>,
    /// Unix milliseconds; never if absent.
    pub(crate) last_used_at: Option<i64>,
}

impl TokenRow {
    /// Whether it is no longer valid at `now`, unix milliseconds.
    pub(crate) fn has_ended(&self, now: i64) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// A token to remember.
#[derive(Clone, Debug)]
pub(crate) struct NewToken {
    pub(crate) kind: TokenKind,
    pub(crate) sha256: [u8; 32],
    pub(crate) user_id: Option<String>,
    pub(crate) agent_id: Option<String>,
    pub(crate) name: String,
    pub(crate) scope: TokenScope,
    pub(crate) expires_at: Option<i64>,
}

impl NewToken {
    const fn plain(kind: TokenKind, sha256: [u8; 32]) -> Self {
        let (user_id, agent_id, expires_at) = (None, None, None);
        Self { kind, sha256, user_id, agent_id, name: String::new(), scope: TokenScope::All, expires_at }
    }

    /// One that makes the owner.
    pub(crate) const fn of_setup(sha256: [u8; 32]) -> Self {
        Self::plain(TokenKind::Setup, sha256)
    }

    /// A login's.
    pub(crate) fn of_session(sha256: [u8; 32], user_id: &str, expires_at: i64) -> Self {
        let plain = Self::plain(TokenKind::Session, sha256);
        Self { user_id: Some(user_id.to_owned()), expires_at: Some(expires_at), ..plain }
    }

    /// An agent's.
    pub(crate) fn of_agent(sha256: [u8; 32], agent_id: &str) -> Self {
        Self { agent_id: Some(agent_id.to_owned()), ..Self::plain(TokenKind::Agent, sha256) }
    }
}

/// A user to make.
#[derive(Clone, Debug)]
pub(crate) struct NewUser {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// A PHC string; empty if the person has no password here.
    pub(crate) password_hash: String,
    /// Issuer and subject, of somebody who logs in by a provider.
    pub(crate) oidc: Option<(String, String)>,
}

/// The port. Times are unix milliseconds and always arguments: a store reads no clock.
pub(crate) trait Store: People + Apps + Send + Sync {
    /// Whether the database answers, and would take what is written.
    fn ping(&self) -> Answer<'_, ()>;
    /// The secret of this name; `fresh` becomes it if there is none yet.
    fn secret<'a>(&'a self, name: &'a str, fresh: [u8; 32]) -> Answer<'a, [u8; 32]>;
    /// Whether the owner is still to be made.
    fn setup_required(&self) -> Answer<'_, bool>;
    /// Makes the first user, using up the setup token; [`StoreError::Missing`] if there is no such token (or it
    /// was used up meanwhile).
    fn set_up(&self, setup_sha256: [u8; 32], owner: NewUser, now: i64) -> Answer<'_, UserRow>;
    /// Makes a user.
    fn create_user(&self, user: NewUser, now: i64) -> Answer<'_, UserRow>;
    /// A user by name.
    fn user_by_name<'a>(&'a self, name: &'a str) -> Answer<'a, Option<UserRow>>;
    /// All users, by name.
    fn users(&self) -> Answer<'_, Vec<UserRow>>;
    /// Remembers a token; its row's id. A setup token replaces the setup tokens before it, a login the one that was used
    /// longest ago if its person has too many; [`StoreError::TooMany`] if there are too many for programs.
    fn add_token(&self, token: NewToken, now: i64) -> Answer<'_, String>;
    /// The token of this hash.
    fn token(&self, sha256: [u8; 32]) -> Answer<'_, Option<TokenRow>>;
    /// Forgets a token, by its row's id.
    fn remove_token<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Forgets what expired before `before`; tells how many.
    fn remove_expired(&self, before: i64) -> Answer<'_, u64>;
    /// Makes a workspace with one agent, `main`, and the agent's token.
    fn create_workspace<'a>(
        &'a self,
        owner: &'a UserRow,
        name: &'a str,
        agent_sha256: [u8; 32],
        now: i64,
    ) -> Answer<'a, WorkspaceRow>;
    /// The workspaces that one user (an id) owns or has shared, or all, by owner and name.
    fn workspaces<'a>(&'a self, user_id: Option<&'a str>) -> Answer<'a, Vec<WorkspaceRow>>;
    /// Forgets a workspace, its agents and their tokens.
    fn delete_workspace<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// Notes that the bearer of a token (a row's id) has connected with this node key. Of one token the latest
    /// [`KEYS_PER_TOKEN_MAX`] keys are remembered, as long as the token is.
    fn note_node_key<'a>(&'a self, token_id: &'a str, node_key: [u8; 32], now: i64) -> Answer<'a, ()>;
    /// Whether the bearer of a token that is good at `now` has connected with this node key.
    fn knows_node_key(&self, node_key: [u8; 32], now: i64) -> Answer<'_, bool>;
    /// Notes that agents are there, or were until now; a version that is not given stays.
    fn agents_seen<'a>(&'a self, agents: &'a [(String, Option<String>)], now: i64) -> Answer<'a, ()>;
}
