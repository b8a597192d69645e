//! What a scanner and an office do to a page: rotation, blur, grey paper, a shadow, noise, a stamp.

use rand::{Rng, SeedableRng};

use super::draw::{below, between, chance, pick, signed};
use super::layout::Align;
use super::piece::{Lettering, Piece};
use super::render::Canvas;
use super::style::Style;
use super::text::Text;
use crate::SampleRng;

/// The largest rotation in radians: one degree.
const MAX_ANGLE: f32 = 0.017_453_3;

/// A rotation about a point, with a shift.
#[derive(Debug, Clone, Copy)]
pub(super) struct Motion {
    sin: f32,
    cos: f32,
    center: [f32; 2],
    shift: [f32; 2],
}

impl Motion {
    /// No motion.
    pub(super) const NONE: Self = Self { sin: 0.0, cos: 1.0, center: [0.0; 2], shift: [0.0; 2] };

    fn new(angle: f32, center: [f32; 2], shift: [f32; 2]) -> Self {
        // Series, since the library's functions differ between machines. The angles are below 0.4.
        let square = angle * angle;
        let sin = angle * (1.0 - square / 6.0 * (1.0 - square / 20.0));
        let cos = 1.0 - square / 2.0 * (1.0 - square / 12.0);
        Self { sin, cos, center, shift }
    }

    /// The place of a point after the motion.
    pub(super) fn apply(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let (dx, dy) = (x - self.center[0], y - self.center[1]);
        [
            self.center[0] + self.cos * dx - self.sin * dy + self.shift[0],
            self.center[1] + self.sin * dx + self.cos * dy + self.shift[1],
        ]
    }

    /// The point that the motion brings to a place.
    fn invert(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        let (dx, dy) = (x - self.center[0] - self.shift[0], y - self.center[1] - self.shift[1]);
        [self.center[0] + self.cos * dx + self.sin * dy, self.center[1] - self.sin * dx + self.cos * dy]
    }
}

/// The effects on a page.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) motion: Motion,
    /// The weight of each neighbor in the blur, up to 0.18: that of a radius of 0.6 pixels.
    blur: f32,
    /// The grey level of the paper.
    paper: f32,
    /// The change of this level from the center to the edges.
    slope: [f32; 2],
    /// The edge of the shadow (left, top, right, bottom or none), its depth and its width in pixels.
    shadow: (u32, f32, f32),
    /// The standard deviation of the noise.
    noise: f32,
    noise_seed: u64,
    stamp: Option<Stamp>,
}

impl Scan {
    pub(super) fn random(style: &Style, [width, height]: [f32; 2], scale: f32, rng: &mut SampleRng) -> Self {
        let center = [width / 2.0, height / 2.0];
        let shift = [signed(rng) * 1.5 * scale, signed(rng) * 1.5 * scale];
        let angle = if chance(rng, 75) { signed(rng) * MAX_ANGLE } else { 0.0 };
        Self {
            motion: Motion::new(angle, center, shift),
            blur: if chance(rng, 70) { below(rng, 19) as f32 / 100.0 } else { 0.0 },
            paper: between(rng, 222, 255) as f32,
            slope: [signed(rng) * 7.0, signed(rng) * 7.0],
            shadow: (below(rng, 8), between(rng, 15, 55) as f32, between(rng, 5, 22) as f32 * scale),
            noise: below(rng, 60) as f32 / 10.0,
            noise_seed: rng.next_u64(),
            stamp: chance(rng, 25).then(|| Stamp::random(style, [width, height], scale, rng)),
        }
    }

    /// The page after the scan.
    pub(super) fn apply(&self, page: &Canvas) -> Canvas {
        let mut scanned = self.blurred(&self.moved(page));
        if let Some(stamp) = &self.stamp {
            stamp.press(&mut scanned);
        }
        self.tone(&mut scanned);
        scanned
    }

    fn moved(&self, page: &Canvas) -> Canvas {
        let mut moved = Canvas::new(page.width, page.height);
        // Places in 65536ths of a pixel.
        let fixed = |number: f32| (number * 65536.0) as i32;
        let (right, down) = (fixed(self.motion.cos), fixed(-self.motion.sin));
        let [last_column, last_row] = [page.width as u32 - 1, page.height as u32 - 1];
        for (row, pixels) in moved.pixels.chunks_exact_mut(page.width).enumerate() {
            // The sources of the row's pixels are on a line.
            let [mut x, mut y] =
                self.motion.invert([0.5, row as f32 + 0.5]).map(|coordinate| fixed(coordinate - 0.5));
            for pixel in pixels {
                let (column, row) = ((x >> 16) as u32, (y >> 16) as u32);
                // Outside is paper, which the canvas has.
                if column < last_column && row < last_row {
                    let at = row as usize * page.width + column as usize;
                    let (right, below) = ((x >> 8 & 255) as u32, (y >> 8 & 255) as u32);
                    let mixed = |at: usize| {
                        u32::from(page.pixels[at]) * (256 - right) + u32::from(page.pixels[at + 1]) * right
                    };
                    let both = mixed(at) * (256 - below) + mixed(at + page.width) * below;
                    *pixel = ((both + 32768) >> 16) as u8;
                }
                (x, y) = (x + right, y + down);
            }
        }
        moved
    }

