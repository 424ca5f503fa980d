//! What a person sees instead of an app: one sentence about why, and what to do.

use crate::api::problem::ApiError;
use axum::http::StatusCode;
use axum::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, REFERRER_POLICY,
    VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::LazyLock;

/// Seconds after which a page that may be there soon is tried again.
const AGAIN_S: u32 = 5;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--soft:#566173;--back:#f6f7f9;--card:#fff;--line:#d9dee6;--link:#1d5fd1}\
@media(prefers-color-scheme:dark){:root{--ink:#e8ecf2;--soft:#a3adbc;--back:#12161c;--card:#1b2129;--line:#323b48;--link:#8ab4ff}}\
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--back);color:var(--ink);font:16px/1.5 system-ui,sans-serif}\
main{max-width:34rem;margin:1rem;padding:1.5rem 2rem;background:var(--card);border:1px solid var(--line);border-radius:.75rem;overflow-wrap:anywhere}\
h1{font-size:1.25rem;margin:0 0 .5rem}p{margin:.5rem 0}.soft{color:var(--soft);font-size:.875rem}a{color:var(--link)}";

/// Nothing but the style above.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = STANDARD.encode(Sha256::digest(STYLE));
    let text = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    HeaderValue::from_str(&text).ok()
});

/// Why there is no app.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    /// Its kind in a few words.
    pub(crate) title: &'static str,
    /// What happened.
    pub(crate) detail: String,
    /// What to do.
    pub(crate) hint: String,
    /// Whether it may be there soon.
    pub(crate) passes: bool,
    /// Where to go on, and what that is called.
    pub(crate) link: Option<(String, &'static str)>,
}

impl Trouble {
    pub(crate) fn new(
        (status, code, title): (StatusCode, &'static str, &'static str),
        detail: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self { status, code, title, detail: detail.into(), hint: hint.into(), passes: false, link: None }
    }

    /// It is tried again by itself.
    pub(crate) fn passing(self) -> Self {
        Self { passes: true, ..self }
    }

    pub(crate) fn with_link(self, to: String, called: &'static str) -> Self {
        Self { link: Some((to, called)), ..self }
    }

    /// A page for people, a problem for programs, by what the request accepts.
    pub(crate) fn answer(&self, asked: &HeaderMap) -> Response {
        let mut response = if wants_page(asked) {
            let mut page = (self.status, self.html()).into_response();
            page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            if let Some(policy) = &*POLICY {
                page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy.clone());
            }
            page
        } else {
            let kind = (self.status, self.code, self.title);
            let error = ApiError::new(kind, self.detail.clone(), self.hint.clone());
            if self.passes { error.after(AGAIN_S.into()) } else { error }.into_response()
        };
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(VARY, HeaderValue::from_static("accept"));
        response
    }

    fn html(&self) -> String {
        let mut out = String::from("<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">");
        out.push_str("<meta name=\"viewport\" content=\"width=device-width\">");
        if self.passes {
            let _ = write!(out, "<meta http-equiv=\"refresh\" content=\"{AGAIN_S}\">");
        }
        let (title, detail, hint) =
            (escaped(&capital(self.title)), escaped(&capital(&self.detail)), escaped(&capital(&self.hint)));
        let _ = write!(
            out,
            "<title>{title}</title><style>{STYLE}</style></head><body><main><h1>{title}</h1><p>{detail}.</p>"
        );
        if !hint.is_empty() {
            let _ = write!(out, "<p>{hint}.</p>");
        }
        if let Some((to, called)) = &self.link {
            let _ = write!(out, "<p><a href=\"{}\">{called}</a></p>", escaped(to));
        }
        if self.passes {
            let _ = write!(out, "<p class=\"soft\">This page looks again every {AGAIN_S} seconds.</p>");
        }
        let _ = write!(out, "<p class=\"soft\">{} · Warren</p></main></body></html>", self.code);
        out
    }
}

/// Whether a person looks at the answer.
pub(crate) fn wants_page(headers: &HeaderMap) -> bool {
    headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"))
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, letter| {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_a_page_in_which_nothing_runs_and_programs_a_problem() {
        let kind = (StatusCode::BAD_GATEWAY, "APP_DOWN", "the app is down");
        let trouble = Trouble::new(kind, "<script>alert(1)</script>", "say \"hello\"").passing();
        let mut asked = HeaderMap::new();
        let told = trouble.answer(&asked);
        assert_eq!(told.headers()[CONTENT_TYPE], "application/problem+json");
        asked.insert(ACCEPT, HeaderValue::from_static("text/html,*/*;q=0.8"));
        let told = trouble.answer(&asked);
        assert_eq!(
            (told.status(), &told.headers()[CACHE_CONTROL]),
            (StatusCode::BAD_GATEWAY, &HeaderValue::from_static("no-store"))
        );
        let policy = told.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("unsafe"),
            "{policy}"
        );
        let html = trouble.html();
        assert!(
            !html.contains("<script")
                && html.contains("&lt;script&gt;")
                && html.contains("&quot;hello&quot;")
        );
    }
}
