//! Web apps of workspaces: what opens in a browser, and for whom.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `GET /api/v1/workspaces/OWNER/NAME/apps` | | [`WebApps`] |
//! | `GET …/apps/SLUG` | | [`WebApp`] |
//! | `PUT …/apps/SLUG` | [`SetWebApp`] | [`WebApp`] |
//! | `DELETE …/apps/SLUG` | | 204 |

use serde::{Deserialize, Serialize};

/// Who may open an app.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AppSharing {
    /// Everybody who can reach the server.
    Public,
    /// Everybody who has logged in.
    SignedIn,
    /// The workspace's owner, and those whom the workspace is shared with. Levels that this build does not know are
    /// taken for it.
    #[default]
    #[serde(other)]
    Owner,
}

impl AppSharing {
    /// The level, or the greatest allowed if that lets fewer in.
    #[must_use]
    pub const fn at_most(self, most: Self) -> Self {
        match (self, most) {
            (Self::Owner, _) | (_, Self::Owner) => Self::Owner,
            (Self::SignedIn, _) | (_, Self::SignedIn) => Self::SignedIn,
            (Self::Public, Self::Public) => Self::Public,
        }
    }

    /// What it is called in documents and settings.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::SignedIn => "signed_in",
            Self::Owner => "owner",
        }
    }
}

/// What an app speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AppScheme {
    /// Plain HTTP.
    #[default]
    Http,
    /// HTTPS, with any certificate: it comes through the tunnel, so that nobody else can have answered.
    Https,
}

/// An app of a workspace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebApp {
    /// Its name in addresses, one DNS label.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// The TCP port that it listens on in the workspace.
    pub port: u16,
    /// What it speaks there.
    #[serde(default)]
    pub scheme: AppScheme,
    /// Who may open it, at most: the server may allow less.
    #[serde(default)]
    pub sharing: AppSharing,
    /// Origins, such as `https://docs.example.com`, whose pages may ask it; `*` for any, which only a public app may have.
    #[serde(default)]
    pub cors: Vec<String>,
    /// Where it opens. Empty if apps have no address on this server.
    #[serde(default)]
    pub url: String,
}

/// The apps of a workspace.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebApps {
    /// Ordered by slug.
    pub apps: Vec<WebApp>,
    /// The most that the server lets an app be shared.
    #[serde(default)]
    pub max_sharing: AppSharing,
}

/// Makes an app, or changes one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetWebApp {
    /// Its name for people; the slug if it is empty.
    #[serde(default)]
    pub name: String,
    /// As in [`WebApp`].
    pub port: u16,
    /// As in [`WebApp`].
    #[serde(default)]
    pub scheme: AppScheme,
    /// As in [`WebApp`].
    #[serde(default)]
    pub sharing: AppSharing,
    /// As in [`WebApp`].
    #[serde(default)]
    pub cors: Vec<String>,
}
