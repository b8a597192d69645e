//! The pictures of an evaluation: pages with what was read, and where.

use super::FieldReading;
use super::evaluate::EvalReading;
use crate::Result;
use mm_image::image::imageops::{self, FilterType};
use mm_image::{RgbImage, draw_rectangle};
use mm_train::{EvalSet, Figure, Section, SectionRow};
use serde_json::Value;

/// Pages that are shown.
const SHOWN: usize = 8;

/// The longer side of a page on the screen, in pixels: small print stays readable.
const SIDE: u32 = 640;

/// The colors of the fields' outlines, in turn.
const COLORS: [[u8; 3]; 8] = [
    [214, 39, 40],
    [31, 119, 180],
    [44, 160, 44],
    [255, 127, 14],
    [148, 103, 189],
    [140, 86, 75],
    [23, 190, 207],
    [227, 119, 194],
];

/// Pages spread evenly over the set, with the fields that were read outlined.
///
/// # Errors
/// A page cannot be read again.
pub(crate) fn draw(set: &EvalSet, readings: &[EvalReading]) -> Result<Vec<Section>> {
    let shown = SHOWN.min(readings.len());
    let row = |place: usize| -> Result<SectionRow> {
        let reading = &readings[(2 * place + 1) * readings.len() / (2 * shown)];
        let page = set.sample(reading.index)?.image()?.decode(set.background)?;
        let wrong = reading.wrong_fields();
        let note = match (reading.reading.fields.is_empty(), wrong.is_empty()) {
            (true, true) => "nothing found, and nothing is there".to_owned(),
            (_, true) => "all fields are right".to_owned(),
            _ => format!("wrong: {}", wrong.join("; ")),
        };
        let figure = Figure {
            image: outlined(&page, reading),
            caption: reading.key.clone(),
            is_framed: wrong.is_empty(),
        };
        Ok(SectionRow { label: text(reading), note, figures: vec![figure] })
    };
    Ok(vec![Section {
        title: format!("Pages of {}", set.name),
        text:
            "Pages spread evenly over the set, with what was read, the probability of each value, and where \
               the decoder looked for it. Frames are around pages whose fields are all right."
                .to_owned(),
        rows: (0..shown).map(row).collect::<Result<_>>()?,
    }])
}

/// The fields that were read, each with its confidence.
fn text(reading: &EvalReading) -> String {
    let fields = reading.reading.fields.iter();
    let field =
        |field: &FieldReading| format!("{}: {} ({:.0} %)", field.path, field.text, 100.0 * field.confidence);
    fields.map(field).collect::<Vec<_>>().join(", ")
}

/// The page, enlarged, with an outline around the place of each field.
fn outlined(page: &RgbImage, reading: &EvalReading) -> RgbImage {
    let scale = f64::from(SIDE) / f64::from(page.width().max(page.height()));
    let side = |side: u32| (f64::from(side) * scale).round().max(1.0) as u32;
    let mut image = imageops::resize(page, side(page.width()), side(page.height()), FilterType::CatmullRom);
    for (field, color) in reading.reading.fields.iter().zip(COLORS.iter().cycle()) {
        if let Some(place) = field.place {
            draw_rectangle(&mut image, place.map(|bound| bound * scale), 2, *color);
        }
    }
    image
}

impl EvalReading {
    /// Each value that differs from what is on the page, with both.
    fn wrong_fields(&self) -> Vec<String> {
        let (mut found, mut right) = (Vec::new(), Vec::new());
        leaves(&self.reading.json.to_json(), String::new(), &mut found);
        leaves(&self.right, String::new(), &mut right);
        let value = |of: &[(String, String)], path: &str| {
            of.iter().find(|(name, _)| name == path).map_or("nothing".to_owned(), |(_, value)| value.clone())
        };
        let mut paths: Vec<&String> = right.iter().chain(&found).map(|(path, _)| path).collect();
        paths.sort();
        paths.dedup();
        let differ = |path: &&String| value(&found, path) != value(&right, path);
        let show = |path: &String| format!("{path} is {}, not {}", value(&right, path), value(&found, path));
        paths.into_iter().filter(differ).map(show).collect()
    }
}

/// The paths and texts of the values in `json`.
fn leaves(json: &Value, path: String, out: &mut Vec<(String, String)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match json {
        Value::Object(members) => {
            members.iter().for_each(|(key, value)| leaves(value, below(key), out));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, value)| leaves(value, below(&index.to_string()), out));
        }
        Value::String(text) => out.push((path, text.clone())),
        other => out.push((path, other.to_string())),
    }
}
