//! The content of an invoice: random, with sums that are exact in minor units of the currency.

use super::date::{Date, DateFormat};
use super::draw::{below, between, chance, patterned, pick};
use super::money::MoneyFormat;
use super::names;
use super::region::{REGIONS, Region};
use crate::SampleRng;

/// The largest number of items.
pub(super) const MAX_ITEMS: u32 = 5;

/// An invoice: what the page and the target are made of.
#[derive(Debug, Clone)]
pub(super) struct Invoice {
    pub(super) region: &'static Region,
    pub(super) money: MoneyFormat,
    pub(super) dates: DateFormat,
    pub(super) number: String,
    pub(super) date: Date,
    pub(super) days: u32,
    pub(super) seller: String,
    pub(super) address: [String; 2],
    pub(super) phone: String,
    pub(super) account: String,
    pub(super) tax_id: String,
    /// A firm or a person, and the address.
    pub(super) recipient: [String; 3],
    pub(super) customer: String,
    pub(super) order: String,
    pub(super) items: Vec<Item>,
    /// In percent of the items; 0 for none.
    pub(super) discount_rate: u32,
    /// In tenths of a percent.
    pub(super) tax_rate: u32,
    /// An amount that is mentioned and not asked for.
    pub(super) other: i64,
}

/// A line of the table. All amounts are in minor units.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) description: String,
    /// The description without its variant, for narrow tables.
    pub(super) short: String,
    pub(super) code: String,
    pub(super) quantity: u32,
    pub(super) price: i64,
}

impl Item {
    pub(super) fn amount(&self) -> i64 {
        i64::from(self.quantity) * self.price
    }
}

/// The sums of an invoice in minor units: `total = subtotal - discount + tax`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sums {
    /// The sum of the items.
    pub(super) subtotal: i64,
    pub(super) discount: i64,
    pub(super) tax: i64,
    pub(super) total: i64,
}

impl Invoice {
    pub(super) fn random(rng: &mut SampleRng) -> Self {
        let region = region(rng);
        let money = MoneyFormat {
            currency: region.currency,
            number: *pick(rng, region.numbers),
            sign: *pick(rng, region.signs),
        };
        let date =
            Date { year: between(rng, 2015, 2026), month: between(rng, 1, 12), day: between(rng, 1, 28) };
        let count = 1 + below(rng, MAX_ITEMS).min(below(rng, MAX_ITEMS + 1));
        let items = (0..count).map(|_| item(region, money.currency.decimals, rng)).collect();
        let firm = chance(rng, 60);
        let [street, city] = names::address(region, rng);
        Self {
            region,
            money,
            dates: *pick(rng, region.dates),
            number: number(date, rng),
            date,
            days: *pick(rng, &[7, 10, 14, 21, 30, 45]),
            seller: names::firm(region, rng),
            address: names::address(region, rng),
            phone: format!("{} {}", region.dial, patterned(rng, "90 000 0000")),
            account: format!("{}{}", region.country, patterned(rng, "00 0000 0000 0000 00")),
            tax_id: format!("{}{}", region.country, patterned(rng, "900000000")),
            recipient: [if firm { names::firm(region, rng) } else { names::person(rng) }, street, city],
            customer: {
                let pattern = *pick(rng, &["90000", "A-9000", "9000000", "A9000"]);
                patterned(rng, pattern)
            },
            order: {
                let pattern = *pick(rng, &["90000", "AA-9000", "900-000", "9000/00"]);
                patterned(rng, pattern)
            },
            items,
            discount_rate: *pick(rng, &[2, 3, 5, 10, 15]),
            tax_rate: *pick(rng, region.rates),
            other: round_amount(money.currency.decimals, rng),
        }
    }

    pub(super) fn due(&self) -> Date {
        self.date.plus(self.days)
    }

    pub(super) fn sums(&self) -> Sums {
        let subtotal = self.items.iter().map(Item::amount).sum();
        let discount = share(subtotal, self.discount_rate * 10);
        let tax = share(subtotal - discount, self.tax_rate);
        Sums { subtotal, discount, tax, total: subtotal - discount + tax }
    }
}

/// `rate` thousandths of an amount, rounded half up.
fn share(amount: i64, rate: u32) -> i64 {
    (amount * i64::from(rate) + 500) / 1000
}

