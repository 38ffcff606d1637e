//! An order as it stands, for whoever placed it; and waiting until its fate is known.

use std::time::Duration;

use aggregates::order::OrderStatus;
use aggregates::payment::PaymentStatus;
use event_schemas::{
    AggregateType, CancelReason, Event, OrderEvent, OrderId, PaymentEvent, PaymentId, SecretRef, Sku,
    StreamId, Version,
};
use event_store::Receipt;
use http_conventions::{Prefer, Problem};
use serde::Serialize;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use crate::answer::{Accepted, ReceiptBody};
use crate::execute::{access_problem, read_problem};
use crate::state::CommandApi;

/// The receipt of an order, and the order as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderAnswer {
    #[serde(flatten)]
    receipt: ReceiptBody,
    order: OrderNow,
}

/// An order as it is now; a replay shows the status of now, not that of the first answer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderNow {
    #[schema(value_type = String)]
    id: OrderId,
    #[schema(value_type = String, example = "paid")]
    status: OrderStatus,
    /// Why it was cancelled, or what keeps it from being paid.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<OrderProblem>,
    payment: PaymentNow,
}

/// The payment of an order as it is now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PaymentNow {
    #[schema(value_type = String)]
    id: PaymentId,
    /// `absent` until everything is reserved, and for an order that costs nothing.
    #[schema(value_type = String, example = "captured")]
    status: PaymentStatus,
    /// Where the customer has to go to pay, if anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkout_url: Option<String>,
}

/// What went wrong with an order. Not an HTTP error: the command was accepted.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OrderProblem {
    #[serde(rename = "type")]
    #[schema(example = "/problems/out-of-stock")]
    kind: &'static str,
    title: &'static str,
    /// What ran out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    sku: Option<Sku>,
    /// Units of it that there were.
    #[serde(skip_serializing_if = "Option::is_none")]
    available: Option<u64>,
    /// The shop's reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

impl OrderProblem {
    const fn new(kind: &'static str, title: &'static str) -> Self {
        Self {
            kind,
            title,
            sku: None,
            available: None,
            code: None,
        }
    }
}

impl From<CancelReason> for OrderProblem {
    fn from(reason: CancelReason) -> Self {
        match reason {
            CancelReason::OutOfStock { sku, available } => Self {
                sku: Some(sku),
                available: Some(available),
                ..Self::new("/problems/out-of-stock", "Out of stock")
            },
            CancelReason::PaymentTimeout => Self::new("/problems/payment-timeout", "Not paid in time"),
            CancelReason::CustomerRequest => {
                Self::new("/problems/cancelled-by-customer", "Cancelled by the customer")
            }
            CancelReason::Staff { code } => Self {
                code: Some(code.to_string()),
                ..Self::new("/problems/cancelled-by-shop", "Cancelled by the shop")
            },
        }
    }
}

impl OrderNow {
    fn just_placed(id: OrderId) -> Self {
        let payment = PaymentNow {
            id: PaymentId::for_order(id),
            status: PaymentStatus::Absent,
            checkout_url: None,
        };
        Self {
            id,
            status: OrderStatus::Placed,
            problem: None,
            payment,
        }
    }

    /// Whether waiting longer is of no use: it is paid (or beyond), cancelled, or needs its customer.
    const fn is_settled(&self) -> bool {
        match self.status {
            OrderStatus::Absent | OrderStatus::Placed => false,
            OrderStatus::AwaitingPayment => {
                matches!(self.payment.status, PaymentStatus::Declined) || self.payment.checkout_url.is_some()
            }
            OrderStatus::Paid
            | OrderStatus::PartiallyShipped
            | OrderStatus::Shipped
            | OrderStatus::Delivered
            | OrderStatus::Completed
            | OrderStatus::ReturnRequested
            | OrderStatus::Returned
            | OrderStatus::Cancelled => true,
        }
    }
}

