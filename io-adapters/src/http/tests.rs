use super::*;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// A server that gives to each path its own answer, and notes what it was asked.
async fn web(answers: &'static [(&'static str, &'static str)]) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, asked) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<String>>>::default());
    let notes = asked.clone();
    tokio::spawn(async move {
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let len = tcp.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..len]).into_owned();
            let path = head.split(' ').nth(1).unwrap_or_default();
            let answer =
                answers.iter().find(|(p, _)| *p == path).map_or("HTTP/1.1 404 No\r\n\r\n", |(_, a)| a);
            notes.lock().unwrap().push(head);
            let _ = tcp.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

fn get(url: &str) -> Request<'_> {
    Request { method: "GET", url, bearer: None, json: None }
}

const FIVE: (&str, &str) = ("/five", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345");

#[tokio::test]
async fn an_answer_is_bounded_in_length_and_time() {
    let (at, _) = web(&[FIVE, ("/slow", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1234")]).await;
    let client = HttpClient::new("test");
    let five = format!("http://{at}/five");
    assert_eq!(client.clone().answer_max(5).send(get(&five)).await.unwrap().body, b"12345");
    assert!(matches!(client.clone().answer_max(4).send(get(&five)).await, Err(HttpError::TooLong(4))));
    // Cut off in the middle: the answer breaks off, and is no answer.
    assert!(matches!(client.send(get(&format!("http://{at}/slow"))).await, Err(HttpError::Http(_))));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}/", silent.local_addr().unwrap());
    let soon = client.timeout(Duration::from_millis(50));
    assert!(matches!(soon.send(get(&silent)).await, Err(HttpError::Timeout(_))));
    for bad in ["", "nothing", "ftp://example.com/", "/map"] {
        assert!(matches!(soon.send(get(bad)).await, Err(HttpError::Url { .. })), "{bad}");
    }
}

#[tokio::test]
async fn redirects_are_followed_if_asked_for_and_never_with_a_token() {
    let (at, asked) = web(&[
        FIVE,
        ("/a", "HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n"),
        ("/b", "HTTP/1.1 307 Again\r\nLocation: /five\r\nContent-Length: 0\r\n\r\n"),
        ("/nowhere", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
    ])
    .await;
    let url = |path: &str| format!("http://{at}{path}");
    let client = HttpClient::new("test/1");
    assert_eq!(client.send(get(&url("/a"))).await.unwrap().status, 302);
    assert!(matches!(client.clone().redirects_max(1).send(get(&url("/a"))).await, Err(HttpError::TooFar(1))));
    let client = client.redirects_max(2);
    assert_eq!(client.send(get(&url("/a"))).await.unwrap().body, b"12345");
    assert!(matches!(client.send(get(&url("/nowhere"))).await, Err(HttpError::Astray(_))));
    let a = url("/a");
    let with_token = Request { bearer: Some("secret"), ..get(&a) };
    assert_eq!(client.send(with_token).await.unwrap().status, 302);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|head| head.to_lowercase().contains("user-agent: test/1")), "{asked:?}");
    assert_eq!(asked.iter().filter(|head| head.contains("secret")).count(), 1);
}

#[test]
fn nobody_is_sent_from_tls_to_plain_text() {
    let place = Place::of("https://example.com/a").unwrap();
    assert_eq!(place.elsewhere(Some("/b")).unwrap(), "https://example.com/b");
    assert_eq!(place.elsewhere(Some("https://example.org/b")).unwrap(), "https://example.org/b");
    assert!(matches!(place.elsewhere(Some("http://example.com/b")), Err(HttpError::Astray(_))));
}
