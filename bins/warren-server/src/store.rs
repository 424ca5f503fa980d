//! What the server remembers: users, workspaces, agents and tokens, behind one port.

use crate::auth::TokenKind;
use futures_util::future::BoxFuture;
use proto_core::wire::api::Role;

pub(crate) mod migrate;
mod sqlite;
#[cfg(test)]
mod tests;

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
    /// A PHC string.
    pub(crate) password_hash: String,
    /// Unix milliseconds.
    pub(crate) created_at: i64,
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
    /// Unix milliseconds; never if absent.
    pub(crate) expires_at: Option<i64>,
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
    pub(crate) expires_at: Option<i64>,
}

/// A user to make.
#[derive(Clone, Debug)]
pub(crate) struct NewUser {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) password_hash: String,
}

/// The port. Times are unix milliseconds and always arguments: a store reads no clock.
pub(crate) trait Store: Send + Sync {
    /// Whether the database answers.
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
    /// Remembers a token. A setup token replaces the setup tokens before it.
    fn add_token(&self, token: NewToken, now: i64) -> Answer<'_, ()>;
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
    /// The workspaces of one owner (an id), or all, by owner and name.
    fn workspaces<'a>(&'a self, owner_id: Option<&'a str>) -> Answer<'a, Vec<WorkspaceRow>>;
    /// Forgets a workspace, its agents and their tokens.
    fn delete_workspace<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// The id of the user who owns the agent's workspace.
    fn agent_owner<'a>(&'a self, agent_id: &'a str) -> Answer<'a, Option<String>>;
    /// Notes that the bearer of a token (a row's id) has connected with this node key. Of one token the latest
    /// [`KEYS_PER_TOKEN_MAX`] keys are remembered, as long as the token is.
    fn note_node_key<'a>(&'a self, token_id: &'a str, node_key: [u8; 32], now: i64) -> Answer<'a, ()>;
    /// Whether the bearer of a token that is good at `now` has connected with this node key.
    fn knows_node_key(&self, node_key: [u8; 32], now: i64) -> Answer<'_, bool>;
    /// Notes that agents are there, or were until now; a version that is not given stays.
    fn agents_seen<'a>(&'a self, agents: &'a [(String, Option<String>)], now: i64) -> Answer<'a, ()>;
}
