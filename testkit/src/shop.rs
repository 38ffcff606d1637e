//! A shop as its users see it: every method is one HTTP call through the gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderName, Method};
use serde_json::{Value, json};

use crate::client::{Client, ClientError, Reply};

/// A shop at an address.
#[derive(Debug, Clone)]
pub struct Shop {
    client: Client,
    keys: Arc<AtomicU64>,
    /// Keeps the idempotency keys of two runs on one log apart.
    run: String,
}

/// Somebody with a token, or nobody.
#[derive(Debug, Clone)]
pub struct User {
    shop: Shop,
    pub token: Option<String>,
    /// Exchanged, once, for the next token.
    refresh_token: String,
    /// The account id, empty for anonymous.
    pub id: String,
    /// The address it comes from, for a server that trusts this machine as its proxy.
    address: String,
}

impl Shop {
    /// The shop that `client` talks to. `run` must differ between runs on one log.
    pub fn new(client: Client, run: impl Into<String>) -> Self {
        Self {
            client,
            keys: Arc::default(),
            run: run.into(),
        }
    }

    /// The client underneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// An idempotency key that no other call of this run has.
    pub fn fresh_key(&self) -> String {
        format!("{}-{}", self.run, self.keys.fetch_add(1, Ordering::Relaxed))
    }

    /// Nobody.
    pub fn anonymous(&self) -> User {
        // RFC 2544's benchmarking range: an address of its own for each user.
        let number = self.keys.fetch_add(1, Ordering::Relaxed);
        let address = format!(
            "198.{}.{}.{}",
            18 + ((number >> 16) & 1),
            (number >> 8) & 255,
            number & 255
        );
        User {
            shop: self.clone(),
            token: None,
            refresh_token: String::new(),
            id: String::new(),
            address,
        }
    }

    /// A new guest.
    pub async fn guest(&self) -> User {
        let nobody = self.anonymous();
        let reply = nobody.post("/auth/guest", &json!({})).await;
        nobody.signed_in(&reply.expect(201).json())
    }

    /// Signs in.
    pub async fn login(&self, email: &str, password: &str) -> User {
        let body = json!({ "email": email, "password": password });
        let nobody = self.anonymous();
        let reply = nobody.post("/auth/login", &body).await;
        nobody.signed_in(&reply.expect(200).json())
    }
}

impl User {
    /// This user with the token that the shop answered.
    #[must_use]
    pub fn signed_in(self, answer: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Self {
            token: Some(text(&answer["access_token"])),
            refresh_token: text(&answer["refresh_token"]),
            id: text(&answer["account"]["id"]),
            ..self
        }
    }

    /// This user with the next token; none if it could not be had.
    pub async fn renewed(&self) -> Option<Self> {
        let body = json!({ "refresh_token": self.refresh_token });
        let reply = self.try_request(Method::POST, "/auth/refresh", None, &[], Some(&body));
        let reply = reply.await.ok().filter(|reply| reply.status == 200)?;
        Some(self.clone().signed_in(&reply.json()))
    }

    /// This user in a shop that was started again on the same data.
    #[must_use]
    pub fn in_shop(&self, shop: &Shop) -> Self {
        Self {
            shop: shop.clone(),
            ..self.clone()
        }
    }

    /// The shop this user is in.
    pub fn shop(&self) -> &Shop {
        &self.shop
    }

    /// One request as this user. `key` is the `Idempotency-Key`.
    pub async fn try_request(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        extra: &[(HeaderName, String)],
        body: Option<&Value>,
    ) -> Result<Reply, ClientError> {
        let mut headers = extra.to_vec();
        headers.push((HeaderName::from_static("x-forwarded-for"), self.address.clone()));
        if let Some(token) = &self.token {
            headers.push((AUTHORIZATION, format!("Bearer {token}")));
        }
        if let Some(key) = key {
            headers.push((HeaderName::from_static("idempotency-key"), key.to_owned()));
        }
        if body.is_some() {
            headers.push((CONTENT_TYPE, "application/json".to_owned()));
        }
        self.shop
            .client
            .send(
                method,
                path,
                &headers,
                body.map_or_else(Vec::new, |body| body.to_string().into()),
            )
            .await
    }

    /// A POST with a fresh idempotency key.
    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        let key = self.shop.fresh_key();
        self.post_as(path, &key, body).await
    }

    /// A POST with this idempotency key.
    pub async fn post_as(&self, path: &str, key: &str, body: &Value) -> Reply {
        self.try_request(Method::POST, path, Some(key), &[], Some(body))
            .await
            .expect("a reply")
    }

    /// A GET.
    pub async fn get(&self, path: &str) -> Reply {
        self.try_request(Method::GET, path, None, &[], None)
            .await
            .expect("a reply")
    }

    /// Puts units of a SKU into the cart.
    pub async fn add_to_cart(&self, sku: &str, quantity: u32) -> Reply {
        self.post(
            "/v1/carts/mine/items",
            &json!({ "sku": sku, "quantity": quantity }),
        )
        .await
    }

    /// Checks the cart out with a sandbox token, waiting up to `wait_seconds` for the outcome.
    pub async fn check_out(&self, token: &str, wait_seconds: u32) -> Reply {
        let key = self.shop.fresh_key();
        self.check_out_as(&key, token, wait_seconds).await
    }

    /// As [`Self::check_out`] under the given idempotency key.
    pub async fn check_out_as(&self, key: &str, token: &str, wait_seconds: u32) -> Reply {
        self.try_check_out(key, token, wait_seconds)
            .await
            .expect("a reply")
    }

    /// As [`Self::check_out_as`] where the server may be killed meanwhile.
    pub async fn try_check_out(
        &self,
        key: &str,
        token: &str,
        wait_seconds: u32,
    ) -> Result<Reply, ClientError> {
        let body = json!({ "payment": { "method": "sandbox", "token": token }, "country": "GB" });
        let prefer = [(HeaderName::from_static("prefer"), format!("wait={wait_seconds}"))];
        self.try_request(
            Method::POST,
            "/v1/carts/mine/checkout",
            Some(key),
            &prefer,
            Some(&body),
        )
        .await
    }

    /// The status of an order, once the read model knows it.
    pub async fn order_status(&self, order_id: &str) -> Option<String> {
        let reply = self.get(&format!("/v1/orders/{order_id}")).await;
        reply.json()["status"].as_str().map(str::to_owned)
    }

    /// Creates and publishes a product with one tracked SKU at `price` pence and receives `stock` units of it.
    /// Answers the product's id.
    pub async fn stock_product(&self, sku: &str, price: i64, stock: u32) -> String {
        let created = self
            .post("/v1/products", &json!({ "title": format!("Product {sku}") }))
            .await
            .expect(201);
        let id = created.json()["id"].as_str().unwrap_or_default().to_owned();
        let variant = json!({ "sku": sku, "price": { "amount": price, "currency": "GBP" } });
        self.post(&format!("/v1/products/{id}/variants"), &variant)
            .await
            .expect(201);
        self.post(&format!("/v1/products/{id}/publish"), &json!({}))
            .await
            .expect(200);
        if stock > 0 {
            let receipt = json!({ "quantity": stock, "reference": "opening stock" });
            self.post(&format!("/v1/inventory/{sku}/receipts"), &receipt)
                .await
                .expect(200);
        }
        id
    }
}
