//! The look of a page: its font, labels, and where the currency stands.

use super::draw::{below, between, chance, pick};
use super::font::{Face, Family};
use super::language::{Language, Words};
use super::piece::{Lettering, quarters};
use super::text::Text;
use crate::SampleRng;

/// Where the sign of the currency stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignAt {
    /// At every amount.
    All,
    /// At every amount but prices.
    Amounts,
    /// At the sums.
    Sums,
    /// At the total.
    Total,
    /// The code in the head of the table.
    Head,
    /// The code in a line above the table.
    Note,
}

/// The form of a tax rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RateForm {
    /// `VAT 19%`.
    After,
    /// `VAT (19%)`.
    Brackets,
    /// `19% VAT`.
    Before,
    /// `VAT 19 %`.
    Spaced,
}

/// The look of a page.
#[derive(Debug, Clone)]
pub(super) struct Style {
    pub(super) language: Language,
    /// The lettering of most text.
    pub(super) body: Lettering,
    /// The grey of dark grounds.
    pub(super) dark: u8,
    /// The grey of shaded grounds.
    pub(super) shade: u8,
    pub(super) sign_at: SignAt,
    pub(super) rate_form: RateForm,
    pub(super) has_colons: bool,
    /// Whether months have their short names.
    pub(super) has_short_dates: bool,
    pub(super) has_capital_labels: bool,
    pub(super) has_capital_titles: bool,
    pub(super) has_capital_seller: bool,
    /// Whether values are bold, and labels are not.
    pub(super) has_bold_values: bool,
    /// The distance of the text from the edges of the page.
    pub(super) margin: f32,
    /// The height of a row of the table in lines.
    pub(super) row: f32,
    /// The title relative to the body.
    pub(super) title_size: f32,
    pub(super) seller_size: f32,
    /// The shape of the logo.
    pub(super) logo: u32,
    pub(super) labels: Labels,
}

/// The labels of a page.
#[derive(Debug, Clone)]
pub(super) struct Labels {
    pub(super) title: &'static str,
    pub(super) number: &'static str,
    pub(super) date: &'static str,
    pub(super) due: &'static str,
    pub(super) customer: &'static str,
    pub(super) order: &'static str,
    pub(super) bill_to: &'static str,
    pub(super) subtotal: &'static str,
    pub(super) discount: &'static str,
    pub(super) tax: &'static str,
    pub(super) total: &'static str,
    pub(super) other: &'static str,
    pub(super) description: &'static str,
    pub(super) quantity: &'static str,
    pub(super) price: &'static str,
    pub(super) amount: &'static str,
}

impl Labels {
    fn random(words: &'static Words, tax: Option<&'static str>, rng: &mut SampleRng) -> Self {
        let mut one = |labels: &'static [&'static str]| *pick(rng, labels);
        Self {
            title: one(words.title),
            number: one(words.number),
            date: one(words.date),
            due: one(words.due),
            customer: one(words.customer),
            order: one(words.order),
            bill_to: one(words.bill_to),
            subtotal: one(words.subtotal),
            discount: one(words.discount),
            tax: tax.unwrap_or(one(words.tax)),
            total: one(words.total),
            other: one(words.other),
            description: one(words.description),
            quantity: one(words.quantity),
            price: one(words.price),
            amount: one(words.amount),
        }
    }

    /// Shortens the headings of columns.
    pub(super) fn shorten_headings(&mut self, words: &'static Words) {
        self.description = shortest(words.description);
        self.quantity = shortest(words.quantity);
        self.price = shortest(words.price);
        self.amount = shortest(words.amount);
    }

    /// Shortens the labels of facts.
    fn shorten_facts(&mut self, words: &'static Words) {
        self.number = shortest(words.number);
        self.date = shortest(words.date);
        self.due = shortest(words.due);
        self.customer = shortest(words.customer);
        self.order = shortest(words.order);
    }

    /// Shortens the labels of sums.
    fn shorten_sums(&mut self, words: &'static Words) {
        self.subtotal = shortest(words.subtotal);
        self.discount = shortest(words.discount);
        self.total = shortest(words.total);
        if words.tax.contains(&self.tax) {
            self.tax = shortest(words.tax);
        }
    }
}

