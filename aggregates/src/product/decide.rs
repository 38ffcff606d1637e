use event_schemas::{Money, ProductDetails, ProductEvent, Sku};

use super::{Product, ProductCommand, ProductError, ProductStatus, Variant, limits};

type Decision = Result<Vec<ProductEvent>, ProductError>;

pub(super) fn decide(product: &Product, command: &ProductCommand) -> Decision {
    match (product.status, command) {
        (ProductStatus::Absent, ProductCommand::Create { details }) => create(details),
        (_, ProductCommand::Create { .. }) => Err(ProductError::AlreadyExists),
        (ProductStatus::Absent, _) => Err(ProductError::NotFound),
        (ProductStatus::Archived, ProductCommand::Archive { .. }) => Ok(vec![]),
        (ProductStatus::Archived, _) => Err(ProductError::Archived),
        (ProductStatus::Draft | ProductStatus::Published, command) => change(product, command),
    }
}

fn change(product: &Product, command: &ProductCommand) -> Decision {
    let published = product.status == ProductStatus::Published;
    match command {
        ProductCommand::Create { .. } => Err(ProductError::AlreadyExists),
        ProductCommand::ChangeDetails { details } => change_details(product, details),
        ProductCommand::AddVariant {
            sku,
            option_values,
            price,
            tracked,
        } => {
            let variant = Variant {
                option_values: option_values.clone(),
                price: *price,
                tracked: *tracked,
            };
            add_variant(product, sku, variant)
        }
        ProductCommand::RemoveVariant { sku } => remove_variant(product, sku),
        ProductCommand::ChangePrice { sku, price } => change_price(product, sku, *price),
        ProductCommand::Publish if published => Ok(vec![]),
        ProductCommand::Publish if product.variants.is_empty() => Err(ProductError::NoVariants),
        ProductCommand::Publish => Ok(vec![ProductEvent::ProductPublished {}]),
        ProductCommand::Unpublish if published => Ok(vec![ProductEvent::ProductUnpublished {}]),
        ProductCommand::Unpublish => Ok(vec![]),
        ProductCommand::Archive { reason } => Ok(vec![ProductEvent::ProductArchived {
            reason: reason.clone(),
        }]),
    }
}

fn create(details: &ProductDetails) -> Decision {
    limits::check_details(details)?;
    Ok(vec![ProductEvent::ProductCreated {
        details: details.clone(),
    }])
}

fn change_details(product: &Product, details: &ProductDetails) -> Decision {
    if *details == product.details {
        return Ok(vec![]);
    }
    limits::check_details(details)?;
    Ok(vec![ProductEvent::ProductDetailsChanged {
        details: details.clone(),
    }])
}

fn add_variant(product: &Product, sku: &Sku, variant: Variant) -> Decision {
    match product.variants.get(sku) {
        Some(present) if *present == variant => return Ok(vec![]),
        Some(_) => return Err(ProductError::DuplicateVariant { sku: sku.clone() }),
        None if product.variants.len() >= limits::MAX_VARIANTS => {
            return Err(ProductError::TooManyVariants {
                max: limits::MAX_VARIANTS,
            });
        }
        None => {}
    }
    limits::check_option_values(&variant.option_values)?;
    check_price(product, variant.price)?;
    let Variant {
        option_values,
        price,
        tracked,
    } = variant;
    Ok(vec![ProductEvent::VariantAdded {
        sku: sku.clone(),
        option_values,
        price,
        tracked,
    }])
}

fn remove_variant(product: &Product, sku: &Sku) -> Decision {
    known(product, sku)?;
    if product.status == ProductStatus::Published && product.variants.len() == 1 {
        return Err(ProductError::NoVariants);
    }
    Ok(vec![ProductEvent::VariantRemoved { sku: sku.clone() }])
}

fn change_price(product: &Product, sku: &Sku, price: Money) -> Decision {
    if known(product, sku)?.price == price {
        return Ok(vec![]);
    }
    check_price(product, price)?;
    Ok(vec![ProductEvent::PriceChanged {
        sku: sku.clone(),
        price,
    }])
}

fn known<'a>(product: &'a Product, sku: &Sku) -> Result<&'a Variant, ProductError> {
    product
        .variants
        .get(sku)
        .ok_or_else(|| ProductError::UnknownVariant { sku: sku.clone() })
}

fn check_price(product: &Product, price: Money) -> Result<(), ProductError> {
    if price.is_negative() {
        return Err(ProductError::NegativePrice);
    }
    // One is enough to compare with: all of them are in one currency.
    match product.variants.values().next() {
        Some(other) if other.price.currency() != price.currency() => Err(ProductError::CurrencyMismatch),
        _ => Ok(()),
    }
}
