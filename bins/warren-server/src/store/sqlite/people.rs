//! People in SQLite.

use super::{SqliteStore, insert_token, role_text, user_of};
use crate::auth::TokenKind;
use crate::store::people::{AuditRow, People, SHARES_PER_WORKSPACE_MAX, ShareRow, TokenListed, UserChange};
use crate::store::{Answer, NewToken, StoreError, UserRow};
use proto_core::wire::api::TokenScope;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};
use std::collections::BTreeSet;

pub(super) const fn scope_text(scope: TokenScope) -> &'static str {
    match scope {
        TokenScope::All => "all",
        TokenScope::Read => "read",
    }
}

pub(super) fn scope_of(text: &str) -> TokenScope {
    if text == "all" { TokenScope::All } else { TokenScope::Read }
}

/// Refuses what leaves no owner who can log in.
async fn keep_an_owner(transaction: &mut Transaction<'static, Sqlite>) -> Result<(), StoreError> {
    let (owners,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM users WHERE role = 'owner' AND disabled_at IS NULL")
            .fetch_one(&mut **transaction)
            .await?;
    if owners == 0 { Err(StoreError::LastOwner) } else { Ok(()) }
}

/// The first column of rows that a statement returns.
async fn ids(
    transaction: &mut Transaction<'static, Sqlite>,
    sql: &'static str,
    (first, second): (&str, Option<&str>),
) -> Result<Vec<String>, StoreError> {
    let rows: Vec<(String,)> =
        sqlx::query_as(sql).bind(first).bind(second).fetch_all(&mut **transaction).await?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

fn listed(row: &SqliteRow) -> Result<TokenListed, StoreError> {
    let kind: String = row.try_get("kind")?;
    Ok(TokenListed {
        id: row.try_get("id")?,
        kind: TokenKind::named(&kind).ok_or(StoreError::Missing)?,
        name: row.try_get("name")?,
        scope: scope_of(row.try_get("scope")?),
        created_at: row.try_get("created_at")?,
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
    })
}

fn audited(row: &SqliteRow) -> Result<AuditRow, sqlx::Error> {
    Ok(AuditRow {
        id: row.try_get("id")?,
        at: row.try_get("at")?,
        actor: row.try_get("actor")?,
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        address: row.try_get("address")?,
        request_id: row.try_get("request_id")?,
        detail: row.try_get("detail")?,
    })
}

impl People for SqliteStore {
    fn user<'a>(&'a self, id: &'a str) -> Answer<'a, Option<UserRow>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM users WHERE id = $1")
                .bind(id)
                .fetch_optional(&self.reader)
                .await?;
            Ok(row.as_ref().map(user_of).transpose()?)
        })
    }

    fn user_by_oidc<'a>(&'a self, issuer: &'a str, subject: &'a str) -> Answer<'a, Option<UserRow>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM users WHERE oidc_issuer = $1 AND oidc_subject = $2")
                .bind(issuer)
                .bind(subject)
                .fetch_optional(&self.reader)
                .await?;
            Ok(row.as_ref().map(user_of).transpose()?)
        })
    }

    fn change_user<'a>(&'a self, id: &'a str, change: UserChange, now: i64) -> Answer<'a, UserRow> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let row = sqlx::query(
                "UPDATE users SET role = coalesce($2, role), password_hash = coalesce($3, password_hash),
                     disabled_at = CASE WHEN $4 IS NULL THEN disabled_at WHEN $4 = 0 THEN NULL
                                        ELSE coalesce(disabled_at, $5) END
                 WHERE id = $1 RETURNING *",
            )
            .bind(id)
            .bind(change.role.map(role_text))
            .bind(change.password_hash)
            .bind(change.disabled.map(i64::from))
            .bind(now)
            .fetch_optional(&mut *transaction)
            .await?
            .ok_or(StoreError::Missing)?;
            keep_an_owner(&mut transaction).await?;
            let row = user_of(&row)?;
            transaction.commit().await?;
            Ok(row)
        })
    }

    fn delete_user<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let gone =
                sqlx::query("DELETE FROM users WHERE id = $1").bind(id).execute(&mut *transaction).await?;
            if gone.rows_affected() == 0 {
                return Err(StoreError::Missing);
            }
            keep_an_owner(&mut transaction).await?;
            transaction.commit().await?;
            Ok(())
        })
    }

    fn tokens_of<'a>(&'a self, user_id: &'a str, now: i64) -> Answer<'a, Vec<TokenListed>> {
        Box::pin(async move {
            let rows = sqlx::query(
                "SELECT * FROM tokens WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > $2)
                 ORDER BY id DESC",
            )
            .bind(user_id)
            .bind(now)
            .fetch_all(&self.reader)
            .await?;
            rows.iter().map(listed).collect()
        })
    }

    fn revoke_token<'a>(&'a self, id: &'a str, user_id: Option<&'a str>) -> Answer<'a, ()> {
        Box::pin(async move {
            let gone = sqlx::query(
                "DELETE FROM tokens WHERE id = $1 AND user_id IS NOT NULL AND ($2 IS NULL OR user_id = $2)",
            )
            .bind(id)
            .bind(user_id)
            .execute(&self.writer)
            .await?;
            if gone.rows_affected() == 0 { Err(StoreError::Missing) } else { Ok(()) }
        })
    }

    fn end_sessions<'a>(&'a self, user_id: &'a str, except: Option<&'a str>) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let sql = "DELETE FROM tokens WHERE user_id = $1 AND kind = 'session' AND id <> coalesce($2, '')
                       RETURNING id";
            let gone = ids(&mut transaction, sql, (user_id, except)).await?;
            transaction.commit().await?;
            Ok(gone)
        })
    }

    fn token_used<'a>(&'a self, id: &'a str, now: i64) -> Answer<'a, ()> {
        Box::pin(async move {
            sqlx::query("UPDATE tokens SET last_used_at = $2 WHERE id = $1")
                .bind(id)
                .bind(now)
                .execute(&self.writer)
                .await?;
            Ok(())
        })
    }

    fn replace_agent_token<'a>(
        &'a self,
        agent_id: &'a str,
        sha256: [u8; 32],
        now: i64,
    ) -> Answer<'a, Vec<String>> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let sql = "DELETE FROM tokens WHERE agent_id = $1 AND $2 IS NULL RETURNING id";
            let gone = ids(&mut transaction, sql, (agent_id, None)).await?;
            let token = NewToken::of_agent(sha256, agent_id);
            insert_token(&mut transaction, token, now).await?;
            transaction.commit().await?;
            Ok(gone)
        })
    }

    fn shares<'a>(&'a self, workspace_id: &'a str) -> Answer<'a, Vec<ShareRow>> {
        Box::pin(async move {
            let rows: Vec<(String, i64)> = sqlx::query_as(
                "SELECT u.name, s.created_at FROM shares s JOIN users u ON u.id = s.user_id
                 WHERE s.workspace_id = $1 ORDER BY u.name",
            )
            .bind(workspace_id)
            .fetch_all(&self.reader)
            .await?;
            Ok(rows.into_iter().map(|(user, created_at)| ShareRow { user, created_at }).collect())
        })
    }

    fn shared_with<'a>(&'a self, user_id: &'a str) -> Answer<'a, BTreeSet<String>> {
        Box::pin(async move {
            let rows: Vec<(String,)> = sqlx::query_as("SELECT workspace_id FROM shares WHERE user_id = $1")
                .bind(user_id)
                .fetch_all(&self.reader)
                .await?;
            Ok(rows.into_iter().map(|(id,)| id).collect())
        })
    }

    fn share<'a>(&'a self, workspace_id: &'a str, user_id: &'a str, now: i64) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            sqlx::query(
                "INSERT INTO shares (workspace_id, user_id, created_at) VALUES ($1, $2, $3)
                 ON CONFLICT (workspace_id, user_id) DO NOTHING",
            )
            .bind(workspace_id)
            .bind(user_id)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
            let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM shares WHERE workspace_id = $1")
                .bind(workspace_id)
                .fetch_one(&mut *transaction)
                .await?;
            if count > SHARES_PER_WORKSPACE_MAX {
                return Err(StoreError::TooMany);
            }
            transaction.commit().await?;
            Ok(())
        })
    }

    fn unshare<'a>(&'a self, workspace_id: &'a str, user_id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let gone = sqlx::query("DELETE FROM shares WHERE workspace_id = $1 AND user_id = $2")
                .bind(workspace_id)
                .bind(user_id)
                .execute(&self.writer)
                .await?;
            if gone.rows_affected() == 0 { Err(StoreError::Missing) } else { Ok(()) }
        })
    }

    fn may_reach<'a>(&'a self, user_id: &'a str, agent_id: &'a str) -> Answer<'a, bool> {
        Box::pin(async move {
            let (count,): (i64,) = sqlx::query_as(
                "SELECT count(*) FROM agents a JOIN workspaces w ON w.id = a.workspace_id
                 JOIN users u ON u.id = $1 AND u.disabled_at IS NULL
                 WHERE a.id = $2 AND (w.owner_id = u.id OR EXISTS (
                     SELECT 1 FROM shares s WHERE s.workspace_id = w.id AND s.user_id = u.id))",
            )
            .bind(user_id)
            .bind(agent_id)
            .fetch_one(&self.reader)
            .await?;
            Ok(count > 0)
        })
    }

    fn note(&self, entry: AuditRow) -> Answer<'_, ()> {
        Box::pin(async move {
            sqlx::query(
                "INSERT INTO audit (id, at, actor, action, target, address, request_id, detail)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(entry.id)
            .bind(entry.at)
            .bind(entry.actor)
            .bind(entry.action)
            .bind(entry.target)
            .bind(entry.address)
            .bind(entry.request_id)
            .bind(entry.detail)
            .execute(&self.writer)
            .await?;
            Ok(())
        })
    }

    fn noted<'a>(&'a self, before: Option<&'a str>, limit: i64) -> Answer<'a, Vec<AuditRow>> {
        Box::pin(async move {
            let rows =
                sqlx::query("SELECT * FROM audit WHERE $1 IS NULL OR id < $1 ORDER BY id DESC LIMIT $2")
                    .bind(before)
                    .bind(limit)
                    .fetch_all(&self.reader)
                    .await?;
            Ok(rows.iter().map(audited).collect::<Result<_, _>>()?)
        })
    }

    fn forget_noted(&self, before: i64) -> Answer<'_, u64> {
        Box::pin(async move {
            let gone =
                sqlx::query("DELETE FROM audit WHERE at < $1").bind(before).execute(&self.writer).await?;
            Ok(gone.rows_affected())
        })
    }
}
