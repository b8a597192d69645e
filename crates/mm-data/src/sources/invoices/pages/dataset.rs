//! Invoices as a data set: pages from (split, seed, index), drawn on demand.

use std::sync::Arc;

use mm_image::RgbImage;
use rand::SeedableRng;

use super::content::Invoice;
use super::draw::{below, pick};
use super::font::Family;
use super::layout::Layout;
use super::page::{PAGE, Page};
use super::piece::Piece;
use super::render::Canvas;
use super::scan::{Motion, Scan};
use super::style::Style;
use super::target;
use super::{held_out, layouts};
use crate::sample::Draw;
use crate::sources::invoices::{InvoicesConfig, InvoicesSplit};
use crate::{Dataset, Document, Result, Sample, SampleImage, SampleRng};

/// The purpose of random numbers: a change of one does not change the others.
#[derive(Clone, Copy)]
enum Purpose {
    Content,
    Look,
    Scan,
    Blank,
}

/// The invoices as a [`Dataset`].
pub(crate) struct InvoicesDataset {
    name: String,
    config: InvoicesConfig,
    layouts: Vec<&'static Layout>,
    families: Vec<Family>,
}

/// A page to draw.
#[derive(Debug)]
struct Drawing {
    content: Piece,
    scan: Option<Scan>,
    size: [u32; 2],
    scale: f32,
}

impl Draw for Drawing {
    fn draw(&self) -> RgbImage {
        let [width, height] = self.size;
        let mut canvas = Canvas::new(width as usize, height as usize);
        canvas.draw(&self.content, self.scale);
        if let Some(scan) = &self.scan {
            canvas = scan.apply(&canvas);
        }
        let mut image = RgbImage::new(width, height);
        for (pixel, grey) in image.pixels_mut().zip(canvas.pixels) {
            pixel.0 = [grey; 3];
        }
        image
    }

    fn dimensions(&self) -> (u32, u32) {
        (self.size[0], self.size[1])
    }
}

impl InvoicesDataset {
    pub(crate) fn new(config: &InvoicesConfig) -> Result<Self> {
        config.check()?;
        let (seen, held_out) = (layouts::SEEN.iter(), held_out::HELD_OUT.iter());
        let (layouts, families) = match config.split {
            InvoicesSplit::Train | InvoicesSplit::Seen => (seen.collect(), Family::SEEN.to_vec()),
            InvoicesSplit::HeldOut => (held_out.collect(), Family::HELD_OUT.to_vec()),
            InvoicesSplit::All => (seen.chain(held_out).collect(), [Family::SEEN, Family::HELD_OUT].concat()),
        };
        let name = format!("invoices ({})", config.split.word());
        Ok(Self { name, config: config.clone(), layouts, families })
    }

    fn rng(&self, index: usize, purpose: Purpose) -> SampleRng {
        let mut key = [0; 32];
        let numbers = [self.config.seed, self.config.split as u64, index as u64, purpose as u64];
        for (part, number) in key.chunks_exact_mut(8).zip(numbers) {
            part.copy_from_slice(&number.to_le_bytes());
        }
        SampleRng::from_seed(key)
    }

    fn is_blank(&self, index: usize) -> bool {
        const PARTS: u32 = 1_000_000;
        below(&mut self.rng(index, Purpose::Blank), PARTS) < (self.config.blank * f64::from(PARTS)) as u32
    }

    /// The number of pixels of a unit of the page.
    fn scale(&self) -> f32 {
        let [width, height] = self.config.size;
        (width as f32 / PAGE[0]).min(height as f32 / PAGE[1])
    }

    /// The page of an index.
    pub(super) fn page(&self, index: usize) -> Page {
        let look = &mut self.rng(index, Purpose::Look);
        let layout = *pick(look, &self.layouts);
        let invoice = Invoice::random(&mut self.rng(index, Purpose::Content));
        let style = Style::random(&self.families, invoice.region.language, invoice.region.tax, look);
        let size = self.config.size.map(|side| side as f32 / self.scale());
        Page::new(layout, invoice, style, size, look)
    }
}

impl Dataset for InvoicesDataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.config.samples
    }

    fn sample(&self, index: usize) -> Result<Sample> {
        let (scale, size) = (self.scale(), self.config.size);
        let page = self.page(index);
        let scan = self.config.scan.then(|| {
            let rng = &mut self.rng(index, Purpose::Scan);
            Scan::random(&page.style, size.map(|side| side as f32), scale, rng)
        });
        let (label, caption, document, content) = if self.is_blank(index) {
            let document = Document { schema: "invoice".to_owned(), ..Document::default() };
            ("blank", "a blank page".to_owned(), document, Piece::default())
        } else {
            let motion = scan.as_ref().map_or(Motion::NONE, |scan| scan.motion);
            let document = target::document(&page, &self.config.fields, scale, &motion);
            (page.layout, caption(&page.invoice), document, page.content)
        };
        let drawing = Drawing { content, scan, size, scale };
        Ok(Sample {
            captions: vec![caption],
            label: Some(label.to_owned()),
            document: Some(Arc::new(document)),
            ..Sample::new(self.key(index), SampleImage::Drawn(Arc::new(drawing)))
        })
    }

    fn key(&self, index: usize) -> String {
        format!("{}-{index:07}", self.config.split.word())
    }
}

fn caption(invoice: &Invoice) -> String {
    let total = invoice.money.value(invoice.sums().total);
    format!("an invoice of {} over {total} {}", invoice.seller, invoice.money.currency.code)
}
