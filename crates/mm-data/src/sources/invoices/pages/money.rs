//! Amounts of money as whole minor units, and the ways to print them.

use super::text::{Key, Text};

/// A currency.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Currency {
    /// The ISO code.
    pub(super) code: &'static str,
    /// The number of decimals.
    pub(super) decimals: u32,
}

/// The sign of a currency in print: a symbol that no other currency of the data set has, or the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign {
    pub(super) text: &'static str,
    /// Before the number, otherwise after it.
    pub(super) is_before: bool,
    pub(super) is_spaced: bool,
}

/// Separators of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NumberFormat {
    /// Between thousands.
    pub(super) group: Option<char>,
    pub(super) decimal: char,
}

/// How a page prints money.
#[derive(Debug, Clone, Copy)]
pub(super) struct MoneyFormat {
    pub(super) currency: &'static Currency,
    pub(super) number: NumberFormat,
    pub(super) sign: Sign,
}

impl MoneyFormat {
    /// The amount in the target: `1234.56`.
    pub(super) fn value(&self, amount: i64) -> String {
        self.digits(amount, NumberFormat { group: None, decimal: '.' })
    }

    fn digits(&self, amount: i64, format: NumberFormat) -> String {
        let unit = 10_u64.pow(self.currency.decimals);
        let (whole, minor) = (amount.unsigned_abs() / unit, amount.unsigned_abs() % unit);
        let digits = whole.to_string();
        let mut text = if amount < 0 { "-".to_owned() } else { String::new() };
        for (at, digit) in digits.chars().enumerate() {
            if let Some(group) = format.group.filter(|_| at > 0 && (digits.len() - at).is_multiple_of(3)) {
                text.push(group);
            }
            text.push(digit);
        }
        if self.currency.decimals > 0 {
            text.push(format.decimal);
            text.push_str(&format!("{minor:0width$}", width = self.currency.decimals as usize));
        }
        text
    }

    /// The printed number of an amount, which shows the value of `key` if there is one.
    pub(super) fn number(&self, amount: i64, key: Option<Key>) -> Text {
        let printed = self.digits(amount, self.number);
        let Some(key) = key else { return Text::plain(&printed) };
        // Without separators of groups, the printed number and the value have the same characters but for the
        // decimal separator.
        let places = printed.chars().enumerate().filter(|&(_, shown)| Some(shown) != self.number.group);
        let shows = places.map(|(at, _)| at).enumerate().map(|(value, at)| (value, at..at + 1)).collect();
        Text::shown(key, &printed, shows)
    }

    /// The sign alone. All letters of the code are at the middle of it.
    pub(super) fn currency(&self) -> Text {
        self.currency_as(self.sign.text)
    }

    /// The code alone.
    pub(super) fn code(&self) -> Text {
        self.currency_as(self.currency.code)
    }

    fn currency_as(&self, text: &str) -> Text {
        let whole = 0..text.chars().count();
        let shows = (0..self.currency.code.len()).map(|at| (at, whole.clone())).collect();
        Text::shown(Key::Currency, text, shows)
    }

    /// The printed number with the sign.
    pub(super) fn amount(&self, amount: i64, key: Option<Key>) -> Text {
        if amount < 0 && self.sign.is_before {
            return Text::plain("-").then(self.amount(-amount, key));
        }
        let space = if self.sign.is_spaced { " " } else { "" };
        let number = self.number(amount, key);
        if self.sign.is_before {
            self.currency().and(space).then(number)
        } else {
            number.and(space).then(self.currency())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::HARD_SPACE;
    use super::*;

    const EUR: Currency = Currency { code: "EUR", decimals: 2 };
    const JPY: Currency = Currency { code: "JPY", decimals: 0 };

    fn format(currency: &'static Currency, group: Option<char>, decimal: char) -> MoneyFormat {
        let sign = Sign { text: "€", is_before: false, is_spaced: true };
        MoneyFormat { currency, number: NumberFormat { group, decimal }, sign }
    }

    fn printed(text: &Text) -> String {
        text.chars.iter().collect()
    }

    #[test]
    fn amounts_are_printed_with_their_separators() {
        let german = format(&EUR, Some('.'), ',');
        assert_eq!(printed(&german.amount(123_456_789, None)), "1.234.567,89 €");
        assert_eq!(printed(&german.number(-1205, None)), "-12,05");
        assert_eq!((german.value(5), german.value(100_000)), ("0.05".into(), "1000.00".into()));
        let japanese = format(&JPY, Some(','), '.');
        assert_eq!(printed(&japanese.number(1_234_500, None)), "1,234,500");
        assert_eq!(japanese.value(1_234_500), "1234500");
    }

    #[test]
    fn each_character_of_the_value_is_at_its_printed_one() {
        let french = format(&EUR, Some(HARD_SPACE), ',');
        let text = french.amount(123_456, Some(Key::Total));
        let value: Vec<char> = french.value(123_456).chars().collect();
        let mark = &text.marks[0];
        assert_eq!(mark.shows.len(), value.len());
        for (at, range) in &mark.shows {
            let shown = text.chars[range.start];
            assert!(shown == value[*at] || (shown == ',' && value[*at] == '.'), "{at} {range:?}");
        }
        assert_eq!(text.marks[1].shows, [(0, 9..10), (1, 9..10), (2, 9..10)]);
    }
}
