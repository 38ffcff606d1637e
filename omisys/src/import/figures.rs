//! The figures that the file and the books must agree on.

use std::collections::BTreeMap;

use serde::Serialize;

use super::file::Sale;

/// What one country bought.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CountryFigures {
    pub orders: u64,
    pub units: u64,
    pub revenue_pence: i64,
}

/// What was sold in all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    pub orders: u64,
    pub lines: u64,
    pub units: u64,
    pub revenue_pence: i64,
    /// Lines that took stock off the books.
    pub adjustments: u64,
    /// Invoices that are no trade in goods (bad debt).
    pub left_out: u64,
    /// By the retailer's name of the country.
    pub by_country: BTreeMap<String, CountryFigures>,
}

impl Figures {
    /// Adds an order of `lines` lines to the country's and the overall figures.
    pub fn count_order(&mut self, country: &str, lines: u64, units: u64, revenue_pence: i64) {
        self.orders += 1;
        self.lines += lines;
        self.units += units;
        self.revenue_pence += revenue_pence;
        let country = self.by_country.entry(country.to_owned()).or_default();
        country.orders += 1;
        country.units += units;
        country.revenue_pence += revenue_pence;
    }

    /// Adds a sale as the file has it.
    pub fn count_sale(&mut self, sale: &Sale) {
        let units = sale.lines.iter().map(|line| u64::from(line.quantity)).sum();
        let revenue = sale
            .lines
            .iter()
            .map(|line| line.unit_price * i64::from(line.quantity))
            .sum();
        self.count_order(&sale.country, sale.lines.len() as u64, units, revenue);
    }
}
