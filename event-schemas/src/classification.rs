//! Which event fields are personal. A field that is missing here fails a test.

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataClass {
    /// Random ids, SKUs, amounts, dates, country, reason codes, product text.
    Plain,
    /// Names, addresses, contact data, free text by or about a customer: always of type [`crate::Sealed`].
    Personal,
}

/// The class of one field: `Event.path.to.field`, with `[]` for the elements of a list and `{}` for the values of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldClass {
    pub path: &'static str,
    pub class: DataClass,
}

/// Every field of every event.
pub const CLASSIFICATION: &[FieldClass] = &[];
