//! Whether two generations of a view have the same documents.

use std::collections::HashMap;

use serde_json::Value;

use super::RebuildError;
use crate::document::Document;
use crate::query::KeyValue;
use crate::reader::{Generation, parse};
use crate::store::StoredDocument;
use crate::view::{DocId, View};

/// Documents that are read of each generation at a time.
const PAGE: usize = 1_000;

/// Differences that are listed; more are only counted.
const LISTED: usize = 1_000;

/// Documents that are looked at again; more of them move than anybody could follow.
const UNSETTLED: usize = 100_000;

/// Fields that are listed of one document.
const FIELDS: usize = 50;

/// What comparing came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// Documents in which both have seen the same events.
    pub compared: u64,
    /// Documents of which the new one has seen more: they move, or the old one has dead letters that fold now.
    pub apart: u64,
    /// Of those that were compared, how many are not the same.
    pub different: u64,
    /// The first of them.
    pub differences: Vec<DocumentDifference>,
}

/// A document that is another one in the new generation although both have seen the same events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentDifference {
    pub id: DocId,
    /// JSON pointers into the stored document, `/keys/<name>` for what lists go by.
    pub fields: Vec<FieldDifference>,
}

/// One field of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldDifference {
    pub pointer: String,
    /// As JSON; none where it is not there.
    pub old: Option<String>,
    pub new: Option<String>,
}

type Row = (StoredDocument, Vec<KeyValue>);

/// Walks both by id. What stands in one only counts as apart: whether it is missing is for [`super`] to find out, once
/// both are known to have come as far.
pub(super) async fn compare<V: View>(
    old: &Generation<V>,
    new: &Generation<V>,
) -> Result<(Comparison, Vec<DocId>), RebuildError> {
    let mut found = Comparison::default();
    let mut unsettled = Vec::new();
    let (mut olds, mut news) = (Walk::new(old), Walk::new(new));
    loop {
        let (old, new) = (olds.peek().await?, news.peek().await?);
        let order = match (&old, &new) {
            (None, None) => return Ok((found, unsettled)),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => old.as_str().cmp(new.as_str()),
        };
        let pair = match order {
            std::cmp::Ordering::Less => (olds.next(), None),
            std::cmp::Ordering::Greater => (None, news.next()),
            std::cmp::Ordering::Equal => (olds.next(), news.next()),
        };
        if let (Some(old), Some(new)) = &pair
            && found.count::<V>(old, new)?
        {
            continue;
        }
        if let (Some((document, _)), _) | (None, Some((document, _))) = pair {
            found.apart += 1;
            if unsettled.len() < UNSETTLED {
                unsettled.push(document.id);
            }
        }
    }
}

/// The documents `ids` as they are stored now.
pub(super) async fn load<V: View>(
    generation: &Generation<V>,
    ids: &[DocId],
) -> Result<HashMap<DocId, StoredDocument>, RebuildError> {
    let rows = generation.store.load(&generation.table, ids.to_vec()).await?;
    Ok(rows
        .into_iter()
        .map(|stored| (stored.id.clone(), stored))
        .collect())
}

/// Compares the documents `ids` again, which did not stand side by side. `new` is as far as `old` at least, so what it
/// lacks is a difference; if `old` has everything that either had when they were compared, what it lacks is one, too.
pub(super) fn settle<V: View>(
    ids: &[DocId],
    mut old: HashMap<DocId, StoredDocument>,
    mut new: HashMap<DocId, StoredDocument>,
    covered: bool,
    found: &mut Comparison,
) -> Result<(), RebuildError> {
    // Keys are not loaded here: they are made of the document.
    let row = |stored| (stored, Vec::new());
    for id in ids {
        let (old, new) = (old.remove(id), new.remove(id));
        let whole = match (&old, &new) {
            (Some(before), Some(after)) => {
                if found.count::<V>(&row(before.clone()), &row(after.clone()))? {
                    found.apart = found.apart.saturating_sub(1);
                    continue;
                }
                lacks::<V>(before, after)?
            }
            (Some(_), None) => true,
            (None, Some(_)) => covered,
            (None, None) => false,
        };
        if whole {
            found.apart = found.apart.saturating_sub(1);
            found.compared += 1;
            found.add(DocumentDifference {
                id: id.clone(),
                fields: vec![FieldDifference {
                    pointer: String::new(),
                    old: old.map(|stored| stored.body),
                    new: new.map(|stored| stored.body),
                }],
            });
        }
    }
    Ok(())
}

