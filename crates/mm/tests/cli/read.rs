//! Documents of pages by `mm read`.

use crate::common::{command, success};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A path below `data/goldens`.
fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn photo(name: &str) -> String {
    golden(&format!("images/photos/{name}.png"))
}

/// The error of `mm` with `arguments`.
fn failure(arguments: &[&str]) -> String {
    crate::common::failure(arguments, 1)
}

/// The JSON lines of `mm read --json` with `arguments`.
fn read(arguments: &[&str]) -> Vec<Value> {
    let model = golden("donut/equal");
    let printed = success(&[&["read", "--json", "--model", &model, "--schema", "cord"], arguments].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A PDF of `pages` pages, with a line on each.
fn write_pdf(file: &Path, pages: usize) {
    let kids: Vec<String> = (0..pages).map(|page| format!("{} 0 R", 3 + 2 * page)).collect();
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        format!("<< /Type /Pages /Count {pages} /Kids [{}] >>", kids.join(" ")),
    ];
    for page in 0..pages {
        let content = format!("1 0 0 rg 10 {} 50 20 re f", 20 + 30 * page);
        let number = 4 + 2 * page;
        objects
            .push(format!("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 72 108] /Contents {number} 0 R >>"));
        objects.push(format!("<< /Length {} >>\nstream\n{content}\nendstream", content.len()));
    }
    let (mut pdf, mut places) = ("%PDF-1.4\n".to_owned(), Vec::new());
    for (number, object) in (1..).zip(&objects) {
        places.push(pdf.len());
        pdf += &format!("{number} 0 obj\n{object}\nendobj\n");
    }
    let (start, count) = (pdf.len(), objects.len() + 1);
    pdf += &format!("xref\n0 {count}\n0000000000 65535 f \n");
    places.iter().for_each(|place| pdf += &format!("{place:010} 00000 n \n"));
    pdf += &format!("trailer\n<< /Size {count} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n");
    fs::write(file, pdf).unwrap();
}

#[test]
fn json_has_the_document_and_its_fields_alone_and_in_batches() {
    let (chelsea, coffee) = (photo("chelsea"), photo("coffee"));
    let folder = tempfile::tempdir().unwrap();
    let jsonl = folder.path().join("read.jsonl");
    let pages = read(&[&chelsea, &coffee, "--jsonl", jsonl.to_str().unwrap()]);
    let keys: Vec<&str> = pages.iter().map(|page| page["page"].as_str().unwrap()).collect();
    assert_eq!(keys, [&chelsea, &coffee]);
    let written = fs::read_to_string(&jsonl).unwrap();
    let written: Vec<Value> = written.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(written, pages);
    for page in &pages {
        assert!(page["json"].is_object() && page["finished"].is_boolean() && page["left_out"] == 0);
        for field in page["fields"].as_array().unwrap() {
            let confidence = field["confidence"].as_f64().unwrap();
            assert!((0.0..=1.0).contains(&confidence) && field["text"].is_string(), "{field}");
            assert!(field["place"].is_null() || field["place"].as_array().unwrap().len() == 4);
        }
    }
    let alone = read(&[&coffee, "--batch", "1"]);
    assert_eq!(alone[0]["json"], pages[1]["json"]);
}

#[test]
fn a_table_says_what_was_found_and_where() {
    let (chelsea, model) = (photo("chelsea"), golden("donut/projected"));
    let folder = tempfile::tempdir().unwrap();
    let overlay = folder.path().join("seen");
    let arguments = ["read", "--model", &model, "--prompt", "<s_cord>", &chelsea];
    let printed = success(&[&arguments[..], &["--overlay", overlay.to_str().unwrap()]].concat());
    for word in ["page", "field", "text", "confidence", "place", "chelsea.png"] {
        assert!(printed.contains(word), "{printed}");
    }
    let drawn = mm_image::decode(&fs::read(overlay.join("0000-chelsea-png.png")).unwrap(), [255; 3]).unwrap();
    let page = mm_image::decode(&fs::read(&chelsea).unwrap(), [255; 3]).unwrap();
    assert_eq!(drawn.dimensions(), page.dimensions());
    // No text of random weights is certain.
    let printed = success(&[&arguments[..], &["--min-confidence", "1"]].concat());
    assert!(printed.contains("nothing found"), "{printed}");
}

#[test]
fn pages_of_a_pdf_are_drawn_where_pdftoppm_is_installed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    write_pdf(Path::new(&path("two.PDF")), 2);
    fs::write(path("broken.pdf"), "no PDF").unwrap();
    let model = golden("donut/equal");
    let arguments = |pdf: &str| ["read", "--model", &model, "--schema", "cord", pdf].map(str::to_owned);
    let two = arguments(&path("two.PDF"));
    let two: Vec<&str> = two.iter().map(String::as_str).collect();
    let without = command(&two).env("PATH", "").output().unwrap();
    let said = String::from_utf8(without.stderr).unwrap();
    assert_eq!(without.status.code(), Some(1), "{said}");
    assert!(said.contains("pdftoppm, which is not installed") && said.contains("poppler-utils"), "{said}");
    let missing = failure(&["read", "--model", &model, &path("none.pdf")]);
    assert!(missing.contains("none.pdf: there is no such file"), "{missing}");

    if std::process::Command::new("pdftoppm").arg("-v").output().is_err() {
        return; // what follows needs it
    }
    let pages = read(&[&path("two.PDF"), "--pdf-dpi", "72"]);
    let keys: Vec<&str> = pages.iter().map(|page| page["page"].as_str().unwrap()).collect();
    assert_eq!(keys, [format!("{}#1", path("two.PDF")), format!("{}#2", path("two.PDF"))]);
    let places = pages.iter().flat_map(|page| page["fields"].as_array().unwrap());
    for place in places.filter_map(|field| field["place"].as_array()) {
        assert!(place[2].as_f64().unwrap() <= 72.0 && place[3].as_f64().unwrap() <= 108.0);
    }
    let broken = failure(&["read", "--model", &model, &path("broken.pdf")]);
    assert!(broken.contains("broken.pdf: pdftoppm: "), "{broken}");
}

