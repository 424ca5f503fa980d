//! The store in SQLite: one file, or memory for tests. Statements keep to what PostgreSQL understands too.

mod apps;
mod people;

use super::migrate::{self, Migration};
use super::people::{SESSIONS_PER_USER_MAX, TOKENS_PER_USER_MAX};
use super::{
    AgentRow, Answer, KEYS_PER_TOKEN_MAX, NewToken, NewUser, Store, StoreError, TokenRow, UserRow,
    WORKSPACES_PER_OWNER_MAX, WorkspaceRow,
};
use crate::auth::TokenKind;
use crate::fault::{Fault, io_words};
use proto_core::wire::api::Role;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow, SqliteSynchronous,
};
use sqlx::{ConnectOptions, Row, Sqlite, Transaction};
use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use uuid::Uuid;

/// How long a statement waits for another process (a backup, `sqlite3` in a shell) to let go of the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that read at the same time; one writes.
const READERS: u32 = 4;

/// Where a SQLite database lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Location {
    /// In memory, gone with the process.
    Memory,
    /// In a file.
    File(PathBuf),
}

impl Location {
    /// The place that a database URL names; `warren.db` in `state` if there is none.
    ///
    /// # Errors
    /// If it is not SQLite's.
    pub(crate) fn of(url: Option<&str>, state: &Path) -> Result<Self, Fault> {
        let Some(url) = url else { return Ok(Self::File(state.join("warren.db"))) };
        let wrong = |message: &str| {
            Fault::new(
                "DATABASE_URL_INVALID",
                message,
                "write `--database-url sqlite:PATH`, or leave it out for a file in the state directory",
            )
        };
        let (scheme, rest) = url.split_once(':').ok_or_else(|| wrong("the database URL has no scheme"))?;
        match scheme {
            "sqlite" if rest == ":memory:" => Ok(Self::Memory),
            "sqlite" => match rest.strip_prefix("//").unwrap_or(rest) {
                "" => Err(wrong("the database URL names no file")),
                path => Ok(Self::File(PathBuf::from(path))),
            },
            "postgres" | "postgresql" => Err(wrong("PostgreSQL databases are not in this build yet")),
            _ => Err(wrong("the database URL does not begin with sqlite:")),
        }
    }
}

/// A [`Store`] in SQLite.
#[derive(Clone, Debug)]
pub(crate) struct SqliteStore {
    writer: SqlitePool,
    reader: SqlitePool,
}

impl SqliteStore {
    /// Opens the database and brings its schema up to date. `now` is unix milliseconds.
    ///
    /// # Errors
    /// If it cannot be used; a database that is damaged, newer or foreign stays untouched.
    pub(crate) async fn open(location: &Location, steps: &[Migration], now: i64) -> Result<Self, Fault> {
        let (options, path, version) = match location {
            Location::Memory => (SqliteConnectOptions::new().in_memory(true), None, 0),
            Location::File(path) => {
                let version = migrate::examine(path, steps).await?;
                create_private(path)?;
                let options = SqliteConnectOptions::new().filename(path).journal_mode(SqliteJournalMode::Wal);
                (options, Some(path.as_path()), version)
            }
        };
        let options = options
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT)
            .synchronous(SqliteSynchronous::Normal)
            .disable_statement_logging();
        let failed = |error: sqlx::Error| {
            Fault::new(
                "DATABASE_UNREADABLE",
                format!("can't open the database: {}", migrate::sql_words(&error)),
                "check the path, its permissions and that no other program holds it",
            )
        };
        // A connection that is closed when idle would take a database in memory with it.
        let pool = |size| {
            SqlitePoolOptions::new()
                .max_connections(size)
                .min_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(failed)?;
        let mut connection = writer.acquire().await.map_err(failed)?;
        migrate::apply(&mut connection, path, version, steps, now).await?;
        drop(connection);
        let reader = match path {
            Some(_) => {
                let pool = pool(READERS).min_connections(0);
                pool.connect_with(options.read_only(true)).await.map_err(failed)?
            }
            None => writer.clone(),
        };
        Ok(Self { writer, reader })
    }

