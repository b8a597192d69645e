//! The result of an evaluation: numbers, tables and pictures of one set.

use mm_image::RgbImage;
use mm_image::image::{Rgb, imageops};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// What a model reaches on one evaluation set. `metrics.jsonl`, TensorBoard, the printed tables, `--json` and
/// the HTML page are all made from this value. It serializes without its sections.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// The set's name in the config.
    pub set: String,
    /// Samples measured.
    pub samples: usize,
    /// Samples that could not be read.
    pub bad_samples: usize,
    /// The numbers.
    #[serde(serialize_with = "as_map")]
    pub metrics: Vec<Metric>,
    /// The numbers by row and column.
    pub tables: Vec<Table>,
    /// Curves over something other than steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub plots: Vec<Plot>,
    /// Pictures with their texts, where the caller asked for them.
    #[serde(skip)]
    pub sections: Vec<Section>,
    /// The author and license of the images; empty if none is known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub credit: String,
}

/// A number that an evaluation gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name, unique in the evaluation: `text_to_image_r@1`.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Whether it sums the evaluation up: headline metrics stand in the line that training prints, and have a
    /// curve on the page.
    pub is_headline: bool,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Table {
    /// The subject, with the numbers that hold for the table as a whole.
    pub title: String,
    /// The heads of the columns, the first being that of the rows' names.
    pub columns: Vec<String>,
    /// The cells, row by row.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell of a [`Table`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Cell {
    /// A name.
    Text(String),
    /// A count.
    Count(u64),
    /// A number, shown with up to three decimals.
    Number(f64),
    /// A share from 0 to 1, shown as a percentage.
    Share(f64),
    /// Nothing to divide by.
    Missing,
}

/// Lines over an axis: a risk-coverage curve.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Plot {
    /// The subject.
    pub title: String,
    /// The name of the horizontal axis.
    pub x: String,
    /// The lines, by name, each as points (x, y) with x ascending.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

/// Pictures on one subject.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    /// The subject: "Text to image".
    pub title: String,
    /// How to read it.
    pub text: String,
    /// Its rows.
    pub rows: Vec<SectionRow>,
}

/// A row of a [`Section`]: a text with pictures.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SectionRow {
    /// The text.
    pub label: String,
    /// A remark in small print.
    pub note: String,
    /// The pictures, from left to right.
    pub figures: Vec<Figure>,
}

/// A picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// The pixels, as large as they are shown.
    pub image: RgbImage,
    /// The picture in words.
    pub caption: String,
    /// Whether it is framed, e.g. because it is the right one.
    pub is_framed: bool,
}

impl Metric {
    /// A metric that is not a headline.
    pub fn new(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, is_headline: false }
    }

    /// A headline metric.
    pub fn headline(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, is_headline: true }
    }
}

impl Evaluation {
    /// The metrics as logs have them, `SET/METRIC`.
    pub fn named_metrics(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        self.metrics.iter().map(|metric| (format!("{}/{}", self.set, metric.name), metric.value))
    }

    /// The value of a metric.
    pub fn metric(&self, name: &str) -> Option<f64> {
        self.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }
}

impl Cell {
    /// The cell as text.
    pub fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Count(count) => count.to_string(),
            Self::Number(number) => {
                let text = format!("{number:.3}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Self::Share(share) => format!("{:.1}%", 100.0 * share),
            Self::Missing => "-".to_owned(),
        }
    }

    /// The share `part / of`, or nothing where `of` is zero.
    pub fn share(part: usize, of: usize) -> Self {
        if of == 0 { Self::Missing } else { Self::Share(part as f64 / of as f64) }
    }
}

impl Section {
    /// All pictures in one, a row below the other, for viewers that show single images. None without
    /// pictures.
    pub fn contact_sheet(&self) -> Option<RgbImage> {
        const GAP: u32 = 4;
        let figures = || self.rows.iter().flat_map(|row| &row.figures).map(|figure| &figure.image);
        let width = figures().map(|image| image.width()).max()? + GAP;
        let height = figures().map(|image| image.height()).max()? + GAP;
        let columns = self.rows.iter().map(|row| row.figures.len()).max()? as u32;
        let white = Rgb([255; 3]);
        let mut sheet = RgbImage::from_pixel(columns * width, self.rows.len() as u32 * height, white);
        for (y, row) in self.rows.iter().enumerate() {
            for (x, figure) in row.figures.iter().enumerate() {
                let (left, top) = (x as i64 * i64::from(width), y as i64 * i64::from(height));
                imageops::overlay(&mut sheet, &figure.image, left, top);
            }
        }
        Some(sheet)
    }
}

fn as_map<S: Serializer>(metrics: &[Metric], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(metrics.len()))?;
    for metric in metrics {
        map.serialize_entry(&metric.name, &metric.value)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_shown_with_the_digits_that_matter() {
        let cells = [Cell::Number(2.0), Cell::Number(0.12345), Cell::Share(0.8401), Cell::share(1, 0)];
        assert_eq!(cells.map(|cell| cell.text()), ["2", "0.123", "84.0%", "-"]);
        assert_eq!(Cell::Number(100.0).text(), "100");
    }

    #[test]
    fn an_evaluation_is_written_with_its_metrics_by_name_and_without_pictures() {
        let table =
            Table { title: "t".into(), columns: vec!["a".into()], rows: vec![vec![Cell::Share(0.5)]] };
        let evaluation = Evaluation {
            set: "held_out".into(),
            samples: 3,
            metrics: vec![Metric::headline("accuracy", 0.5), Metric::new("loss", 2.0)],
            tables: vec![table],
            sections: vec![Section::default()],
            ..Evaluation::default()
        };
        assert_eq!(
            serde_json::to_value(&evaluation).unwrap(),
            serde_json::json!({
                "set": "held_out", "samples": 3, "bad_samples": 0,
                "metrics": { "accuracy": 0.5, "loss": 2.0 },
                "tables": [{ "title": "t", "columns": ["a"], "rows": [[0.5]] }],
            })
        );
        let named: Vec<_> = evaluation.named_metrics().collect();
        assert_eq!(named[0], ("held_out/accuracy".to_owned(), 0.5));
        assert_eq!(evaluation.metric("loss"), Some(2.0));
    }

    #[test]
    fn a_contact_sheet_holds_all_pictures_of_a_section() {
        let figure = |shade: u8| Figure {
            image: RgbImage::from_pixel(10, 8, Rgb([shade; 3])),
            caption: String::new(),
            is_framed: false,
        };
        let row = |figures| SectionRow { figures, ..SectionRow::default() };
        let rows = vec![row(vec![figure(1), figure(2)]), row(vec![figure(3)])];
        let sheet = Section { rows, ..Section::default() }.contact_sheet().unwrap();
        assert_eq!(sheet.dimensions(), (28, 24));
        assert_eq!((sheet[(0, 0)][0], sheet[(14, 0)][0], sheet[(0, 12)][0]), (1, 2, 3));
        assert_eq!(Section::default().contact_sheet(), None);
    }
}
