//! The sums below the table.

use super::blocks::Composer;
use super::content::Sums;
use super::layout::Align::{Center, Right};
use super::layout::{Emphasis, Form, Totals};
use super::piece::{Lettering, Piece};
use super::style::{RateForm, SignAt};
use super::text::{Key, Text};

/// A sum with its label.
struct Sum {
    label: Text,
    amount: Text,
    is_total: bool,
}

impl Composer<'_> {
    /// The sums within the edges of the page's content.
    pub(super) fn totals(&self, totals: &Totals, [left, right]: [f32; 2]) -> Piece {
        let column = |twelfths: u8| left + (right - left) * f32::from(twelfths) / 12.0;
        let edges = totals.columns.map(column);
        let sums = self.sums(totals);
        let widened = || {
            let needed =
                sums.iter().map(|sum| self.line_width(totals, sum)).fold(edges[1] - edges[0], f32::max);
            let is_at_right = totals.columns[1] == 12;
            if is_at_right {
                [left.max(right - needed), right]
            } else {
                [edges[0], right.min(edges[0] + needed)]
            }
        };
        match totals.form {
            Form::Lines | Form::Leaders => {
                let edges = widened();
                self.lines(totals, sums, edges)
            }
            Form::Rows => {
                let edges = widened();
                self.rows(totals, sums, edges)
            }
            Form::Inline => self.inline(totals, sums, edges),
            Form::Strip => self.strip(totals, sums, edges),
            Form::Stacked => self.stacked_sums(totals, sums, edges),
        }
    }

    fn sums(&self, totals: &Totals) -> Vec<Sum> {
        let (style, money) = (self.style, &self.invoice.money);
        let Sums { subtotal, discount, tax, total } = self.invoice.sums();
        let is_signed = matches!(style.sign_at, SignAt::All | SignAt::Amounts | SignAt::Sums);
        let amount = |amount, key, is_signed: bool| {
            if is_signed { money.amount(amount, key) } else { money.number(amount, key) }
        };
        let sum = |label: &str, value, key| Sum {
            label: self.sum_label(totals, label),
            amount: amount(value, key, is_signed),
            is_total: false,
        };
        let mut sums = vec![sum(style.labels.subtotal, subtotal, Some(Key::Subtotal))];
        if discount > 0 {
            let label = format!("{} {}%", style.labels.discount, self.invoice.discount_rate);
            sums.push(sum(&label, -discount, None));
        }
        sums.push(sum(&self.tax_label(), tax, Some(Key::Tax)));
        let total = Sum {
            label: self.sum_label(totals, style.labels.total),
            amount: amount(total, Some(Key::Total), is_signed || style.sign_at == SignAt::Total),
            is_total: true,
        };
        if totals.total_first {
            sums.insert(0, total)
        } else {
            sums.push(total)
        }
        sums
    }

    fn sum_label(&self, totals: &Totals, label: &str) -> Text {
        match totals.form {
            Form::Lines | Form::Inline => self.style.labelled(label),
            Form::Leaders | Form::Rows | Form::Strip | Form::Stacked => self.style.heading(label),
        }
    }

    fn tax_label(&self) -> String {
        let (name, rate) = (self.style.labels.tax, self.rate());
        match self.style.rate_form {
            RateForm::After => format!("{name} {rate}%"),
            RateForm::Brackets => format!("{name} ({rate}%)"),
            RateForm::Before => format!("{rate}% {name}"),
            RateForm::Spaced => format!("{name} {rate} %"),
        }
    }

    /// The lettering of a sum.
    fn sum_lettering(&self, totals: &Totals, sum: &Sum) -> Lettering {
        let body = self.style.body;
        match totals.emphasis {
            _ if !sum.is_total => body,
            Emphasis::Plain => body,
            Emphasis::Bold | Emphasis::RuleAbove | Emphasis::DoubleRule | Emphasis::Boxed => body.bold(),
            Emphasis::Large => body.bold().sized(1.25),
            Emphasis::Dark => self.style.light(body),
        }
    }

    /// The width of a sum on a line, with the inner margin of frames.
    fn line_width(&self, totals: &Totals, sum: &Sum) -> f32 {
        let lettering = self.sum_lettering(totals, sum);
        let gap = Piece::between_ends([lettering; 2]);
        lettering.width(&sum.label) + gap + lettering.width(&sum.amount) + 6.5
    }

    fn lines(&self, totals: &Totals, sums: Vec<Sum>, edges: [f32; 2]) -> Piece {
        let (mut piece, style) = (Piece::default(), self.style);
        let [left, right] = edges;
        let inner = if self.has_ground(totals) { [left + 3.0, right - 3.0] } else { edges };
        for sum in sums {
            let lettering = self.sum_lettering(totals, &sum);
            let top = piece.height;
            if sum.is_total && self.has_ground(totals) {
                piece.height += 2.0;
            } else if sum.is_total && matches!(totals.emphasis, Emphasis::RuleAbove | Emphasis::DoubleRule) {
                piece.rule(edges, top + 0.5, 0.75, style.body.grey);
                piece.height += 2.0;
            }
            let widths = [lettering.width(&sum.label), lettering.width(&sum.amount)];
            let line = piece.height + lettering.em * 0.8;
            piece.ends(sum.label, sum.amount, [lettering; 2], inner);
            if totals.form == Form::Leaders {
                let mut x = inner[0] + widths[0] + 3.0;
                while x < inner[1] - widths[1] - 3.0 {
                    piece.fill([x, line, x + 0.8, line + 0.8], style.body.grey);
                    x += 3.0;
                }
            }
            if sum.is_total {
                self.ground(totals, &mut piece, [left, top, right, 0.0]);
            } else {
                piece.height += 0.8;
            }
        }
        piece
    }

    /// Whether the total stands on a ground or in a frame.
    fn has_ground(&self, totals: &Totals) -> bool {
        matches!(totals.emphasis, Emphasis::Boxed | Emphasis::Dark)
    }

    /// Draws what is below or behind the total, from the given edges to the end of the piece.
    fn ground(&self, totals: &Totals, piece: &mut Piece, [left, top, right, _]: [f32; 4]) {
        let style = self.style;
        match totals.emphasis {
            Emphasis::Boxed | Emphasis::Dark => {
                piece.height += 2.0;
                let bounds = [left, top, right, piece.height];
                if totals.emphasis == Emphasis::Dark {
                    piece.fill(bounds, style.dark);
                } else {
                    piece.frame(bounds, style.body.grey);
                }
                piece.height += 1.5;
            }
            Emphasis::DoubleRule => {
                for below in [0.5, 2.25] {
                    piece.rule([left, right], piece.height + below, 0.75, style.body.grey);
                }
                piece.height += 3.0;
            }
            Emphasis::Plain | Emphasis::Bold | Emphasis::Large | Emphasis::RuleAbove => piece.height += 0.8,
        }
    }

    fn rows(&self, totals: &Totals, sums: Vec<Sum>, [left, right]: [f32; 2]) -> Piece {
        let (mut piece, grey) = (Piece::default(), self.style.body.grey);
        for sum in sums {
            let lettering = self.sum_lettering(totals, &sum);
            let top = piece.height;
            piece.height += 1.5;
            if sum.is_total && totals.emphasis == Emphasis::Dark {
                let bottom = top + lettering.leading() + 3.0;
                piece.fill([left, top, right, bottom], self.style.dark);
            }
            piece.ends(sum.label, sum.amount, [lettering; 2], [left + 3.0, right - 3.0]);
            piece.height += 1.5;
            let bottom = piece.height;
            piece.frame([left, top, right, bottom], grey);
            piece.height = bottom - 0.75;
        }
        piece.height += 0.75;
        piece
    }

    fn inline(&self, totals: &Totals, sums: Vec<Sum>, edges: [f32; 2]) -> Piece {
        let mut piece = Piece::default();
        for sum in sums {
            let lettering = self.sum_lettering(totals, &sum);
            piece.line(sum.label.and(" ").then(sum.amount), lettering, edges, Right);
            piece.height += 0.8;
        }
        piece
    }

    fn strip(&self, totals: &Totals, sums: Vec<Sum>, [left, right]: [f32; 2]) -> Piece {
        let (mut piece, style) = (Piece::default(), self.style);
        let width = (right - left) / sums.len() as f32;
        let (label_top, value_top) = (2.0, 2.0 + style.small().leading());
        let height = value_top + style.body.leading() + 2.5;
        for (index, sum) in sums.into_iter().enumerate() {
            let from = left + width * index as f32;
            let edges = [from + 2.5, from + width - 2.5];
            let lettering = self.sum_lettering(totals, &sum);
            let label = Lettering { em: style.small().em, ..lettering };
            let bounds = [from, 0.0, from + width, height];
            match totals.emphasis {
                Emphasis::Dark if sum.is_total => piece.fill(bounds, style.dark),
                _ => piece.frame(bounds, style.body.grey),
            }
            piece.put(sum.label, label, edges, Center, label_top);
            piece.put(sum.amount, lettering, edges, Center, value_top);
        }
        piece.height = height;
        piece
    }

    fn stacked_sums(&self, totals: &Totals, sums: Vec<Sum>, edges: [f32; 2]) -> Piece {
        let mut piece = Piece::default();
        for sum in sums {
            let lettering = self.sum_lettering(totals, &sum);
            piece.line(sum.label, self.style.small(), edges, Right);
            piece.line(sum.amount, lettering, edges, Right);
            piece.height += 1.5;
        }
        piece
    }
}