    /// Closes every connection; the write-ahead log goes into the file.
    pub(crate) async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }

    /// The token, with whose it is, that fulfils a condition on one value.
    async fn one_token<'q, T>(&self, condition: &str, value: T) -> Result<Option<TokenRow>, StoreError>
    where
        T: Send + 'q + sqlx::Encode<'q, Sqlite> + sqlx::Type<Sqlite>,
    {
        let sql = format!(
            "SELECT tokens.id AS token_id, kind, sha256, agent_id, scope, expires_at, last_used_at, users.*
             FROM tokens LEFT JOIN users ON users.id = tokens.user_id WHERE {condition}"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(value).fetch_optional(&self.reader).await?;
        row.as_ref().map(token_of).transpose()
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

/// Makes the file, if it is not there, readable by this user alone: it holds password hashes.
fn create_private(path: &Path) -> Result<(), Fault> {
    let opened = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    opened.map(drop).map_err(|error| {
        Fault::new(
            "DATABASE_UNREADABLE",
            format!("can't write the database {}: {}", path.display(), io_words(&error)),
            "check the path and its permissions, or name another file with `--database-url sqlite:PATH`",
        )
    })
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Database(inner) if inner.is_unique_violation() => Self::Taken,
            sqlx::Error::Database(inner) if inner.is_foreign_key_violation() => Self::Missing,
            _ => Self::Database(migrate::sql_words(&error)),
        }
    }
}

fn new_id() -> String {
    Uuid::now_v7().to_string()
}

const fn role_text(role: Role) -> &'static str {
    match role {
        Role::Owner => "owner",
        Role::Admin => "admin",
        Role::Member => "member",
    }
}

fn role_of(text: &str) -> Role {
    match text {
        "owner" => Role::Owner,
        "admin" => Role::Admin,
        _ => Role::Member,
    }
}

fn user_of(row: &SqliteRow) -> Result<UserRow, sqlx::Error> {
    Ok(UserRow {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        role: role_of(row.try_get("role")?),
        password_hash: row.try_get("password_hash")?,
        created_at: row.try_get("created_at")?,
        disabled_at: row.try_get("disabled_at")?,
    })
}