impl CommandApi {
    /// 201 for a durable order: `receipt` of its placing, and the order as it is once `prefer` is satisfied or over.
    pub(crate) async fn order_answer(
        &self,
        order_id: OrderId,
        receipt: &Receipt,
        replayed: bool,
        prefer: Prefer,
    ) -> Result<Accepted<OrderAnswer>, Problem> {
        let order = match self.settled_or_late(order_id, prefer.wait).await {
            Ok(order) => order,
            Err(problem) if replayed => return Err(problem),
            // It is durable, and that is what the client has to hear.
            Err(_) => OrderNow::just_placed(order_id),
        };
        Ok(Accepted {
            body: OrderAnswer {
                receipt: receipt.into(),
                order,
            },
            created: Some(format!("/v1/orders/{order_id}")),
            replayed,
        })
    }

    async fn settled_or_late(&self, order_id: OrderId, wait: Option<Duration>) -> Result<OrderNow, Problem> {
        let watched = wait.and_then(|wait| Some((wait, self.changes.watch(order_id)?)));
        let Some((wait, mut watch)) = watched else {
            return self.order_now(order_id).await;
        };
        let deadline = Instant::now() + wait;
        loop {
            let now = self.order_now(order_id).await?;
            if now.is_settled() {
                return Ok(now);
            }
            if timeout_at(deadline, watch.changed()).await.is_err() {
                return self.order_now(order_id).await;
            }
        }
    }

    async fn order_now(&self, order_id: OrderId) -> Result<OrderNow, Problem> {
        let executors = self.executors();
        let status = executors.orders.with_state(order_id, |order, _| order.status());
        let mut now = OrderNow {
            status: status.await.map_err(access_problem)?,
            ..OrderNow::just_placed(order_id)
        };
        if now.status == OrderStatus::Placed {
            return Ok(now);
        }
        let payment = executors
            .payments
            .with_state(now.payment.id, |payment, _| payment.status());
        now.payment.status = payment.await.map_err(access_problem)?;
        if now.status == OrderStatus::Cancelled {
            now.problem = self.cancel_reason(order_id).await?.map(Into::into);
        } else if now.payment.status == PaymentStatus::Declined {
            now.problem = Some(OrderProblem::new(
                "/problems/payment-declined",
                "Payment declined",
            ));
        } else if now.payment.status == PaymentStatus::Pending {
            now.payment.checkout_url = self.checkout_url(now.payment.id).await?;
        }
        Ok(now)
    }

    /// Why the order was cancelled. The aggregate does not keep it, since it decides nothing.
    async fn cancel_reason(&self, order_id: OrderId) -> Result<Option<CancelReason>, Problem> {
        let stream = StreamId::new(AggregateType::Order, order_id);
        Ok(self
            .events(&stream)
            .await?
            .into_iter()
            .rev()
            .find_map(|event| match event {
                Event::Order(OrderEvent::OrderCancelled { reason, .. }) => Some(reason),
                _ => None,
            }))
    }

    /// Where the customer goes to pay in the session that was opened last.
    async fn checkout_url(&self, payment_id: PaymentId) -> Result<Option<String>, Problem> {
        let stream = StreamId::new(AggregateType::Payment, payment_id);
        let named: Option<SecretRef> = self
            .events(&stream)
            .await?
            .into_iter()
            .rev()
            .find_map(|event| match event {
                Event::Payment(PaymentEvent::PaymentSessionCreated { checkout_ref, .. }) => {
                    Some(checkout_ref)
                }
                _ => None,
            })
            .flatten();
        let Some(name) = named else { return Ok(None) };
        let url = self.services.secrets.get(&name, self.services.clock.now()).await;
        let url = url.map_err(|error| Problem::unavailable(error, Duration::from_secs(5)))?;
        Ok(url.map(|url| url.expose().to_owned()))
    }

    async fn events(&self, stream: &StreamId) -> Result<Vec<Event>, Problem> {
        let recorded = self.services.log.read_stream(stream, Version(0), None).await;
        let recorded = recorded.map_err(|error| read_problem(&error))?;
        Ok(recorded.iter().map(|recorded| recorded.event.clone()).collect())
    }
}
