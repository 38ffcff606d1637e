//! The retailer's file: what was sold, written off and left out, and the figures that the books must show.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use event_schemas::{Sku, Timestamp};
use flate2::read::MultiGzDecoder;
use serde::Deserialize;

use super::figures::Figures;

/// Codes that are no goods: postage, discounts, manual entries, fees, samples, vouchers. They keep no stock.
const NON_PRODUCTS: &[&str] = &[
    "POST",
    "DOT",
    "M",
    "m",
    "D",
    "S",
    "C2",
    "BANK CHARGES",
    "AMAZONFEE",
    "CRUK",
    "B",
    "PADS",
];
const VOUCHER_PREFIX: &str = "gift_0001_";
/// The customer of lines that name none.
pub const HOUSE_CUSTOMER: &str = "house";

/// Why the file cannot be sold.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("the file could not be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("the file is not the expected CSV: {0}")]
    Csv(#[from] csv::Error),
    #[error("line {line}: {problem}: {value:?}")]
    Field {
        line: u64,
        problem: &'static str,
        value: String,
    },
    #[error("the stock codes {first:?} and {second:?} would become one SKU")]
    SkuCollision { first: String, second: String },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    invoice_no: String,
    stock_code: String,
    description: String,
    quantity: i64,
    invoice_date: String,
    unit_price: String,
    #[serde(rename = "CustomerID")]
    customer_id: String,
    country: String,
}

/// One product to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Product {
    pub sku: Sku,
    pub title: String,
    /// Pence, of the most recent line that is not below 0.
    pub price: i64,
    pub tracked: bool,
    /// Units that the sales and write-offs need.
    pub needed: u64,
}

/// One line of a sale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaleLine {
    pub sku: Sku,
    pub quantity: u32,
    /// Pence.
    pub unit_price: i64,
}

/// One invoice to sell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sale {
    pub invoice: String,
    pub customer: String,
    pub country: String,
    pub at: Timestamp,
    pub lines: Vec<SaleLine>,
}

/// One line that took stock off the books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// Unique in the file: the invoice and the line's place in it.
    pub key: String,
    pub sku: Sku,
    pub delta: i64,
}

/// The whole file, sorted out.
#[derive(Debug, Default)]
pub struct Year {
    pub products: Vec<Product>,
    pub customers: Vec<String>,
    pub sales: Vec<Sale>,
    pub adjustments: Vec<Adjustment>,
    /// Cancellation invoices: they wait for returns.
    pub cancellations: usize,
    pub expected: Figures,
}

struct Invoice {
    number: String,
    lines: Vec<(u64, Row)>,
}

/// Reads `path` (CSV, or CSV in gzip). With `limit`, sells only as far as the first `limit` sale invoices, at what the
/// whole file says of their products: so a limited run and a full one after it ask for the same things.
pub fn read(path: &Path, limit: Option<usize>) -> Result<Year, FileError> {
    let mut file = BufReader::new(File::open(path)?);
    let zipped = file.fill_buf()?.starts_with(&[0x1f, 0x8b]);
    let input: Box<dyn Read> = if zipped {
        Box::new(MultiGzDecoder::new(file))
    } else {
        Box::new(file)
    };
    sort_out(&invoices(input)?, limit.unwrap_or(usize::MAX))
}

/// Groups rows by invoice in the order of first appearance.
fn invoices(input: impl Read) -> Result<Vec<Invoice>, FileError> {
    let mut invoices: Vec<Invoice> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for (index, row) in csv::Reader::from_reader(input).deserialize().enumerate() {
        let row: Row = row?;
        let place = *places.entry(row.invoice_no.clone()).or_insert_with(|| {
            invoices.push(Invoice {
                number: row.invoice_no.clone(),
                lines: Vec::new(),
            });
            invoices.len() - 1
        });
        invoices[place].lines.push((index as u64 + 2, row));
    }
    Ok(invoices)
}

impl Invoice {
    fn is_numbered(&self) -> bool {
        !self.number.is_empty() && self.number.bytes().all(|byte| byte.is_ascii_digit())
    }

    fn is_sale(&self) -> bool {
        self.is_numbered() && self.lines.iter().all(|(_, row)| row.quantity > 0)
    }
}

