//! From runs of text and filled rectangles to grey pixels. Glyphs are rasterized once a thread.

use std::cell::RefCell;
use std::collections::HashMap;

use ab_glyph::{Font, PxScale, point};

use super::font::Face;
use super::piece::{Fill, Lettering, Piece, Run};

/// Grey pixels row by row, 255 being paper.
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<u8>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, height, pixels: vec![255; width * height] }
    }

    /// Draws a piece whose units are `scale` pixels.
    pub(super) fn draw(&mut self, piece: &Piece, scale: f32) {
        for fill in &piece.fills {
            self.fill(fill, scale);
        }
        for run in &piece.runs {
            self.run(run, scale);
        }
    }

    /// Blends a pixel toward a grey level by a share of 0 to 255.
    fn blend(&mut self, at: usize, grey: u8, share: u32) {
        let ground = u32::from(self.pixels[at]);
        self.pixels[at] = ((ground * (255 - share) + u32::from(grey) * share + 127) / 255) as u8;
    }

    fn fill(&mut self, fill: &Fill, scale: f32) {
        let [left, top, right, bottom] = fill.bounds.map(|edge| edge * scale);
        let [columns, rows] = [(left, right, self.width), (top, bottom, self.height)]
            .map(|(from, to, end)| (from.max(0.0) as usize)..(to.max(0.0).ceil() as usize).min(end));
        let covered = |pixel: usize, from: f32, to: f32| {
            (to.min(pixel as f32 + 1.0) - from.max(pixel as f32)).clamp(0.0, 1.0)
        };
        for row in rows {
            let vertical = covered(row, top, bottom);
            for column in columns.clone() {
                let share = vertical * covered(column, left, right);
                self.blend(row * self.width + column, fill.grey, (share * 255.0 + 0.5) as u32);
            }
        }
    }

    fn run(&mut self, run: &Run, scale: f32) {
        let baseline = (run.baseline * scale + 0.5).floor() as i32;
        let mut x = run.left;
        for &character in &run.text.chars {
            let quarters = (x * scale * 4.0 + 0.5).floor() as i32;
            with_glyph(Shape::new(run.lettering, character, scale, quarters.rem_euclid(4)), |glyph| {
                self.glyph(glyph, quarters.div_euclid(4), baseline, run.lettering.grey);
            });
            x += run.lettering.advance(character);
        }
    }

    fn glyph(&mut self, glyph: &Glyph, x: i32, y: i32, grey: u8) {
        if glyph.width == 0 {
            return;
        }
        for (row, covered) in glyph.coverage.chunks_exact(glyph.width).enumerate() {
            let row = y + glyph.top + row as i32;
            if row < 0 || row as usize >= self.height {
                continue;
            }
            for (column, &share) in covered.iter().enumerate() {
                let column = x + glyph.left + column as i32;
                if share > 0 && column >= 0 && (column as usize) < self.width {
                    self.blend(row as usize * self.width + column as usize, grey, u32::from(share));
                }
            }
        }
    }
}

/// What decides the pixels of a glyph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    face: Face,
    character: char,
    /// The size of an em in eighths of a pixel.
    em: u32,
    /// The horizontal scale in 64ths.
    stretch: u32,
    /// The offset to the right in quarters of a pixel.
    quarter: u8,
}

impl Shape {
    fn new(lettering: Lettering, character: char, scale: f32, quarter: i32) -> Self {
        Self {
            face: lettering.face,
            character,
            em: (lettering.em * scale * 8.0 + 0.5) as u32,
            stretch: (lettering.stretch * 64.0 + 0.5) as u32,
            quarter: quarter as u8,
        }
    }
}

/// A rasterized glyph: its offset from the origin, and the coverage of its pixels.
struct Glyph {
    left: i32,
    top: i32,
    width: usize,
    coverage: Vec<u8>,
}

/// The number of glyphs that a thread keeps.
const MAX_GLYPHS: usize = 16_384;

thread_local! {
    static GLYPHS: RefCell<HashMap<Shape, Glyph>> = RefCell::default();
}

fn with_glyph(shape: Shape, draw: impl FnOnce(&Glyph)) {
    GLYPHS.with_borrow_mut(|glyphs| {
        if glyphs.len() >= MAX_GLYPHS {
            glyphs.clear();
        }
        draw(glyphs.entry(shape).or_insert_with(|| rasterize(shape)));
    });
}

fn rasterize(shape: Shape) -> Glyph {
    let face = shape.face;
    let size = shape.em as f32 / 8.0 * face.scale_of_em();
    let scale = PxScale { x: size * shape.stretch as f32 / 64.0, y: size };
    let origin = point(f32::from(shape.quarter) / 4.0, 0.0);
    let glyph = face.glyph(shape.character).with_scale_and_position(scale, origin);
    let Some(outline) = face.font().outline_glyph(glyph) else {
        return Glyph { left: 0, top: 0, width: 0, coverage: Vec::new() };
    };
    let bounds = outline.px_bounds();
    let (width, height) = (bounds.width() as usize, bounds.height() as usize);
    let mut coverage = vec![0; width * height];
    outline.draw(|column, row, covered| {
        if let Some(pixel) = coverage.get_mut(row as usize * width + column as usize) {
            *pixel = (covered.clamp(0.0, 1.0) * 255.0 + 0.5) as u8;
        }
    });
    Glyph { left: bounds.min.x as i32, top: bounds.min.y as i32, width, coverage }
}
