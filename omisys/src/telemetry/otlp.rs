//! Spans to an OTLP collector.
//!
//! Requests carry their trace in a header, events in their metadata. A span with the field `traceparent` goes on with
//! the trace that the field names, whichever process began it.

use std::cell::RefCell;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use http_conventions::{TraceBackend, TraceContext};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context as OtelContext, ContextGuard, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Config;
use crate::error::{CliError, Context as _};

const MAX_REPLY_BYTES: usize = 1 << 20;

/// The way to the collector.
pub struct Tracing {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Tracing {
    /// None without an endpoint.
    pub fn start(config: &Config, service: &'static str) -> Result<Option<Self>, CliError> {
        let Some(endpoint) = &config.telemetry.otlp_endpoint else {
            return Ok(None);
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Http::new(Handle::current()))
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .context(
                "the configuration is wrong: telemetry.otlp_endpoint",
                "give the collector's HTTP endpoint, such as http://127.0.0.1:4318",
            )?;
        let resource = Resource::builder()
            .with_service_name(format!("omisys-{service}"))
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("omisys");
        TraceBackend { adopt, current }.install();
        Ok(Some(Self { provider, tracer }))
    }

    /// What turns our spans into OTLP's: of our own crates, from the level info.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let inner = tracing_opentelemetry::layer()
            .with_tracer(self.tracer.clone())
            // So that a span may go on with another trace than that of the span it is made in.
            .with_context_activation(true)
            .with_location(false)
            .with_threads(false);
        let spans = filter_fn(|metadata: &tracing::Metadata<'_>| metadata.is_span());
        Attach
            .and_then(inner)
            .and_then(Detach)
            .with_filter(LevelFilter::INFO.and(spans))
    }

    /// Sends what is left.
    pub fn stop(self) {
        if let Err(error) = self.provider.shutdown() {
            eprintln!("the last traces were not sent: {error}");
        }
    }
}

/// Makes what a request brought the parent of its span.
fn adopt(span: &tracing::Span, received: Option<TraceContext>) -> Option<TraceContext> {
    if let Some(received) = received {
        // A span that is not recorded has no parent either.
        let _ = span.set_parent(OtelContext::new().with_remote_span_context(remote(received)));
    }
    context_of(span)
}

fn current() -> Option<TraceContext> {
    context_of(&tracing::Span::current())
}

fn context_of(span: &tracing::Span) -> Option<TraceContext> {
    let context = span.context();
    let context = context.span().span_context().clone();
    TraceContext::from_ids(
        context.trace_id().to_bytes(),
        context.span_id().to_bytes(),
        context.is_sampled(),
    )
}

thread_local! {
    /// The trace that the span being made goes on with.
    static ATTACHED: RefCell<Option<ContextGuard>> = const { RefCell::new(None) };
}

/// Before a span is made: attaches the trace that its field `traceparent` names, so that it goes on with it.
struct Attach;

impl<S: Subscriber> Layer<S> for Attach {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        let mut parent = Parent(None);
        attributes.record(&mut parent);
        if let Some(parent) = parent.0 {
            let guard = OtelContext::new().with_remote_span_context(parent).attach();
            ATTACHED.with(|attached| *attached.borrow_mut() = Some(guard));
        }
    }
}

/// After it is made.
struct Detach;

impl<S: Subscriber> Layer<S> for Detach {
    fn on_new_span(&self, _: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        drop(ATTACHED.with(|attached| attached.borrow_mut().take()));
    }
}

struct Parent(Option<SpanContext>);

impl Visit for Parent {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "traceparent" {
            self.0 = parse(value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "traceparent" {
            self.0 = parse(&format!("{value:?}"));
        }
    }
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    traceparent.parse::<TraceContext>().ok().map(remote)
}

fn remote(context: TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id_bytes()),
        SpanId::from_bytes(context.span_id_bytes()),
        if context.is_sampled() {
            TraceFlags::SAMPLED
        } else {
            TraceFlags::default()
        },
        true,
        TraceState::default(),
    )
}

/// Our HTTP client, called from the exporter's own thread.
#[derive(Debug)]
struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
}

impl Http {
    fn new(runtime: Handle) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, runtime }
    }
}

#[async_trait]
impl HttpClient for Http {
    async fn send_bytes(&self, request: http::Request<Bytes>) -> Result<http::Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let exchange = self.runtime.spawn(async move {
            let response = client.request(request.map(Full::new)).await?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_REPLY_BYTES).collect().await?.to_bytes();
            Ok(http::Response::from_parts(parts, body))
        });
        exchange.await?
    }
}
