//! What the server answers over HTTP. The documents are [`proto_core::wire::api`]'s.

mod account;
mod apps;
mod audit;
pub(crate) mod bearer;
pub(crate) mod call;
pub(crate) mod cookie;
mod coordinate;
mod derp;
mod device;
mod events;
mod limit;
mod oidc;
mod openapi;
pub(crate) mod problem;
mod reach;
mod shares;
mod state;
mod system;
pub(crate) mod terminal;
mod tokens;
mod tunnels;
mod users;
mod verify;
mod workspaces;

pub(crate) use system::BUILD;

use crate::app::Shared;
use crate::apps::{path, subdomain};
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CACHE_CONTROL, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::response::Response;
use axum::routing::{any, get, post};
use core::net::SocketAddr;
use proto_core::wire::api::VERSION_HEADER;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Where the embedded relay is.
pub(crate) const DERP_PATH: &str = "/derp";

/// Bytes of a request's body: the greatest document is a login with a long password.
const BODY_MAX: usize = 64 * 1024;

/// Who is at the other end of the connection that a request came by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Remote(pub(crate) SocketAddr);

/// All of it.
pub(crate) fn router(app: Shared) -> Router {
    let (api, document) = openapi::split(v1());
    let api = api
        .layer(axum::middleware::map_response(problem::in_one_form))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), limit::limit))
        .layer(axum::middleware::map_response(private))
        .layer(DefaultBodyLimit::max(BODY_MAX));
    Router::new()
        .nest("/api/v1", api)
        .merge(openapi::route(&document))
        .route("/", get(system::home))
        .merge(pages())
        .merge(path_apps())
        .route("/healthz", get(system::healthz))
        .route("/readyz", get(system::readyz))
        .route(DERP_PATH, any(derp::derp))
        .route("/derp/latency-check", any(derp::probe))
        .route("/derp/probe", any(derp::probe))
        .route("/derp/verify", post(verify::verify))
        .route("/generate_204", any(derp::generate_204))
        .method_not_allowed_fallback(problem::wrong_method)
        .fallback(problem::other_path)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), call::name))
        .with_state(app)
}

/// What is served at hosts under the wildcard: apps, and nothing of the server's own.
pub(crate) fn app_hosts(app: Shared) -> Router {
    Router::new()
        .fallback(subdomain::serve)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), call::name))
        .with_state(app)
}

fn path_apps() -> Router<Shared> {
    path::ROUTES.iter().fold(Router::new(), |router, route| router.route(route, any(path::serve)))
}

/// The pages of the dashboard. All are one file, whose script shows what belongs to the path.
const PAGES: &[&str] = &[
    "/setup",
    device::PAGE,
    "/workspaces",
    "/workspaces/{owner}/{name}",
    "/workspaces/{owner}/{name}/terminal",
    "/relays",
    "/health",
    "/people",
    "/audit",
    "/settings",
    "/replicas",
    "/api/docs",
];

fn pages() -> Router<Shared> {
    PAGES.iter().fold(Router::new(), |router, page| router.route(page, get(system::page)))
}

/// What is under `/api/v1`. A route is listed with its description, so that the API's document is never behind.
fn v1() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(account::set_up))
        .routes(routes!(account::log_in))
        .routes(routes!(account::methods))
        .routes(routes!(oidc::begin))
        .routes(routes!(oidc::finish))
        .routes(routes!(device::begin))
        .routes(routes!(device::approve))
        .routes(routes!(device::confirm))
        .routes(routes!(device::ask))
        .routes(routes!(account::log_out))
        .routes(routes!(account::me))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::change, users::delete))
        .routes(routes!(tokens::change_password))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(workspaces::list, workspaces::create))
        .routes(routes!(workspaces::one, workspaces::delete))
        .routes(routes!(workspaces::one_of, workspaces::delete_of))
        .routes(routes!(reach::ports))
        .routes(routes!(shares::list))
        .routes(routes!(shares::share, shares::unshare))
        .routes(routes!(shares::agent_token))
        .routes(routes!(apps::list))
        .routes(routes!(apps::one, apps::set, apps::remove))
        .routes(routes!(apps::open))
        .routes(routes!(terminal::attach))
        .routes(routes!(terminal::list))
        .routes(routes!(terminal::end))
        .routes(routes!(events::events))
        .routes(routes!(tunnels::tunnels))
        .routes(routes!(state::relays))
        .routes(routes!(state::health))
        .routes(routes!(state::settings))
        .routes(routes!(state::replicas))
        .routes(routes!(system::build_info))
        .routes(routes!(system::derp_map))
        .routes(routes!(coordinate::coordinate))
}

/// Answers may hold tokens and names: nobody on the way keeps them or guesses what they are.
async fn private(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(VERSION_HEADER, HeaderValue::from_static(env!("CARGO_PKG_VERSION")));
    response
}
