//! The blocks of a page above and below its table.

use super::content::Invoice;
use super::layout::Align::{self, Left, Right};
use super::layout::{Block, Emphasis, Entry};
use super::piece::{Lettering, Piece};
use super::style::Style;
use super::text::{Key, Text};

/// An invoice with its look.
#[derive(Clone, Copy)]
pub(super) struct Composer<'a> {
    pub(super) invoice: &'a Invoice,
    pub(super) style: &'a Style,
}

impl Composer<'_> {
    /// A block between two edges.
    pub(super) fn block(&self, block: Block, edges: [f32; 2], align: Align) -> Piece {
        let Self { invoice, style } = *self;
        let (body, small) = (style.body, style.small());
        let mut piece = Piece::default();
        let mut lines = |texts: Vec<Text>, lettering: Lettering| {
            let widest = texts.iter().map(|text| lettering.width(text)).fold(0.0, f32::max);
            let lettering = lettering.fitted(widest, edges[1] - edges[0]);
            for text in texts {
                piece.line(text, lettering, edges, align);
            }
        };
        match block {
            Block::Title => lines(vec![style.title()], body.bold().sized(style.title_size)),
            Block::TitleNumber => {
                let text = style.title().and(" ").then(Text::copy(Key::Number, &invoice.number));
                lines(vec![text], body.bold().sized(style.title_size.min(1.4)));
            }
            Block::Seller => {
                lines(vec![self.seller()], self.seller_lettering());
                lines(invoice.address.iter().map(|line| Text::plain(line)).collect(), body);
            }
            Block::SellerName => lines(vec![self.seller()], self.seller_lettering().sized(1.15)),
            Block::SellerLine => {
                let [street, city] = &invoice.address;
                let text = Text::copy(Key::Seller, &invoice.seller).and(&format!(" - {street} - {city}"));
                lines(vec![text], small.sized(0.95));
            }
            Block::Contact => lines(
                vec![
                    Text::plain(&format!("{} {}", style.language.words().phone, invoice.phone)),
                    Text::plain(&format!("{} {}", style.language.words().tax_id, invoice.tax_id)),
                ],
                small,
            ),
            Block::Recipient => {
                lines(vec![style.labelled(style.labels.bill_to)], body.bold());
                lines(invoice.recipient.iter().map(|line| Text::plain(line)).collect(), body);
            }
            Block::Window => lines(invoice.recipient.iter().map(|line| Text::plain(line)).collect(), body),
            Block::Inline(entries) => {
                let line = |&entry: &Entry| {
                    let (label, value) = self.entry(entry);
                    style.labelled(label).and(" ").then(value)
                };
                lines(entries.iter().map(line).collect(), style.value());
            }
            Block::Bank => lines(vec![Text::plain(&format!("IBAN {}", invoice.account))], small),
            Block::Terms => {
                let days = invoice.days.to_string();
                lines(vec![Text::plain(&style.language.words().terms.replace("{}", &days))], small);
            }
            Block::Thanks => lines(vec![Text::plain(style.language.words().thanks)], small),
            Block::Other => {
                let amount = invoice.money.number(invoice.other, None);
                lines(vec![Text::plain(style.labels.other).and(": ").then(amount)], small);
            }
            Block::SellerLogo => return self.seller_logo(edges, align),
            Block::Banner => return self.banner(edges),
            Block::Pairs(entries) => return self.pairs(entries, edges),
            Block::Stacked(entries) => return self.stacked(entries, edges, align),
            Block::Cells(entries) => return self.cells(entries, edges),
            Block::AmountDue(emphasis) => return self.amount_due(emphasis, edges),
            Block::Rule(quarters) => {
                let thickness = f32::from(quarters) / 4.0;
                piece.rule(edges, 1.0, thickness, body.grey);
                piece.height = thickness + 2.0;
            }
        }
        piece
    }

    fn seller(&self) -> Text {
        Text::copy(Key::Seller, &self.invoice.seller)
    }

    fn seller_lettering(&self) -> Lettering {
        self.style.body.bold().sized(self.style.seller_size)
    }

    /// The label and the value of a fact.
    fn entry(&self, entry: Entry) -> (&'static str, Text) {
        let Self { invoice, style } = self;
        let labels = &style.labels;
        let dates = if style.has_short_dates { invoice.dates.short() } else { invoice.dates };
        match entry {
            Entry::Number => (labels.number, Text::copy(Key::Number, &invoice.number)),
            Entry::Date => (labels.date, invoice.date.print(dates, style.language, Some(Key::Date))),
            Entry::Due => (labels.due, invoice.due().print(dates, style.language, None)),
            Entry::Customer => (labels.customer, Text::plain(&invoice.customer)),
            Entry::Order => (labels.order, Text::plain(&invoice.order)),
        }
    }

    fn seller_logo(&self, [left, right]: [f32; 2], align: Align) -> Piece {
        let mut piece = Piece::default();
        let size = self.style.body.em * 2.6;
        let top = 1.0;
        let (dark, shade) = (self.style.dark, self.style.shade);
        let square =
            |from: f32, to: f32| [left + from * size, top + from * size, left + to * size, top + to * size];
        piece.fill(square(0.0, 1.0), dark);
        match self.style.logo {
            0 => piece.fill(square(0.25, 0.75), shade),
            1 => piece.fill([left, top + 0.4 * size, left + size, top + 0.6 * size], shade),
            2 => piece.fill([left + 0.5 * size, top, left + size, top + 0.5 * size], shade),
            _ => {
                piece.fill(square(0.15, 0.45), shade);
                piece.fill(square(0.55, 0.85), shade);
            }
        }
        let text = self.block(Block::Seller, [left + size * 1.25, right], align);
        piece.place(text, 0.0, 0.0);
        piece.height = piece.height.max(size + 2.0);
        piece
    }

    fn banner(&self, [left, right]: [f32; 2]) -> Piece {
        let style = self.style;
        let (seller, title) = (style.light(self.seller_lettering()), style.light(style.body.sized(1.25)));
        let mut piece = Piece { height: 3.0, ..Piece::default() };
        piece.ends(self.seller(), style.title(), [seller, title], [left + 4.0, right - 4.0]);
        piece.height += 3.0;
        piece.fill([left, 0.0, right, piece.height], style.dark);
        piece
    }

    fn pairs(&self, entries: &[Entry], edges: [f32; 2]) -> Piece {
        let style = self.style;
        let line = |&entry: &Entry| {
            let (label, value) = self.entry(entry);
            [style.labelled(label), value]
        };
        let lines: Vec<[Text; 2]> = entries.iter().map(line).collect();
        let lettering = Piece::fitted_ends(&lines, [style.body, style.value()], edges[1] - edges[0]);
        let mut piece = Piece::default();
        for [label, value] in lines {
            piece.ends(label, value, lettering, edges);
        }
        piece
    }

    fn stacked(&self, entries: &[Entry], edges: [f32; 2], align: Align) -> Piece {
        let style = self.style;
        let mut piece = Piece::default();
        for &entry in entries {
            let (label, value) = self.entry(entry);
            piece.line(style.heading(label), style.small(), edges, align);
            piece.line(value, style.body.bold(), edges, align);
            piece.height += 2.0;
        }
        piece
    }

    fn cells(&self, entries: &[Entry], [left, right]: [f32; 2]) -> Piece {
        let style = self.style;
        let mut piece = Piece::default();
        let width = (right - left) / entries.len() as f32;
        let (label_top, value_top) = (1.5, 1.5 + style.small().leading());
        let height = value_top + style.body.leading() + 2.0;
        for (index, &entry) in entries.iter().enumerate() {
            let from = left + width * index as f32;
            let edges = [from + 3.0, from + width - 3.0];
            let (label, value) = self.entry(entry);
            piece.put(style.heading(label), style.small(), edges, Left, label_top);
            piece.put(value, style.value(), edges, Left, value_top);
            piece.frame([from, 0.0, from + width, height], style.body.grey);
        }
        piece.height = height;
        piece
    }

    /// The total with its label, for the top of a page. The label is on the left of a dark ground and on the
    /// right of others.
    fn amount_due(&self, emphasis: Emphasis, [left, right]: [f32; 2]) -> Piece {
        let style = self.style;
        let is_dark = emphasis == Emphasis::Dark;
        let on_ground = |lettering: Lettering| if is_dark { style.light(lettering) } else { lettering };
        let edges = [left + 3.0, right - 3.0];
        let align = if is_dark { Left } else { Right };
        let mut piece = Piece { height: 2.0, ..Piece::default() };
        let total = self.invoice.money.amount(self.invoice.sums().total, Some(Key::Total));
        piece.line(style.heading(style.labels.total), on_ground(style.small()), edges, align);
        piece.line(total, on_ground(style.body.bold().sized(1.3)), edges, align);
        piece.height += 2.0;
        let bounds = [left, 0.0, right, piece.height];
        if is_dark {
            piece.fill(bounds, style.dark);
        } else {
            piece.frame(bounds, style.body.grey);
        }
        piece
    }
}
