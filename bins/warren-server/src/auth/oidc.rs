//! Logging in by an OpenID Connect provider: authorization code with PKCE and a nonce (OpenID Connect Core 1.0,
//! section 3.1; RFC 7636).

use crate::fault::{Fault, io_words};
use crate::settings::{AccessUrl, Settings};
use chrono::DateTime;
use io_adapters::http::{HttpClient, HttpError};
use openidconnect::core::{
    CoreAuthenticationFlow, CoreClient, CoreClientAuthMethod, CoreProviderMetadata, CoreTokenResponse,
};
use openidconnect::{
    AccessTokenHash, AuthType, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EndpointMaybeSet,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IssuerUrl, Nonce, OAuth2TokenResponse,
    PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope, TokenResponse,
};
use tokio::sync::Mutex;

/// Where the provider sends people back to.
pub(crate) const CALLBACK: &str = "/api/v1/login/oidc/callback";

/// How long the provider's document and keys are kept, in milliseconds. New keys are fetched as soon as they are
/// needed.
const KEEP_MS: i64 = 10 * 60 * 1_000;
/// How soon it is asked again, in milliseconds, after it gave no document or when a signature does not fit: visitors
/// must not make the server ask without end.
const AGAIN_MS: i64 = 5_000;
/// The longest answer of a provider that is read, in bytes.
const ANSWER_MAX: usize = 1 << 20;

type Client = CoreClient<
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Why a login by the provider did not work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum OidcError {
    /// It does not answer, or not as it should.
    #[error("the provider does not answer as it should: {0}")]
    Provider(String),
    /// What it says of the person cannot be trusted.
    #[error("the provider's ID token is not good: {0}")]
    Token(String),
}

/// A provider.
pub(crate) struct Provider {
    /// What people call it.
    pub(crate) name: String,
    /// Whether people who are not known yet become members.
    pub(crate) sign_up: bool,
    issuer: IssuerUrl,
    client_id: ClientId,
    client_secret: Option<ClientSecret>,
    redirect: RedirectUrl,
    known: Mutex<Known>,
}

/// Its document with its keys, and when it was last asked for them.
#[derive(Default)]
struct Known {
    asked_at: Option<i64>,
    answer: Option<Result<CoreProviderMetadata, OidcError>>,
}

/// What must be remembered between sending somebody to the provider and having him back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Pending {
    /// Tells that it is the same browser.
    pub(crate) state: String,
    /// Binds the ID token to this login.
    pub(crate) nonce: String,
    /// Binds the code to this login.
    pub(crate) verifier: String,
}

/// Who somebody is for the provider.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Identity {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// What the provider calls the person, if it tells.
    pub(crate) name: Option<String>,
}

