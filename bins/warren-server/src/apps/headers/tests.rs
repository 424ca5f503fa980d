use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn text(headers: &HeaderMap) -> Vec<String> {
    let mut lines: Vec<String> =
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

fn place(base: &str) -> Place {
    Place { origin: "https://a.apps.example.com".into(), base: base.into(), client: "192.0.2.7".parse().ok() }
}

#[test]
fn an_app_hears_nothing_of_warrens_nor_of_the_connection() {
    let mut sent = headers(&[
        ("connection", "keep-alive, X-Private, close"),
        ("x-private", "1"),
        ("keep-alive", "timeout=5"),
        ("te", "trailers"),
        ("upgrade", "h2c"),
        ("proxy-authorization", "Basic a"),
        ("expect", "100-continue"),
        ("transfer-encoding", "chunked"),
        ("authorization", "Bearer warren_session_00"),
        ("cookie", "warren_session=a; theirs=1; __Host-warren_app=b; WARREN_x=c"),
        ("cookie", "other=2; __Secure-warren_y=d"),
        ("forwarded", "for=1.2.3.4"),
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-prefix", "/evil"),
        ("x-real-ip", "1.2.3.4"),
        ("x_forwarded_for", "1.2.3.4"),
        ("x-forwarded_user", "root"),
        ("x-forwarded-email", "root@example.com"),
        ("x_real-ip", "1.2.3.4"),
        ("x-forwarder", "theirs"),
        ("accept", "*/*"),
        ("host", "a.apps.example.com"),
    ]);
    to_app(&mut sent, &place(""));
    assert_eq!(
        text(&sent),
        [
            "accept: */*",
            "cookie: theirs=1; other=2",
            "host: a.apps.example.com",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: a.apps.example.com",
            "x-forwarded-proto: https",
            "x-forwarder: theirs",
        ]
    );
    let mut second =
        headers(&[("authorization", "Basic dXNlcjpwYXNz"), ("authorization", "Bearer warren_api_00")]);
    to_app(&mut second, &place(""));
    assert!(!second.contains_key(AUTHORIZATION), "one behind another is ours all the same");
    let mut own = headers(&[("authorization", "Basic dXNlcjpwYXNz"), ("cookie", "warren_session=a")]);
    to_app(&mut own, &place("/@alice/dev/apps/a"));
    assert_eq!(own[AUTHORIZATION], "Basic dXNlcjpwYXNz", "the app's own login is its own");
    assert!(!own.contains_key(COOKIE));
    assert_eq!(own["x-forwarded-prefix"], "/@alice/dev/apps/a");
}

#[test]
fn websockets_pass_and_no_other_protocol_does() {
    let mut sent = headers(&[
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "WebSocket"),
        ("sec-websocket-key", "k"),
    ]);
    assert!(wants_websocket(&sent));
    to_app(&mut sent, &place(""));
    assert_eq!(
        (&sent[CONNECTION], &sent[UPGRADE]),
        (&"Upgrade".parse().unwrap(), &"websocket".parse().unwrap())
    );
    assert_eq!(sent["sec-websocket-key"], "k");
    for other in [
        &[("connection", "Upgrade"), ("upgrade", "h2c")],
        &[("connection", "Upgrade"), ("upgrade", "websocket, h2c")],
        &[("connection", "close"), ("upgrade", "websocket")],
    ] {
        assert!(!wants_websocket(&headers(other)), "{other:?}");
    }
}

#[test]
fn a_request_has_one_end_for_everybody_who_reads_it() {
    let fits = |version, pairs: &[(&str, &str)]| fit(&Method::POST, version, &headers(pairs));
    for good in [
        &[] as &[(&str, &str)],
        &[("content-length", "5")],
        &[("transfer-encoding", "chunked")],
        &[("transfer-encoding", "Chunked")],
    ] {
        assert_eq!(fits(Version::HTTP_11, good), Ok(()), "{good:?}");
    }
    for bad in [
        &[("content-length", "5"), ("transfer-encoding", "chunked")] as &[(&str, &str)],
        &[("content-length", "5"), ("content-length", "6")],
        &[("transfer-encoding", "identity")],
        &[("transfer-encoding", "chunked, identity")],
        &[("transfer-encoding", "xchunked")],
        &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        &[("host", "a"), ("host", "b")],
    ] {
        assert_eq!(fits(Version::HTTP_11, bad), Err(Unfit::Framing), "{bad:?}");
    }
    assert_eq!(fits(Version::HTTP_10, &[("transfer-encoding", "chunked")]), Err(Unfit::Framing));
    for method in [Method::CONNECT, Method::TRACE] {
        assert_eq!(fit(&method, Version::HTTP_11, &HeaderMap::new()), Err(Unfit::Method));
    }
}

