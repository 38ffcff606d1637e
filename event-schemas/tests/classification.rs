//! Every field of every event has a class, every class has a field, and what is personal is sealed.
//!
//! Two views of the types are compared: the JSON of the examples, and what serde says the types could hold (all
//! fields of each struct, all variants of each enum), so that an optional field that no example sets is seen too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod common;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use event_schemas::{
    CLASSIFICATION, CartEvent, DataClass, Event, InventoryEvent, Metadata, OrderEvent, PaymentEvent,
    ProductDetails, ProductEvent,
};
use serde::de::value::StringDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess,
};
use serde::de::{VariantAccess, Visitor};
use serde::forward_to_deserialize_any;
use serde_json::{Map, Value};

#[test]
fn each_field_has_exactly_one_class() {
    let paths: BTreeSet<&str> = CLASSIFICATION.iter().map(|field| field.path).collect();
    assert_eq!(paths.len(), CLASSIFICATION.len(), "a field is classed twice");
}

#[test]
fn every_field_is_classed_and_every_class_has_a_field() {
    let mut found = BTreeSet::new();
    for (path, value) in documents() {
        leaves(&path, &value, &mut found);
    }
    let classed: BTreeSet<String> = CLASSIFICATION.iter().map(|field| field.path.to_owned()).collect();
    let missing: Vec<_> = found.difference(&classed).collect();
    let stale: Vec<_> = classed.difference(&found).collect();
    assert!(missing.is_empty(), "fields without a class: {missing:#?}");
    assert!(stale.is_empty(), "classes without a field: {stale:#?}");
}

#[test]
fn what_is_personal_is_sealed_and_what_is_sealed_is_personal() {
    for (path, value) in documents() {
        let mut values = Vec::new();
        collect(&path, &value, &mut values);
        for (path, value) in values {
            let personal = class(&path) == Some(DataClass::Personal);
            assert_eq!(
                personal,
                is_sealed(value),
                "{path} is personal: {personal}, and holds {value}"
            );
        }
    }
}

#[test]
fn the_examples_set_every_field_and_use_every_variant() {
    let shapes = Rc::new(RefCell::new(BTreeMap::new()));
    let mut present = BTreeSet::new();
    for (path, value) in documents() {
        keys(&path, &value, &mut present);
    }
    for event in common::examples() {
        let value = event.to_value().unwrap();
        match event {
            Event::Product(_) => trace::<ProductEvent>("", value, &shapes),
            Event::Inventory(_) => trace::<InventoryEvent>("", value, &shapes),
            Event::Cart(_) => trace::<CartEvent>("", value, &shapes),
            Event::Order(_) => trace::<OrderEvent>("", value, &shapes),
            Event::Payment(_) => trace::<PaymentEvent>("", value, &shapes),
        }
    }
    // Flattened into their events, where serde does not say which fields it looks for.
    let details = serde_json::to_value(common::product_details()).unwrap();
    trace::<ProductDetails>("ProductCreated", details.clone(), &shapes);
    trace::<ProductDetails>("ProductDetailsChanged", details, &shapes);
    trace::<Metadata>(
        "Metadata",
        serde_json::to_value(common::metadata()).unwrap(),
        &shapes,
    );

    let possible: BTreeSet<String> = shapes
        .borrow()
        .iter()
        // Of all currencies one is enough, and metadata's actor is classed like any other.
        .filter(|(path, _)| !path.ends_with("currency") && *path != "Metadata.actor_kind")
        .flat_map(|(path, names)| names.iter().map(move |name| join(path, name)))
        .collect();
    assert!(
        possible.contains("ReturnRequested.note.key_id"),
        "the tracer sees nested structs"
    );
    let unused: Vec<_> = possible.difference(&present).collect();
    assert!(unused.is_empty(), "no example sets or uses: {unused:#?}");
}

fn class(path: &str) -> Option<DataClass> {
    CLASSIFICATION
        .iter()
        .find(|field| field.path == path)
        .map(|field| field.class)
}

/// Every example with the path of its root; the event's own tag is the first part of each path.
fn documents() -> Vec<(String, Value)> {
    let events = common::examples().into_iter().map(|event| {
        let Value::Object(mut tagged) = event.to_value().unwrap() else {
            panic!("{event:?} is not an object")
        };
        assert_eq!(tagged.len(), 1);
        (event.name().to_owned(), tagged.remove(event.name()).unwrap())
    });
    events
        .chain([(
            "Metadata".to_owned(),
            serde_json::to_value(common::metadata()).unwrap(),
        )])
        .collect()
}

fn join(path: &str, part: &str) -> String {
    if path.is_empty() {
        part.to_owned()
    } else {
        format!("{path}.{part}")
    }
}

/// Keys of maps are data, not fields; these are all the maps that events hold.
fn is_map(path: &str) -> bool {
    path.ends_with(".option_values")
}

