use event_schemas::{CustomerId, Timestamp};

use super::{CUSTOMER, OCCURRED_AT, OrderStatus, STATUS};
use crate::query::{After, Direction, Query};

/// Which orders to list; newest sale first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OrderFilter {
    /// None: everyone's (staff).
    pub customer: Option<CustomerId>,
    pub status: Option<OrderStatus>,
    /// When the sale took place: from (inclusive).
    pub from: Option<Timestamp>,
    /// When the sale took place: until (exclusive).
    pub until: Option<Timestamp>,
}

impl OrderFilter {
    /// The orders of one customer.
    pub fn of(customer: CustomerId) -> Self {
        Self {
            customer: Some(customer),
            ..Self::default()
        }
    }

    /// The page of `limit` orders after `after`.
    pub fn page(&self, after: Option<After>, limit: usize) -> Query {
        let micros = |time: Timestamp| time.as_microsecond().into();
        let mut query = Query::new(limit)
            .range(OCCURRED_AT, self.from.map(micros), self.until.map(micros))
            .order_by(OCCURRED_AT, Direction::Descending)
            .after(after);
        if let Some(customer) = self.customer {
            query = query.equals(CUSTOMER, customer.to_string());
        }
        if let Some(status) = self.status {
            query = query.equals(STATUS, status.as_str());
        }
        query
    }
}