#[test]
fn an_apps_cookies_are_its_own_alone() {
    let cookie = |text: &str, base: &str| {
        own_cookie(&HeaderValue::from_str(text).unwrap(), base)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let base = "/@alice/dev/apps/a";
    for (text, own, on_a_path) in [
        ("a=b", Some("a=b"), Some("a=b; Path=/@alice/dev/apps/a/")),
        (
            "a=b=c; Domain=example.com; Secure; Path=/x; HttpOnly",
            Some("a=b=c; Secure; HttpOnly; Path=/x"),
            Some("a=b=c; Secure; HttpOnly; Path=/@alice/dev/apps/a/x"),
        ),
        (
            "a=b; path=/@alice/dev/apps/a/x",
            Some("a=b; Path=/@alice/dev/apps/a/x"),
            Some("a=b; Path=/@alice/dev/apps/a/x"),
        ),
        (
            "a=b; path=/@alice/dev/apps/abc",
            Some("a=b; Path=/@alice/dev/apps/abc"),
            Some("a=b; Path=/@alice/dev/apps/a/@alice/dev/apps/abc"),
        ),
        ("__Host-a=b; Path=/; Secure", Some("__Host-a=b; Secure; Path=/"), None),
        ("warren_session=x; Path=/", None, None),
        ("__Host-warren_session=x", None, None),
        (" Warren_App =x", None, None),
        // Without a name: a browser sends back what follows the first "=".
        ("=warren_session=x", None, None),
        (" = __Host-warren_session=x; Path=/", None, None),
        ("warren_session", None, None),
        ("=theirs=1", Some("=theirs=1"), Some("=theirs=1; Path=/@alice/dev/apps/a/")),
    ] {
        assert_eq!(cookie(text, "").as_deref(), own, "{text}");
        assert_eq!(cookie(text, base).as_deref(), on_a_path, "{text}");
    }
}

#[test]
fn an_app_says_nothing_about_others() {
    let mut told = headers(&[
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("alt-svc", "h3=\":443\""),
        ("strict-transport-security", "max-age=1; includeSubDomains"),
        ("clear-site-data", "\"cookies\""),
        ("service-worker-allowed", "/"),
        ("set-cookie", "warren_session=x"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=d"),
        ("location", "/lab?x=1"),
    ]);
    to_browser(&mut told, &place("/@alice/dev/apps/a"), false);
    assert_eq!(
        text(&told),
        [
            "location: /@alice/dev/apps/a/lab?x=1",
            "set-cookie: a=b; Path=/@alice/dev/apps/a/",
            "set-cookie: c=d; Path=/@alice/dev/apps/a/",
        ]
    );
    for (there, base) in [
        ("//evil.example", "/@a/b/apps/c"),
        ("https://x.example/", "/@a/b/apps/c"),
        ("/@a/b/apps/c/d", "/@a/b/apps/c"),
        ("x", "/@a/b/apps/c"),
        ("/x", ""),
    ] {
        assert_eq!(below(&HeaderValue::from_static(there), base), None, "{there}");
    }
}

#[test]
fn caches_on_the_way_keep_nothing_that_is_not_for_everybody() {
    for (told, kept) in [
        (&[] as &[(&str, &str)], "private"),
        (&[("cache-control", "public, max-age=60")], "private, max-age=60"),
        (&[("cache-control", "Public"), ("cache-control", "S-MaxAge=9, immutable")], "private, immutable"),
        (&[("cache-control", "no-store")], "private, no-store"),
        (&[("cache-control", "private=\"x\", no-cache")], "private, no-cache"),
        (&[("cdn-cache-control", "max-age=9"), ("surrogate-control", "max-age=9")], "private"),
    ] {
        let mut headers = headers(told);
        keep_private(&mut headers);
        assert_eq!(text(&headers), [format!("cache-control: {kept}")], "{told:?}");
    }
}
