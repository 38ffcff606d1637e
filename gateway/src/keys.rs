//! Which aggregate a command is about, so that it goes where that aggregate's mailbox is warm.

use event_schemas::{AccountId, AggregateType, CartId};
use http::{HeaderMap, HeaderName};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The key of a command on the route `template`, which matched `path`: the stream of the aggregate, as sagas name it too.
///
/// | route | key |
/// |---|---|
/// | `/v1/products/{id}…`, `/v1/orders/{id}…`, `/v1/payments/{id}…` | that product, order or payment |
/// | `/v1/inventory/{sku}…` | that stock item |
/// | `/v1/carts/mine…`, checkout too | the caller's cart, whose id derives from its owner |
/// | what creates (`/v1/products`, `/v1/orders`), and anything else | the caller and the `Idempotency-Key`, so that a repeat meets the first; none without |
///
/// A wrong key costs time, never an answer, so ids are taken as they were written.
pub(crate) fn command_key(
    template: &str,
    path: &str,
    caller: Option<AccountId>,
    headers: &HeaderMap,
) -> Option<String> {
    let mut named = template.strip_prefix("/v1/")?.split('/');
    let id = path.split('/').nth(3);
    // As `StreamId` is written; what the client wrote may be no id at all.
    let of = |kind: AggregateType, id: &str| Some(format!("{kind}/{id}"));
    match (named.next()?, named.next(), id) {
        ("products", Some("{id}"), Some(id)) => of(AggregateType::Product, &id.to_ascii_lowercase()),
        ("orders", Some("{id}"), Some(id)) => of(AggregateType::Order, &id.to_ascii_lowercase()),
        ("payments", Some("{id}"), Some(id)) => of(AggregateType::Payment, &id.to_ascii_lowercase()),
        ("inventory", Some("{sku}"), Some(sku)) => of(AggregateType::Inventory, sku),
        ("carts", Some("mine"), _) => {
            let cart = CartId::for_owner(caller?.into());
            of(AggregateType::Cart, &cart.to_string())
        }
        _ => {
            let key = headers.get(IDEMPOTENCY_KEY)?.to_str().ok()?;
            Some(format!("{}/{key}", caller?))
        }
    }
}

#[cfg(test)]
mod tests {
    use event_schemas::{CustomerId, OrderId, StreamId};

    use super::*;

    const ANN: u128 = 7;

    fn key(template: &str, path: &str) -> Option<String> {
        let caller = AccountId::from_uuid(uuid::Uuid::from_u128(ANN));
        let mut headers = HeaderMap::new();
        headers.insert(IDEMPOTENCY_KEY, http::HeaderValue::from_static("k-1"));
        command_key(template, path, Some(caller), &headers)
    }

    #[test]
    fn a_command_goes_where_its_aggregate_is_under_the_name_that_sagas_use() {
        let id = uuid::Uuid::from_u128(42);
        let order = StreamId::new(AggregateType::Order, OrderId::from_uuid(id)).to_string();
        for path in [
            format!("/v1/orders/{id}/cancel"),
            format!("/v1/orders/{}/cancel", id.to_string().to_uppercase()),
        ] {
            assert_eq!(key("/v1/orders/{id}/cancel", &path), Some(order.clone()));
        }
        let shipment = format!("/v1/orders/{id}/shipments/s-1/delivered");
        assert_eq!(
            key("/v1/orders/{id}/shipments/{shipment}/delivered", &shipment),
            Some(order)
        );
        assert_eq!(
            key("/v1/inventory/{sku}/receipts", "/v1/inventory/MUG-1/receipts").as_deref(),
            Some("inventory/MUG-1")
        );
        assert_eq!(
            key("/v1/payments/{id}/refunds", &format!("/v1/payments/{id}/refunds")),
            Some(format!("payment/{id}"))
        );
        assert_eq!(
            key("/v1/products/{id}/publish", &format!("/v1/products/{id}/publish")),
            Some(format!("product/{id}"))
        );
    }

    #[test]
    fn what_is_about_the_callers_cart_goes_where_the_cart_is() {
        let cart = CartId::for_owner(CustomerId::from_uuid(uuid::Uuid::from_u128(ANN)));
        let expected = StreamId::new(AggregateType::Cart, cart).to_string();
        for path in ["/v1/carts/mine/items", "/v1/carts/mine/checkout"] {
            assert_eq!(key(path, path), Some(expected.clone()));
        }
        let anonymous = command_key(
            "/v1/carts/mine/items",
            "/v1/carts/mine/items",
            None,
            &HeaderMap::new(),
        );
        assert_eq!(anonymous, None);
    }

    #[test]
    fn a_repeat_of_what_creates_meets_the_first() {
        let ann = uuid::Uuid::from_u128(ANN);
        assert_eq!(key("/v1/orders", "/v1/orders"), Some(format!("{ann}/k-1")));
        assert_eq!(
            command_key(
                "/v1/payments/webhooks/{provider}",
                "/v1/payments/webhooks/x",
                None,
                &HeaderMap::new()
            ),
            None
        );
    }
}
