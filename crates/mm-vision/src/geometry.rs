//! The geometry of preprocessing: the size that an image is resized to, and the crop of it.

use mm_image::resize::{Rect, short_side_size};
use serde::{Deserialize, Serialize};

/// The size that an image is resized to. A side has at least 1 pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resize {
    /// To this width and height; the aspect ratio changes.
    Exact(u32, u32),
    /// The short side to this many pixels; the aspect ratio stays.
    ShortSide(u32),
    /// The short side to `short`, or to less where the long side would exceed `long`.
    ShortSideWithin { short: u32, long: u32 },
    /// To fit into width and height, rounded down: transformers' `max_height` and `max_width`.
    Within(u32, u32),
    /// To fit into width and height, rounded to the nearest: open_clip's `longest`.
    RoundedWithin(u32, u32),
    /// To cover width and height, rounded to the nearest: open_clip's `shortest` where they differ.
    Cover(u32, u32),
}

impl Resize {
    /// Width and height of a resized image of `width` x `height`. The order of operations is that of the
    /// peers, because near a whole number their rounding errors decide.
    pub(crate) fn size(self, width: u32, height: u32) -> (u32, u32) {
        let (w, h) = (f64::from(width), f64::from(height));
        let (width, height) = match self {
            Self::Exact(width, height) => (width, height),
            Self::ShortSide(side) => short_side_size(width, height, side),
            Self::ShortSideWithin { short, long } => within_long_side(width, height, short, long),
            Self::Within(most_width, most_height) => {
                let scale = (f64::from(most_height) / h).min(f64::from(most_width) / w);
                ((w * scale) as u32, (h * scale) as u32)
            }
            Self::RoundedWithin(to_width, to_height) => {
                let ratio = (h / f64::from(to_height)).max(w / f64::from(to_width));
                ((w / ratio).round_ties_even() as u32, (h / ratio).round_ties_even() as u32)
            }
            Self::Cover(to_width, to_height) => {
                let ratio = (h / f64::from(to_height)).min(w / f64::from(to_width));
                ((w / ratio).round_ties_even() as u32, (h / ratio).round_ties_even() as u32)
            }
        };
        (width.max(1), height.max(1))
    }

    /// The sides that it is defined by, in pixels.
    pub(crate) fn sides(self) -> [u32; 2] {
        match self {
            Self::ShortSide(side) => [side, side],
            Self::ShortSideWithin { short, long } => [short, long],
            Self::Exact(width, height)
            | Self::Within(width, height)
            | Self::RoundedWithin(width, height)
            | Self::Cover(width, height) => [width, height],
        }
    }

    /// The same resizing, scaled so that outputs of `from` (width and height) become squares of `to` pixels a
    /// side.
    pub(crate) fn scaled(self, from: (u32, u32), to: u32) -> Self {
        let scale = |side: u32, from: u32| {
            let scaled = (u64::from(side) * u64::from(to) + u64::from(from) / 2) / u64::from(from);
            u32::try_from(scaled.max(1)).unwrap_or(u32::MAX)
        };
        let (x, y) = (|side| scale(side, from.0), |side| scale(side, from.1));
        let short = |side| scale(side, from.0.min(from.1));
        match self {
            Self::Exact(width, height) => Self::Exact(x(width), y(height)),
            Self::ShortSide(side) => Self::ShortSide(short(side)),
            Self::ShortSideWithin { short: side, long } => {
                Self::ShortSideWithin { short: short(side), long: short(long) }
            }
            Self::Within(width, height) => Self::Within(x(width), y(height)),
            Self::RoundedWithin(width, height) => Self::RoundedWithin(x(width), y(height)),
            Self::Cover(width, height) => Self::Cover(x(width), y(height)),
        }
    }
}

