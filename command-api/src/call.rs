//! What every command request brings along, checked in one order: token, permission, path, headers, body.

use std::sync::Arc;

use axum::extract::{
    FromRequest, FromRequestParts, OptionalFromRequest, OptionalFromRequestParts, OriginalUri, Request,
};
use event_schemas::{CommandId, CorrelationId, CustomerId, RecordedEvent, Version};
use event_store::{CommandRequest, Fingerprint, Fingerprints};
use http_conventions::{
    BODY_LIMIT_BYTES, ClientAddress, IdempotencyKey, IfMatch, Path, Prefer, Problem, RawJson, TraceContext,
};
use identity::verifier::{Caller, Permission};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use utoipa::ToSchema;

use crate::state::CommandApi;

/// The most bytes of a body that [`Route::takes_large_body`].
pub(crate) const LARGE_BODY_LIMIT_BYTES: usize = 1024 * 1024;

/// What a route demands of a request before its handler runs.
pub(crate) trait Route: Send + Sync + 'static {
    type Path: DeserializeOwned + Send;
    type Body: DeserializeOwned + Send;
    /// The caller needs one of these.
    const PERMISSIONS: &'static [Permission];
    /// Whether an `Idempotency-Key` is required: where money or stock moves.
    const KEY_REQUIRED: bool;

    /// What a request without a body means, where that is allowed.
    fn without_body() -> Option<Self::Body> {
        None
    }

    /// Whether this caller may send [`LARGE_BODY_LIMIT_BYTES`].
    fn takes_large_body(_caller: &Caller) -> bool {
        false
    }
}

/// The body of a route that needs none: absent, or an empty object.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NoBody {}

/// An authorised, well-formed request to `R`.
pub(crate) struct Call<R: Route> {
    pub caller: Caller,
    pub path: R::Path,
    pub body: R::Body,
    pub command_id: CommandId,
    /// Whether the client chose the command's id, so that an earlier outcome may exist.
    pub keyed: bool,
    pub fingerprints: Fingerprints,
    /// `If-Match`.
    pub expected_version: Option<Version>,
    pub prefer: Prefer,
    pub address: ClientAddress,
    traceparent: Arc<str>,
}

impl<R: Route> Call<R> {
    /// The caller as a customer.
    pub(crate) fn customer(&self) -> CustomerId {
        self.caller.customer_id()
    }

    /// `command` as this caller's, under this request's id.
    pub(crate) fn request<C>(&self, command: C) -> CommandRequest<C> {
        CommandRequest {
            command_id: self.command_id,
            fingerprints: self.fingerprints.clone(),
            actor: self.caller.actor(),
            correlation_id: CorrelationId::for_command(self.command_id),
            causation: None,
            traceparent: Some(Arc::clone(&self.traceparent)),
            expected_version: self.expected_version,
            command,
        }
    }

    /// `command` under the id that a policy gives it, as following from `cause` and asked for by this caller.
    pub(crate) fn follow_up<C>(
        &self,
        cause: &RecordedEvent,
        command_id: CommandId,
        command: C,
    ) -> CommandRequest<C> {
        CommandRequest {
            correlation_id: cause.metadata.correlation_id,
            causation: Some(cause.id()),
            traceparent: Some(Arc::clone(&self.traceparent)),
            ..CommandRequest::new(command_id, self.caller.actor(), command)
        }
    }
}

impl<R: Route> FromRequest<CommandApi> for Call<R> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &CommandApi) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let caller = Caller::from_request_parts(&mut parts, api).await?;
        authorise(&caller, R::PERMISSIONS)?;
        let Path(path) = Path::<R::Path>::from_request_parts(&mut parts, api).await?;
        let key = if R::KEY_REQUIRED {
            let key = <IdempotencyKey as FromRequestParts<_>>::from_request_parts(&mut parts, api).await?;
            Some(key)
        } else {
            <IdempotencyKey as OptionalFromRequestParts<_>>::from_request_parts(&mut parts, api).await?
        };
        let IfMatch(expected_version) = IfMatch::from_request_parts(&mut parts, api).await?;
        let Ok(prefer) = Prefer::from_request_parts(&mut parts, api).await;
        let Ok(address) = ClientAddress::from_request_parts(&mut parts, api).await;
        let Ok(trace) = TraceContext::from_request_parts(&mut parts, api).await;
        let Ok(OriginalUri(uri)) = OriginalUri::from_request_parts(&mut parts, api).await;
        let method = parts.method.clone();

        let services = &api.services;
        let request = Request::from_parts(parts, body);
        let (body, raw) = if R::takes_large_body(&caller) {
            read::<R, LARGE_BODY_LIMIT_BYTES>(request, api).await?
        } else {
            read::<R, BODY_LIMIT_BYTES>(request, api).await?
        };

        let (command_id, fingerprints) = match &key {
            Some(key) => {
                let principal = caller.account_id.to_string();
                let id = CommandId::for_request(&principal, method.as_str(), uri.path(), key.as_str());
                (id, fingerprints(api, &raw))
            }
            None => (
                CommandId::generate(services.clock.now(), &services.random.bytes()?),
                Fingerprints::none(),
            ),
        };
        Ok(Self {
            caller,
            path,
            body,
            command_id,
            keyed: key.is_some(),
            fingerprints,
            expected_version,
            prefer,
            address,
            traceparent: trace.to_string().into(),
        })
    }
}

/// 403 naming the first of `permissions` unless the caller has one of them.
fn authorise(caller: &Caller, permissions: &[Permission]) -> Result<(), Problem> {
    if permissions.iter().any(|permission| caller.may(*permission)) {
        return Ok(());
    }
    permissions
        .first()
        .map_or(Ok(()), |permission| caller.require(*permission))
}

async fn read<R: Route, const MAX_BYTES: usize>(
    request: Request,
    api: &CommandApi,
) -> Result<(R::Body, axum::body::Bytes), Problem> {
    let RawJson { value, raw } = match R::without_body() {
        None => <RawJson<R::Body, MAX_BYTES> as FromRequest<_>>::from_request(request, api).await?,
        Some(value) => <RawJson<R::Body, MAX_BYTES> as OptionalFromRequest<_>>::from_request(request, api)
            .await?
            .unwrap_or(RawJson {
                value,
                raw: axum::body::Bytes::new(),
            }),
    };
    Ok((value, raw))
}

fn fingerprints(api: &CommandApi, raw: &[u8]) -> Fingerprints {
    let mut macs = api
        .services
        .fingerprinter
        .macs(raw)
        .into_iter()
        .map(|keyed| Fingerprint {
            key_id: keyed.key_id,
            mac: keyed.mac,
        });
    match macs.next() {
        Some(current) => Fingerprints::new(current, macs),
        None => Fingerprints::none(),
    }
}
