//! The API's document, written from the code that answers: OpenAPI 3.1 at `/api/openapi.json`.

use crate::app::Shared;
use axum::Router;
use axum::http::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use axum::routing::get;
use proto_core::wire::api::Problem;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, Ref, RefOr, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;

/// Where the document is.
const PATH: &str = "/api/openapi.json";
/// Where what it describes is.
const BASE: &str = "/api/v1";
/// The name of the one way to say who asks.
const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(title = "Warren", description = "The API of a Warren server. Every answer of 400 and above is a Problem."),
    servers((url = BASE)),
    components(schemas(Problem)),
    modifiers(&Bearer, &Problems),
    security(("bearer" = [])),
    tags(
        (name = "people", description = "Who may come in, and as whom"),
        (name = "workspaces", description = "Workspaces and their agents"),
        (name = "network", description = "Paths, relays and their health"),
        (name = "server", description = "The server itself"),
        (name = "nodes", description = "What agents and clients speak")
    )
)]
struct Document;

/// Tokens travel as `Authorization: Bearer …`.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer);
        let scheme = scheme.description(Some("A session's, an API client's or an agent's token")).build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme));
    }
}

/// Every operation can fail, and always in the same form.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let body = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new().description("Why it was not done");
        let response = response.content("application/problem+json", body).build();
        for item in document.paths.paths.values_mut() {
            let methods = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
            for operation in methods.into_iter().flatten() {
                let responses = &mut operation.responses.responses;
                responses.entry("default".to_owned()).or_insert_with(|| RefOr::T(response.clone()));
            }
        }
    }
}

/// The router that answers, and the document that describes it.
pub(super) fn split(api: OpenApiRouter<Shared>) -> (Router<Shared>, utoipa::openapi::OpenApi) {
    let (router, routes) = api.split_for_parts();
    let mut document = Document::openapi();
    document.merge(routes);
    Problems.modify(&mut document);
    (router, document)
}

/// Answers with the document. It is no secret: it tells what the program's source tells.
pub(super) fn route(document: &utoipa::openapi::OpenApi) -> Router<Shared> {
    // It is made of strings and maps of strings, which always have a JSON.
    let json = document.to_pretty_json().unwrap_or_default();
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Router::new().route(PATH, get(|| async move { (headers, json) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1;

    #[test]
    fn the_document_is_the_one_that_was_looked_at() {
        let (_, document) = split(v1());
        insta::assert_snapshot!(document.to_pretty_json().unwrap());
    }

    #[test]
    fn every_operation_has_a_description_and_says_how_it_fails() {
        let (_, document) = split(v1());
        let json = serde_json::to_value(&document).unwrap();
        let mut names = std::collections::BTreeSet::new();
        for (path, item) in json["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let of = |key: &str| operation[key].as_str().unwrap_or_default();
                assert!(names.insert(of("operationId")), "{method} {path} is called as another is");
                assert!(!of("summary").is_empty(), "{method} {path} has no doc comment");
                assert!(!operation["tags"][0].as_str().unwrap_or_default().is_empty(), "{method} {path}");
                let failure = &operation["responses"]["default"]["content"]["application/problem+json"];
                assert!(failure.is_object(), "{method} {path}");
                let described = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
                let described = described.iter().filter(|parameter| parameter["in"] == "path");
                assert_eq!(
                    described.count(),
                    path.matches('{').count(),
                    "{method} {path}: a part is not described"
                );
            }
        }
    }

    /// `routes!` alone writes a route into the document.
    #[test]
    fn no_route_of_the_api_is_left_out() {
        let source = include_str!("../api.rs");
        let (_, v1) = source.split_once("fn v1()").unwrap();
        let (v1, rest) = v1.split_once("\n}").unwrap();
        assert!(v1.contains(".routes(routes!("), "{v1}");
        assert!(!v1.contains(".route(") && !v1.contains(".nest") && !v1.contains(".merge"), "{v1}");
        let (before, _) = source.split_once("fn v1()").unwrap();
        assert!(!format!("{before}{rest}").contains(".route(\"/api/"), "the API's routes belong into v1()");
    }
}
