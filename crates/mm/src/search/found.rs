//! How search results are printed.

use crate::images::contact_sheet::{self, Cell, thumbnail, wrapped};
use crate::out::OutFile;
use crate::{output, table};
use anyhow::{Result, ensure};
use mm_image::RgbImage;
use mm_image::image::ImageFormat;
use mm_search::{Hit, Item, SearchIndex};
use serde::Serialize;
use std::path::Path;

/// A result with its item.
#[derive(Serialize)]
pub struct Found {
    score: f32,
    #[serde(flatten)]
    item: Item,
}

impl Found {
    /// The item of `hit`.
    pub fn new(index: &dyn SearchIndex, hit: Hit) -> Result<Self> {
        Ok(Self { score: hit.score, item: index.item(hit.id)? })
    }

    /// The caption, else the label, else nothing.
    fn caption(&self) -> &str {
        let text = |name: &str| self.item.metadata.get(name).and_then(|value| value.as_str());
        text("caption").or(text("label")).unwrap_or_default()
    }
}

/// Prints the results as a table or as JSON lines, and draws their thumbnails in the file `out`.
pub fn print(index: &dyn SearchIndex, found: &[Found], out: Option<&Path>, json: bool) -> Result<()> {
    if let Some(out) = out {
        let out = OutFile::open(out, &["png"])?;
        out.write_image(&sheet(index, found)?, ImageFormat::Png)?;
    }
    if json {
        return found.iter().try_for_each(|found| output::print_line(serde_json::to_string(found)?));
    }
    let row = |found: &Found| {
        let score = format!("{:.3}", found.score);
        vec![found.item.key.clone(), table::shortened(found.caption()), found.item.id.to_string(), score]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    output::print_line(table::render_left(2, &["image", "caption", "id", "score"], &rows))
}

/// Columns of a contact sheet.
const COLUMNS: usize = 5;

/// The thumbnails with score and caption.
fn sheet(index: &dyn SearchIndex, found: &[Found]) -> Result<RgbImage> {
    let mut cells = Vec::new();
    for found in found {
        if let Some(jpeg) = index.thumbnail(found.item.id)? {
            let picture = thumbnail(&mm_image::decode(&jpeg, [255; 3])?);
            let mut lines = vec![format!("{:.3}", found.score)];
            lines.extend(wrapped(found.caption(), picture.width(), 2));
            cells.push(Cell { picture, lines });
        }
    }
    ensure!(!cells.is_empty(), "no result has a thumbnail: index with --thumbnail 224");
    Ok(contact_sheet::draw(&cells, COLUMNS))
}
