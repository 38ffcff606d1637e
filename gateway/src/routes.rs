//! Which service answers what. The table is made from the services' OpenAPI documents, so a route that is not
//! documented cannot be reached from outside, and 404 and 405 are told apart without asking a service.

use std::sync::Arc;

use http::Method;
use serde_json::Value;

use crate::openapi::METHODS;

/// Who answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Command,
    Query,
    Identity,
    Own(Own),
}

impl Target {
    /// The name in the OpenAPI document.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Query => "query",
            Self::Identity => "identity",
            Self::Own(_) => "gateway",
        }
    }
}

/// What the gateway answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    Root,
    Livez,
    Readyz,
    Metrics,
    OpenApi,
    Docs,
}

impl Own {
    const ALL: [(&'static str, Self); 6] = [
        ("/", Self::Root),
        ("/livez", Self::Livez),
        ("/readyz", Self::Readyz),
        ("/metrics", Self::Metrics),
        ("/openapi.json", Self::OpenApi),
        ("/docs", Self::Docs),
    ];
}

/// Why there is nobody to answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    NotFound,
    /// The path exists; the value is the `Allow` header.
    Method(String),
}

/// One path's methods and who answers them.
type Entry = Vec<(Method, Target)>;

/// The routing table.
#[derive(Default)]
pub(crate) struct Routes {
    router: matchit::Router<usize>,
    entries: Vec<(Arc<str>, Entry)>,
}

/// Two templates that the router cannot tell apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the path {path} cannot stand beside the others")]
pub struct PathConflict {
    pub path: String,
}

impl Routes {
    /// The gateway's own routes.
    pub(crate) fn own() -> Result<Self, PathConflict> {
        let mut routes = Self::default();
        for (path, own) in Own::ALL {
            routes.add(path, Method::GET, Target::Own(own))?;
        }
        Ok(routes)
    }

