use super::migrate::{MIGRATIONS, Migration, beside};
use super::people::{AuditRow, SESSIONS_PER_USER_MAX, TOKENS_PER_USER_MAX, UserChange};
use super::{KEYS_PER_TOKEN_MAX, Location, NewToken, NewUser, People, SqliteStore, Store, StoreError};
use crate::auth::{Token, TokenKind};
use crate::fault::Fault;
use proto_core::wire::api::{Role, TokenScope};
use std::path::Path;

async fn open(path: &Path, steps: &[Migration]) -> Result<SqliteStore, Fault> {
    SqliteStore::open(&Location::File(path.to_owned()), steps, 1_000).await
}

async fn memory() -> SqliteStore {
    SqliteStore::open(&Location::Memory, MIGRATIONS, 1_000).await.unwrap()
}

fn user(name: &str, role: Role) -> NewUser {
    NewUser { name: name.to_owned(), role, password_hash: "hash".to_owned(), oidc: None }
}

/// The fault's text with the directory cut out, and the proof that the file is as it was.
async fn refusal(directory: &Path, name: &str, bytes: Option<&[u8]>) -> String {
    let path = directory.join(name);
    if let Some(bytes) = bytes {
        std::fs::write(&path, bytes).unwrap();
    }
    let before = std::fs::read(&path).unwrap_or_default();
    let names_before: Vec<_> = list(directory);
    let fault = open(&path, FIRST).await.expect_err("the database must be refused");
    assert_eq!(std::fs::read(&path).unwrap_or_default(), before, "{name} was touched");
    assert_eq!(list(directory), names_before, "files appeared or went beside {name}");
    fault.to_string().replace(&directory.display().to_string(), "DIR")
}

fn list(directory: &Path) -> Vec<std::ffi::OsString> {
    let mut names: Vec<_> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names
}

/// A build that knows the first step alone.
const FIRST: &[Migration] = &[MIGRATIONS[0]];
/// One that knows others than this build does.
const FUTURE: &[Migration] = &[
    MIGRATIONS[0],
    Migration { version: 2, name: "two", sql: "CREATE TABLE two (a INTEGER)" },
    Migration { version: 3, name: "three", sql: "ALTER TABLE two ADD COLUMN b INTEGER" },
];

#[tokio::test]
async fn a_database_that_is_not_ours_to_change_stays_to_the_byte() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    open(&at("newer.db"), FUTURE).await.unwrap().close().await;
    open(&at("good.db"), FIRST).await.unwrap().close().await;
    let mut broken = std::fs::read(at("good.db")).unwrap();
    std::fs::remove_file(at("good.db")).unwrap();
    let cut = broken[..broken.len() / 2].to_vec();
    broken[4_096..12_288].fill(0xa5);
    make_foreign(&at("foreign.db")).await;

    let all = [
        refusal(directory.path(), "newer.db", None).await,
        refusal(
            directory.path(),
            "text.db",
            Some(b"this is not a database at all, only some text in a file"),
        )
        .await,
        refusal(directory.path(), "cut.db", Some(&cut)).await,
        refusal(directory.path(), "broken.db", Some(&broken)).await,
        refusal(directory.path(), "foreign.db", None).await,
    ];
    insta::assert_snapshot!(all.join("\n\n"));
}

async fn make_foreign(path: &Path) {
    use sqlx::{ConnectOptions, Connection};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE notes (text TEXT)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

#[tokio::test]
async fn a_newer_database_with_an_unfinished_log_is_read_whole_and_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (path, copy) = (directory.path().join("a.db"), directory.path().join("b.db"));
    let store = open(&path, FUTURE).await.unwrap();
    // As after a crash: the schema stands in the log alone.
    std::fs::copy(&path, &copy).unwrap();
    std::fs::copy(beside(&path, "-wal"), beside(&copy, "-wal")).unwrap();
    store.close().await;
    let before = (std::fs::read(&copy).unwrap(), std::fs::read(beside(&copy, "-wal")).unwrap());
    assert!(!before.1.is_empty());
    assert_eq!(open(&copy, FIRST).await.unwrap_err().code, "DATABASE_NEWER");
    assert_eq!((std::fs::read(&copy).unwrap(), std::fs::read(beside(&copy, "-wal")).unwrap()), before);
}

