//! Stand-ins that describe values of `event-schemas` in the OpenAPI document. Never built.
#![expect(dead_code, reason = "the fields are read by the derive only")]

use utoipa::ToSchema;

/// An amount in the minor unit of its currency.
#[derive(ToSchema)]
#[schema(as = Money, example = json!({"amount": 1250, "currency": "GBP"}))]
pub struct MoneySchema {
    /// Minor units, such as pence.
    amount: i64,
    /// ISO 4217.
    currency: String,
}

/// Tax on a line or on shipping.
#[derive(ToSchema)]
#[schema(as = Tax)]
pub struct TaxSchema {
    code: String,
    /// Millionths: 200000 is 20 %.
    rate_ppm: u32,
    amount: MoneySchema,
    /// Whether the price already contains the amount.
    included: bool,
}

/// What shipping costs.
#[derive(ToSchema)]
#[schema(as = ShippingCharge)]
pub struct ShippingSchema {
    price: MoneySchema,
    discount: MoneySchema,
    tax: TaxSchema,
}

/// The sums of an order: `total = items + shipping - discount + tax_added`.
#[derive(ToSchema)]
#[schema(as = Totals)]
pub struct TotalsSchema {
    items: MoneySchema,
    shipping: MoneySchema,
    discount: MoneySchema,
    tax_included: MoneySchema,
    tax_added: MoneySchema,
    total: MoneySchema,
}

/// A dimension that variants differ in.
#[derive(ToSchema)]
#[schema(as = ProductOption)]
pub struct OptionSchema {
    name: String,
    values: Vec<String>,
}

/// So many units of a SKU.
#[derive(ToSchema)]
#[schema(as = CartLine)]
pub struct CartLineSchema {
    sku: String,
    quantity: u32,
}

/// So many units of an order's line.
#[derive(ToSchema)]
#[schema(as = LineQuantity)]
pub struct LineQuantitySchema {
    line_no: u32,
    quantity: u32,
}

/// Who does something.
#[derive(ToSchema)]
#[schema(as = ActorKind, rename_all = "lowercase")]
pub enum ActorKindSchema {
    Guest,
    Customer,
    Staff,
    Admin,
    System,
    Provider,
}

/// Why an order was cancelled.
#[derive(ToSchema)]
#[schema(as = CancelReason, rename_all = "kebab-case")]
pub enum CancelReasonSchema {
    OutOfStock { sku: String, available: u64 },
    PaymentTimeout,
    CustomerRequest,
    Staff { code: String },
}
