//! How the server speaks to apps: whose connections are whose, HTTP/2 where it is taken, and how much at a time.

use crate::visitor::{VISIT, Visitor, host_of, origin_of};
use crate::{PATIENCE, WILDCARD, World, app, code, tls, words};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tests::Result;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_connection_is_one_persons() -> Result {
    let mut world = World::start(&WILDCARD).await?;
    let url = world.share("signed_in", &[]).await?;
    let (mut alice, mut bob) = (world.alice.clone(), world.person("bob").await?);
    let on = async |who: &mut Visitor| -> Result<u64> {
        let answer = who.open(&url).await?;
        answer.json()["connection"].as_u64().ok_or_else(|| format!("{answer:?}"))
    };
    // There are logins that hold for a connection: whoever else came by it would be the same person for the app.
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    for _ in 0..20 {
        seen[0].insert(on(&mut alice).await?);
        seen[1].insert(on(&mut bob).await?);
    }
    assert!(seen[0].is_disjoint(&seen[1]), "{seen:?}");
    assert!(seen[0].len() < 20, "each is used again: {seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_takes_http_2_gets_it_and_its_websockets_pass_all_the_same() -> Result {
    let world = World::start(&WILDCARD).await?;
    let mut alice = world.alice.clone();
    let port = app::start(Some(tls(&[b"h2", b"http/1.1"])?)).await?.port();
    let app = json!({ "port": port, "scheme": "https" });
    let answer = world.api(&mut alice, "PUT", "/workspaces/me/dev/apps/modern", app).await?.json();
    let url = answer["url"].as_str().ok_or("no url")?.to_owned();
    let spoofed = [&VISIT[..], &[("x-forwarded-for", "6.6.6.6"), ("te", "gzip, trailers")]].concat();
    assert_eq!(alice.open(&url).await?.status, 200);
    let mut connections = BTreeSet::new();
    for _ in 0..5 {
        let seen = alice.send("GET", &format!("{url}a?b=%20c"), &spoofed, "").await?;
        let told = seen.json();
        assert_eq!((&told["http2"], &told["path"]), (&json!(true), &json!("/a?b=%20c")), "{seen:?}");
        assert_eq!((told["host"].as_str(), seen.told("host")), (Some(host_of(&url)), None), "{seen:?}");
        assert_eq!(
            (seen.told("cookie").as_deref(), seen.told("te").as_deref()),
            (Some("mine=1"), Some("trailers"))
        );
        assert_eq!(seen.told("x-forwarded-for").as_deref(), Some("127.0.0.1"));
        assert_eq!(seen.header("clear-site-data"), "");
        connections.insert(told["connection"].as_u64());
    }
    assert_eq!(connections.len(), 1, "they share one: {connections:?}");
    let many = vec![7_u8; 24 << 20];
    let answer = alice.send("PUT", &format!("{url}upload"), &[("origin", origin_of(&url))], many).await?;
    assert_eq!(answer.json()["bytes"], 24 << 20);
    assert_eq!(alice.send("GET", &format!("{url}bytes/{}", 24 << 20), &[], "").await?.body.len(), 24 << 20);

    let mut request = format!("ws://{}/talk", host_of(&url)).into_client_request().map_err(words)?;
    let pass = format!("warren_app={}", alice.cookies[host_of(&url)]["warren_app"]);
    request.headers_mut().insert("origin", origin_of(&url).parse().map_err(words)?);
    request.headers_mut().insert("cookie", pass.parse().map_err(words)?);
    let tcp = TcpStream::connect(host_of(world.deployment.url())).await.map_err(words)?;
    let (mut socket, _) = tokio_tungstenite::client_async(request, tcp).await.map_err(words)?;
    socket.send(Message::text("hello")).await.map_err(words)?;
    let back = timeout(PATIENCE, socket.next()).await.map_err(words)?.ok_or("it ended")?.map_err(words)?;
    assert_eq!(back.into_text().map_err(words)?.as_str(), "hello");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspaces_apps_hold_no_more_than_their_share_and_leave_room_for_its_terminals() -> Result {
    io_adapters::process::open_files().map_err(words)?;
    let mut world = World::start(&WILDCARD).await?;
    let url = world.share("public", &[]).await?;
    let server = world.deployment.url().to_owned();
    // As many as a workspace's apps may have: see `OPEN_PER_WORKSPACE_MAX`.
    let (mut nobody, mut held) = (Visitor::new(&server), Vec::new());
    for _ in 0..768 {
        let answer = nobody.begin("GET", &format!("{url}events"), &[], "").await?;
        assert_eq!(answer.status(), 200, "{}", held.len());
        held.push(answer);
    }
    let refused = nobody.send("GET", &url, &[], "").await?;
    assert_eq!((refused.status, code(&refused).as_str()), (503, "TOO_MANY_APP_REQUESTS"), "{refused:?}");
    let mut bob = world.person("bob").await?;
    assert_eq!(bob.send("GET", &format!("{server}/api/v1/me"), &[], "").await?.status, 200, "others go on");
    let ports = world.api(&mut world.alice.clone(), "GET", "/workspaces/me/dev/ports", Value::Null).await?;
    assert_eq!(ports.status, 200, "the workspace is reached all the same: {ports:?}");
    held.truncate(300);
    let began = Instant::now();
    while nobody.send("GET", &url, &[], "").await?.status != 200 {
        assert!(began.elapsed() < PATIENCE, "their places are not given back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}