/// transformers' `shortest_edge` with `longest_edge`.
fn within_long_side(width: u32, height: u32, short: u32, long: u32) -> (u32, u32) {
    let (w, h) = (f64::from(width), f64::from(height));
    let (shorter, longer) = (w.min(h), w.max(h));
    let cut =
        (longer / shorter * f64::from(short) > f64::from(long)).then(|| f64::from(long) * shorter / longer);
    let side = cut.map_or(short, |side| side.round_ties_even() as u32);
    if width.min(height) == side {
        return (width, height);
    }
    let exact_side = cut.unwrap_or(f64::from(side));
    if width < height { (side, (exact_side * h / w) as u32) } else { ((exact_side * w / h) as u32, side) }
}

/// A center crop of a resized image; a border is added where the image is smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Crop {
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Red, green and blue of the border.
    pub(crate) fill: u8,
    pub(crate) margins: Margins,
}

/// Which of two margins gets the odd pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Margins {
    /// Of what is cut off, the last margin; of what is filled, the first: transformers on Pillow.
    Transformers,
    /// Of what is cut off, the margin that makes the first even; of what is filled, the last: torchvision and
    /// open_clip.
    Torchvision,
}

/// The crop along one side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    /// The first pixel kept.
    start: u32,
    /// Pixels kept.
    length: u32,
    /// Their place in the output.
    at: u32,
}

impl Margins {
    fn keep(self, side: u32, size: u32) -> Kept {
        let (cut, filled) = (side.saturating_sub(size), size.saturating_sub(side));
        let (start, at) = match self {
            Self::Transformers => (cut / 2, filled.div_ceil(2)),
            Self::Torchvision => ((f64::from(cut) / 2.0).round_ties_even() as u32, filled / 2),
        };
        Kept { start, length: side.min(size), at }
    }
}

impl Crop {
    /// The part of an image of `width` x `height` that is kept, and the place of its top left corner in the
    /// output.
    pub(crate) fn keep(self, width: u32, height: u32) -> (Rect, (u32, u32)) {
        let (x, y) = (self.margins.keep(width, self.width), self.margins.keep(height, self.height));
        (Rect { left: x.start, top: y.start, width: x.length, height: y.length }, (x.at, y.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_peers() {
        let within = |short, long| Resize::ShortSideWithin { short, long };
        for (resize, from, expected) in [
            (within(32, 40), (83, 60), (40, 29)),
            (within(32, 40), (60, 83), (29, 40)),
            (within(32, 100), (83, 60), (44, 32)),
            (within(60, 100), (83, 60), (83, 60)),
            (Resize::Within(40, 32), (83, 60), (40, 28)),
            (Resize::Within(500, 200), (200, 100), (400, 200)),
            (Resize::Within(49, 49), (3, 7), (21, 49)),
            (Resize::RoundedWithin(40, 40), (83, 60), (40, 29)),
            (Resize::RoundedWithin(31, 31), (60, 83), (22, 31)),
            (Resize::Cover(40, 20), (83, 60), (40, 29)),
            (Resize::Cover(40, 20), (60, 83), (40, 55)),
        ] {
            assert_eq!(resize.size(from.0, from.1), expected, "{resize:?} of {from:?}");
        }
    }

    #[test]
    fn a_side_that_rounds_to_nothing_is_one_pixel() {
        for resize in [Resize::Within(4, 4), Resize::ShortSideWithin { short: 3, long: 4 }] {
            assert_eq!(resize.size(1, 1000), (1, 4), "{resize:?}");
        }
    }

    #[test]
    fn odd_margins_go_where_the_peers_put_them() {
        let kept = |margins: Margins, side, size| {
            let Kept { start, length, at } = margins.keep(side, size);
            (start, length, at)
        };
        for (side, size, transformers, torchvision) in [
            (227, 224, (1, 224, 0), (2, 224, 0)),
            (229, 224, (2, 224, 0), (2, 224, 0)),
            (27, 32, (0, 27, 3), (0, 27, 2)),
            (32, 32, (0, 32, 0), (0, 32, 0)),
        ] {
            assert_eq!(kept(Margins::Transformers, side, size), transformers);
            assert_eq!(kept(Margins::Torchvision, side, size), torchvision);
        }
    }
}
