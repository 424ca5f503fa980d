//! People, what they log in with, whom they share with, and who did what.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /api/v1/login/methods` | | [`LoginMethods`] |
//! | `GET /api/v1/login/oidc`, `…/callback` | | redirects to the provider, and back |
//! | `POST /api/v1/me/password` | [`ChangePassword`] | 204 |
//! | `PATCH /api/v1/users/ID` | [`ChangeUser`] | [`User`](super::User) |
//! | `DELETE /api/v1/users/ID` | | 204 |
//! | `GET /api/v1/tokens` | | [`Tokens`] |
//! | `POST /api/v1/tokens` | [`CreateToken`] | 201 [`CreatedToken`] |
//! | `DELETE /api/v1/tokens/ID` | | 204 |
//! | `POST /api/v1/workspaces/OWNER/NAME/agents/AGENT/token` | | 201 [`AgentToken`] |
//! | `GET /api/v1/workspaces/OWNER/NAME/shares` | | [`Shares`] |
//! | `PUT`, `DELETE …/shares/USER` | | 204 |
//! | `GET /api/v1/audit?before=ID&limit=N` | | [`Audit`] |

use super::Role;
use serde::{Deserialize, Serialize};

/// How one may log in here.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LoginMethods {
    /// By name and password.
    #[serde(default)]
    pub password: bool,
    /// By an OpenID Connect provider, if the server has one.
    #[serde(default)]
    pub oidc: Option<OidcMethod>,
}

/// An OpenID Connect provider to log in with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct OidcMethod {
    /// What people call it.
    pub name: String,
}

/// Changes one's own password and ends all other sessions.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangePassword {
    /// The password until now.
    pub old: String,
    /// The password from now on.
    pub new: String,
}

/// Changes a person; for owners and admins. What is absent stays.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChangeUser {
    /// The role. Only owners make owners.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// A new password: it ends the person's sessions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Whether the person is locked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// What a token may be used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TokenScope {
    /// Whatever its owner may do.
    All,
    /// Looking, and nothing else: no changes, tunnels or terminals. Scopes that this build does not know are taken
    /// for it.
    #[default]
    #[serde(other)]
    Read,
}

/// What opens the API.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TokenUse {
    /// Made for a program, `warren_api_…`.
    Api,
    /// A login, `warren_session_…`.
    #[default]
    #[serde(other)]
    Session,
}

/// A token, without its text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TokenInfo {
    /// Its identifier, a UUID.
    pub id: String,
    /// What its owner calls it; empty for logins.
    #[serde(default)]
    pub name: String,
    /// What it is.
    #[serde(default)]
    pub kind: TokenUse,
    /// What it may be used for.
    #[serde(default)]
    pub scope: TokenScope,
    /// Since when.
    #[serde(default)]
    pub created_at: String,
    /// Until when.
    #[serde(default)]
    pub expires_at: Option<String>,
    /// When it was last used, to the minute; absent if never.
    #[serde(default)]
    pub last_used_at: Option<String>,
    /// Whether this request came with it.
    #[serde(default)]
    pub current: bool,
}

/// One's tokens and logins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tokens {
    /// The newest first.
    pub tokens: Vec<TokenInfo>,
}

/// Makes a token for a program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreateToken {
    /// What to call it.
    pub name: String,
    /// What it may be used for.
    #[serde(default)]
    pub scope: TokenScope,
    /// For how many days, 1 to 365; 90 if absent.
    #[serde(default)]
    pub expires_in_days: Option<u32>,
}

/// A token just made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CreatedToken {
    /// Its text, `warren_api_…`. It is shown only here.
    pub token: String,
    /// The token.
    pub info: TokenInfo,
}

/// An agent's new token; the one before it is good no more.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AgentToken {
    /// Its text, `warren_agent_…`. It is shown only here.
    pub agent_token: String,
    /// The command that starts the agent with it.
    pub command: String,
}

/// Whom a workspace is shared with.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Shares {
    /// Ordered by name.
    pub shares: Vec<Share>,
}

/// A person whom a workspace is shared with: sees and uses it, but neither deletes it nor shares it on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Share {
    /// The person's name.
    pub user: String,
    /// Since when.
    #[serde(default)]
    pub created_at: String,
}

/// Why somebody sees a workspace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// It is the asker's own.
    Owner,
    /// The asker administers the server: may look, share and delete, and uses it only if it is shared.
    Admin,
    /// It is shared with the asker: may look and use it. Words that this build does not know are taken for it.
    #[default]
    #[serde(other)]
    Shared,
}

/// Who did what, the newest first; for owners and admins.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Audit {
    /// At most as many as asked for. The last one's `id` is the next question's `before`.
    pub entries: Vec<AuditEntry>,
}

/// Something that was done, or tried.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditEntry {
    /// Its identifier; later ones are greater.
    pub id: String,
    /// When.
    pub at: String,
    /// Who, by name as it was then; empty if nobody was logged in.
    #[serde(default)]
    pub actor: String,
    /// What, such as `workspace.delete`.
    pub action: String,
    /// To whom or what.
    #[serde(default)]
    pub target: String,
    /// From which address.
    #[serde(default)]
    pub address: String,
    /// The request, as in its answer and in the server's log.
    #[serde(default)]
    pub request_id: String,
    /// More about it, in words.
    #[serde(default)]
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_words_read_as_the_weaker_ones() {
        assert_eq!(serde_json::from_str::<TokenScope>("\"everything\"").unwrap(), TokenScope::Read);
        assert_eq!(serde_json::from_str::<Access>("\"god\"").unwrap(), Access::Shared);
        assert_eq!(serde_json::to_string(&TokenScope::All).unwrap(), "\"all\"");
        let token: CreateToken = serde_json::from_str(r#"{"name":"ci"}"#).unwrap();
        assert_eq!((token.scope, token.expires_in_days), (TokenScope::Read, None));
    }
}
