//! Who may open which app: asked of the database, and remembered for as long as a pass is good without asking.

use super::address::{Name, What, Whose};
use super::ticket::{FRESH_MS, Target};
use crate::app::App;
use crate::auth::TokenKind;
use crate::store::apps::WorkspaceBy;
use crate::store::{StoreError, TokenRow, UserRow, WorkspaceRow};
use proto_core::wire::api::{AppScheme, AppSharing, TokenScope};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Decisions remembered, some 300 bytes each.
const REMEMBERED_MAX: usize = 4_096;

/// Why somebody does not get to an app.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    /// There is none of this name, or not for this person: which of both is not told.
    #[error("there is no such app here, or it is not for you")]
    Nothing,
    /// It is not for everybody: whoever logs in may learn more.
    #[error("this app is not for everybody")]
    LoginFirst,
    /// The token may only look.
    #[error("the token may only look")]
    OnlyLooks,
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who asks, as far as decisions are remembered by it: nobody, or the hash of a token.
pub(crate) type Asker = Option<[u8; 32]>;

/// Decisions of a while ago.
#[derive(Default)]
pub(crate) struct Remembered {
    decisions: Mutex<BTreeMap<(Asker, Name), (i64, Granted)>>,
}

/// That somebody may open an app.
#[derive(Clone, Debug)]
pub(crate) struct Granted {
    pub(crate) target: Target,
    /// Whether the workspace is the asker's own, and nobody else uses it.
    pub(crate) alone: bool,
    /// Whether the asker's token may only look.
    pub(crate) only_looks: bool,
}

impl Remembered {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Asker, Name), (i64, Granted)>> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what was looked at then need not be looked at now.
pub(crate) fn is_fresh(app: &App, checked_at: i64) -> bool {
    let now = app.clock.now();
    // In the same millisecond, either may have been first.
    app.apps.changed_at() < checked_at && (0..FRESH_MS).contains(&(now - checked_at))
}

/// Lets whoever has this token, or has none, to an app.
///
/// # Errors
/// [`Denied`].
pub(crate) async fn grant(app: &App, asker: Asker, name: &Name) -> Result<Granted, Denied> {
    let key = (asker, name.clone());
    if let Some((at, granted)) = app.apps.remembered.lock().get(&key)
        && is_fresh(app, *at)
    {
        return Ok(granted.clone());
    }
    let now = app.clock.now();
    let token = match asker {
        Some(sha256) => app.store.token(sha256).await?,
        None => None,
    };
    let granted = decide(app, token.as_ref(), name).await?;
    // To invent tokens costs nothing: those that are none are not remembered, else they would take the places of others.
    if asker.is_some() && token.is_none() {
        return Ok(granted);
    }
    let mut remembered = app.apps.remembered.lock();
    if remembered.len() >= REMEMBERED_MAX {
        remembered.retain(|_, (at, _)| is_fresh(app, *at));
    }
    if remembered.len() < REMEMBERED_MAX {
        remembered.insert(key, (now, granted.clone()));
    }
    Ok(granted)
}

/// As [`grant`], by the database alone. A token that is good no more is none.
///
/// # Errors
/// [`Denied`].
pub(crate) async fn decide(app: &App, token: Option<&TokenRow>, name: &Name) -> Result<Granted, Denied> {
    let token = token.filter(|token| {
        matches!(token.kind, TokenKind::Session | TokenKind::Api) && !token.has_ended(app.clock.now())
    });
    let user = token.and_then(|token| token.user.as_ref()).filter(|user| user.disabled_at.is_none());
    let refused = || if user.is_some() { Denied::Nothing } else { Denied::LoginFirst };
    let (workspace, target, sharing) = find(app, name).await?.ok_or_else(refused)?;
    let may = match sharing {
        AppSharing::Public => true,
        AppSharing::SignedIn => user.is_some(),
        AppSharing::Owner => match user {
            Some(user) => may_use(app, &workspace, user).await?,
            None => false,
        },
    };
    if !may {
        return Err(refused());
    }
    let only_looks = token.is_some_and(|token| token.scope == TokenScope::Read);
    let own = user.is_some_and(|user| workspace.is_of(user));
    let alone = own && app.store.shares(&workspace.id).await?.is_empty();
    Ok(Granted { target, alone, only_looks })
}

/// Where an app is, whoever asks: for what a browser asks without saying who it is for.
///
/// # Errors
/// If the database fails.
pub(crate) async fn reachable(app: &App, name: &Name) -> Result<Option<Target>, StoreError> {
    Ok(find(app, name).await?.map(|(_, target, _)| target))
}

async fn may_use(app: &App, workspace: &WorkspaceRow, user: &UserRow) -> Result<bool, StoreError> {
    if workspace.is_of(user) {
        return Ok(true);
    }
    for agent in &workspace.agents {
        // Those it is shared with. Whoever only administers it may not look into it.
        if app.store.may_reach(&user.id, &agent.id).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What a name leads to, and who may open it: never more than the operator allows.
async fn find(app: &App, name: &Name) -> Result<Option<(WorkspaceRow, Target, AppSharing)>, StoreError> {
    let id = match &name.whose {
        Whose::Id(id) => id.to_string(),
        Whose::Named(..) => String::new(),
    };
    let by = match (&name.whose, &name.what) {
        (Whose::Named(owner, workspace), _) => WorkspaceBy::Name(owner, workspace),
        (Whose::Id(_), What::App(_)) => WorkspaceBy::Id(&id),
        (Whose::Id(_), What::Port(..)) => WorkspaceBy::Agent(&id),
    };
    let Some(row) = app.store.workspace(by).await? else { return Ok(None) };
    let target = |agents, port, scheme| Target {
        workspace: row.path(),
        agents,
        port,
        scheme,
        cors: Vec::new(),
        public: false,
    };
    match &name.what {
        What::App(slug) => {
            let Some(found) = app.store.app(&row.id, slug).await? else { return Ok(None) };
            let agents = row.agents.iter().map(|agent| agent.id.clone()).collect();
            let sharing = found.sharing.at_most(app.apps.max_sharing);
            let public = sharing == AppSharing::Public;
            // Any page at all may ask public apps alone, which know nobody.
            let cors = found.cors.into_iter().filter(|origin| public || origin != "*").collect();
            let target = Target { cors, public, ..target(agents, found.port, found.scheme) };
            Ok(Some((row, target, sharing)))
        }
        What::Port(port, tls, agent) => {
            let is_meant = |known: &&_| {
                let known: &crate::store::AgentRow = known;
                if agent.is_empty() { known.id == id } else { known.name == *agent }
            };
            let Some(agent) = row.agents.iter().find(is_meant) else { return Ok(None) };
            let scheme = if *tls { AppScheme::Https } else { AppScheme::Http };
            let target = target(vec![agent.id.clone()], *port, scheme);
            Ok(Some((row, target, AppSharing::Owner)))
        }
    }
}
