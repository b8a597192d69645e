//! The target of a page, and where each of its characters is printed.

use super::content::{Invoice, Item};
use super::page::Page;
use super::piece::{ASCENT, Run};
use super::scan::Motion;
use super::text::{HARD_SPACE, ItemKey, Key, Mark};
use crate::sources::invoices::InvoiceField;
use crate::{Document, DocumentField, DocumentValue, DocumentWord};

/// The keys of an item in the target.
const ITEM_KEYS: [ItemKey; 4] = [ItemKey::Description, ItemKey::Quantity, ItemKey::Price, ItemKey::Amount];

impl InvoiceField {
    /// The key in the target; `None` for the items.
    fn key(self) -> Option<Key> {
        Some(match self {
            Self::Number => Key::Number,
            Self::Date => Key::Date,
            Self::Seller => Key::Seller,
            Self::Currency => Key::Currency,
            Self::Subtotal => Key::Subtotal,
            Self::Tax => Key::Tax,
            Self::Total => Key::Total,
            Self::Items => return None,
        })
    }
}

/// The text of a field.
fn value(invoice: &Invoice, key: Key) -> String {
    let (sums, money) = (invoice.sums(), &invoice.money);
    let item =
        |index: usize, text: &dyn Fn(&Item) -> String| invoice.items.get(index).map(text).unwrap_or_default();
    match key {
        Key::Number => invoice.number.clone(),
        Key::Date => invoice.date.value(),
        Key::Seller => invoice.seller.clone(),
        Key::Currency => money.currency.code.to_owned(),
        Key::Subtotal => money.value(sums.subtotal),
        Key::Tax => money.value(sums.tax),
        Key::Total => money.value(sums.total),
        Key::Item(index, ItemKey::Description) => item(index, &|item| item.description.clone()),
        Key::Item(index, ItemKey::Quantity) => item(index, &|item| item.quantity.to_string()),
        Key::Item(index, ItemKey::Price) => item(index, &|item| money.value(item.price)),
        Key::Item(index, ItemKey::Amount) => item(index, &|item| money.value(item.amount())),
    }
}

/// The document of a page in pixels: `scale` of them are a unit of the page, before the motion of its scan.
pub(super) fn document(page: &Page, fields: &[InvoiceField], scale: f32, motion: &Motion) -> Document {
    let invoice = &page.invoice;
    let text = |key| DocumentValue::Text(value(invoice, key));
    let mut members = Vec::with_capacity(fields.len());
    let mut keys = Vec::with_capacity(fields.len());
    for field in InvoiceField::ALL.into_iter().filter(|field| fields.contains(field)) {
        let value = match field.key() {
            Some(key) => {
                keys.push(key);
                text(key)
            }
            None => {
                let item = |index| {
                    let member = |part: ItemKey| (part.word().to_owned(), text(Key::Item(index, part)));
                    DocumentValue::Object(ITEM_KEYS.map(member).into())
                };
                let indices = 0..invoice.items.len();
                keys.extend(indices.clone().flat_map(|index| ITEM_KEYS.map(|part| Key::Item(index, part))));
                DocumentValue::List(indices.map(item).collect())
            }
        };
        members.push((field.word().to_owned(), value));
    }
    let runs = &page.content.runs;
    let centers: Vec<Vec<[f32; 2]>> = runs.iter().map(|run| centers(run, scale, motion)).collect();
    let field = |key: Key| {
        let value = value(invoice, key);
        let mut places = vec![None; value.chars().count()];
        if let Some((run, mark)) = largest(runs, key) {
            for (at, range) in &mark.shows {
                let [first, last] = [range.start, range.end - 1].map(|at| centers[run][at]);
                places[*at] = Some([(first[0] + last[0]) / 2.0, (first[1] + last[1]) / 2.0]);
            }
        }
        DocumentField { key: key.path(), value, places }
    };
    Document {
        schema: "invoice".to_owned(),
        value: DocumentValue::Object(members),
        fields: keys.into_iter().map(field).collect(),
        words: runs
            .iter()
            .zip(&centers)
            .flat_map(|(run, centers)| words(run, centers, scale, motion))
            .collect(),
    }
}

/// The largest print of a field: its run and mark. That of a currency is at the total, if there is one.
fn largest(runs: &[Run], key: Key) -> Option<(usize, &Mark)> {
    let mut found: Option<(f32, usize, &Mark)> = None;
    for (index, run) in runs.iter().enumerate() {
        for mark in run.text.marks.iter().filter(|mark| mark.key == key) {
            let is_at_total =
                key == Key::Currency && run.text.marks.iter().any(|mark| mark.key == Key::Total);
            let size = run.lettering.em + if is_at_total { 100.0 } else { 0.0 };
            if found.is_none_or(|(largest, ..)| size > largest) {
                found = Some((size, index, mark));
            }
        }
    }
    found.map(|(_, index, mark)| (index, mark))
}

/// The centers of a run's characters in pixels.
fn centers(run: &Run, scale: f32, motion: &Motion) -> Vec<[f32; 2]> {
    let y = run.baseline - ASCENT / 2.0 * run.lettering.em;
    let mut x = run.left;
    let center = |&character: &char| {
        let advance = run.lettering.advance(character);
        x += advance;
        motion.apply([(x - advance / 2.0) * scale, y * scale])
    };
    run.text.chars.iter().map(center).collect()
}

/// The words of a run.
fn words(run: &Run, centers: &[[f32; 2]], scale: f32, motion: &Motion) -> Vec<DocumentWord> {
    let (mut words, mut left, mut from) = (Vec::new(), run.left, 0);
    let chars = &run.text.chars;
    let [_, top, _, bottom] = run.bounds();
    while from < chars.len() {
        if chars[from] == ' ' {
            left += run.lettering.advance(' ');
            from += 1;
            continue;
        }
        let length = chars[from..].iter().take_while(|&&character| character != ' ').count();
        let range = from..from + length;
        let right = left + chars[range.clone()].iter().map(|&c| run.lettering.advance(c)).sum::<f32>();
        let shown = |mark: &&Mark| mark.range.start < range.end && range.start < mark.range.end;
        // A currency's sign may be in the word of an amount.
        let marks = || run.text.marks.iter().filter(shown);
        let mark = marks().find(|mark| mark.key != Key::Currency).or(marks().next());
        let corners = [[left, top], [right, top], [left, bottom], [right, bottom]]
            .map(|[x, y]| motion.apply([x * scale, y * scale]));
        let extreme = |axis: usize, better: fn(f32, f32) -> f32| {
            corners.iter().map(|corner| corner[axis]).reduce(better).unwrap_or_default()
        };
        words.push(DocumentWord {
            text: chars[range.clone()].iter().map(|&c| if c == HARD_SPACE { ' ' } else { c }).collect(),
            bounds: [extreme(0, f32::min), extreme(1, f32::min), extreme(0, f32::max), extreme(1, f32::max)],
            field: mark.map(|mark| mark.key.path()),
            characters: centers[range.clone()].to_vec(),
        });
        (from, left) = (range.end, right);
    }
    words
}
