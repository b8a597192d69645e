//! Contact sheets: an overview of some samples of a data set, with the reasons of bad ones.

mod page;

use image::imageops::{self, FilterType};
use image::{Rgb, RgbImage};

use crate::rng::{Domain, rng};
use crate::tools::html::thumbnail;
use crate::tools::in_order::InOrder;
use crate::{BadSample, Dataset, Error, Result, Sample};

/// The longer side of an image on a sheet, in pixels.
const SIDE: u32 = 200;
/// The gap between images in pixels.
const GAP: u32 = 10;
const GROUND: Rgb<u8> = Rgb([244, 245, 247]);
const PAPER: Rgb<u8> = Rgb([255; 3]);
const FAULT: Rgb<u8> = Rgb([214, 69, 69]);

/// The choice of the samples of a sheet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The first ones.
    First,
    /// Drawn at random with this seed, in the order of the data set.
    Drawn(u64),
}

/// A contact sheet.
pub struct Sheet {
    /// The name of the data set.
    pub title: String,
    /// The number of samples of the data set.
    pub total: usize,
    /// The samples on the sheet.
    pub tiles: Vec<Tile>,
}

/// A sample on a sheet.
pub struct Tile {
    /// The index in the data set.
    pub index: usize,
    /// The shown content, or the reason why it cannot be read.
    pub shown: std::result::Result<Shown, BadSample>,
}

/// The shown content of a sample.
pub struct Shown {
    /// The sample, whose images are no longer needed.
    pub sample: Sample,
    /// Its images side by side, at the size of the sheet; `None` where it has no image.
    pub thumbnail: Option<RgbImage>,
    /// Width and height of each image in pixels.
    pub sizes: Vec<(u32, u32)>,
}

impl Sheet {
    /// Reads up to `count` samples. Transparent images are composited over white. A sample that cannot be
    /// read is shown with its reason.
    ///
    /// # Errors
    /// `count` is 0, or random samples of a stream are requested.
    pub fn of(source: &dyn Dataset, count: usize, choice: Choice) -> Result<Self> {
        if count == 0 {
            return Err(Error::Setting("a sheet of 0 samples is empty: set the number to 1 or more".into()));
        }
        let total = source.len();
        let count = count.min(total);
        let samples = InOrder::new(source)?;
        let read = match choice {
            Choice::First => samples.read(0..count),
            Choice::Drawn(_) if source.stream().is_some() => {
                let reason = "is a stream, which cannot be sampled at random: show the first samples";
                return Err(Error::Setting(format!("`{}` {reason}", source.name())));
            }
            Choice::Drawn(seed) => {
                let mut drawn =
                    rand::seq::index::sample(&mut rng(seed, 0, 0, Domain::Sheet), total, count).into_vec();
                drawn.sort_unstable();
                drawn.into_iter().flat_map(|index| samples.read(index..index + 1)).collect()
            }
        };
        let tile = |(index, sample): (usize, std::result::Result<Sample, BadSample>)| {
            let shown = sample.and_then(|sample| {
                let images: Result<Vec<RgbImage>> =
                    Error::guarded(|| sample.images.iter().map(|image| image.decode([255; 3])).collect());
                let images = images.map_err(|error| samples.bad(sample.key.clone(), &error))?;
                let sizes = images.iter().map(RgbImage::dimensions).collect();
                Ok(Shown { thumbnail: side_by_side(&images), sizes, sample })
            });
            Tile { index, shown }
        };
        Ok(Self { title: source.name().to_owned(), total, tiles: read.into_iter().map(tile).collect() })
    }

    /// The images as one picture, row by row; a bad sample is a red cross.
    pub fn picture(&self) -> RgbImage {
        let columns = (1..).find(|side| side * side >= self.tiles.len()).unwrap_or(1).max(1) as u32;
        let rows = (self.tiles.len() as u32).div_ceil(columns).max(1);
        let along = |count: u32| count * (SIDE + GAP) + GAP;
        let mut sheet = RgbImage::from_pixel(along(columns), along(rows), PAPER);
        for (number, tile) in (0..).zip(&self.tiles) {
            let mut cell = RgbImage::from_pixel(SIDE, SIDE, GROUND);
            match &tile.shown {
                Ok(Shown { thumbnail: None, .. }) => {}
                Ok(Shown { thumbnail: Some(thumbnail), .. }) => {
                    let margin = |length: u32| i64::from((SIDE - length.min(SIDE)) / 2);
                    let (left, top) = (margin(thumbnail.width()), margin(thumbnail.height()));
                    imageops::replace(&mut cell, thumbnail, left, top);
                }
                Err(_) => cross(&mut cell),
            }
            imageops::replace(
                &mut sheet,
                &cell,
                along(number % columns).into(),
                along(number / columns).into(),
            );
        }
        sheet
    }

    /// A self-contained HTML page with images, captions, labels, questions, and the reasons of bad samples.
    pub fn page(&self) -> String {
        page::page(self)
    }
}

