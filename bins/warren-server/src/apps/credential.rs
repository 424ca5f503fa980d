//! By what somebody was let to an app, to be looked at again while something lasts.

use super::access::{self, Asker, Denied, Granted};
use super::address::Name;
use crate::app::{App, Shared};
use futures_util::future::BoxFuture;
use std::time::Duration;
use tokio::time::sleep;

/// How often it is looked whether somebody may still be here, if nothing tells so before.
const LOOK_AGAIN: Duration = Duration::from_secs(15);
/// The least from one look to the next: somebody who logs in and out all the time must not make all that is open ask the
/// database all the time.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// By what.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// Nothing: the app is public.
    Nobody,
    /// A token, by its hash.
    Token([u8; 32]),
    /// A pass that goes back to a token's row.
    Pass(String),
}

impl Credential {
    pub(crate) fn of(asker: Asker) -> Self {
        asker.map_or(Self::Nobody, Self::Token)
    }

    /// What tells it from others, in letters of a host's name.
    pub(crate) fn tag(&self) -> String {
        match self {
            Self::Nobody => "nobody".to_owned(),
            Self::Token(sha256) => sha256.iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
            Self::Pass(id) => id.clone(),
        }
    }

    /// What it is good for now.
    ///
    /// # Errors
    /// [`Denied`].
    pub(crate) async fn look(&self, app: &App, name: &Name) -> Result<Granted, Denied> {
        let token = match self {
            Self::Nobody => None,
            Self::Token(sha256) => app.store.token(*sha256).await?,
            Self::Pass(id) => app.store.token_of_id(id).await?,
        };
        access::decide(app, token.as_ref(), name).await
    }

    /// Waits until it is good no more.
    pub(crate) fn lost(self, app: Shared, name: Name) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            let mut revocations = app.revocations.subscribe();
            loop {
                tokio::select! {
                    biased;
                    _ = revocations.changed() => {}
                    () = sleep(LOOK_AGAIN) => {}
                }
                match self.look(&app, &name).await {
                    // A database that does not answer for a moment shuts nobody out.
                    Ok(_) | Err(Denied::Store(_)) => sleep(LOOK_PAUSE).await,
                    Err(_) => return,
                }
            }
        })
    }
}
