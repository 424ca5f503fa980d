//! What is remembered of web apps, and how a workspace is found by what an app's address says.

use super::{Answer, TokenRow, WorkspaceRow};
use proto_core::wire::api::{AppScheme, AppSharing};

/// Apps of one workspace: bounds what a script can make of the database.
pub(crate) const APPS_PER_WORKSPACE_MAX: i64 = 100;

/// A web app of a workspace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct AppRow {
    pub(crate) slug: String,
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) scheme: AppScheme,
    pub(crate) sharing: AppSharing,
    /// Origins whose pages may ask it.
    pub(crate) cors: Vec<String>,
}

/// By what a workspace is looked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum WorkspaceBy<'a> {
    /// Its owner's name and its own.
    Name(&'a str, &'a str),
    /// Its id.
    Id(&'a str),
    /// The id of one of its agents.
    Agent(&'a str),
}

/// The port's part about apps.
pub(crate) trait Apps: Send + Sync {
    /// A workspace's apps, by slug.
    fn apps<'a>(&'a self, workspace_id: &'a str) -> Answer<'a, Vec<AppRow>>;
    /// One of them.
    fn app<'a>(&'a self, workspace_id: &'a str, slug: &'a str) -> Answer<'a, Option<AppRow>>;
    /// Makes an app, or changes the one of this slug; [`StoreError::TooMany`](super::StoreError::TooMany) if the workspace
    /// has as many as it may have.
    fn set_app<'a>(&'a self, workspace_id: &'a str, app: &'a AppRow, now: i64) -> Answer<'a, ()>;
    /// Forgets an app; [`StoreError::Missing`](super::StoreError::Missing) if there is none.
    fn remove_app<'a>(&'a self, workspace_id: &'a str, slug: &'a str) -> Answer<'a, ()>;
    /// A workspace, whoever may see it.
    fn workspace<'a>(&'a self, by: WorkspaceBy<'a>) -> Answer<'a, Option<WorkspaceRow>>;
    /// A token by its row's id.
    fn token_of_id<'a>(&'a self, id: &'a str) -> Answer<'a, Option<TokenRow>>;
}