#[tokio::test]
async fn steps_are_applied_once_in_order_and_a_copy_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("warren.db");
    let store = open(&path, FIRST).await.unwrap();
    store.secret("kept", [1; 32]).await.unwrap();
    store.close().await;
    for _ in 0..2 {
        let store = open(&path, FUTURE).await.unwrap();
        assert_eq!(store.secret("kept", [2; 32]).await.unwrap(), [1; 32]);
        store.close().await;
    }
    let copy = beside(&path, ".v1.backup");
    assert_eq!(super::migrate::examine(&copy, FIRST).await, Ok(1));
    assert_eq!(super::migrate::examine(&path, FUTURE).await, Ok(3));
}

#[tokio::test]
async fn a_failing_step_leaves_what_was_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("warren.db");
    let store = open(&path, FIRST).await.unwrap();
    store.secret("kept", [1; 32]).await.unwrap();
    store.close().await;
    let bad = [
        MIGRATIONS[0],
        Migration {
            version: 2,
            name: "bad",
            sql: "CREATE TABLE two (a INTEGER); INSERT INTO nowhere VALUES (1)",
        },
    ];
    let fault = open(&path, &bad).await.unwrap_err();
    insta::assert_snapshot!(fault.to_string());
    let store = open(&path, FIRST).await.unwrap();
    assert_eq!(store.secret("kept", [2; 32]).await.unwrap(), [1; 32]);
    // Half of the step must not be there either.
    open(&path, FUTURE).await.unwrap();
}