/// The images next to each other within [`SIDE`]; `None` where there are none.
fn side_by_side(images: &[RgbImage]) -> Option<RgbImage> {
    let [image] = images else {
        let thumbnails: Vec<RgbImage> = images.iter().map(fitted).collect();
        let height = thumbnails.iter().map(RgbImage::height).max()?;
        let gaps = GAP * (thumbnails.len() as u32 - 1);
        let width = thumbnails.iter().map(RgbImage::width).sum::<u32>() + gaps;
        let mut row = RgbImage::from_pixel(width, height, GROUND);
        let mut left = 0;
        for thumbnail in &thumbnails {
            imageops::replace(&mut row, thumbnail, left, i64::from((height - thumbnail.height()) / 2));
            left += i64::from(thumbnail.width() + GAP);
        }
        return Some(thumbnail(&row, SIDE));
    };
    Some(fitted(image))
}

/// The image within [`SIDE`]: reduced, or enlarged by a whole number so that pixels stay visible.
fn fitted(image: &RgbImage) -> RgbImage {
    match SIDE / image.width().max(image.height()) {
        0 | 1 => thumbnail(image, SIDE),
        times => imageops::resize(image, image.width() * times, image.height() * times, FilterType::Nearest),
    }
}

fn cross(cell: &mut RgbImage) {
    for (x, y, pixel) in cell.enumerate_pixels_mut() {
        let (from, to) = (SIDE / 4, SIDE * 3 / 4);
        let inside = (from..to).contains(&x) && (from..to).contains(&y);
        if inside && (x.abs_diff(y) < 4 || (x + y).abs_diff(SIDE) < 4) {
            *pixel = FAULT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DatasetConfig;

    fn open(text: &str) -> Box<dyn Dataset> {
        toml::from_str::<DatasetConfig>(text).unwrap().open().unwrap()
    }

    #[test]
    fn the_seed_selects_the_samples_of_a_sheet() {
        let source = open("kind = 'shapes'\nsamples = 90\nsize = 32");
        let indices = |choice| -> Vec<usize> {
            Sheet::of(&*source, 9, choice).unwrap().tiles.iter().map(|tile| tile.index).collect()
        };
        assert_eq!(indices(Choice::First), (0..9).collect::<Vec<_>>());
        assert_eq!(indices(Choice::Drawn(5)), indices(Choice::Drawn(5)));
        assert_ne!(indices(Choice::Drawn(5)), indices(Choice::Drawn(6)));
        assert!(indices(Choice::Drawn(5)).is_sorted());
        assert_eq!(Sheet::of(&*source, 1000, Choice::Drawn(0)).unwrap().tiles.len(), 90);
        assert!(Sheet::of(&*source, 0, Choice::First).is_err());
    }

    #[test]
    fn a_sample_is_shown_with_none_or_several_images() {
        let folder = tempfile::tempdir().unwrap();
        let prompts = folder.path().join("prompts.txt");
        std::fs::write(&prompts, "a <red> fox\n").unwrap();
        let prompts = open(&format!("kind = 'prompts'\npath = {prompts:?}"));
        let sheet = Sheet::of(&*prompts, 1, Choice::First).unwrap();
        assert_eq!(sheet.picture()[(110, 110)], GROUND);
        assert!(sheet.page().contains("a &lt;red&gt; fox") && !sheet.page().contains("<img"));
        let edits = open("kind = 'shapes'\ncontent = 'edits'\nsamples = 1\nsize = 64");
        let sheet = Sheet::of(&*edits, 1, Choice::First).unwrap();
        let Ok(Shown { thumbnail: Some(thumbnail), sizes, .. }) = &sheet.tiles[0].shown else {
            panic!("an edit");
        };
        assert_eq!((thumbnail.width(), &sizes[..]), (SIDE, &[(64, 64); 2][..]));
        assert!(sheet.page().contains("64 × 64, 64 × 64") && sheet.page().contains("class=\"instruction\""));
    }

    #[test]
    fn images_are_in_their_cells_and_bad_samples_are_crosses() {
        let folder = tempfile::tempdir().unwrap();
        RgbImage::from_pixel(400, 100, Rgb([0, 0, 200])).save(folder.path().join("a.png")).unwrap();
        std::fs::write(folder.path().join("b.png"), "<b>none</b>").unwrap();
        std::fs::write(folder.path().join("a.txt"), "a \"wide\" <i>blue</i> one\nsecond").unwrap();
        let source = open(&format!("kind = 'folder'\npath = '{}'", folder.path().display()));
        let sheet = Sheet::of(&*source, 8, Choice::First).unwrap();
        let picture = sheet.picture();
        assert_eq!(picture.dimensions(), (430, 220));
        assert_eq!((picture[(110, 110)], picture[(110, 20)]), (Rgb([0, 0, 200]), GROUND));
        assert_eq!((picture[(320, 110)], picture[(0, 0)]), (FAULT, PAPER));

        let page = sheet.page();
        assert!(
            page.contains("a &quot;wide&quot; &lt;i&gt;blue&lt;/i&gt; one") && page.contains("400 × 100")
        );
        assert!(page.contains("<b>corrupt image</b>: cannot decode the image: it is not JPEG, PNG, WebP"));
        assert!(page.contains("data:image/png;base64,") && !page.contains("<i>"));
    }
}
