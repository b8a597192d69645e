//! Dates and the ways to print them. No way is ambiguous: dots and slashes always have the day first.

use super::language::Language;
use super::text::{Key, Text};

/// A date of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: u32,
    /// 1 to 12.
    pub(super) month: u32,
    /// 1 to 31.
    pub(super) day: u32,
}

/// How a page prints dates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DateFormat {
    /// `2024-03-05`.
    Iso,
    /// `05.03.2024`: the day first.
    Dots,
    /// `05/03/2024`: the day first.
    Slashes,
    /// `5 March 2024`, `5. März 2024`, `5 de marzo de 2024`.
    Long,
    /// `5 Mar 2024`.
    Short,
    /// `March 5, 2024`.
    MonthFirst,
    /// `Mar 5, 2024`.
    ShortMonthFirst,
}

impl DateFormat {
    /// The same with the short name of the month.
    pub(super) fn short(self) -> Self {
        match self {
            Self::Long => Self::Short,
            Self::MonthFirst => Self::ShortMonthFirst,
            other => other,
        }
    }
}

impl Date {
    /// The value in the target: `2024-03-05`.
    pub(super) fn value(self) -> String {
        format!("{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }

    /// The date some days later.
    pub(super) fn plus(mut self, days: u32) -> Self {
        self.day += days;
        while self.day > self.days_of_month() {
            self.day -= self.days_of_month();
            self.month += 1;
            if self.month > 12 {
                (self.year, self.month) = (self.year + 1, 1);
            }
        }
        self
    }

    fn days_of_month(self) -> u32 {
        let is_leap =
            self.year.is_multiple_of(4) && !self.year.is_multiple_of(100) || self.year.is_multiple_of(400);
        match self.month {
            2 if is_leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    /// The printed date, which shows the value of `key` if there is one.
    pub(super) fn print(self, format: DateFormat, language: Language, key: Option<Key>) -> Text {
        let mut text = Printed::default();
        let words = language.words();
        let month = |names: &[&'static str; 12]| names[(self.month as usize + 11) % 12];
        let (long, short) = (month(&words.months), month(&words.short_months));
        match format {
            DateFormat::Iso => text.year(self).add("-").padded_month(self).add("-").padded_day(self),
            DateFormat::Dots => text.padded_day(self).add(".").padded_month(self).add(".").year(self),
            DateFormat::Slashes => text.padded_day(self).add("/").padded_month(self).add("/").year(self),
            DateFormat::Long => {
                let [after_day, after_month] = words.long_date;
                text.day(self).add(after_day).month(long).add(after_month).year(self)
            }
            DateFormat::Short => text.day(self).add(words.short_date).month(short).add(" ").year(self),
            DateFormat::MonthFirst => text.month(long).add(" ").day(self).add(", ").year(self),
            DateFormat::ShortMonthFirst => text.month(short).add(" ").day(self).add(", ").year(self),
        };
        match key {
            Some(key) => Text::shown(key, &text.text, text.shows),
            None => Text::plain(&text.text),
        }
    }
}

/// The places of year, month and day in the value.
const YEAR: usize = 0;
const MONTH: usize = 5;
const DAY: usize = 8;

/// A date in print.
#[derive(Default)]
struct Printed {
    text: String,
    length: usize,
    shows: Vec<(usize, std::ops::Range<usize>)>,
}

impl Printed {
    fn add(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self.length += text.chars().count();
        self
    }

    /// Adds digits that show the value from `place` on.
    fn digits(&mut self, digits: &str, place: usize) -> &mut Self {
        for at in 0..digits.len() {
            self.shows.push((place + at, self.length + at..self.length + at + 1));
        }
        self.add(digits)
    }

    fn year(&mut self, date: Date) -> &mut Self {
        self.digits(&format!("{:04}", date.year), YEAR)
    }

    fn padded_month(&mut self, date: Date) -> &mut Self {
        self.digits(&format!("{:02}", date.month), MONTH)
    }

    fn padded_day(&mut self, date: Date) -> &mut Self {
        self.digits(&format!("{:02}", date.day), DAY)
    }

    /// The day without a zero before it: the zero of the value is nowhere.
    fn day(&mut self, date: Date) -> &mut Self {
        self.digits(&date.day.to_string(), DAY + usize::from(date.day < 10))
    }

    fn month(&mut self, name: &str) -> &mut Self {
        let range = self.length..self.length + name.chars().count();
        self.shows.extend([(MONTH, range.clone()), (MONTH + 1, range)]);
        self.add(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(date: Date, format: DateFormat, language: Language) -> String {
        date.print(format, language, None).chars.into_iter().collect()
    }

    #[test]
    fn a_date_is_printed_in_its_language() {
        let date = Date { year: 2024, month: 3, day: 5 };
        assert_eq!(print(date, DateFormat::Long, Language::German), "5. März 2024");
        assert_eq!(print(date, DateFormat::Long, Language::Spanish), "5 de marzo de 2024");
        assert_eq!(print(date, DateFormat::ShortMonthFirst, Language::English), "Mar 5, 2024");
        assert_eq!(print(date, DateFormat::Dots, Language::German), "05.03.2024");
        assert_eq!((date.value(), date.plus(30).value()), ("2024-03-05".into(), "2024-04-04".into()));
        let end = Date { year: 2023, month: 12, day: 28 };
        assert_eq!(end.plus(65).value(), "2024-03-02");
    }

    #[test]
    fn digits_of_the_value_are_at_their_printed_digits() {
        let date = Date { year: 2024, month: 3, day: 25 };
        let value: Vec<char> = date.value().chars().collect();
        for format in [DateFormat::Iso, DateFormat::Dots, DateFormat::Slashes, DateFormat::Long] {
            let text = date.print(format, Language::French, Some(Key::Date));
            for (at, range) in &text.marks[0].shows {
                assert!(range.len() > 1 || text.chars[range.start] == value[*at], "{format:?} {at}");
            }
            assert_eq!(text.marks[0].shows.len(), 8);
        }
    }
}
