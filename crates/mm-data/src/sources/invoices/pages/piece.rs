//! Pieces of a page: runs of text and filled rectangles at places. A unit is a pixel of a page of 224 x 320.

use super::font::Face;
use super::layout::Align;
use super::text::Text;

/// The height of a line of text in ems.
pub(super) const LEADING: f32 = 1.3;

/// The baseline below the top of a line, in ems.
const BASELINE: f32 = 1.0;

/// The extent of letters above and below the baseline, in ems: capitals and descenders.
pub(super) const ASCENT: f32 = 0.76;
pub(super) const DESCENT: f32 = 0.22;

/// How text is set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lettering {
    pub(super) face: Face,
    /// The size of the font.
    pub(super) em: f32,
    /// The horizontal scale.
    pub(super) stretch: f32,
    /// The grey level, 0 to 255.
    pub(super) grey: u8,
}

impl Lettering {
    pub(super) fn sized(self, factor: f32) -> Self {
        Self { em: quarters(self.em * factor), ..self }
    }

    pub(super) fn bold(self) -> Self {
        Self { face: Face { bold: true, ..self.face }, ..self }
    }

    pub(super) fn leading(self) -> f32 {
        self.em * LEADING
    }

    pub(super) fn advance(self, character: char) -> f32 {
        self.face.advance(character) * self.em * self.stretch
    }

    pub(super) fn width(self, text: &Text) -> f32 {
        text.chars.iter().map(|&character| self.advance(character)).sum()
    }

    /// This lettering, or a smaller one in which `width` of text takes at most `space`.
    pub(super) fn fitted(self, width: f32, space: f32) -> Self {
        if width <= space {
            return self;
        }
        let factor = (space / width).max(0.0);
        // Narrower letters first, then smaller ones.
        let stretch = factor.max(0.88);
        Self { stretch: self.stretch * stretch, em: self.em * (factor / stretch).min(1.0), ..self }
    }
}

/// Rounds down to quarters, so that few sizes are rasterized.
pub(super) fn quarters(size: f32) -> f32 {
    (size * 4.0).floor() / 4.0
}

/// A line of text.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) text: Text,
    pub(super) left: f32,
    pub(super) baseline: f32,
    pub(super) lettering: Lettering,
}

impl Run {
    /// Left, top, right and bottom of the letters.
    pub(super) fn bounds(&self) -> [f32; 4] {
        let Lettering { em, .. } = self.lettering;
        let right = self.left + self.lettering.width(&self.text);
        [self.left, self.baseline - ASCENT * em, right, self.baseline + DESCENT * em]
    }
}

/// A filled rectangle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fill {
    /// Left, top, right and bottom.
    pub(super) bounds: [f32; 4],
    pub(super) grey: u8,
}

/// A part of a page, with its top left at (0, 0).
#[derive(Debug, Clone, Default)]
pub(super) struct Piece {
    pub(super) runs: Vec<Run>,
    pub(super) fills: Vec<Fill>,
    pub(super) height: f32,
}

impl Piece {
    /// Adds text on a line whose top is at `top`, between two edges. Text that is too wide is set smaller.
    pub(super) fn put(&mut self, text: Text, lettering: Lettering, edges: [f32; 2], align: Align, top: f32) {
        if text.is_empty() {
            return;
        }
        let baseline = top + BASELINE * lettering.em;
        let [left, right] = edges;
        let lettering = lettering.fitted(lettering.width(&text), right - left);
        let left = match align {
            Align::Left => left,
            Align::Right => right - lettering.width(&text),
            Align::Center => (left + right - lettering.width(&text)) / 2.0,
        };
        self.runs.push(Run { text, left, baseline, lettering });
    }

    /// Adds a line of text at the end.
    pub(super) fn line(&mut self, text: Text, lettering: Lettering, edges: [f32; 2], align: Align) {
        self.put(text, lettering, edges, align, self.height);
        self.height += lettering.leading();
    }

    /// Letterings in which each pair of texts has room at both ends of a line of `width`.
    pub(super) fn fitted_ends(lines: &[[Text; 2]], lettering: [Lettering; 2], width: f32) -> [Lettering; 2] {
        let both = |[left, right]: &[Text; 2]| lettering[0].width(left) + lettering[1].width(right);
        let widest = lines.iter().map(both).fold(0.0, f32::max);
        lettering.map(|one| one.fitted(widest, width - Self::between_ends(lettering)))
    }

    /// The smallest distance of the texts of a line.
    pub(super) fn between_ends(lettering: [Lettering; 2]) -> f32 {
        lettering[0].em * 0.8
    }

    /// Adds a line with text at both edges. Where both are too wide together, both are set smaller.
    pub(super) fn ends(&mut self, left: Text, right: Text, lettering: [Lettering; 2], edges: [f32; 2]) {
        let gap = Self::between_ends(lettering);
        let [wide, narrow] = [lettering[0].width(&left), lettering[1].width(&right)];
        let space = edges[1] - edges[0] - gap;
        let middle = edges[0] + if wide + narrow > space { space * wide / (wide + narrow) } else { wide };
        let height = lettering[0].leading().max(lettering[1].leading());
        let top = |lettering: Lettering| self.height + height - lettering.leading();
        let tops = lettering.map(top);
        self.put(left, lettering[0], [edges[0], middle + 0.01], Align::Left, tops[0]);
        self.put(right, lettering[1], [middle + gap - 0.01, edges[1]], Align::Right, tops[1]);
        self.height += height;
    }

    pub(super) fn fill(&mut self, bounds: [f32; 4], grey: u8) {
        self.fills.push(Fill { bounds, grey });
    }

    /// Adds a horizontal line.
    pub(super) fn rule(&mut self, edges: [f32; 2], top: f32, thickness: f32, grey: u8) {
        self.fill([edges[0], top, edges[1], top + thickness], grey);
    }

    /// Adds a frame of thin lines.
    pub(super) fn frame(&mut self, [left, top, right, bottom]: [f32; 4], grey: u8) {
        const THICKNESS: f32 = 0.75;
        self.fill([left, top, right, top + THICKNESS], grey);
        self.fill([left, bottom - THICKNESS, right, bottom], grey);
        self.fill([left, top, left + THICKNESS, bottom], grey);
        self.fill([right - THICKNESS, top, right, bottom], grey);
    }

    /// Adds another piece at a place.
    pub(super) fn place(&mut self, other: Self, x: f32, y: f32) {
        self.height = self.height.max(y + other.height);
        self.runs.extend(other.runs.into_iter().map(|run| Run {
            left: run.left + x,
            baseline: run.baseline + y,
            ..run
        }));
        let moved = |[left, top, right, bottom]: [f32; 4]| [left + x, top + y, right + x, bottom + y];
        self.fills.extend(other.fills.into_iter().map(|fill| Fill { bounds: moved(fill.bounds), ..fill }));
    }
}