impl Provider {
    /// The provider that the settings name, if they do. It is asked nothing yet.
    ///
    /// # Errors
    /// If a setting is missing or will not do.
    pub(crate) fn of(settings: &Settings, access_url: &AccessUrl) -> Result<Option<Self>, Fault> {
        let Some(issuer) = &settings.oidc_issuer_url else { return Ok(None) };
        let wrong = |message: String, hint: &str| Fault::new("OIDC_INVALID", message, hint);
        let issuer = IssuerUrl::new(issuer.clone()).map_err(|error| {
            wrong(format!("--oidc-issuer-url: {error}"), "write it as the provider does, https://…")
        })?;
        let Some(client_id) = &settings.oidc_client_id else {
            let hint = "register Warren with the provider and give its name there by --oidc-client-id";
            return Err(wrong("--oidc-issuer-url is given, but not --oidc-client-id".to_owned(), hint));
        };
        let client_secret = match &settings.oidc_client_secret_file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    let message = format!("can't read {}: {}", path.display(), io_words(&error));
                    wrong(message, "check --oidc-client-secret-file and the file's permissions")
                })?;
                Some(ClientSecret::new(text.trim().to_owned()))
            }
        };
        let redirect = RedirectUrl::new(format!("{access_url}{CALLBACK}"));
        Ok(Some(Self {
            name: settings.oidc_name.clone(),
            sign_up: settings.oidc_sign_up,
            issuer,
            client_id: ClientId::new(client_id.clone()),
            client_secret,
            redirect: redirect.map_err(|error| wrong(format!("the access URL: {error}"), ""))?,
            known: Mutex::default(),
        }))
    }

    /// Where to send somebody who wants to log in.
    ///
    /// # Errors
    /// If the provider gives no document about itself.
    pub(crate) async fn begin(&self, now: i64) -> Result<(String, Pending), OidcError> {
        let client = self.client(self.metadata(now, KEEP_MS).await?);
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let flow = CoreAuthenticationFlow::AuthorizationCode;
        let (url, state, nonce) = client
            .authorize_url(flow, CsrfToken::new_random, Nonce::new_random)
            .add_scope(Scope::new("profile".to_owned()))
            .add_scope(Scope::new("email".to_owned()))
            .set_pkce_challenge(challenge)
            .url();
        let (state, nonce) = (state.secret().clone(), nonce.secret().clone());
        Ok((url.to_string(), Pending { state, nonce, verifier: verifier.secret().clone() }))
    }

    /// Who it is that comes back with this code.
    ///
    /// # Errors
    /// If the provider does not take the code, or its word is not good.
    pub(crate) async fn finish(
        &self,
        code: String,
        pending: &Pending,
        now: i64,
    ) -> Result<Identity, OidcError> {
        let client = self.client(self.metadata(now, KEEP_MS).await?);
        let request = client
            .exchange_code(AuthorizationCode::new(code))
            .map_err(|error| OidcError::Provider(error.to_string()))?
            .set_pkce_verifier(PkceCodeVerifier::new(pending.verifier.clone()));
        let answer = request.request_async(&fetch).await;
        let answer = answer.map_err(|error| OidcError::Provider(words(&error)))?;
        match identity(&client, &answer, pending, now) {
            // Its keys may be newer than what is known of them.
            Err(_) => identity(&self.client(self.metadata(now, AGAIN_MS).await?), &answer, pending, now),
            known => known,
        }
    }

    fn client(&self, metadata: CoreProviderMetadata) -> Client {
        let takes = metadata.token_endpoint_auth_methods_supported().cloned().unwrap_or_default();
        let client =
            CoreClient::from_provider_metadata(metadata, self.client_id.clone(), self.client_secret.clone())
                .set_redirect_uri(self.redirect.clone());
        // Without a word on it, a provider takes the header (OpenID Connect Discovery 1.0, section 3).
        let only_body = takes.contains(&CoreClientAuthMethod::ClientSecretPost)
            && !takes.contains(&CoreClientAuthMethod::ClientSecretBasic);
        if only_body { client.set_auth_type(AuthType::RequestBody) } else { client }
    }

    /// The provider's document, not older than `keep_ms` milliseconds.
    async fn metadata(&self, now: i64, keep_ms: i64) -> Result<CoreProviderMetadata, OidcError> {
        // Whoever comes while it is fetched waits for the same answer.
        let mut known = self.known.lock().await;
        let age = known.asked_at.map(|asked_at| now - asked_at);
        if let (Some(age), Some(answer)) = (age, &known.answer)
            && age < if answer.is_ok() { keep_ms } else { AGAIN_MS }
        {
            return answer.clone();
        }
        let answer = CoreProviderMetadata::discover_async(self.issuer.clone(), &fetch).await;
        let answer = answer.map_err(|error| OidcError::Provider(words(&error)));
        *known = Known { asked_at: Some(now), answer: Some(answer.clone()) };
        answer
    }
}

/// What the ID token of an answer says, if it is signed by the provider, for us, for this login, and still good.
fn identity(
    client: &Client,
    answer: &CoreTokenResponse,
    pending: &Pending,
    now: i64,
) -> Result<Identity, OidcError> {
    let bad = |error: &dyn core::error::Error| OidcError::Token(words(error));
    let token = answer.id_token().ok_or_else(|| OidcError::Token("there is none".to_owned()))?;
    let time = move || DateTime::from_timestamp_millis(now).unwrap_or_default();
    let verifier = client.id_token_verifier().set_time_fn(time);
    let claims = token.claims(&verifier, &Nonce::new(pending.nonce.clone())).map_err(|error| bad(&error))?;
    if let Some(hash) = claims.access_token_hash() {
        let algorithm = token.signing_alg().map_err(|error| bad(&error))?;
        let key = token.signing_key(&verifier).map_err(|error| bad(&error))?;
        let actual = AccessTokenHash::from_token(answer.access_token(), algorithm, key);
        if actual.map_err(|error| bad(&error))? != *hash {
            return Err(OidcError::Token("it belongs to another access token".to_owned()));
        }
    }
    let name = claims.preferred_username().map(|name| name.as_str().to_owned());
    let name = name.or_else(|| claims.email().map(|email| email.as_str().to_owned()));
    let (issuer, subject) = (claims.issuer().as_str().to_owned(), claims.subject().as_str().to_owned());
    Ok(Identity { issuer, subject, name })
}

async fn fetch(request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let client = HttpClient::new(concat!("warren-server/", env!("CARGO_PKG_VERSION")));
    client.answer_max(ANSWER_MAX).carry(request).await
}

/// An error with all that is behind it.
fn words(error: &dyn core::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        text = format!("{text}: {error}");
        behind = error.source();
    }
    text
}