async fn insert_user(
    transaction: &mut Transaction<'static, Sqlite>,
    user: NewUser,
    now: i64,
) -> Result<UserRow, StoreError> {
    let NewUser { name, role, password_hash, oidc } = user;
    let (issuer, subject) = oidc.unzip();
    let row = UserRow { id: new_id(), name, role, password_hash, created_at: now, disabled_at: None };
    sqlx::query(
        "INSERT INTO users (id, name, role, password_hash, created_at, oidc_issuer, oidc_subject)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&row.id)
    .bind(&row.name)
    .bind(role_text(row.role))
    .bind(&row.password_hash)
    .bind(row.created_at)
    .bind(issuer)
    .bind(subject)
    .execute(&mut **transaction)
    .await?;
    Ok(row)
}

async fn insert_token(
    transaction: &mut Transaction<'static, Sqlite>,
    token: NewToken,
    now: i64,
) -> Result<String, StoreError> {
    let id = new_id();
    sqlx::query(
        "INSERT INTO tokens (id, kind, sha256, user_id, agent_id, created_at, expires_at, name, scope)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(&id)
    .bind(token.kind.name())
    .bind(token.sha256.to_vec())
    .bind(token.user_id)
    .bind(token.agent_id)
    .bind(now)
    .bind(token.expires_at)
    .bind(token.name)
    .bind(people::scope_text(token.scope))
    .execute(&mut **transaction)
    .await?;
    Ok(id)
}

/// Removes what a new token replaces; refuses it if there are too many that nothing replaces.
async fn make_room(
    transaction: &mut Transaction<'static, Sqlite>,
    token: &NewToken,
    now: i64,
) -> Result<(), StoreError> {
    match token.kind {
        TokenKind::Setup => {
            sqlx::query("DELETE FROM tokens WHERE kind = 'setup'").execute(&mut **transaction).await?;
        }
        TokenKind::Session => {
            sqlx::query(
                "DELETE FROM tokens WHERE user_id = $1 AND kind = 'session' AND id NOT IN (
                     SELECT id FROM tokens WHERE user_id = $1 AND kind = 'session'
                     ORDER BY coalesce(last_used_at, created_at) DESC, id DESC LIMIT $2)",
            )
            .bind(&token.user_id)
            .bind(SESSIONS_PER_USER_MAX - 1)
            .execute(&mut **transaction)
            .await?;
        }
        TokenKind::Api => {
            let (count,): (i64,) = sqlx::query_as(
                "SELECT count(*) FROM tokens WHERE user_id = $1 AND kind = 'api'
                 AND (expires_at IS NULL OR expires_at > $2)",
            )
            .bind(&token.user_id)
            .bind(now)
            .fetch_one(&mut **transaction)
            .await?;
            if count >= TOKENS_PER_USER_MAX {
                return Err(StoreError::TooMany);
            }
        }
        TokenKind::Agent | TokenKind::Device => {}
    }
    Ok(())
}

impl Store for SqliteStore {
    fn ping(&self) -> Answer<'_, ()> {
        Box::pin(async {
            // A statement that reads no table would be answered without a look at the file.
            sqlx::query("SELECT count(*) FROM secrets").fetch_one(&self.reader).await?;
            self.begin().await?.rollback().await?;
            Ok(())
        })
    }

    fn secret<'a>(&'a self, name: &'a str, fresh: [u8; 32]) -> Answer<'a, [u8; 32]> {
        Box::pin(async move {
            sqlx::query("INSERT INTO secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING")
                .bind(name)
                .bind(fresh.to_vec())
                .execute(&self.writer)
                .await?;
            let (value,): (Vec<u8>,) = sqlx::query_as("SELECT value FROM secrets WHERE name = $1")
                .bind(name)
                .fetch_one(&self.reader)
                .await?;
            let wrong = |_| StoreError::Database(format!("the secret \"{name}\" has not 32 bytes"));
            value.try_into().map_err(wrong)
        })
    }

    fn setup_required(&self) -> Answer<'_, bool> {
        Box::pin(async {
            let (users,): (i64,) =
                sqlx::query_as("SELECT count(*) FROM users").fetch_one(&self.reader).await?;
            Ok(users == 0)
        })
    }

    fn set_up(&self, setup_sha256: [u8; 32], owner: NewUser, now: i64) -> Answer<'_, UserRow> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let used = sqlx::query("DELETE FROM tokens WHERE kind = 'setup' AND sha256 = $1")
                .bind(setup_sha256.to_vec())
                .execute(&mut *transaction)
                .await?;
            if used.rows_affected() == 0 {
                return Err(StoreError::Missing);
            }
            let row = insert_user(&mut transaction, owner, now).await?;
            transaction.commit().await?;
            Ok(row)
        })
    }

    fn create_user(&self, user: NewUser, now: i64) -> Answer<'_, UserRow> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let row = insert_user(&mut transaction, user, now).await?;
            transaction.commit().await?;
            Ok(row)
        })
    }

    fn user_by_name<'a>(&'a self, name: &'a str) -> Answer<'a, Option<UserRow>> {
        Box::pin(async move {
            let row = sqlx::query("SELECT * FROM users WHERE name = $1")
                .bind(name)
                .fetch_optional(&self.reader)
                .await?;
            Ok(row.as_ref().map(user_of).transpose()?)
        })
    }

    fn users(&self) -> Answer<'_, Vec<UserRow>> {
        Box::pin(async move {
            let rows = sqlx::query("SELECT * FROM users ORDER BY name").fetch_all(&self.reader).await?;
            Ok(rows.iter().map(user_of).collect::<Result<_, _>>()?)
        })
    }

    fn add_token(&self, token: NewToken, now: i64) -> Answer<'_, String> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            make_room(&mut transaction, &token, now).await?;
            let id = insert_token(&mut transaction, token, now).await?;
            transaction.commit().await?;
            Ok(id)
        })
    }

    fn token(&self, sha256: [u8; 32]) -> Answer<'_, Option<TokenRow>> {
        Box::pin(async move { self.one_token("sha256 = $1", sha256.to_vec()).await })
    }

    fn remove_token<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            sqlx::query("DELETE FROM tokens WHERE id = $1").bind(id).execute(&self.writer).await?;
            Ok(())
        })
    }

    fn remove_expired(&self, before: i64) -> Answer<'_, u64> {
        Box::pin(async move {
            let gone = sqlx::query("DELETE FROM tokens WHERE expires_at < $1")
                .bind(before)
                .execute(&self.writer)
                .await?;
            Ok(gone.rows_affected())
        })
    }

    fn create_workspace<'a>(
        &'a self,
        owner: &'a UserRow,
        name: &'a str,
        agent_sha256: [u8; 32],
        now: i64,
    ) -> Answer<'a, WorkspaceRow> {
        Box::pin(async move {
            let (id, agent_id) = (new_id(), new_id());
            let mut transaction = self.begin().await?;
            let (count,): (i64,) = sqlx::query_as("SELECT count(*) FROM workspaces WHERE owner_id = $1")
                .bind(&owner.id)
                .fetch_one(&mut *transaction)
                .await?;
            if count >= WORKSPACES_PER_OWNER_MAX {
                return Err(StoreError::TooMany);
            }
            sqlx::query("INSERT INTO workspaces (id, owner_id, name, created_at) VALUES ($1, $2, $3, $4)")
                .bind(&id)
                .bind(&owner.id)
                .bind(name)
                .bind(now)
                .execute(&mut *transaction)
                .await?;
            let agent = AgentRow { id: agent_id, name: "main".to_owned(), last_seen_at: None, version: None };
            sqlx::query("INSERT INTO agents (id, workspace_id, name, created_at) VALUES ($1, $2, $3, $4)")
                .bind(&agent.id)
                .bind(&id)
                .bind(&agent.name)
                .bind(now)
                .execute(&mut *transaction)
                .await?;
            let token = NewToken::of_agent(agent_sha256, &agent.id);
            insert_token(&mut transaction, token, now).await?;
            transaction.commit().await?;
            Ok(WorkspaceRow {
                id,
                name: name.to_owned(),
                owner_id: owner.id.clone(),
                owner: owner.name.clone(),
                created_at: now,
                agents: vec![agent],
                shared: false,
            })
        })
    }

    fn workspaces<'a>(&'a self, user_id: Option<&'a str>) -> Answer<'a, Vec<WorkspaceRow>> {
        Box::pin(async move {
            let sql = format!(
                "{WORKSPACES} WHERE $1 IS NULL OR w.owner_id = $1 OR EXISTS (
                     SELECT 1 FROM shares s WHERE s.workspace_id = w.id AND s.user_id = $1)
                 ORDER BY u.name, w.name, a.name"
            );
            let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(user_id).fetch_all(&self.reader).await?;
            Ok(gather(&rows)?)
        })
    }

    fn delete_workspace<'a>(&'a self, id: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let gone =
                sqlx::query("DELETE FROM workspaces WHERE id = $1").bind(id).execute(&self.writer).await?;
            if gone.rows_affected() == 0 { Err(StoreError::Missing) } else { Ok(()) }
        })
    }

    fn note_node_key<'a>(&'a self, token_id: &'a str, node_key: [u8; 32], now: i64) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            sqlx::query(
                "INSERT INTO node_keys (node_key, token_id, seen_at) VALUES ($1, $2, $3)
                 ON CONFLICT (node_key, token_id) DO UPDATE SET seen_at = excluded.seen_at",
            )
            .bind(node_key.to_vec())
            .bind(token_id)
            .bind(now)
            .execute(&mut *transaction)
            .await?;
            sqlx::query(
                "DELETE FROM node_keys WHERE token_id = $1 AND node_key NOT IN
                 (SELECT node_key FROM node_keys WHERE token_id = $1 ORDER BY seen_at DESC, node_key LIMIT $2)",
            )
            .bind(token_id)
            .bind(KEYS_PER_TOKEN_MAX)
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(())
        })
    }

    fn knows_node_key(&self, node_key: [u8; 32], now: i64) -> Answer<'_, bool> {
        Box::pin(async move {
            let (count,): (i64,) = sqlx::query_as(
                "SELECT count(*) FROM node_keys k JOIN tokens t ON t.id = k.token_id
                 WHERE k.node_key = $1 AND (t.expires_at IS NULL OR t.expires_at > $2)",
            )
            .bind(node_key.to_vec())
            .bind(now)
            .fetch_one(&self.reader)
            .await?;
            Ok(count > 0)
        })
    }

    fn agents_seen<'a>(&'a self, agents: &'a [(String, Option<String>)], now: i64) -> Answer<'a, ()> {
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            for (id, version) in agents {
                sqlx::query(
                    "UPDATE agents SET last_seen_at = $1, version = coalesce($2, version) WHERE id = $3",
                )
                .bind(now)
                .bind(version.as_deref())
                .bind(id)
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await?;
            Ok(())
        })
    }
}

