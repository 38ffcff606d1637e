//! How services of one installation know each other: a secret that all of them are given. It opens internal routes, and
//! whoever shows it is believed about the client's address. It says nothing about who the client is: services verify
//! access tokens themselves.

use std::fmt;
use std::net::IpAddr;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;

use crate::{ClientAddress, Problem};

const SERVICE_TOKEN: HeaderName = HeaderName::from_static("omisys-service-token");

/// The client's address as the gateway determined it; believed only beside a service token.
pub const CLIENT_ADDRESS: HeaderName = HeaderName::from_static("omisys-client-address");

/// The secret of the installation's services: 32 to 256 visible ASCII characters.
#[derive(Clone)]
pub struct ServiceToken(HeaderValue);

/// The text cannot be a service token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a service token is 32 to 256 visible ASCII characters")]
pub struct ServiceTokenError;

impl ServiceToken {
    /// The token of this secret.
    pub fn new(secret: &str) -> Result<Self, ServiceTokenError> {
        let plain = (32..=256).contains(&secret.len()) && secret.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value = plain
            .then(|| HeaderValue::from_str(secret).ok())
            .flatten()
            .ok_or(ServiceTokenError)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// Shows the token to the service that gets `headers`.
    pub fn show(&self, headers: &mut HeaderMap) {
        headers.insert(SERVICE_TOKEN, self.0.clone());
    }

    /// Whether `headers` show it, once. The time does not tell how much of a wrong one was right.
    fn is_shown(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(SERVICE_TOKEN).iter();
        let (Some(sent), None) = (sent.next(), sent.next()) else {
            return false;
        };
        let (ours, theirs) = (self.0.as_bytes(), sent.as_bytes());
        ours.len() == theirs.len()
            && ours
                .iter()
                .zip(theirs)
                .fold(0, |wrong, (one, other)| wrong | (one ^ other))
                == 0
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceToken")
    }
}

/// Proof that a service of ours sent the request; an internal route asks for it. 403 without. Needs
/// [`believe_services`] around the route.
#[derive(Clone, Copy, Debug)]
pub struct FromService(());

impl<S: Sync> FromRequestParts<S> for FromService {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let proof = parts.extensions.get::<Self>();
        proof.copied().ok_or_else(|| Problem::forbidden("service"))
    }
}

/// Checks the service token, if there is one, and takes [`CLIENT_ADDRESS`] over from who shows it. Both headers end
/// here. Without a token of our own nobody is believed.
///
/// Use with `axum::middleware::from_fn_with_state(Option<ServiceToken>, believe_services)`.
pub async fn believe_services(
    State(token): State<Option<ServiceToken>>,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = token.is_some_and(|token| token.is_shown(request.headers()));
    request.headers_mut().remove(SERVICE_TOKEN);
    let address = request.headers_mut().remove(CLIENT_ADDRESS);
    if shown {
        request.extensions_mut().insert(FromService(()));
        let address = address.and_then(|value| value.to_str().ok()?.parse::<IpAddr>().ok());
        if let Some(address) = address {
            request.extensions_mut().insert(ClientAddress(Some(address)));
        }
    }
    next.run(request).await
}