fn sort_out(invoices: &[Invoice], limit: usize) -> Result<Year, FileError> {
    let mut year = Year::default();
    let mut catalogue = Catalogue::default();
    let mut customers = BTreeSet::new();
    let mut sold = BTreeSet::new();
    let mut within = true;
    for invoice in invoices {
        within = within && !(invoice.is_sale() && year.sales.len() == limit);
        if within {
            customers.extend(invoice.lines.iter().map(|(_, row)| customer(row)));
        }
        if !invoice.is_numbered() {
            for (line, row) in &invoice.lines {
                catalogue.note(*line, row)?;
            }
        }
        if invoice.number.starts_with('C') {
            year.cancellations += usize::from(within);
        } else if !invoice.is_numbered() {
            year.expected.left_out += u64::from(within);
        } else if invoice.is_sale() {
            let sale = sale(invoice, &mut catalogue)?;
            if within {
                sold.extend(sale.lines.iter().map(|line| line.sku.clone()));
                year.expected.count_sale(&sale);
                year.sales.push(sale);
            }
        } else {
            for (place, (line, row)) in invoice
                .lines
                .iter()
                .enumerate()
                .filter(|(_, (_, row))| row.quantity < 0)
            {
                let sku = catalogue.note(*line, row)?;
                catalogue.need(&sku, row.quantity.unsigned_abs());
                if within {
                    sold.insert(sku.clone());
                    year.expected.adjustments += 1;
                    let key = format!("{}-{}", invoice.number, place + 1);
                    year.adjustments.push(Adjustment {
                        key,
                        sku,
                        delta: row.quantity,
                    });
                }
            }
        }
    }
    let products = catalogue.products.into_values().map(|(product, _)| product);
    // "Every stock code a product": also those that only cancellations and bad debts name, unless the run is limited.
    year.products = products
        .filter(|product| limit == usize::MAX || sold.contains(&product.sku))
        .collect();
    year.customers = customers.into_iter().collect();
    Ok(year)
}

fn sale(invoice: &Invoice, catalogue: &mut Catalogue) -> Result<Sale, FileError> {
    let (first_line, first) = &invoice.lines[0];
    let mut lines = Vec::with_capacity(invoice.lines.len());
    for (line, row) in &invoice.lines {
        let sku = catalogue.note(*line, row)?;
        let quantity =
            u32::try_from(row.quantity).map_err(|_| field(*line, "too large a quantity", &row.stock_code))?;
        catalogue.need(&sku, u64::from(quantity));
        lines.push(SaleLine {
            sku,
            quantity,
            unit_price: pence(*line, &row.unit_price)?,
        });
    }
    Ok(Sale {
        invoice: invoice.number.clone(),
        customer: customer(first),
        country: first.country.clone(),
        at: timestamp(*first_line, &first.invoice_date)?,
        lines,
    })
}

/// The retailer's number of the customer, or the house account.
fn customer(row: &Row) -> String {
    let number = row.customer_id.trim().trim_end_matches(".0");
    if number.is_empty() { HOUSE_CUSTOMER } else { number }.to_owned()
}

/// Products by SKU, each with the stock code it came from.
#[derive(Default)]
struct Catalogue {
    products: BTreeMap<Sku, (Product, String)>,
}

impl Catalogue {
    /// Takes the description and price of a row, the last of which counts, and answers its SKU.
    fn note(&mut self, line: u64, row: &Row) -> Result<Sku, FileError> {
        let code = row.stock_code.trim();
        let sku = sku(line, code)?;
        let price = pence(line, &row.unit_price)?;
        let title = row.description.trim();
        let (product, first) = self.products.entry(sku.clone()).or_insert_with(|| {
            let tracked = !NON_PRODUCTS.contains(&code) && !code.starts_with(VOUCHER_PREFIX);
            (
                Product {
                    sku: sku.clone(),
                    title: code.to_owned(),
                    price: 0,
                    tracked,
                    needed: 0,
                },
                code.to_owned(),
            )
        });
        if first != code {
            return Err(FileError::SkuCollision {
                first: first.clone(),
                second: code.to_owned(),
            });
        }
        if !title.is_empty() {
            title.clone_into(&mut product.title);
        }
        if price >= 0 {
            product.price = price;
        }
        Ok(sku)
    }

    fn need(&mut self, sku: &Sku, units: u64) {
        if let Some((product, _)) = self.products.get_mut(sku) {
            product.needed += units;
        }
    }
}

fn field(line: u64, problem: &'static str, value: &str) -> FileError {
    FileError::Field {
        line,
        problem,
        value: value.to_owned(),
    }
}

/// A stock code as a SKU: characters that a SKU cannot hold become `_`.
fn sku(line: u64, code: &str) -> Result<Sku, FileError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let text: String = code.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
    Sku::new(text).map_err(|_| field(line, "a stock code must have 1 to 64 characters", code))
}