    fn blurred(&self, page: &Canvas) -> Canvas {
        let side = (self.blur * 256.0) as u32;
        if side == 0 {
            return page.clone();
        }
        let (width, middle) = (page.width, 256 - 2 * side);
        let mixed = |before: u8, at: u8, after: u8| {
            ((u32::from(before) + u32::from(after)) * side + u32::from(at) * middle + 128) / 256
        };
        let mut rows = page.clone();
        for (blurred, row) in rows.pixels.chunks_exact_mut(width).zip(page.pixels.chunks_exact(width)) {
            for (pixel, near) in blurred[1..].iter_mut().zip(row.windows(3)) {
                *pixel = mixed(near[0], near[1], near[2]) as u8;
            }
        }
        let mut both = rows.clone();
        for at in width..(page.pixels.len() - width) {
            both.pixels[at] = mixed(rows.pixels[at - width], rows.pixels[at], rows.pixels[at + width]) as u8;
        }
        both
    }

    /// The tones of paper, shadow and noise.
    fn tone(&self, page: &mut Canvas) {
        let mut rng = SampleRng::seed_from_u64(self.noise_seed);
        let (width, height) = (page.width as f32, page.height as f32);
        let (edge, depth, reach) = self.shadow;
        let shadow = |from_edge: f32| {
            let near = (1.0 - from_edge / reach).max(0.0);
            depth * near * near
        };
        // The change of the light along an axis of a length, with a shadow at its start or end.
        let change = |at: f32, length: f32, slope: f32, edges: [u32; 2]| {
            let dark = match edge {
                _ if edge == edges[0] => shadow(at),
                _ if edge == edges[1] => shadow(length - 1.0 - at),
                _ => 0.0,
            };
            slope * (2.0 * at / length - 1.0) - dark
        };
        let columns: Vec<f32> =
            (0..page.width).map(|column| change(column as f32, width, self.slope[0], [0, 2])).collect();
        for (row, pixels) in page.pixels.chunks_exact_mut(page.width).enumerate() {
            let level = self.paper + change(row as f32, height, self.slope[1], [1, 3]);
            for (pixels, columns) in pixels.chunks_mut(4).zip(columns.chunks(4)) {
                let counts = ones(rng.next_u64());
                for ((pixel, change), count) in pixels.iter_mut().zip(columns).zip(counts) {
                    // Of 16 random bits, the number of ones is nearly normal with a deviation of 2.
                    let noise = (count as f32 - 8.0) * (self.noise / 2.0);
                    let light = (level + change).min(255.0) * (1.0 / 255.0);
                    *pixel = (light * f32::from(*pixel) + noise + 0.5).clamp(0.0, 255.0) as u8;
                }
            }
        }
    }
}

