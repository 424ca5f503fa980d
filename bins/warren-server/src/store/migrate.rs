//! The database's schema: numbered steps, each applied once, in one transaction, and noted in a table.
//!
//! Before anything is written, the file is examined read-only, so that a database which is damaged, newer
//! than this build or not Warren's at all stays as it is, to the byte.

use crate::fault::{Fault, io_words};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection, Row};
use std::path::{Path, PathBuf};

/// One step of the schema.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    /// Its number; steps are numbered from 1 without gaps.
    pub(crate) version: i64,
    /// What it does, for people.
    pub(crate) name: &'static str,
    /// Its statements.
    pub(crate) sql: &'static str,
}

/// Every step that this build knows.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "foundation", sql: include_str!("migrations/0001_foundation.sql") },
    Migration { version: 2, name: "node keys", sql: include_str!("migrations/0002_node_keys.sql") },
    Migration { version: 3, name: "people", sql: include_str!("migrations/0003_people.sql") },
    Migration { version: 4, name: "apps", sql: include_str!("migrations/0004_apps.sql") },
];

/// The version of a database at `path`, 0 if it is new. Changes nothing.
///
/// # Errors
/// If the file is unreadable, damaged, newer than `steps`, or another program's.
pub(crate) async fn examine(path: &Path, steps: &[Migration]) -> Result<i64, Fault> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(unreadable(path, &io_words(&error))),
        Ok(data) if data.is_dir() => return Err(unreadable(path, "it is a directory")),
        Ok(data) if data.len() == 0 => return Ok(0),
        Ok(_) => {}
    }
    if let Err(error) = std::fs::File::open(path) {
        return Err(unreadable(path, &io_words(&error)));
    }
    // With nothing waiting in a write-ahead log the file can be read as if on read-only media, which leaves no
    // trace at all. Else the log must be read too.
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |data| data.len());
    let options = SqliteConnectOptions::new().filename(path).read_only(true).immutable(log == 0);
    let damaged = |error: sqlx::Error| damaged(path, &sql_words(&error));
    let mut connection = options.disable_statement_logging().connect().await.map_err(damaged)?;
    let version = read_version(&mut connection, path).await;
    // Closing a read-only connection writes nothing, so a failure here means nothing.
    let _ = connection.close().await;
    let (version, latest) = (version?, steps.last().map_or(0, |step| step.version));
    if version > latest {
        return Err(Fault::new(
            "DATABASE_NEWER",
            format!(
                "the database {} is from a newer Warren: its schema has version {version}, this build knows \
                 versions up to {latest}",
                path.display()
            ),
            "start the newer warren-server, or name another database with `--database-url sqlite:PATH`; \
             the file was not touched",
        ));
    }
    Ok(version)
}

async fn read_version(connection: &mut SqliteConnection, path: &Path) -> Result<i64, Fault> {
    let damaged_by = |error: sqlx::Error| damaged(path, &sql_words(&error));
    let check: String = sqlx::query("PRAGMA quick_check(1)")
        .fetch_one(&mut *connection)
        .await
        .and_then(|row| row.try_get(0))
        .map_err(damaged_by)?;
    if check != "ok" {
        return Err(damaged(path, check.lines().last().unwrap_or_default()));
    }
    let (tables, ours): (i64, i64) = sqlx::query_as(
        "SELECT count(*), coalesce(sum(name = 'schema_migrations'), 0) FROM sqlite_master WHERE type = 'table'",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(damaged_by)?;
    if ours == 0 && tables > 0 {
        return Err(Fault::new(
            "DATABASE_FOREIGN",
            format!("the database {} is another program's: it has tables, but not Warren's", path.display()),
            "name another file with `--database-url sqlite:PATH`; this one was not touched",
        ));
    }
    if ours == 0 {
        return Ok(0);
    }
    let (version,): (i64,) = sqlx::query_as("SELECT coalesce(max(version), 0) FROM schema_migrations")
        .fetch_one(&mut *connection)
        .await
        .map_err(damaged_by)?;
    Ok(version)
}

/// Brings the schema from `version` to the last of `steps`. A database that holds something already is copied
/// beside itself first.
///
/// # Errors
/// If a step or the copy fails; the steps before it stay applied.
pub(crate) async fn apply(
    connection: &mut SqliteConnection,
    path: Option<&Path>,
    version: i64,
    steps: &[Migration],
    now: i64,
) -> Result<(), Fault> {
    let failed = |what: String, error: sqlx::Error| {
        Fault::new(
            "DATABASE_MIGRATION_FAILED",
            format!("the database could not be brought up to date ({what}): {}", sql_words(&error)),
            "nothing was lost; check that the disk has room and is writable, then start again",
        )
    };
    let due: Vec<&Migration> = steps.iter().filter(|step| step.version > version).collect();
    if let (Some(path), true) = (path, version > 0 && !due.is_empty()) {
        back_up(connection, path, version).await.map_err(|error| failed("copying it".into(), error))?;
    }
    for step in due {
        let what = || format!("step {} \"{}\"", step.version, step.name);
        run_step(connection, step, now).await.map_err(|error| failed(what(), error))?;
    }
    Ok(())
}

async fn run_step(connection: &mut SqliteConnection, step: &Migration, now: i64) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::raw_sql(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
             version BIGINT PRIMARY KEY, name TEXT NOT NULL, applied_at BIGINT NOT NULL)",
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::raw_sql(step.sql).execute(&mut *transaction).await?;
    sqlx::query("INSERT INTO schema_migrations (version, name, applied_at) VALUES ($1, $2, $3)")
        .bind(step.version)
        .bind(step.name)
        .bind(now)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

/// A copy of the database as of `version`, beside it. An older copy of the same version goes.
async fn back_up(connection: &mut SqliteConnection, path: &Path, version: i64) -> Result<(), sqlx::Error> {
    let copy = beside(path, &format!(".v{version}.backup"));
    if let Err(error) = std::fs::remove_file(&copy)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(sqlx::Error::Io(error));
    }
    sqlx::query("VACUUM INTO $1").bind(copy.to_string_lossy().into_owned()).execute(connection).await?;
    Ok(())
}

/// `path` with `suffix` after its name, as SQLite names its logs.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn unreadable(path: &Path, why: &str) -> Fault {
    Fault::new(
        "DATABASE_UNREADABLE",
        format!("can't open the database {}: {why}", path.display()),
        "check the path and its permissions, or name another file with `--database-url sqlite:PATH`",
    )
}

fn damaged(path: &Path, why: &str) -> Fault {
    Fault::new(
        "DATABASE_CORRUPT",
        format!("the database {} is damaged: {why}", path.display()),
        "put back a copy of it, or name another file with `--database-url sqlite:PATH`; this one was not touched",
    )
}

/// The database's words for an error.
pub(crate) fn sql_words(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => io_words(error),
        other => other.to_string(),
    }
}
