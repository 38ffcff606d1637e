#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use aggregates::product::{Product, ProductCommand as Command, ProductError as Error, limits};
use cqrs_es::test::{AggregateTestExecutor, TestFramework};
use event_schemas::ProductEvent as Event;
use event_schemas::{Code, Currency, Money, ProductDetails, ProductOption, Sku};

fn given(events: Vec<Event>) -> AggregateTestExecutor<Product> {
    TestFramework::with(()).given(events)
}

fn details(title: &str) -> ProductDetails {
    ProductDetails {
        title: title.into(),
        ..ProductDetails::default()
    }
}

fn sku(text: &str) -> Sku {
    Sku::new(text).unwrap()
}

fn gbp(amount: i64) -> Money {
    Money::new(amount, Currency::GBP).unwrap()
}

fn code() -> Code {
    Code::new("discontinued").unwrap()
}

fn created() -> Event {
    Event::ProductCreated {
        details: details("Mug"),
    }
}

fn variant(text: &str, price: Money) -> Event {
    Event::VariantAdded {
        sku: sku(text),
        option_values: BTreeMap::new(),
        price,
        tracked: true,
    }
}

fn add(text: &str, price: Money) -> Command {
    Command::AddVariant {
        sku: sku(text),
        option_values: BTreeMap::new(),
        price,
        tracked: true,
    }
}

fn remove(text: &str) -> Command {
    Command::RemoveVariant { sku: sku(text) }
}

fn set_price(text: &str, price: Money) -> Command {
    Command::ChangePrice {
        sku: sku(text),
        price,
    }
}

fn draft() -> Vec<Event> {
    vec![created(), variant("MUG-1", gbp(500))]
}

fn published() -> Vec<Event> {
    [draft(), vec![Event::ProductPublished {}]].concat()
}

fn archived() -> Vec<Event> {
    [draft(), vec![Event::ProductArchived { reason: code() }]].concat()
}

fn all_but_create() -> Vec<Command> {
    vec![
        Command::ChangeDetails {
            details: details("Cup"),
        },
        add("MUG-2", gbp(1)),
        remove("MUG-1"),
        set_price("MUG-1", gbp(1)),
        Command::Publish,
        Command::Unpublish,
    ]
}

#[test]
fn a_product_is_created_once_and_before_all_else() {
    let create = |title| Command::Create {
        details: details(title),
    };
    given(vec![])
        .when(create("Mug"))
        .then_expect_events(vec![created()]);
    for events in [draft(), published(), archived()] {
        given(events)
            .when(create("Mug"))
            .then_expect_error(Error::AlreadyExists);
    }
    for command in all_but_create() {
        given(vec![]).when(command).then_expect_error(Error::NotFound);
    }
    given(vec![])
        .when(Command::Archive { reason: code() })
        .then_expect_error(Error::NotFound);
}

#[test]
fn an_archived_product_never_changes() {
    for command in all_but_create() {
        given(archived()).when(command).then_expect_error(Error::Archived);
    }
    given(archived())
        .when(Command::Archive { reason: code() })
        .then_expect_events(vec![]);
    for events in [vec![created()], draft(), published()] {
        given(events)
            .when(Command::Archive { reason: code() })
            .then_expect_events(vec![Event::ProductArchived { reason: code() }]);
    }
}

#[test]
fn a_published_product_has_at_least_one_variant() {
    given(vec![created()])
        .when(Command::Publish)
        .then_expect_error(Error::NoVariants);
    given(draft())
        .when(Command::Publish)
        .then_expect_events(vec![Event::ProductPublished {}]);
    given(published())
        .when(remove("MUG-1"))
        .then_expect_error(Error::NoVariants);
    let removed = || vec![Event::VariantRemoved { sku: sku("MUG-1") }];
    given(draft()).when(remove("MUG-1")).then_expect_events(removed());
    given(published())
        .and(vec![variant("MUG-2", gbp(1))])
        .when(remove("MUG-1"))
        .then_expect_events(removed());
}

#[test]
fn publishing_and_unpublishing_are_goals() {
    given(published())
        .when(Command::Publish)
        .then_expect_events(vec![]);
    given(draft()).when(Command::Unpublish).then_expect_events(vec![]);
    given(published())
        .when(Command::Unpublish)
        .then_expect_events(vec![Event::ProductUnpublished {}]);
}

#[test]
fn a_variant_is_added_once() {
    given(draft())
        .when(add("MUG-2", gbp(0)))
        .then_expect_events(vec![variant("MUG-2", gbp(0))]);
    given(draft())
        .when(add("MUG-1", gbp(500)))
        .then_expect_events(vec![]);
    given(draft())
        .when(add("MUG-1", gbp(501)))
        .then_expect_error(Error::DuplicateVariant { sku: sku("MUG-1") });
    given(draft())
        .when(remove("MUG-9"))
        .then_expect_error(Error::UnknownVariant { sku: sku("MUG-9") });
    // A variant that was removed may come back.
    given(draft())
        .and(vec![Event::VariantRemoved { sku: sku("MUG-1") }])
        .when(add("MUG-1", gbp(7)))
        .then_expect_events(vec![variant("MUG-1", gbp(7))]);
}