/// Pounds with any number of decimals as pence, rounded half to even, without floats.
fn pence(line: u64, text: &str) -> Result<i64, FileError> {
    let invalid = || field(line, "not a price", text);
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (pounds, decimals) = digits.split_once('.').unwrap_or((digits, ""));
    if pounds.is_empty()
        || !pounds
            .bytes()
            .chain(decimals.bytes())
            .all(|byte| byte.is_ascii_digit())
    {
        return Err(invalid());
    }
    let (kept, rest) = decimals.split_at(decimals.len().min(2));
    let whole: i64 = format!("{pounds}{kept:0<2}").parse().map_err(|_| invalid())?;
    let half = rest
        .bytes()
        .enumerate()
        .fold(std::cmp::Ordering::Less, |order, (index, byte)| {
            match (index, byte) {
                (0, b'6'..=b'9') => std::cmp::Ordering::Greater,
                (0, b'5') => std::cmp::Ordering::Equal,
                (1.., b'1'..=b'9') if order.is_eq() => std::cmp::Ordering::Greater,
                _ => order,
            }
        });
    let up = half.is_gt() || (half.is_eq() && whole % 2 != 0);
    let magnitude = whole + i64::from(up);
    Ok(if negative { -magnitude } else { magnitude })
}

/// `2010-12-01 08:26:00`, taken as UTC.
fn timestamp(line: u64, text: &str) -> Result<Timestamp, FileError> {
    format!("{}Z", text.replacen(' ', "T", 1))
        .parse()
        .map_err(|_| field(line, "not a date and time", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n";

    fn year(rows: &str, limit: Option<usize>) -> Result<Year, FileError> {
        sort_out(
            &invoices(format!("{HEADER}{rows}").as_bytes())?,
            limit.unwrap_or(usize::MAX),
        )
    }

    #[test]
    fn prices_round_half_to_even() {
        let rounded = |text: &str| pence(1, text).unwrap();
        assert_eq!(
            [
                "2.55",
                "0",
                "13.541",
                "0.001",
                "0.005",
                "0.015",
                "0.0051",
                "-11062.06",
                "7"
            ]
            .map(rounded),
            [255, 0, 1354, 0, 0, 2, 1, -1_106_206, 700]
        );
        assert!(pence(1, "1e3").is_err() && pence(1, "").is_err() && pence(1, ".5").is_err());
    }

    #[test]
    fn invoices_are_sorted_into_sales_adjustments_and_the_rest() {
        let year = year(
            "1,85123A,HOLDER,6,2010-12-01 08:26:00,2.55,17850.0,France\n\
             1,85123A,HOLDER T-LIGHT,1,2010-12-01 08:27:00,2.545,17850.0,France\n\
             1,BANK CHARGES,,1,2010-12-01 08:26:00,15,17850.0,France\n\
             C2,85123A,HOLDER,-1,2010-12-01 09:00:00,2.55,17850.0,France\n\
             3,85123A,broken,-4,2010-12-02 09:00:00,0,,United Kingdom\n\
             A4,B,Adjust bad debt,1,2010-12-02 09:00:00,-11062.06,,United Kingdom\n",
            None,
        )
        .unwrap();
        assert_eq!(
            (year.sales.len(), year.adjustments.len(), year.cancellations),
            (1, 1, 1)
        );
        assert_eq!(
            year.sales[0].lines.len(),
            3,
            "one code at two prices stays two lines"
        );
        assert_eq!(year.sales[0].customer, "17850");
        let figures = &year.expected;
        assert_eq!(
            (
                figures.orders,
                figures.lines,
                figures.units,
                figures.revenue_pence
            ),
            (1, 3, 8, 6 * 255 + 254 + 1500)
        );
        assert_eq!((figures.adjustments, figures.left_out), (1, 1));
        assert_eq!(figures.by_country["France"].units, 8);
        let holder = year
            .products
            .iter()
            .find(|product| product.sku.as_str() == "85123A")
            .unwrap();
        assert_eq!(
            (holder.title.as_str(), holder.price, holder.needed, holder.tracked),
            ("broken", 0, 11, true)
        );
        let charges = year
            .products
            .iter()
            .find(|product| product.sku.as_str() == "BANK_CHARGES")
            .unwrap();
        assert_eq!((charges.title.as_str(), charges.tracked), ("BANK CHARGES", false));
    }

    #[test]
    fn codes_that_would_become_one_sku_are_refused() {
        let rows = "1,A B,x,1,2010-12-01 08:26:00,1,,France\n2,A_B,x,1,2010-12-01 08:26:00,1,,France\n";
        assert!(matches!(year(rows, None), Err(FileError::SkuCollision { .. })));
    }

    #[test]
    fn a_limit_ends_before_the_next_sale() {
        let rows = "1,A,x,1,2010-12-01 08:26:00,1,,France\n2,A,x,-1,2010-12-01 08:26:00,1,,France\n\
                    3,A,x,1,2010-12-01 08:26:00,1,,France\n";
        let year = year(rows, Some(1)).unwrap();
        assert_eq!((year.sales.len(), year.adjustments.len()), (1, 1));
    }
}
