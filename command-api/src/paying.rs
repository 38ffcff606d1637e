//! How a customer wants to pay, and keeping their payment token out of the log.

use std::fmt;
use std::time::Duration;

use event_schemas::{Code, PaymentMethod, SecretRef, Timestamp};
use http_conventions::Problem;
use sagas::Secret;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::state::CommandApi;

/// How long past the payment deadline a token is kept.
const TOKEN_GRACE: Duration = Duration::from_secs(15 * 60);
const DOWN_FOR: Duration = Duration::from_secs(5);

/// How to pay.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PaymentInput)]
pub(crate) struct PaymentInput {
    /// One of the shop's payment methods.
    #[schema(value_type = String, example = "sandbox")]
    method: Code,
    /// What the provider's form gave the client for the card or account.
    #[serde(default)]
    #[schema(value_type = Option<String>, min_length = 1, max_length = 512, example = "tok_ok")]
    token: Option<Token>,
}

/// A payment token, never printed.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Token(String);

impl TryFrom<String> for Token {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if (1..=512).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text))
        } else {
            Err("a payment token is 1 to 512 printable ASCII characters")
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl CommandApi {
    /// The provider for the chosen method; 422 if the shop does not take it.
    pub(crate) fn provider(&self, input: &PaymentInput) -> Result<Code, Problem> {
        self.rules
            .payment_methods
            .get(&input.method)
            .cloned()
            .ok_or_else(|| {
                let taken: Vec<&Code> = self.rules.payment_methods.keys().collect();
                Problem::refused("payment-method-unavailable", "Payment method unavailable")
                    .field("/payment/method", "not a payment method of this shop")
                    .with("methods", taken)
            })
    }

    /// Keeps the token beside the log, durable before any event can name it, until a while after `deadline`.
    pub(crate) async fn keep_token(
        &self,
        input: &PaymentInput,
        provider: Code,
        deadline: Timestamp,
    ) -> Result<PaymentMethod, Problem> {
        let secret_ref = match &input.token {
            None => None,
            Some(Token(token)) => {
                let name = self.fresh_secret_ref()?;
                let until = deadline.saturating_add(TOKEN_GRACE).unwrap_or(Timestamp::MAX);
                let secret = Secret::from(token.as_str());
                let kept = self.services.secrets.put(&name, secret, until).await;
                kept.map_err(|error| Problem::unavailable(error, DOWN_FOR))?;
                Some(name)
            }
        };
        Ok(PaymentMethod {
            method: input.method.clone(),
            provider,
            secret_ref,
        })
    }

    fn fresh_secret_ref(&self) -> Result<SecretRef, Problem> {
        let random = u128::from_be_bytes(self.services.random.bytes()?);
        SecretRef::new(format!("tok_{random:032x}")).map_err(Problem::internal)
    }

    /// When an order that is placed now has to be paid.
    pub(crate) fn payment_deadline(&self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.rules.payment_window)
            .unwrap_or(Timestamp::MAX)
    }
}
