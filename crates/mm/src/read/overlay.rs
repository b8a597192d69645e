//! A page with the places of its fields.

use super::pages::PageList;
use anyhow::{Context, Result};
use mm_image::image::ImageFormat;
use mm_image::{GLYPH_SIDE, RgbImage, draw_rectangle, draw_text};
use mm_vqa::document::{FieldReading, PageReading};
use std::fs;
use std::path::Path;

/// A confidence from which on a field is drawn as certain, and the colors of certain and other fields.
const CERTAIN: f64 = 0.9;
const CERTAIN_COLOR: [u8; 3] = [0, 130, 60];
const OTHER_COLOR: [u8; 3] = [200, 60, 0];

/// The lines of a page that a letter of its labels takes: small pages get small letters.
const LINES: u32 = 100;

/// Draws `page`, which is one of `pages`, into `folder`.
pub fn write(folder: &Path, pages: &PageList, page: &PageReading) -> Result<()> {
    let mut image = pages.decode(page.index)?;
    let scale = (image.height() / LINES / GLYPH_SIDE).max(1);
    for field in &page.reading.fields {
        draw(&mut image, field, scale);
    }
    let name =
        Path::new(&page.key).file_name().unwrap_or_default().to_string_lossy().replace(['#', '.'], "-");
    // Pages of two folders may have one name.
    let path = folder.join(format!("{:04}-{name}.png", page.index));
    let saved = fs::create_dir_all(folder)
        .map_err(Into::into)
        .and_then(|()| image.save_with_format(&path, ImageFormat::Png).map_err(anyhow::Error::from));
    saved.with_context(|| format!("cannot write {}", path.display()))
}

/// Draws the box of a field, and its path above.
fn draw(image: &mut RgbImage, field: &FieldReading, scale: u32) {
    let Some(place) = field.place else { return };
    let color = if field.confidence >= CERTAIN { CERTAIN_COLOR } else { OTHER_COLOR };
    draw_rectangle(image, place, scale, color);
    let at = [place[0], place[1]].map(|side| side.max(0.0) as u32);
    draw_text(image, &field.path, (at[0], at[1].saturating_sub((GLYPH_SIDE + 1) * scale)), scale, color);
}