    /// Adds every operation of an OpenAPI document (as JSON).
    pub(crate) fn add_document(&mut self, document: &Value, target: Target) -> Result<(), PathConflict> {
        let paths = document["paths"].as_object().into_iter().flatten();
        for (path, item) in paths {
            for name in METHODS
                .into_iter()
                .filter(|name| item.get(name).is_some_and(Value::is_object))
            {
                if let Ok(method) = name.to_uppercase().parse() {
                    self.add(path, method, target)?;
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str, method: Method, target: Target) -> Result<(), PathConflict> {
        let known = self.entries.iter().position(|(known, _)| &**known == path);
        let index = if let Some(index) = known {
            index
        } else {
            let conflict = |_| PathConflict {
                path: path.to_owned(),
            };
            self.router.insert(path, self.entries.len()).map_err(conflict)?;
            self.entries.push((path.into(), Vec::new()));
            self.entries.len() - 1
        };
        self.entries[index].1.push((method, target));
        Ok(())
    }

    /// Who answers `method` on `path`, and the path's template. `HEAD` is answered wherever `GET` is.
    pub(crate) fn find(&self, method: &Method, path: &str) -> Result<(Target, &Arc<str>), Miss> {
        let found = self.router.at(path).map_err(|_| Miss::NotFound)?;
        let (template, entry) = &self.entries[*found.value];
        let asked = if method == Method::HEAD {
            &Method::GET
        } else {
            method
        };
        match entry.iter().find(|(known, _)| known == asked) {
            Some((_, target)) => Ok((*target, template)),
            None => Err(Miss::Method(allow(entry))),
        }
    }
}

fn allow(entry: &Entry) -> String {
    let mut names: Vec<&str> = entry.iter().map(|(method, _)| method.as_str()).collect();
    if names.contains(&"GET") {
        names.push("HEAD");
    }
    names.sort_unstable();
    names.join(", ")
}

/// Whether a route of the API can be called without a token: the catalogue and the providers' webhooks. Identity and
/// the gateway's own routes decide for themselves.
pub(crate) fn is_public(target: Target, method: &Method, template: &str) -> bool {
    match target {
        Target::Query => matches!(template, "/v1/products" | "/v1/products/{id}"),
        Target::Command => method == Method::POST && template.starts_with("/v1/payments/webhooks/"),
        Target::Identity | Target::Own(_) => true,
    }
}

/// Whether a route fills a cart: what was put into it comes to nothing if its check-out is refused, and has cost all the
/// same. Emptying one is none of it.
pub(crate) fn fills_a_cart(target: Target, method: &Method, template: &str) -> bool {
    target == Target::Command
        && method == Method::POST
        && template.starts_with("/v1/carts/")
        && !["/checkout", "/remove", "/clear"]
            .iter()
            .any(|other| template.ends_with(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn routes() -> Routes {
        let command = json!({"paths": {
            "/v1/products": {"post": {}}, "/v1/orders/{id}/cancel": {"post": {}},
            "/v1/carts/mine/items/{sku}/remove": {"post": {}}, "/v1/payments/webhooks/{provider}": {"post": {}},
        }});
        let query = json!({"paths": {
            "/v1/products": {"get": {}}, "/v1/products/{id}": {"get": {}}, "/v1/orders/{id}": {"get": {}},
        }});
        let mut routes = Routes::own().unwrap();
        routes.add_document(&command, Target::Command).unwrap();
        routes.add_document(&query, Target::Query).unwrap();
        routes
    }

    #[test]
    fn a_path_leads_to_the_service_that_documents_its_method() {
        let routes = routes();
        let find = |method, path| {
            routes
                .find(&method, path)
                .map(|(target, template)| (target, &**template))
        };
        assert_eq!(
            find(Method::POST, "/v1/products"),
            Ok((Target::Command, "/v1/products"))
        );
        assert_eq!(
            find(Method::GET, "/v1/products"),
            Ok((Target::Query, "/v1/products"))
        );
        assert_eq!(
            find(Method::HEAD, "/v1/orders/7"),
            Ok((Target::Query, "/v1/orders/{id}"))
        );
        assert_eq!(find(Method::GET, "/docs"), Ok((Target::Own(Own::Docs), "/docs")));
    }

    #[test]
    fn what_is_not_documented_is_not_found_and_other_methods_are_not_allowed() {
        let routes = routes();
        for path in [
            "/v1",
            "/v1/orders",
            "/v1/orders/7/",
            "/v1/orders/7/secret",
            "//v1/products",
            "/admin",
            "*",
        ] {
            assert_eq!(routes.find(&Method::GET, path), Err(Miss::NotFound), "{path}");
        }
        let allowed = |method, path| routes.find(&method, path);
        assert_eq!(
            allowed(Method::GET, "/v1/orders/7/cancel"),
            Err(Miss::Method("POST".to_owned()))
        );
        assert_eq!(
            allowed(Method::PUT, "/v1/products"),
            Err(Miss::Method("GET, HEAD, POST".to_owned()))
        );
        assert_eq!(
            allowed(Method::DELETE, "/docs"),
            Err(Miss::Method("GET, HEAD".to_owned()))
        );
    }

    #[test]
    fn only_the_catalogue_and_webhooks_are_public() {
        let public = |target, method, template| is_public(target, &method, template);
        assert!(public(Target::Query, Method::GET, "/v1/products/{id}"));
        assert!(public(
            Target::Command,
            Method::POST,
            "/v1/payments/webhooks/{provider}"
        ));
        assert!(!public(Target::Command, Method::POST, "/v1/products"));
        assert!(!public(Target::Query, Method::GET, "/v1/orders/{id}"));
        assert!(!public(Target::Query, Method::GET, "/v1/inventory/{sku}"));
    }

    #[test]
    fn what_fills_a_cart_is_told_from_what_empties_it_or_pays_for_it() {
        let fills = |path| fills_a_cart(Target::Command, &Method::POST, path);
        assert!(fills("/v1/carts/mine/items"));
        assert!(fills("/v1/carts/mine/items/{sku}/quantity"));
        assert!(fills("/v1/carts/mine/merge"));
        assert!(!fills("/v1/carts/mine/items/{sku}/remove"));
        assert!(!fills("/v1/carts/mine/clear"));
        assert!(!fills("/v1/carts/mine/checkout"));
        assert!(!fills("/v1/orders"));
        assert!(!fills_a_cart(Target::Query, &Method::GET, "/v1/carts/mine"));
    }
}
