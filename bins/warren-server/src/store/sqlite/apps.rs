//! Web apps in SQLite.

use super::super::apps::{APPS_PER_WORKSPACE_MAX, AppRow, Apps, WorkspaceBy};
use super::super::{Answer, StoreError, TokenRow, WorkspaceRow};
use super::{SqliteStore, WORKSPACES, gather};
use proto_core::wire::api::{AppScheme, AppSharing};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

const fn scheme_text(scheme: AppScheme) -> &'static str {
    match scheme {
        AppScheme::Http => "http",
        AppScheme::Https => "https",
    }
}

fn app_of(row: &SqliteRow) -> Result<AppRow, sqlx::Error> {
    let (scheme, sharing, cors): (&str, &str, &str) =
        (row.try_get("scheme")?, row.try_get("sharing")?, row.try_get("cors")?);
    Ok(AppRow {
        slug: row.try_get("slug")?,
        name: row.try_get("name")?,
        // The table holds nothing else.
        port: u16::try_from(row.try_get::<i64, _>("port")?).unwrap_or_default(),
        scheme: if scheme == "https" { AppScheme::Https } else { AppScheme::Http },
        sharing: match sharing {
            "public" => AppSharing::Public,
            "signed_in" => AppSharing::SignedIn,
            _ => AppSharing::Owner,
        },
        cors: cors.split_whitespace().map(str::to_owned).collect(),
    })
}

impl Apps for SqliteStore {
    fn apps<'a>(&'a self, workspace_id: &'a str) -> Answer<'a, Vec<AppRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM apps WHERE workspace_id = $1 ORDER BY slug")
                .bind(workspace_id)
                .fetch_all(&self.reader)
                .await?;
            Ok(rows.iter().map(app_of).collect::<Result<_, _>>()?)
        })
    }

    fn app<'a>(&'a self, workspace_id: &'a str, slug: &'a str) -> Answer<'a, Option<AppRow>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM apps WHERE workspace_id = $1 AND slug = $2")
                .bind(workspace_id)
                .bind(slug)
                .fetch_optional(&self.reader)
                .await?;
            Ok(row.as_ref().map(app_of).transpose()?)
        })
    }

    fn set_app<'a>(&'a self, workspace_id: &'a str, app: &'a AppRow, now: i64) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            sqlx::query(
                "INSERT INTO apps (workspace_id, slug, name, port, scheme, sharing, cors, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
                 ON CONFLICT (workspace_id, slug) DO UPDATE SET name = excluded.name, port = excluded.port,
                     scheme = excluded.scheme, sharing = excluded.sharing, cors = excluded.cors",
            )
            .bind(workspace_id)
            .bind(&app.slug)
            .bind(&app.name)
            .bind(i64::from(app.port))
            .bind(scheme_text(app.scheme))
            .bind(app.sharing.name())
            .bind(app.cors.join(" "))
            .bind(now)
            .execute(&mut *transaction)
            .await?;
            let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM apps WHERE workspace_id = $1")
                .bind(workspace_id)
                .fetch_one(&mut *transaction)
                .await?;
            if count > APPS_PER_WORKSPACE_MAX {
                return Err(StoreError::TooMany);
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    fn remove_app<'a>(&'a self, workspace_id: &'a str, slug: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let gone = sqlx::query("DELETE FROM apps WHERE workspace_id = $1 AND slug = $2")
                .bind(workspace_id)
                .bind(slug)
                .execute(&self.writer)
                .await?;
            if gone.rows_affected() == 0 { Err(StoreError::Missing) } else { Ok(()) }
        })
    }

    fn workspace<'a>(&'a self, by: WorkspaceBy<'a>) -> Answer<'a, Option<WorkspaceRow>> {
        Box::pin(async move {
            let (condition, a, b) = match by {
                WorkspaceBy::Name(owner, name) => ("u.name = $1 AND w.name = $2", owner, name),
                WorkspaceBy::Id(id) => ("w.id = $1 AND $2 = ''", id, ""),
                WorkspaceBy::Agent(id) => {
                    ("w.id = (SELECT workspace_id FROM agents WHERE agents.id = $1) AND $2 = ''", id, "")
                }
            };
            // The condition is one of the three above.
            let sql = sqlx::AssertSqlSafe(format!("{WORKSPACES} WHERE {condition} ORDER BY a.name"));
            let rows = sqlx::query(sql).bind(a).bind(b).fetch_all(&self.reader).await?;
            Ok(gather(&rows)?.into_iter().next())
        })
    }

    fn token_of_id<'a>(&'a self, id: &'a str) -> Answer<'a, Option<TokenRow>> {
        Box::pin(async move { self.one_token("tokens.id = $1", id).await })
    }
}
