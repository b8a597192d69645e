//! A page: the blocks of a layout, from top to bottom.

use super::blocks::Composer;
use super::content::Invoice;
use super::draw::{below, chance};
use super::layout::{Align, Band, Layout};
use super::piece::Piece;
use super::style::{SignAt, Style};
use super::table::Fit;
use super::text::{Key, Text};
use crate::SampleRng;

/// The width and height of the smallest page in its own units; see [`Piece`].
pub(super) const PAGE: [f32; 2] = [224.0, 320.0];

/// The smallest distance of two bands.
const GAP: f32 = 5.0;

/// The largest distance that is added to it.
const LARGEST_EXTRA: f32 = 14.0;

/// The smallest size of text that is a value of the target, and of other text, in units an em.
const LEAST_READ: f32 = 7.0;
const LEAST: f32 = 6.25;

/// A page with all that is printed on it.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) layout: &'static str,
    /// The invoice as it is printed: with as many items as there is room for.
    pub(super) invoice: Invoice,
    pub(super) style: Style,
    pub(super) content: Piece,
}

impl Page {
    /// An invoice in a layout on a page of `size`. Items are left out until it fits.
    pub(super) fn new(
        layout: &'static Layout,
        mut invoice: Invoice,
        mut style: Style,
        size: [f32; 2],
        rng: &mut SampleRng,
    ) -> Self {
        if !layout.has_discount || chance(rng, 30) {
            invoice.discount_rate = 0;
        }
        if style.has_capital_seller {
            invoice.seller = invoice.seller.to_uppercase();
        }
        let edges = [style.margin, size[0] - style.margin];
        let heights = size[1] - 2.0 * style.margin;
        let mut step = 0;
        loop {
            let fit = fit(layout, &mut invoice, &mut style, edges);
            let (above, bottom) = pieces(layout, &invoice, &style, edges, &fit);
            if step < Style::SIMPLER && !above.iter().all(is_legible) {
                style.simplify(step);
                step += 1;
                continue;
            }
            let needed = |pieces: &[Piece], gap: f32| {
                pieces.iter().map(|piece| piece.height).sum::<f32>()
                    + gap * pieces.len().saturating_sub(1) as f32
            };
            let left = heights - needed(&above, GAP) - needed(&bottom, 2.0) - GAP;
            if left < 0.0 && invoice.items.len() > 1 {
                invoice.items.pop();
                continue;
            }
            let content = stack(above, bottom, left, style.margin, size[1], rng);
            return Self { layout: layout.name, invoice, style, content };
        }
    }
}

/// Whether all text is large enough, and that of the target larger: but for the items, which the table sets,
/// and the seller, which may be repeated in small print.
fn is_legible(piece: &Piece) -> bool {
    piece.runs.iter().all(|run| {
        let is_read = run.text.marks.iter().any(|mark| !matches!(mark.key, Key::Item(..) | Key::Seller));
        run.lettering.em >= if is_read { LEAST_READ } else { LEAST }
    })
}

/// The fit of the table. Where it is too wide, headings and descriptions become shorter, and signs of the
/// currency are left out.
fn fit(layout: &Layout, invoice: &mut Invoice, style: &mut Style, edges: [f32; 2]) -> Fit {
    let fit_at = |invoice: &Invoice, style: &Style, smallest| {
        Composer { invoice, style }.fit(&layout.table, edges, smallest)
    };
    let fit = fit_at(invoice, style, 7.25);
    if fit.is_enough {
        return fit;
    }
    style.labels.shorten_headings(style.language.words());
    let fit = fit_at(invoice, style, 7.0);
    if fit.is_enough {
        return fit;
    }
    for item in &mut invoice.items {
        item.description = item.short.clone();
    }
    let fit = fit_at(invoice, style, 7.0);
    if fit.is_enough {
        return fit;
    }
    if matches!(style.sign_at, SignAt::All | SignAt::Amounts | SignAt::Head) {
        style.sign_at = SignAt::Sums;
    }
    fit_at(invoice, style, 6.0)
}

/// The pieces down to the sums, and those at the bottom of the page.
fn pieces(
    layout: &Layout,
    invoice: &Invoice,
    style: &Style,
    edges: [f32; 2],
    fit: &Fit,
) -> (Vec<Piece>, Vec<Piece>) {
    let composer = Composer { invoice, style };
    let mut above: Vec<Piece> = layout.top.iter().map(|band| self::band(composer, band, edges)).collect();
    if style.sign_at == SignAt::Note {
        let note = Text::plain(style.language.words().amounts_in).and(" ").then(invoice.money.code());
        let mut piece = Piece::default();
        piece.line(note, style.small(), edges, Align::Left);
        above.push(piece);
    }
    above.push(composer.table(&layout.table, edges, fit));
    above.push(composer.totals(&layout.totals, edges));
    (above, layout.bottom.iter().map(|band| self::band(composer, band, edges)).collect())
}

fn band(composer: Composer<'_>, band: Band, [left, right]: [f32; 2]) -> Piece {
    /// Half the distance of neighbors.
    const GUTTER: f32 = 4.0;
    let column = |twelfths: u8| left + (right - left) * f32::from(twelfths) / 12.0;
    let mut piece = Piece::default();
    for slot in band {
        let [from, to] = slot.columns;
        let inner = |twelfths: u8, inward: f32| {
            column(twelfths) + if twelfths.is_multiple_of(12) { 0.0 } else { inward }
        };
        let edges = [inner(from, GUTTER), inner(to, -GUTTER)];
        piece.place(composer.block(slot.block, edges, slot.align), 0.0, 0.0);
    }
    piece
}

/// Places pieces one below the other. `left` is the height that none of them needs.
fn stack(
    above: Vec<Piece>,
    bottom: Vec<Piece>,
    left: f32,
    margin: f32,
    height: f32,
    rng: &mut SampleRng,
) -> Piece {
    let mut content = Piece::default();
    let gap = if left < 0.0 { (GAP + left / above.len() as f32).max(0.5) } else { GAP };
    let (mut top, mut left) = (margin, left.max(0.0));
    for piece in above {
        let next = top + piece.height + gap;
        content.place(piece, 0.0, top);
        let extra = below(rng, (left.min(LARGEST_EXTRA) * 4.0) as u32 + 1) as f32 / 4.0;
        left -= extra;
        top = next + extra;
    }
    let mut lowest = height - margin;
    for piece in bottom.into_iter().rev() {
        lowest -= piece.height;
        content.place(piece, 0.0, lowest);
        lowest -= 2.0;
    }
    content.height = height;
    content
}

#[cfg(test)]
mod tests {
    use super::super::InvoicesDataset;
    use super::super::piece::Run;

    #[test]
    fn what_is_to_be_read_is_large_and_has_glyphs() {
        for split in ["train", "held_out"] {
            let config = toml::from_str(&format!("split = '{split}'")).unwrap();
            let set = InvoicesDataset::new(&config).unwrap();
            let (mut small, mut read) = (0, 0);
            for index in 0..2000 {
                let page = set.page(index);
                for run in &page.content.runs {
                    let Run { lettering, text, .. } = run;
                    assert!(lettering.em >= 5.0, "{index} {} {text:?} {lettering:?}", page.layout);
                    let glyph = |&character: &char| lettering.face.glyph(character).0;
                    assert!(text.chars.iter().all(|character| glyph(character) > 0), "{text:?}");
                    if !text.marks.is_empty() {
                        read += 1;
                        small += usize::from(lettering.em < 6.5);
                    }
                }
            }
            println!("{split}: {small} of {read} below 6.5");
            assert!(small * 50 < read, "{split}: {small} of {read}");
        }
    }
}