#[test]
fn variants_are_bounded() {
    let full: Vec<Event> = std::iter::once(created())
        .chain((0..limits::MAX_VARIANTS).map(|number| variant(&format!("MUG-{number}"), gbp(1))))
        .collect();
    given(full)
        .when(add("ONE-MORE", gbp(1)))
        .then_expect_error(Error::TooManyVariants {
            max: limits::MAX_VARIANTS,
        });
}

#[test]
fn prices_are_not_negative_and_in_one_currency() {
    let dollars = Money::new(500, Currency::USD).unwrap();
    let changed = |price| {
        vec![Event::PriceChanged {
            sku: sku("MUG-1"),
            price,
        }]
    };
    given(published())
        .when(set_price("MUG-1", gbp(0)))
        .then_expect_events(changed(gbp(0)));
    given(published())
        .when(set_price("MUG-1", gbp(500)))
        .then_expect_events(vec![]);
    given(draft())
        .when(set_price("MUG-1", gbp(-1)))
        .then_expect_error(Error::NegativePrice);
    given(draft())
        .when(add("MUG-2", gbp(-1)))
        .then_expect_error(Error::NegativePrice);
    given(draft())
        .when(set_price("MUG-1", dollars))
        .then_expect_error(Error::CurrencyMismatch);
    given(draft())
        .when(add("MUG-2", dollars))
        .then_expect_error(Error::CurrencyMismatch);
    given(draft())
        .when(set_price("MUG-9", gbp(1)))
        .then_expect_error(Error::UnknownVariant { sku: sku("MUG-9") });
}

#[test]
fn details_are_changed_as_a_whole() {
    let change = |title| Command::ChangeDetails {
        details: details(title),
    };
    given(draft())
        .when(change("Cup"))
        .then_expect_events(vec![Event::ProductDetailsChanged {
            details: details("Cup"),
        }]);
    given(draft()).when(change("Mug")).then_expect_events(vec![]);
}

/// Details with every part, each as long as it may be where that is quick to say.
fn full_details() -> ProductDetails {
    ProductDetails {
        title: "é".repeat(limits::MAX_TITLE),
        description: "é".repeat(limits::MAX_DESCRIPTION),
        category: Some("mugs".into()),
        tags: vec!["gift".into(); limits::MAX_LIST],
        options: vec![ProductOption {
            name: "size".into(),
            values: vec!["M".into()],
        }],
        images: vec!["/mug.webp".into()],
    }
}

/// One thing too much or too little each, by the field that is named for it.
fn bad_details() -> Vec<(&'static str, ProductDetails)> {
    let ok = full_details();
    let option = |name: &str, values| {
        vec![ProductOption {
            name: name.into(),
            values,
        }]
    };
    vec![
        (
            "title",
            ProductDetails {
                title: " ".into(),
                ..ok.clone()
            },
        ),
        (
            "title",
            ProductDetails {
                title: "é".repeat(limits::MAX_TITLE + 1),
                ..ok.clone()
            },
        ),
        (
            "description",
            ProductDetails {
                description: "x".repeat(limits::MAX_DESCRIPTION + 1),
                ..ok.clone()
            },
        ),
        (
            "category",
            ProductDetails {
                category: Some(String::new()),
                ..ok.clone()
            },
        ),
        (
            "tags",
            ProductDetails {
                tags: vec![String::new()],
                ..ok.clone()
            },
        ),
        (
            "tags",
            ProductDetails {
                tags: vec!["x".into(); limits::MAX_LIST + 1],
                ..ok.clone()
            },
        ),
        (
            "options",
            ProductDetails {
                options: option("", vec!["M".into()]),
                ..ok.clone()
            },
        ),
        (
            "options",
            ProductDetails {
                options: option("size", vec![]),
                ..ok.clone()
            },
        ),
        (
            "options",
            ProductDetails {
                options: option("size", vec![String::new()]),
                ..ok.clone()
            },
        ),
        (
            "images",
            ProductDetails {
                images: vec![String::new()],
                ..ok.clone()
            },
        ),
        (
            "images",
            ProductDetails {
                images: vec!["x".repeat(limits::MAX_IMAGE + 1)],
                ..ok.clone()
            },
        ),
    ]
}

#[test]
fn details_are_bounded() {
    let ok = full_details();
    given(vec![])
        .when(Command::Create { details: ok.clone() })
        .then_expect_events(vec![Event::ProductCreated { details: ok }]);
    for (field, details) in bad_details() {
        given(vec![])
            .when(Command::Create {
                details: details.clone(),
            })
            .then_expect_error(Error::InvalidDetail { field });
        given(draft())
            .when(Command::ChangeDetails { details })
            .then_expect_error(Error::InvalidDetail { field });
    }
    let nameless = Command::AddVariant {
        sku: sku("MUG-2"),
        option_values: BTreeMap::from([(String::new(), "M".into())]),
        price: gbp(1),
        tracked: true,
    };
    given(draft())
        .when(nameless)
        .then_expect_error(Error::InvalidDetail {
            field: "option_values",
        });
}
