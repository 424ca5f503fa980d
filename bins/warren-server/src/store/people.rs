//! What is remembered of people: who they are, their tokens, whom they share with, and what was done.

use super::{Answer, UserRow};
use crate::auth::TokenKind;
use proto_core::wire::api::{Role, TokenScope};
use std::collections::BTreeSet;

/// Tokens for programs that one person may have: bounds what a script can make of the database.
pub(crate) const TOKENS_PER_USER_MAX: i64 = 100;
/// Logins of one person. A next one ends the one that was used longest ago: a script may log in anew each time.
pub(crate) const SESSIONS_PER_USER_MAX: i64 = 200;
/// People whom one workspace may be shared with.
pub(crate) const SHARES_PER_WORKSPACE_MAX: i64 = 200;

/// What changes of a person; what is absent stays.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserChange {
    pub(crate) role: Option<Role>,
    pub(crate) password_hash: Option<String>,
    pub(crate) disabled: Option<bool>,
}

/// A token in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TokenListed {
    pub(crate) id: String,
    pub(crate) kind: TokenKind,
    pub(crate) name: String,
    pub(crate) scope: TokenScope,
    /// Unix milliseconds.
    pub(crate) created_at: i64,
    pub(crate) expires_at: Option<i64>,
    pub(crate) last_used_at: Option<i64>,
}

/// A person whom a workspace is shared with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ShareRow {
    pub(crate) user: String,
    /// Unix milliseconds.
    pub(crate) created_at: i64,
}

/// Something that was done, or tried.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct AuditRow {
    /// Greater than those before it.
    pub(crate) id: String,
    /// Unix milliseconds.
    pub(crate) at: i64,
    pub(crate) actor: String,
    pub(crate) action: String,
    pub(crate) target: String,
    pub(crate) address: String,
    pub(crate) request_id: String,
    pub(crate) detail: String,
}

/// The port's part about people.
pub(crate) trait People: Send + Sync {
    /// A user by id.
    fn user<'a>(&'a self, id: &'a str) -> Answer<'a, Option<UserRow>>;
    /// The user that this provider calls so.
    fn user_by_oidc<'a>(&'a self, issuer: &'a str, subject: &'a str) -> Answer<'a, Option<UserRow>>;
    /// Changes a user; [`StoreError::LastOwner`](super::StoreError::LastOwner) if nobody would be left who owns the
    /// server.
    fn change_user<'a>(&'a self, id: &'a str, change: UserChange, now: i64) -> Answer<'a, UserRow>;
    /// Forgets a user with all that is theirs; as [`People::change_user`] for the last owner.
    fn delete_user<'a>(&'a self, id: &'a str) -> Answer<'a, ()>;
    /// A user's logins and tokens that are good at `now`, the newest first.
    fn tokens_of<'a>(&'a self, user_id: &'a str, now: i64) -> Answer<'a, Vec<TokenListed>>;
    /// Forgets a login or token by its row's id, if it is this user's, or anybody's without one.
    fn revoke_token<'a>(&'a self, id: &'a str, user_id: Option<&'a str>) -> Answer<'a, ()>;
    /// Forgets a user's logins, except one; the ids of those that are gone.
    fn end_sessions<'a>(&'a self, user_id: &'a str, except: Option<&'a str>) -> Answer<'a, Vec<String>>;
    /// Notes that a token was used.
    fn token_used<'a>(&'a self, id: &'a str, now: i64) -> Answer<'a, ()>;
    /// Gives an agent another token; the ids of those before it.
    fn replace_agent_token<'a>(
        &'a self,
        agent_id: &'a str,
        sha256: [u8; 32],
        now: i64,
    ) -> Answer<'a, Vec<String>>;
    /// Whom a workspace is shared with, by name.
    fn shares<'a>(&'a self, workspace_id: &'a str) -> Answer<'a, Vec<ShareRow>>;
    /// The ids of the workspaces that are shared with a user.
    fn shared_with<'a>(&'a self, user_id: &'a str) -> Answer<'a, BTreeSet<String>>;
    /// Shares a workspace with a user.
    fn share<'a>(&'a self, workspace_id: &'a str, user_id: &'a str, now: i64) -> Answer<'a, ()>;
    /// Takes it back; [`StoreError::Missing`](super::StoreError::Missing) if it was not shared.
    fn unshare<'a>(&'a self, workspace_id: &'a str, user_id: &'a str) -> Answer<'a, ()>;
    /// Whether a user, not locked out, owns the agent's workspace or has it shared.
    fn may_reach<'a>(&'a self, user_id: &'a str, agent_id: &'a str) -> Answer<'a, bool>;
    /// Notes what was done.
    fn note(&self, entry: AuditRow) -> Answer<'_, ()>;
    /// The `limit` newest entries before this one, or of all.
    fn noted<'a>(&'a self, before: Option<&'a str>, limit: i64) -> Answer<'a, Vec<AuditRow>>;
    /// Forgets entries from before this time; tells how many.
    fn forget_noted(&self, before: i64) -> Answer<'_, u64>;
}