/// Whether `new` has seen less of some aggregate than `old`: lost it, or parked what somebody had dealt with in the old one.
fn lacks<V: View>(old: &StoredDocument, new: &StoredDocument) -> Result<bool, RebuildError> {
    let Ok(old) = parse::<V>(&old.id, &old.body) else {
        return Ok(false);
    };
    let new: Document<V::Part> = parse::<V>(&new.id, &new.body)?;
    let mut seen = old.versions().into_iter();
    Ok(seen.any(|(stream, version)| new.version_of(&stream) < version))
}

impl Comparison {
    /// Whether there is nothing to object to.
    pub const fn equal(&self) -> bool {
        self.different == 0
    }

    /// Compares two documents of one id; false if they have not seen the same.
    fn count<V: View>(&mut self, old: &Row, new: &Row) -> Result<bool, RebuildError> {
        if old.0.body == new.0.body && old.1 == new.1 {
            self.compared += 1;
            return Ok(true);
        }
        // What cannot be read is certainly another one.
        if let Ok(before) = parse::<V>(&old.0.id, &old.0.body) {
            let after: Document<V::Part> = parse::<V>(&new.0.id, &new.0.body)?;
            if before.versions() != after.versions() {
                return Ok(false);
            }
        }
        self.compared += 1;
        let mut fields = Vec::new();
        let json = |body: &str| serde_json::from_str::<Value>(body).unwrap_or(Value::Null);
        differ("", &json(&old.0.body), &json(&new.0.body), &mut fields);
        for ((key, old), new) in V::KEYS.iter().zip(&old.1).zip(&new.1) {
            if old != new && fields.len() < FIELDS {
                fields.push(FieldDifference {
                    pointer: format!("/keys/{}", key.name),
                    old: Some(format!("{old:?}")),
                    new: Some(format!("{new:?}")),
                });
            }
        }
        self.add(DocumentDifference {
            id: old.0.id.clone(),
            fields,
        });
        Ok(true)
    }

    fn add(&mut self, difference: DocumentDifference) {
        self.different += 1;
        if self.differences.len() < LISTED {
            self.differences.push(difference);
        }
    }
}

/// The fields in which two JSON values differ.
fn differ(pointer: &str, old: &Value, new: &Value, fields: &mut Vec<FieldDifference>) {
    if old == new || fields.len() >= FIELDS {
        return;
    }
    let mut field = |pointer: String, old: Option<&Value>, new: Option<&Value>| match (old, new) {
        (Some(old), Some(new)) => differ(&pointer, old, new, fields),
        (old, new) => fields.push(FieldDifference {
            pointer,
            old: old.map(ToString::to_string),
            new: new.map(ToString::to_string),
        }),
    };
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                field(format!("{pointer}/{}", escape(name)), Some(value), new.get(name));
            }
            for (name, value) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
                field(format!("{pointer}/{}", escape(name)), None, Some(value));
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            for index in 0..old.len().max(new.len()) {
                field(format!("{pointer}/{index}"), old.get(index), new.get(index));
            }
        }
        (old, new) => fields.push(FieldDifference {
            pointer: pointer.to_owned(),
            old: Some(old.to_string()),
            new: Some(new.to_string()),
        }),
    }
}

/// A member's name in a JSON pointer (RFC 6901).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A generation's documents, by id.
struct Walk<'g, V: View> {
    generation: &'g Generation<V>,
    page: std::vec::IntoIter<Row>,
    last: String,
    ended: bool,
}

impl<'g, V: View> Walk<'g, V> {
    fn new(generation: &'g Generation<V>) -> Self {
        Self {
            generation,
            page: Vec::new().into_iter(),
            last: String::new(),
            ended: false,
        }
    }

    /// The id of the next one; none at the end.
    async fn peek(&mut self) -> Result<Option<DocId>, RebuildError> {
        if self.page.as_slice().is_empty() && !self.ended {
            let generation = self.generation;
            let after = std::mem::take(&mut self.last);
            let page = generation.store.scan(&generation.table, after, PAGE).await?;
            match page.last() {
                Some((last, _)) => self.last = last.id.to_string(),
                None => self.ended = true,
            }
            self.page = page.into_iter();
        }
        Ok(self.page.as_slice().first().map(|(stored, _)| stored.id.clone()))
    }

    fn next(&mut self) -> Option<Row> {
        self.page.next()
    }
}