fn is_sealed(value: &Value) -> bool {
    has_exactly(value, &["ciphertext", "key_id", "nonce"])
}

/// An amount and its currency are one value.
fn is_money(value: &Value) -> bool {
    has_exactly(value, &["amount", "currency"])
}

fn has_exactly(value: &Value, keys: &[&str]) -> bool {
    value
        .as_object()
        .is_some_and(|object| object.len() == keys.len() && keys.iter().all(|key| object.contains_key(*key)))
}

fn collect<'a>(path: &str, value: &'a Value, into: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(_) if is_sealed(value) || is_money(value) => into.push((path.to_owned(), value)),
        Value::Object(object) if is_map(path) => {
            object
                .values()
                .for_each(|value| collect(&format!("{path}{{}}"), value, into));
        }
        Value::Object(object) => object
            .iter()
            .for_each(|(key, value)| collect(&join(path, key), value, into)),
        Value::Array(items) => items
            .iter()
            .for_each(|item| collect(&format!("{path}[]"), item, into)),
        _ => into.push((path.to_owned(), value)),
    }
}

fn leaves(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    let mut values = Vec::new();
    collect(path, value, &mut values);
    into.extend(values.into_iter().map(|(path, _)| path));
}

/// Every key of every object, and every unit variant as if it were a key of its enum.
fn keys(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    into.insert(path.to_owned());
    match value {
        Value::Object(object) => object
            .iter()
            .for_each(|(key, value)| keys(&join(path, key), value, into)),
        Value::Array(items) => items
            .iter()
            .for_each(|item| keys(&format!("{path}[]"), item, into)),
        Value::String(text) => {
            into.insert(join(path, text));
        }
        _ => {}
    }
}

type Shapes = Rc<RefCell<BTreeMap<String, BTreeSet<&'static str>>>>;

fn trace<T: DeserializeOwned>(path: &str, value: Value, shapes: &Shapes) {
    let tracer = Tracer {
        path: path.to_owned(),
        value,
        shapes: Rc::clone(shapes),
    };
    T::deserialize(tracer).unwrap();
}

/// Deserialises a JSON value and notes for each path which fields or variants its type has.
struct Tracer {
    path: String,
    value: Value,
    shapes: Shapes,
}

impl Tracer {
    fn child(&self, path: String, value: Value) -> Self {
        Self {
            path,
            value,
            shapes: Rc::clone(&self.shapes),
        }
    }

    fn note(&self, names: &'static [&'static str]) {
        self.shapes
            .borrow_mut()
            .entry(self.path.clone())
            .or_default()
            .extend(names);
    }
}

type Error = serde_json::Error;

impl<'de> Deserializer<'de> for Tracer {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Array(items) => {
                let path = format!("{}[]", self.path);
                let items: Vec<_> = items
                    .iter()
                    .map(|item| self.child(path.clone(), item.clone()))
                    .collect();
                visitor.visit_seq(Items(items.into_iter()))
            }
            Value::Object(object) => {
                let entries: Vec<_> = object
                    .iter()
                    .map(|(key, value)| (key.clone(), self.child(join(&self.path, key), value.clone())))
                    .collect();
                visitor.visit_map(Entries(entries.into_iter(), None))
            }
            scalar => scalar.clone().deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(variants);
        let (variant, content) = match &self.value {
            Value::String(variant) => (variant.clone(), Value::Object(Map::new())),
            Value::Object(tagged) => tagged
                .iter()
                .next()
                .map(|(tag, value)| (tag.clone(), value.clone()))
                .unwrap(),
            other => panic!("{other} is no variant"),
        };
        let content = self.child(join(&self.path, &variant), content);
        visitor.visit_enum(Tagged(variant, content))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.value.is_null() {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq
        tuple tuple_struct map identifier ignored_any
    }
}

struct Items(std::vec::IntoIter<Tracer>);

impl<'de> SeqAccess<'de> for Items {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(item)).transpose()
    }
}

struct Entries(std::vec::IntoIter<(String, Tracer)>, Option<Tracer>);

impl<'de> MapAccess<'de> for Entries {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((key, value)) = self.0.next() else {
            return Ok(None);
        };
        self.1 = Some(value);
        let key: StringDeserializer<Error> = key.into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.1.take().unwrap())
    }
}

struct Tagged(String, Tracer);

impl<'de> EnumAccess<'de> for Tagged {
    type Error = Error;
    type Variant = Tracer;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Tracer), Error> {
        let tag: StringDeserializer<Error> = self.0.into_deserializer();
        Ok((seed.deserialize(tag)?, self.1))
    }
}

impl<'de> VariantAccess<'de> for Tracer {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.note(fields);
        self.deserialize_any(visitor)
    }
}