fn region(rng: &mut SampleRng) -> &'static Region {
    let all = REGIONS.iter().map(|region| region.weight).sum();
    let mut left = below(rng, all);
    for region in &REGIONS {
        if left < region.weight {
            return region;
        }
        left -= region.weight;
    }
    &REGIONS[0]
}

/// An invoice number in one of many forms.
fn number(date: Date, rng: &mut SampleRng) -> String {
    let year = date.year;
    let short_year = year % 100;
    let digits = |rng: &mut SampleRng, pattern| patterned(rng, pattern);
    match below(rng, 14) {
        0 => format!("INV-{year}-{}", digits(rng, "00000")),
        1 => format!("{year}/{}", digits(rng, "0000")),
        2 => format!("R {}", digits(rng, "90000")),
        3 => format!("#{}", digits(rng, "90000")),
        4 => format!("RE-{}", digits(rng, "900000")),
        5 => format!("F{short_year:02}-{}", digits(rng, "0000")),
        6 => digits(rng, "900000"),
        7 => digits(rng, "90000"),
        8 => format!("{}{}", digits(rng, "A"), digits(rng, "9000000")),
        9 => format!("{}-{year}-{}", digits(rng, "AA"), digits(rng, "000")),
        10 => format!("{}/{short_year:02}", digits(rng, "9000")),
        11 => format!("INV{}", digits(rng, "90000")),
        12 => format!("{year}{:02}-{}", date.month, digits(rng, "000")),
        _ => digits(rng, "900-00000"),
    }
}

fn item(region: &Region, decimals: u32, rng: &mut SampleRng) -> Item {
    let [description, short] = names::goods(region.language, rng);
    let (least, most, largest) =
        *pick(rng, &[(1, 9, 24), (10, 99, 12), (10, 99, 12), (100, 999, 6), (100, 999, 4), (1000, 4800, 2)]);
    let whole = i64::from(between(rng, least, most));
    let price = if decimals == 0 {
        whole * 100 + i64::from(*pick(rng, &[0, 0, 50, 80]))
    } else {
        let any = i64::from(below(rng, 100));
        whole * 100 + *pick(rng, &[0, 0, 50, 90, 99, 95, any, any, any])
    };
    let code = {
        let pattern = *pick(rng, &["A00", "9000", "A9"]);
        patterned(rng, pattern)
    };
    Item { description, short, code, quantity: between(rng, 1, largest), price }
}

/// A round amount from 500 to 95,000.
fn round_amount(decimals: u32, rng: &mut SampleRng) -> i64 {
    let amount = i64::from(between(rng, 5, 95)) * i64::from(*pick(rng, &[100, 250, 1000]));
    if decimals == 0 { amount * 100 } else { amount * 100 + i64::from(*pick(rng, &[0, 0, 40, 85])) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::SeedableRng;

    use super::*;

    #[test]
    fn sums_are_exact_and_every_amount_is_above_zero() {
        let mut regions = HashSet::new();
        for seed in 0..2000 {
            let invoice = Invoice::random(&mut SampleRng::seed_from_u64(seed));
            let sums = invoice.sums();
            assert_eq!(sums.subtotal, invoice.items.iter().map(Item::amount).sum::<i64>());
            assert_eq!(sums.total, sums.subtotal - sums.discount + sums.tax);
            let exact = (sums.subtotal - sums.discount) * i64::from(invoice.tax_rate);
            assert!((sums.tax * 1000 - exact).abs() <= 500, "{sums:?}");
            assert!(sums.tax > 0 && sums.discount > 0 && sums.total > sums.tax, "{sums:?}");
            assert!((1..=MAX_ITEMS as usize).contains(&invoice.items.len()));
            regions.insert((invoice.region.language, invoice.region.currency.code, invoice.region.country));
        }
        assert_eq!(regions.len(), REGIONS.len());
    }

    #[test]
    fn a_symbol_is_of_one_currency_and_slashes_and_dots_always_have_the_day_first() {
        for one in &REGIONS {
            for other in &REGIONS {
                let is_shared = one.signs.iter().any(|sign| other.signs.iter().any(|o| o.text == sign.text));
                assert!(!is_shared || one.currency == other.currency, "{one:?} {other:?}");
            }
            assert!(one.country != "US" || !one.dates.contains(&DateFormat::Slashes));
        }
    }
}
