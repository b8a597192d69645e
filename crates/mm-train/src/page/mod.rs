//! One HTML page about a run: curves, tables and pictures, with everything in one file.

mod curve;
mod html;
mod svg;

use crate::{Evaluation, Result};
use curve::Curve;
use mm_core::checkpoint::write_atomically;
use std::path::Path;

/// Writes the page of a run with `title`, the text of its `metrics.jsonl` (empty: no curves) and its
/// evaluations to `file`.
///
/// # Errors
/// The file cannot be written.
pub fn write_page(title: &str, metrics: &str, evaluations: &[Evaluation], file: &Path) -> Result<()> {
    let page = html::page(title, &Curve::read_all(metrics), evaluations);
    write_atomically(file, |to| {
        std::fs::write(to, page).map_err(|source| mm_core::Error::io("write", file, source))
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cell, Figure, Metric, Plot, Section, SectionRow, Table};
    use mm_image::RgbImage;

    #[test]
    fn a_page_has_curves_tables_pictures_and_every_sets_own_credit() {
        let evaluation = |set: &str, credit: &str| Evaluation {
            set: set.into(),
            samples: 2,
            metrics: vec![Metric::headline("accuracy", 0.5), Metric::new("other", 0.1)],
            tables: vec![Table {
                title: "By class".into(),
                columns: vec!["class".into(), "share".into()],
                rows: vec![vec![Cell::Text("a <b>".into()), Cell::Share(0.25)]],
            }],
            sections: vec![Section {
                title: "Pictures".into(),
                text: "The right one is framed.".into(),
                rows: vec![SectionRow {
                    label: "red \"cat\"".into(),
                    note: "rank 1".into(),
                    figures: vec![Figure {
                        image: RgbImage::new(2, 2),
                        caption: "x".into(),
                        is_framed: true,
                    }],
                }],
            }],
            plots: vec![Plot {
                title: "Risk by coverage".into(),
                x: "coverage".into(),
                lines: vec![("model".into(), vec![(0.0, 0.0), (1.0, 0.25)])],
            }],
            credit: credit.into(),
            ..Evaluation::default()
        };
        let line = |step, value| {
            format!("{{\"step\":{step},\"loss\":1.5,\"one/accuracy\":{value},\"one/other\":1}}\n")
        };
        let metrics = line(1, 0.1) + &line(2, 0.5);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("page.html");
        let evaluations = [evaluation("one", "Twemoji"), evaluation("two", "drawn here")];
        write_page("a & b", &metrics, &evaluations, &file).unwrap();
        let page = std::fs::read_to_string(file).unwrap();
        for part in [
            "<h1>a &amp; b</h1>",
            "one/accuracy, last 0.500",
            "loss, last 1.500",
            "a &lt;b&gt;",
            "25.0%",
            "red &quot;cat&quot;",
            "Risk by coverage: model, last 0.250",
            "coverage 0</text>",
            "class=\"framed\" src=\"data:image/png;base64,",
            "<footer>Twemoji</footer>",
            "<footer>drawn here</footer>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("one/other, last"), "not a headline");
    }
}
