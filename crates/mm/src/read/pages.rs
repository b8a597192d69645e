//! The pages that a command reads: images, folders of images, and PDFs.

use super::pdf::{DrawnPages, is_pdf};
use anyhow::{Context, Result};
use mm_data::{Dataset, ImageList, Sample};
use mm_image::RgbImage;
use std::path::PathBuf;

/// The color behind transparent pages.
const BACKGROUND: [u8; 3] = [255; 3];

/// Pages in the order of their arguments.
#[derive(Debug)]
pub struct PageList {
    name: String,
    sources: Vec<Source>,
    /// The source of each page, and its number there.
    pages: Vec<(usize, usize)>,
}

/// The pages of one argument.
#[derive(Debug)]
enum Source {
    Images(ImageList),
    /// A PDF, whose pages are images in a folder that is removed with them.
    Pdf {
        images: ImageList,
        name: String,
        _drawn: DrawnPages,
    },
}

impl Source {
    fn images(&self) -> &ImageList {
        match self {
            Self::Images(images) | Self::Pdf { images, .. } => images,
        }
    }
}

impl PageList {
    /// Lists the pages of `paths` and draws those of PDFs at `dpi`; images are read later.
    ///
    /// # Errors
    /// A folder cannot be read or has no image, a PDF cannot be read, or pdftoppm is not installed.
    pub fn open(paths: &[PathBuf], dpi: u32) -> Result<Self> {
        let source = |path: &PathBuf| {
            if !is_pdf(path) {
                return Ok(Source::Images(ImageList::open(std::slice::from_ref(path))?));
            }
            let drawn = DrawnPages::of(path, dpi)?;
            let images = ImageList::open(drawn.files())?;
            Ok(Source::Pdf { images, name: path.display().to_string(), _drawn: drawn })
        };
        let sources: Vec<Source> = paths.iter().map(source).collect::<Result<_>>()?;
        let numbers = |(source, of): (usize, &Source)| {
            (0..of.images().len()).map(move |page| (source, page)).collect::<Vec<_>>()
        };
        let pages = sources.iter().enumerate().flat_map(numbers).collect();
        let name = match paths {
            [path] => path.display().to_string(),
            paths => format!("{} pages and folders", paths.len()),
        };
        Ok(Self { name, sources, pages })
    }

    /// The page `index`, decoded.
    pub fn decode(&self, index: usize) -> Result<RgbImage> {
        let decode = || self.sample(index)?.image()?.decode(BACKGROUND);
        decode().with_context(|| format!("cannot read the page {}", self.key(index)))
    }
}

impl Dataset for PageList {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.pages.len()
    }

    fn key(&self, index: usize) -> String {
        let (source, page) = self.pages[index];
        match &self.sources[source] {
            Source::Images(images) => images.key(page),
            Source::Pdf { name, .. } => format!("{name}#{}", page + 1),
        }
    }

    fn sample(&self, index: usize) -> mm_data::Result<Sample> {
        let (source, page) = self.pages[index];
        Ok(Sample { key: self.key(index), ..self.sources[source].images().sample(page)? })
    }
}