/// The number of ones in each quarter of 64 bits.
fn ones(bits: u64) -> [u16; 4] {
    let pairs = bits - (bits >> 1 & 0x5555_5555_5555_5555);
    let fours = (pairs & 0x3333_3333_3333_3333) + (pairs >> 2 & 0x3333_3333_3333_3333);
    let bytes = (fours + (fours >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let counts = (bytes + (bytes >> 8)) & 0x00ff_00ff_00ff_00ff;
    [0, 16, 32, 48].map(|shift| (counts >> shift & 0xff) as u16)
}

/// The grey level at a point between the centers of pixels, with a half added for rounding; paper outside.
fn sample(page: &Canvas, x: f32, y: f32) -> f32 {
    let (x, y) = (x - 0.5, y - 0.5);
    let (column, row) = (x.floor(), y.floor());
    let (right, below) = (x - column, y - row);
    let (column, row) = (column as i32, row as i32);
    let is_inside = column >= 0 && row >= 0 && column + 1 < page.width as i32 && row + 1 < page.height as i32;
    if !is_inside {
        return 255.5;
    }
    let at = row as usize * page.width + column as usize;
    let mixed = |pixels: &[u8]| f32::from(pixels[0]) * (1.0 - right) + f32::from(pixels[1]) * right;
    let (upper, lower) = (&page.pixels[at..at + 2], &page.pixels[at + page.width..at + page.width + 2]);
    mixed(upper) * (1.0 - below) + mixed(lower) * below + 0.5
}

/// A word in a frame or a ring, pressed lightly on the page.
#[derive(Debug)]
struct Stamp {
    /// The word with its frame, at the origin.
    piece: Piece,
    size: [f32; 2],
    scale: f32,
    is_ring: bool,
    /// From the stamp to the page, in pixels.
    motion: Motion,
    /// The share of light that its ink takes away.
    strength: f32,
}

impl Stamp {
    fn random(style: &Style, [width, height]: [f32; 2], scale: f32, rng: &mut SampleRng) -> Self {
        let word = pick(rng, style.language.words().stamps);
        let word = Text::plain(word);
        let em = between(rng, 10, 14) as f32;
        let lettering = Lettering { em, grey: 0, stretch: 1.0, ..style.body.bold() };
        let is_ring = chance(rng, 40);
        let wide = lettering.width(&word);
        let size = if is_ring { [wide * 1.35, em * 2.6] } else { [wide + em, em * 1.9] };
        let left = (size[0] - wide) / 2.0;
        let mut piece = Piece::default();
        let top = (size[1] - 1.26 * em) / 2.0;
        piece.put(word, lettering, [left, left + wide + 1.0], Align::Left, top);
        if !is_ring {
            piece.frame([0.0, 0.0, size[0], size[1]], 0);
            piece.frame([1.5, 1.5, size[0] - 1.5, size[1] - 1.5], 0);
        }
        let size = size.map(|side| side * scale);
        let place = |rng: &mut SampleRng, page: f32, side: f32| {
            let free = (page - side - 24.0 * scale).max(1.0);
            12.0 * scale + free * below(rng, 1000) as f32 / 1000.0
        };
        let shift = [place(rng, width, size[0]), place(rng, height, size[1])];
        let motion = Motion::new(signed(rng) * 0.25, [size[0] / 2.0, size[1] / 2.0], shift);
        Self { piece, size, scale, is_ring, motion, strength: between(rng, 18, 34) as f32 / 100.0 }
    }

    fn press(&self, page: &mut Canvas) {
        let [width, height] = self.size;
        let mut word = Canvas::new(width.ceil() as usize + 1, height.ceil() as usize + 1);
        word.draw(&self.piece, self.scale);
        let [x, y] = self.motion.apply([width / 2.0, height / 2.0]);
        let reach = (width + height) / 2.0 + 1.0;
        let span = |middle: f32, end: usize| {
            ((middle - reach).max(0.0) as usize)..((middle + reach).max(0.0) as usize).min(end)
        };
        for row in span(y, page.height) {
            for column in span(x, page.width) {
                let at = self.motion.invert([column as f32 + 0.5, row as f32 + 0.5]);
                let mut ink = 1.0 - (sample(&word, at[0], at[1]) / 255.0).min(1.0);
                if self.is_ring {
                    ink = ink.max(self.ring(at));
                }
                let pixel = &mut page.pixels[row * page.width + column];
                *pixel = (f32::from(*pixel) * (1.0 - self.strength * ink) + 0.5) as u8;
            }
        }
    }

    /// The coverage of a point by the ring around the word.
    fn ring(&self, [x, y]: [f32; 2]) -> f32 {
        let [a, b] = self.size.map(|side| side / 2.0);
        let (u, v) = ((x - a) / a, (y - b) / b);
        let from_ring = ((u * u + v * v).sqrt() - 0.95).abs() * a.min(b);
        (1.2 * self.scale - from_ring).clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ones_are_counted_in_quarters() {
        for bits in [0, u64::MAX, 0x8001_0000_ffff_0f31, 0x0123_4567_89ab_cdef] {
            let quarters = [0, 16, 32, 48].map(|shift| ((bits >> shift) as u16).count_ones() as u16);
            assert_eq!(ones(bits), quarters);
        }
    }

    #[test]
    fn a_motion_is_inverted_and_keeps_lengths() {
        let motion = Motion::new(MAX_ANGLE, [112.0, 160.0], [1.0, -1.5]);
        assert!((motion.sin - MAX_ANGLE.sin()).abs() < 1e-6 && (motion.cos - MAX_ANGLE.cos()).abs() < 1e-6);
        for point in [[0.0, 0.0], [224.0, 320.0], [30.0, 200.0]] {
            let back = motion.invert(motion.apply(point));
            assert!((back[0] - point[0]).abs() < 1e-3 && (back[1] - point[1]).abs() < 1e-3);
        }
    }

    #[test]
    fn a_page_moves_to_where_its_words_are_said_to_be() {
        let mut page = Canvas::new(60, 80);
        page.pixels[20 * 60 + 40] = 0;
        let motion = Motion::new(MAX_ANGLE, [30.0, 40.0], [1.2, 0.7]);
        let scan = Scan {
            motion,
            blur: 0.0,
            paper: 255.0,
            slope: [0.0; 2],
            shadow: (4, 0.0, 1.0),
            noise: 0.0,
            noise_seed: 0,
            stamp: None,
        };
        let scanned = scan.apply(&page);
        let (mut ink, mut center) = (0.0, [0.0; 2]);
        for (at, &grey) in scanned.pixels.iter().enumerate() {
            let dark = 255.0 - f32::from(grey);
            ink += dark;
            center[0] += dark * ((at % 60) as f32 + 0.5);
            center[1] += dark * ((at / 60) as f32 + 0.5);
        }
        let [x, y] = motion.apply([40.5, 20.5]);
        assert!((ink - 255.0).abs() < 4.0, "{ink}");
        assert!((center[0] / ink - x).abs() < 0.05 && (center[1] / ink - y).abs() < 0.05, "{center:?}");
    }
}
