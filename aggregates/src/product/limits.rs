//! How much a product may hold: an event of it has to fit into every store and stream. Lengths count characters.

use std::collections::BTreeMap;

use event_schemas::ProductDetails;

use super::ProductError;

/// Variants of one product.
pub const MAX_VARIANTS: usize = 500;
/// The title.
pub const MAX_TITLE: usize = 200;
/// The description.
pub const MAX_DESCRIPTION: usize = 10_000;
/// A category, a tag, an option's name or one of its values.
pub const MAX_WORD: usize = 100;
/// A URL or path of an image.
pub const MAX_IMAGE: usize = 2_000;
/// Tags, options, values of an option, and images.
pub const MAX_LIST: usize = 100;

pub(super) fn check_details(details: &ProductDetails) -> Result<(), ProductError> {
    let ProductDetails {
        title,
        description,
        category,
        tags,
        options,
        images,
    } = details;
    let well_formed = [
        ("title", !title.trim().is_empty() && within(title, MAX_TITLE)),
        ("description", within(description, MAX_DESCRIPTION)),
        ("category", category.as_deref().is_none_or(is_word)),
        (
            "tags",
            tags.len() <= MAX_LIST && tags.iter().all(|tag| is_word(tag)),
        ),
        (
            "options",
            options.len() <= MAX_LIST && options.iter().all(|option| is_word(&option.name)),
        ),
        (
            "options",
            options
                .iter()
                .all(|option| (1..=MAX_LIST).contains(&option.values.len())),
        ),
        (
            "options",
            options
                .iter()
                .flat_map(|option| &option.values)
                .all(|value| is_word(value)),
        ),
        (
            "images",
            images.len() <= MAX_LIST && images.iter().all(|url| !url.is_empty() && within(url, MAX_IMAGE)),
        ),
    ];
    match well_formed.into_iter().find(|(_, well_formed)| !well_formed) {
        Some((field, _)) => Err(ProductError::InvalidDetail { field }),
        None => Ok(()),
    }
}

pub(super) fn check_option_values(option_values: &BTreeMap<String, String>) -> Result<(), ProductError> {
    let words = option_values
        .iter()
        .all(|(name, value)| is_word(name) && is_word(value));
    if words && option_values.len() <= MAX_LIST {
        Ok(())
    } else {
        Err(ProductError::InvalidDetail {
            field: "option_values",
        })
    }
}

fn is_word(text: &str) -> bool {
    !text.trim().is_empty() && within(text, MAX_WORD)
}

/// Bytes first: a text of megabytes is not counted through.
fn within(text: &str, max: usize) -> bool {
    text.len() <= 4 * max && text.chars().count() <= max
}