fn shortest(labels: &'static [&'static str]) -> &'static str {
    labels.iter().copied().min_by_key(|label| label.chars().count()).unwrap_or_default()
}

impl Style {
    pub(super) fn random(
        families: &[Family],
        language: Language,
        tax: Option<&'static str>,
        rng: &mut SampleRng,
    ) -> Self {
        let family = *pick(rng, families);
        let size = (33 + below(rng, 4)) as f32 / 4.0;
        let em = quarters(size * family.size_percent() as f32 / 100.0);
        let stretch = *pick(rng, &[0.94, 1.0, 1.0, 1.05]);
        let grey = between(rng, 15, 70) as u8;
        Self {
            language,
            body: Lettering { face: Face { family, bold: false }, em, stretch, grey },
            dark: between(rng, 40, 110) as u8,
            shade: between(rng, 205, 228) as u8,
            sign_at: *pick(
                rng,
                &[
                    SignAt::All,
                    SignAt::All,
                    SignAt::Amounts,
                    SignAt::Amounts,
                    SignAt::Sums,
                    SignAt::Sums,
                    SignAt::Total,
                    SignAt::Total,
                    SignAt::Head,
                    SignAt::Note,
                ],
            ),
            rate_form: *pick(rng, &[RateForm::After, RateForm::Brackets, RateForm::Before, RateForm::Spaced]),
            has_colons: chance(rng, 50),
            has_short_dates: false,
            has_capital_labels: chance(rng, 12),
            has_capital_titles: chance(rng, 45),
            has_capital_seller: chance(rng, 12),
            has_bold_values: chance(rng, 25),
            margin: between(rng, 11, 16) as f32,
            row: (5 + below(rng, 3)) as f32 / 5.0,
            title_size: (13 + below(rng, 6)) as f32 / 10.0,
            seller_size: (11 + below(rng, 5)) as f32 / 10.0,
            logo: below(rng, 4),
            labels: Labels::random(language.words(), tax, rng),
        }
    }

    /// The number of steps of [`simplify`](Self::simplify).
    pub(super) const SIMPLER: u32 = 5;

    /// Makes text shorter where a page has no room for it, step by step from 0.
    pub(super) fn simplify(&mut self, step: u32) {
        let words = self.language.words();
        match step {
            0 => self.labels.shorten_facts(words),
            1 => {
                self.has_short_dates = true;
                self.has_bold_values = false;
            }
            2 => {
                self.labels.shorten_sums(words);
                self.rate_form = RateForm::After;
            }
            3 => {
                self.has_capital_labels = false;
                self.has_colons = false;
                self.body.stretch = self.body.stretch.min(0.94);
            }
            _ => self.body.em = (self.body.em - 0.5).max(7.25),
        }
    }

    /// The lettering of fine print.
    pub(super) fn small(&self) -> Lettering {
        self.body.sized(0.93)
    }

    /// The lettering of values beside labels.
    pub(super) fn value(&self) -> Lettering {
        if self.has_bold_values { self.body.bold() } else { self.body }
    }

    /// The lettering on a dark ground.
    pub(super) fn light(&self, lettering: Lettering) -> Lettering {
        Lettering { grey: 250, ..lettering.bold() }
    }

    /// A label before a value on the same line.
    pub(super) fn labelled(&self, label: &str) -> Text {
        let text = self.heading(label);
        match (self.has_colons, self.language) {
            (false, _) => text,
            (true, Language::French) => text.and(" :"),
            (true, _) => text.and(":"),
        }
    }

    /// A label above values.
    pub(super) fn heading(&self, label: &str) -> Text {
        if self.has_capital_labels { Text::plain(&label.to_uppercase()) } else { Text::plain(label) }
    }

    /// The title of the page.
    pub(super) fn title(&self) -> Text {
        let title = self.labels.title;
        if self.has_capital_titles { Text::plain(&title.to_uppercase()) } else { Text::plain(title) }
    }
}
