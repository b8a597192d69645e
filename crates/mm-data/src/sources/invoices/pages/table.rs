//! The table of items.

use super::blocks::Composer;
use super::content::Item;
use super::layout::Align::{self, Center, Left, Right};
use super::layout::{Column, Head, Rules, Table};
use super::piece::{Lettering, Piece};
use super::style::SignAt;
use super::text::{ItemKey, Key, Text};

/// The widths of a table's columns, and its lettering.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    lettering: Lettering,
    /// The left and right edge of each column's text.
    edges: Vec<[f32; 2]>,
    /// Whether everything fits at this size.
    pub(super) is_enough: bool,
}

impl Composer<'_> {
    /// The largest lettering in which all cells fit, or else that of an em of `smallest`.
    pub(super) fn fit(&self, table: &Table, edges: [f32; 2], smallest: f32) -> Fit {
        let mut lettering = self.style.body;
        loop {
            let fit = self.fit_with(table, edges, lettering);
            let smaller = Lettering { em: lettering.em - 0.25, ..lettering };
            if fit.is_enough || smaller.em < smallest {
                return fit;
            }
            lettering = smaller;
        }
    }

    fn fit_with(&self, table: &Table, [left, right]: [f32; 2], lettering: Lettering) -> Fit {
        let gap = lettering.em * 0.9;
        let padding = self.padding(table);
        let heading = self.head_lettering(table, lettering);
        let widest = |column: Column| {
            let mut width = heading.width(&self.heading_of(column));
            for (index, item) in self.invoice.items.iter().enumerate() {
                for text in self.cell(column, index, item) {
                    width = width.max(lettering.width(&text));
                }
            }
            width
        };
        let widths: Vec<f32> = table.columns.iter().map(|&column| widest(column)).collect();
        let needed = widths.iter().sum::<f32>() + gap * (widths.len() - 1) as f32;
        let space = right - left - 2.0 * padding;
        // The description takes what the others leave.
        let others = needed - Self::flexible(table).map_or(0.0, |index| widths[index]);
        let mut edges = Vec::with_capacity(widths.len());
        let mut from = left + padding;
        for (index, width) in widths.iter().enumerate() {
            let width =
                if Some(index) == Self::flexible(table) { (space - others).max(12.0) } else { *width };
            edges.push([from, from + width]);
            from += width + gap;
        }
        Fit { lettering, edges, is_enough: needed <= space }
    }

    fn flexible(table: &Table) -> Option<usize> {
        table.columns.iter().position(|column| matches!(column, Column::Description | Column::Lines))
    }

    fn padding(&self, table: &Table) -> f32 {
        let is_open = matches!(table.rules, Rules::None | Rules::Head | Rules::Ends | Rules::Rows)
            && matches!(table.head, Head::Plain | Head::Bold)
            && !table.is_striped;
        if is_open { 0.0 } else { 3.0 }
    }

    fn head_lettering(&self, table: &Table, lettering: Lettering) -> Lettering {
        match table.head {
            Head::Plain => lettering,
            Head::Bold | Head::Shaded => lettering.bold(),
            Head::Dark => self.style.light(lettering),
        }
    }

    fn heading_of(&self, column: Column) -> Text {
        let (style, words) = (self.style, self.style.language.words());
        let labels = &style.labels;
        match column {
            Column::Position => style.heading(words.position),
            Column::Code => style.heading(words.code),
            Column::Description | Column::Lines => style.heading(labels.description),
            Column::Quantity | Column::QuantityUnit => style.heading(labels.quantity),
            Column::Price => style.heading(labels.price),
            Column::Rate => Text::plain("%"),
            Column::Amount if style.sign_at == SignAt::Head => {
                style.heading(labels.amount).and(" ").then(self.invoice.money.code())
            }
            Column::Amount => style.heading(labels.amount),
        }
    }

    /// The lines of a cell.
    fn cell(&self, column: Column, index: usize, item: &Item) -> Vec<Text> {
        let money = &self.invoice.money;
        let key = |part| Key::Item(index, part);
        let quantity = || Text::copy(key(ItemKey::Quantity), &item.quantity.to_string());
        let description = || Text::copy(key(ItemKey::Description), &item.description);
        let price = || {
            let key = Some(key(ItemKey::Price));
            if self.style.sign_at == SignAt::All {
                money.amount(item.price, key)
            } else {
                money.number(item.price, key)
            }
        };
        match column {
            Column::Position => vec![Text::plain(&(index + 1).to_string())],
            Column::Code => vec![Text::plain(&item.code)],
            Column::Description => vec![description()],
            Column::Lines => vec![description(), quantity().and(" x ").then(price())],
            Column::Quantity => vec![quantity()],
            Column::QuantityUnit => vec![quantity().and(" ").and(self.style.language.words().unit)],
            Column::Price => vec![price()],
            Column::Rate => vec![Text::plain(&self.rate())],
            Column::Amount => {
                let key = Some(key(ItemKey::Amount));
                vec![match self.style.sign_at {
                    SignAt::All | SignAt::Amounts => money.amount(item.amount(), key),
                    _ => money.number(item.amount(), key),
                }]
            }
        }
    }

    /// The tax rate in percent: `19`, `8.5`.
    pub(super) fn rate(&self) -> String {
        let (whole, tenths) = (self.invoice.tax_rate / 10, self.invoice.tax_rate % 10);
        let decimal = self.invoice.money.number.decimal;
        if tenths == 0 { whole.to_string() } else { format!("{whole}{decimal}{tenths}") }
    }

    /// The table between two edges.
    pub(super) fn table(&self, table: &Table, edges: [f32; 2], fit: &Fit) -> Piece {
        let style = self.style;
        let (mut piece, grey) = (Piece::default(), style.body.grey);
        let leading = fit.lettering.leading();
        let pad = (style.row - 1.0) * leading / 2.0 + 1.0;
        let [left, right] = edges;
        let mut lines = Vec::with_capacity(self.invoice.items.len() + 2);

        let head = self.head_lettering(table, fit.lettering);
        for (&column, &edges) in table.columns.iter().zip(&fit.edges) {
            piece.put(self.heading_of(column), head, edges, align(column), pad);
        }
        let mut top = leading + 2.0 * pad;
        match table.head {
            Head::Dark => piece.fill([left, 0.0, right, top], style.dark),
            Head::Shaded => piece.fill([left, 0.0, right, top], style.shade),
            Head::Plain | Head::Bold => {}
        }
        lines.extend([0.0, top]);
        for (index, item) in self.invoice.items.iter().enumerate() {
            let mut height = leading;
            for (&column, &edges) in table.columns.iter().zip(&fit.edges) {
                for (number, text) in self.cell(column, index, item).into_iter().enumerate() {
                    let below = number as f32 * leading;
                    piece.put(text, fit.lettering, edges, align(column), top + pad + below);
                    height = height.max(below + leading);
                }
            }
            let bottom = top + height + 2.0 * pad;
            if table.is_striped && index % 2 == 1 {
                piece.fill([left, top, right, bottom], style.shade.saturating_add(16));
            }
            top = bottom;
            lines.push(top);
        }
        piece.height = top;

        let last = lines.len() - 1;
        let ruled: Vec<usize> = match table.rules {
            Rules::None => vec![],
            Rules::Head => vec![1],
            Rules::Ends | Rules::Columns => vec![0, 1, last],
            Rules::Rows => (1..=last).collect(),
            Rules::Grid => (0..=last).collect(),
        };
        for index in ruled {
            piece.rule(edges, lines[index], 0.75, grey);
        }
        if matches!(table.rules, Rules::Grid | Rules::Columns) {
            let between = fit.edges.windows(2).map(|pair| (pair[0][1] + pair[1][0]) / 2.0);
            for x in between.chain([left, right - 0.75]) {
                piece.fill([x, 0.0, x + 0.75, top], grey);
            }
        }
        piece
    }
}

fn align(column: Column) -> Align {
    match column {
        Column::Code | Column::Description | Column::Lines | Column::QuantityUnit => Left,
        Column::Position => Center,
        Column::Quantity | Column::Price | Column::Rate | Column::Amount => Right,
    }
}
