//! An OpenID Connect provider of the tests' own: it has a discovery document, keys, an authorization and a token
//! endpoint on a real port, checks what a provider checks, signs its ID tokens, and lies if a test asks it to.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

pub(crate) const CLIENT: &str = "warren";
pub(crate) const SECRET: &str = "known to the two of us";

type Fields = BTreeMap<String, String>;

/// How it behaves.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Who has just logged in there.
    pub(crate) subject: String,
    pub(crate) username: String,
    /// Claims put over the true ones.
    pub(crate) lies: Value,
    /// Sign with a key that it does not publish.
    pub(crate) foreign_key: bool,
    /// Unix seconds.
    pub(crate) now: i64,
}

pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    pub(crate) manner: Mutex<Manner>,
    key: Mutex<(String, Arc<EcdsaKeyPair>)>,
    /// What each code was given for. A code is good once.
    codes: Mutex<BTreeMap<String, Fields>>,
}

fn key() -> Arc<EcdsaKeyPair> {
    Arc::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
}

fn encoded(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

impl Issuer {
    pub(crate) async fn start(now: i64) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let manner = Manner {
            subject: "u-1".to_owned(),
            username: "zoe@example.com".to_owned(),
            lies: json!({}),
            foreign_key: false,
            now,
        };
        let issuer = Arc::new(Self {
            address: listener.local_addr().unwrap(),
            manner: Mutex::new(manner),
            key: Mutex::new(("key 1".to_owned(), key())),
            codes: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/authorize", get(authorize))
            .route("/token", post(token))
            .with_state(Arc::clone(&issuer));
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Signs with another key from now on, and publishes that alone.
    pub(crate) fn change_key(&self) {
        *self.key.lock().unwrap() = ("key 2".to_owned(), key());
    }

    fn id_token(&self, asked: &Fields, access_token: &str) -> String {
        let manner = self.manner.lock().unwrap().clone();
        let hash = Sha256::digest(access_token.as_bytes());
        let mut claims = json!({
            "iss": self.url(),
            "sub": manner.subject,
            "aud": CLIENT,
            "exp": manner.now + 300,
            "iat": manner.now,
            "nonce": asked.get("nonce"),
            "at_hash": URL_SAFE_NO_PAD.encode(&hash[..16]),
            "preferred_username": manner.username,
        });
        for (claim, value) in manner.lies.as_object().unwrap() {
            claims[claim] = value.clone();
        }
        let (id, published) = self.key.lock().unwrap().clone();
        let signs = if manner.foreign_key { key() } else { published };
        let head = encoded(&json!({ "alg": "ES256", "typ": "JWT", "kid": id }));
        let signed = format!("{head}.{}", encoded(&claims));
        let signature = signs.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn json(value: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], value.to_string()).into_response()
}

async fn discovery(State(issuer): State<Arc<Issuer>>) -> Response {
    let url = issuer.url();
    json(&json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/keys"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "code_challenge_methods_supported": ["S256"],
    }))
}

async fn keys(State(issuer): State<Arc<Issuer>>) -> Response {
    let (id, key) = issuer.key.lock().unwrap().clone();
    // An uncompressed point: 4, x, y.
    let point = key.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    json(&json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id, "x": x, "y": y }
    ]}))
}

/// The person is logged in here already, and agrees.
async fn authorize(State(issuer): State<Arc<Issuer>>, Query(asked): Query<Fields>) -> Response {
    let of = |key: &str| asked.get(key).cloned().unwrap_or_default();
    let fits = of("client_id") == CLIENT
        && of("response_type") == "code"
        && of("scope").split(' ').any(|scope| scope == "openid")
        && of("code_challenge_method") == "S256"
        && of("redirect_uri").ends_with("/api/v1/login/oidc/callback");
    if !fits {
        return (StatusCode::BAD_REQUEST, format!("{asked:?}")).into_response();
    }
    let code = format!("code-{}", issuer.codes.lock().unwrap().len());
    let back = format!("{}?code={code}&state={}", of("redirect_uri"), of("state"));
    issuer.codes.lock().unwrap().insert(code, asked);
    Redirect::to(&back).into_response()
}

async fn token(State(issuer): State<Arc<Issuer>>, headers: HeaderMap, body: String) -> Response {
    let refused = |why: &str| {
        let body = json!({ "error": "invalid_grant", "error_description": why }).to_string();
        (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "application/json")], body).into_response()
    };
    // A form is written as a query is.
    let uri: Uri = format!("/?{body}").parse().unwrap();
    let Query(form) = Query::<Fields>::try_from_uri(&uri).unwrap();
    let of = |key: &str| form.get(key).cloned().unwrap_or_default();
    let secret = SECRET.replace(' ', "+");
    let basic = format!("Basic {}", STANDARD.encode(format!("{CLIENT}:{secret}")));
    if headers.get(AUTHORIZATION).is_none_or(|sent| sent != basic.as_str()) {
        return refused("another client");
    }
    let asked = issuer.codes.lock().unwrap().insert(of("code"), Fields::new()).unwrap_or_default();
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(of("code_verifier").as_bytes()));
    if asked.get("code_challenge") != Some(&challenge) {
        return refused("another verifier, or the code was used");
    }
    if asked.get("redirect_uri") != form.get("redirect_uri") {
        return refused("another redirect_uri");
    }
    let access_token = "opaque";
    json(&json!({
        "access_token": access_token,
        "token_type": "Bearer",
        "expires_in": 300,
        "id_token": issuer.id_token(&asked, access_token),
    }))
}