#[test]
fn what_cannot_be_read_is_one_clear_error() {
    let (chelsea, model) = (photo("chelsea"), golden("donut/equal"));
    let refused = |arguments: &[&str]| failure(&[&["read", "--model", &model], arguments].concat());
    let error = refused(&["--schema", "invoice", &chelsea]);
    assert!(
        error.contains("the model was not trained for <s_invoice>: its tokenizer has <s_cord>"),
        "{error}"
    );
    let error = refused(&[&chelsea]);
    assert!(error.contains("the model's folder names no prompt"), "{error}");
    let error = refused(&["--schema", "cord", "--min-confidence", "2", &chelsea]);
    assert!(error.contains("--min-confidence 2"), "{error}");
    let error = refused(&["--schema", "cord", "--fast-decode", &chelsea]);
    assert!(error.contains("--fast-decode is not for documents"), "{error}");
    let error = refused(&["--schema", "cord", "--jsonl", "read.txt", &chelsea]);
    assert!(error.contains("name a file in .jsonl"), "{error}");
    let error = failure(&["read", "--model", &golden("caption/blip"), &chelsea]);
    assert!(error.contains("models that read documents have"), "{error}");

    let folder = tempfile::tempdir().unwrap();
    let half = folder.path().join("half.png");
    fs::write(&half, &fs::read(&chelsea).unwrap()[..1000]).unwrap();
    let half = half.to_str().unwrap();
    let error = refused(&["--schema", "cord", half]);
    assert!(error.contains("not one of 1 pages can be read"), "{error}");
    let error = refused(&["--schema", "cord", half, &chelsea]);
    assert!(
        error.contains("1 of 2 images cannot be read") && error.contains("the others are read"),
        "{error}"
    );
    assert_eq!(read(&[half, &chelsea, "--max-bad-samples", "1"]).len(), 1);
}