#[test]
fn a_new_database_is_private() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("warren.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { open(&path, FIRST).await.unwrap().close().await });
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn database_urls_name_a_place_or_say_why_not() {
    let of = |url| Location::of(Some(url), Path::new("/state"));
    assert_eq!(Location::of(None, Path::new("/state")), Ok(Location::File("/state/warren.db".into())));
    assert_eq!(of("sqlite::memory:"), Ok(Location::Memory));
    assert_eq!(of("sqlite:a/b.db"), Ok(Location::File("a/b.db".into())));
    assert_eq!(of("sqlite:///a/b.db"), Ok(Location::File("/a/b.db".into())));
    let said: Vec<String> = ["postgres://u@h/db", "mysql:x", "sqlite:", "warren.db"]
        .into_iter()
        .map(|url| of(url).unwrap_err().to_string())
        .collect();
    insta::assert_snapshot!(said.join("\n\n"));
}

#[tokio::test]
async fn the_setup_token_makes_one_owner() {
    let store = memory().await;
    let (first, second) =
        (Token::generate(TokenKind::Setup).unwrap(), Token::generate(TokenKind::Setup).unwrap());
    let new = |token: &Token| NewToken::of_setup(token.sha256());
    store.add_token(new(&first), 1).await.unwrap();
    store.add_token(new(&second), 2).await.unwrap();
    let owner = || user("alice", Role::Owner);
    assert!(
        matches!(store.set_up(first.sha256(), owner(), 3).await, Err(StoreError::Missing)),
        "it was replaced"
    );
    assert!(store.setup_required().await.unwrap());
    store.set_up(second.sha256(), owner(), 3).await.unwrap();
    assert!(
        matches!(store.set_up(second.sha256(), owner(), 4).await, Err(StoreError::Missing)),
        "it was used"
    );
    assert!(!store.setup_required().await.unwrap());
}

#[tokio::test]
async fn a_workspace_takes_its_agent_and_token_along() {
    let store = memory().await;
    let alice = store.create_user(user("alice", Role::Owner), 5).await.unwrap();
    let token = Token::generate(TokenKind::Agent).unwrap();
    let made = store.create_workspace(&alice, "dev", token.sha256(), 6).await.unwrap();
    assert!(matches!(store.create_workspace(&alice, "dev", [0; 32], 7).await, Err(StoreError::Taken)));
    let agent = made.agents[0].id.clone();
    assert_eq!(store.token(token.sha256()).await.unwrap().unwrap().agent_id, Some(agent.clone()));
    assert!(store.may_reach(&alice.id, &agent).await.unwrap());
    store.agents_seen(&[(agent.clone(), Some("1.0".to_owned()))], 9).await.unwrap();
    store.agents_seen(&[(agent.clone(), None)], 10).await.unwrap();
    let all = store.workspaces(Some(&alice.id)).await.unwrap();
    assert_eq!((all[0].agents[0].version.as_deref(), all[0].agents[0].last_seen_at), (Some("1.0"), Some(10)));
    assert!(store.workspaces(Some("nobody")).await.unwrap().is_empty());

    store.delete_workspace(&made.id).await.unwrap();
    assert_eq!(store.token(token.sha256()).await.unwrap(), None);
    assert!(!store.may_reach(&alice.id, &agent).await.unwrap());
    assert!(store.workspaces(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_secret_is_drawn_once() {
    let store = memory().await;
    assert_eq!(store.secret("relay", [1; 32]).await.unwrap(), [1; 32]);
    assert_eq!(store.secret("relay", [2; 32]).await.unwrap(), [1; 32]);
    assert_eq!(store.secret("resume", [3; 32]).await.unwrap(), [3; 32]);
}

#[tokio::test]
async fn a_node_key_is_known_as_long_as_its_token_is_good() {
    let store = memory().await;
    let alice = store.create_user(user("alice", Role::Owner), 5).await.unwrap();
    let token = |sha256, expires_at| NewToken { expires_at, ..NewToken::of_session(sha256, &alice.id, 0) };
    store.add_token(token([1; 32], Some(100)), 5).await.unwrap();
    store.add_token(token([2; 32], None), 5).await.unwrap();
    let id = async |sha256| store.token(sha256).await.unwrap().unwrap().id;
    let (short, long) = (id([1; 32]).await, id([2; 32]).await);
    let knows = async |key: u8, now| store.knows_node_key([key; 32], now).await.unwrap();
    assert!(!knows(1, 10).await);
    store.note_node_key(&short, [1; 32], 10).await.unwrap();
    store.note_node_key(&short, [1; 32], 11).await.unwrap();
    assert!(knows(1, 99).await && !knows(1, 100).await, "a session that has ended knows nobody");
    store.note_node_key(&long, [1; 32], 12).await.unwrap();
    assert!(knows(1, 100).await, "another token has the same key");
    store.remove_token(&long).await.unwrap();
    assert!(!knows(1, 100).await);
    assert!(matches!(store.note_node_key(&long, [1; 32], 13).await, Err(StoreError::Missing)));
    for key in 2..2 + KEYS_PER_TOKEN_MAX {
        store.note_node_key(&short, [key as u8; 32], 20 + key).await.unwrap();
    }
    assert!(!knows(1, 50).await && knows(2, 50).await && knows(17, 50).await, "the oldest key makes room");
}

#[tokio::test]
async fn tokens_and_their_node_keys_outlive_the_step_that_rebuilds_their_tables() {
    use sqlx::{ConnectOptions, Connection};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("warren.db");
    open(&path, &MIGRATIONS[..2]).await.unwrap().close().await;
    let mut old = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::raw_sql(
        "INSERT INTO users VALUES ('u1', 'alice', 'owner', 'hash', 5);
         INSERT INTO tokens VALUES ('t1', 'session', x'0101010101010101010101010101010101010101010101010101010101010101', 'u1', NULL, 5, 900);
         INSERT INTO node_keys VALUES (x'0202020202020202020202020202020202020202020202020202020202020202', 't1', 6);",
    )
    .execute(&mut old)
    .await
    .unwrap();
    old.close().await.unwrap();

    let store = open(&path, MIGRATIONS).await.unwrap();
    let row = store.token([1; 32]).await.unwrap().unwrap();
    assert_eq!((row.id.as_str(), row.expires_at, row.scope), ("t1", Some(900), TokenScope::All));
    assert!(store.knows_node_key([2; 32], 7).await.unwrap());
    store.remove_token("t1").await.unwrap();
    assert!(!store.knows_node_key([2; 32], 7).await.unwrap(), "keys still go with their token");
}

#[tokio::test]
async fn what_a_person_shares_is_reached_until_it_is_taken_back() {
    let store = memory().await;
    let alice = store.create_user(user("alice", Role::Owner), 5).await.unwrap();
    let bob = store.create_user(user("bob", Role::Member), 5).await.unwrap();
    let made = store.create_workspace(&alice, "dev", [1; 32], 6).await.unwrap();
    let agent = &made.agents[0].id;
    let reaches = async || store.may_reach(&bob.id, agent).await.unwrap();
    assert!(!reaches().await && store.workspaces(Some(&bob.id)).await.unwrap().is_empty());
    store.share(&made.id, &bob.id, 7).await.unwrap();
    assert!(reaches().await && store.workspaces(Some(&bob.id)).await.unwrap().len() == 1);
    let locked = UserChange { disabled: Some(true), ..UserChange::default() };
    assert_eq!(store.change_user(&bob.id, locked, 8).await.unwrap().disabled_at, Some(8));
    assert!(!reaches().await, "who is locked out reaches nothing");
    let back = UserChange { disabled: Some(false), ..UserChange::default() };
    store.change_user(&bob.id, back, 9).await.unwrap();
    assert!(reaches().await);
    store.unshare(&made.id, &bob.id).await.unwrap();
    assert!(!reaches().await);
    assert!(matches!(store.unshare(&made.id, &bob.id).await, Err(StoreError::Missing)));
    store.share(&made.id, &bob.id, 7).await.unwrap();
    store.delete_user(&bob.id).await.unwrap();
    assert!(store.shares(&made.id).await.unwrap().is_empty());
    assert!(matches!(store.delete_user(&alice.id).await, Err(StoreError::LastOwner)));
    assert!(store.user(&alice.id).await.unwrap().is_some(), "the refusal undid it");
}

#[tokio::test]
async fn the_audit_log_is_read_backwards_and_forgets() {
    let store = memory().await;
    for n in 1..=5 {
        let entry = AuditRow { id: format!("{n}"), at: n, action: "a".to_owned(), ..AuditRow::default() };
        store.note(entry).await.unwrap();
    }
    let ids = async |before: Option<&'static str>, limit| {
        let rows = store.noted(before, limit).await.unwrap();
        rows.into_iter().map(|row| row.id).collect::<Vec<_>>().concat()
    };
    assert_eq!((ids(None, 3).await.as_str(), ids(Some("3"), 9).await.as_str()), ("543", "21"));
    assert_eq!(store.forget_noted(3).await.unwrap(), 2);
    assert_eq!(ids(None, 9).await, "543");
}

#[tokio::test]
async fn nobody_has_logins_and_tokens_without_end() {
    let store = memory().await;
    let alice = store.create_user(user("alice", Role::Owner), 5).await.unwrap();
    let bob = store.create_user(user("bob", Role::Member), 5).await.unwrap();
    let hash = |n: i64| {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&n.to_be_bytes());
        hash
    };
    store.add_token(NewToken::of_session([9; 32], &bob.id, 9_000), 5).await.unwrap();
    let first = store.add_token(NewToken::of_session(hash(0), &alice.id, 9_000), 10).await.unwrap();
    store.token_used(&first, 5_000).await.unwrap();
    for n in 1..=SESSIONS_PER_USER_MAX {
        store.add_token(NewToken::of_session(hash(n), &alice.id, 9_000), 10 + n).await.unwrap();
    }
    let there = async |n| store.token(hash(n)).await.unwrap().is_some();
    assert_eq!(
        i64::try_from(store.tokens_of(&alice.id, 100).await.unwrap().len()).unwrap(),
        SESSIONS_PER_USER_MAX
    );
    assert!(
        there(0).await && !there(1).await && there(2).await,
        "the one that was used longest ago makes room"
    );
    assert!(store.token([9; 32]).await.unwrap().is_some(), "nobody else's does");

    let api = |n| NewToken { kind: TokenKind::Api, ..NewToken::of_session(hash(n), &bob.id, 200 + n) };
    for n in 0..TOKENS_PER_USER_MAX {
        store.add_token(api(1_000 + n), 100).await.unwrap();
    }
    assert!(matches!(store.add_token(api(5_000), 100).await, Err(StoreError::TooMany)));
    store.add_token(api(5_000), 1_200).await.unwrap();
}

#[tokio::test]
async fn a_database_that_another_program_holds_is_not_well() {
    use sqlx::{ConnectOptions, Connection};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("warren.db");
    let store = open(&path, MIGRATIONS).await.unwrap();
    store.ping().await.unwrap();
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).connect().await.unwrap();
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut other).await.unwrap();
    assert!(matches!(store.ping().await, Err(StoreError::Database(_))));
    other.close().await.unwrap();
    store.ping().await.unwrap();
}