fn token_of(row: &SqliteRow) -> Result<TokenRow, StoreError> {
    let owned = row.try_get::<Option<String>, _>("id")?.is_some();
    let kind: String = row.try_get("kind")?;
    Ok(TokenRow {
        id: row.try_get("token_id")?,
        kind: TokenKind::named(&kind).ok_or(StoreError::Missing)?,
        sha256: row.try_get("sha256")?,
        user: owned.then(|| user_of(row)).transpose()?,
        agent_id: row.try_get("agent_id")?,
        scope: people::scope_of(row.try_get("scope")?),
        expires_at: row.try_get("expires_at")?,
        last_used_at: row.try_get("last_used_at")?,
    })
}

/// The beginning of a question for workspaces, whose rows are of a workspace and an agent.
const WORKSPACES: &str = "SELECT w.id, w.name, w.owner_id, u.name AS owner, w.created_at,
        a.id AS agent_id, a.name AS agent_name, a.last_seen_at, a.version
 FROM workspaces w JOIN users u ON u.id = w.owner_id
 LEFT JOIN agents a ON a.workspace_id = w.id";

/// Workspaces out of such rows, whose order stays.
fn gather(rows: &[SqliteRow]) -> Result<Vec<WorkspaceRow>, sqlx::Error> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut out: Vec<WorkspaceRow> = Vec::new();
    for row in rows {
        let id: String = row.try_get("id")?;
        let place = *places.entry(id.clone()).or_insert(out.len());
        if place == out.len() {
            out.push(WorkspaceRow {
                id,
                name: row.try_get("name")?,
                owner_id: row.try_get("owner_id")?,
                owner: row.try_get("owner")?,
                created_at: row.try_get("created_at")?,
                agents: Vec::new(),
                shared: false,
            });
        }
        if let Some(agent_id) = row.try_get("agent_id")? {
            out[place].agents.push(AgentRow {
                id: agent_id,
                name: row.try_get("agent_name")?,
                last_seen_at: row.try_get("last_seen_at")?,
                version: row.try_get("version")?,
            });
        }
    }
    Ok(out)
}
