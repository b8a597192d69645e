//! Tokenizer folders whose files are damaged or lie: whatever is in them, opening gives a tokenizer or an
//! error of one line that names the file.

#[path = "../../mm-core/tests/common/json.rs"]
mod json;

use json::{Slip, slip};
use mm_text::{Padding, Tokenizer};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that may be damaged, and what belongs into them.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// A copy of the golden folder `name`.
fn copy(name: &str) -> (tempfile::TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/text").join(name);
    let mut files = Vec::new();
    for from in fs::read_dir(golden).unwrap().map(|entry| entry.unwrap().path()) {
        let file = folder.path().join(from.file_name().unwrap());
        if !file.ends_with("ids.json") {
            fs::copy(&from, &file).unwrap();
            files.push((file, fs::read(from).unwrap()));
        }
    }
    files.sort();
    (folder, files)
}

/// Opens the tokenizer in `folder` and, if it can be, reads texts with it.
fn use_up(folder: &Path) -> mm_text::Result<()> {
    let tokenizer = Tokenizer::from_dir(folder)?;
    let texts = ["A cat, 2 dogs.", "", "Straße \u{fb01}n \u{1f408}"];
    match tokenizer.encode_batch(&texts, Padding::Longest) {
        Ok(batch) => assert_eq!(batch.input_ids.size()[0], 3),
        Err(error) => assert!(error.to_string().starts_with("tokenizer: "), "{error}"),
    }
    Ok(())
}

#[test]
fn three_thousand_mutated_tokenizers_are_opened_or_refused_by_name() {
    let names = ["bert_tokenizer", "bert_vocab_txt", "clip_tokenizer", "siglip2_tokenizer", "siglip_spiece"];
    let folders = names.map(copy);
    folders.iter().for_each(|(folder, _)| use_up(folder.path()).unwrap());
    let (opened, refused) = (Cell::new(0), Cell::new(0));
    // Large files are read slowly.
    let which = prop_oneof![6 => Just(0), 4 => Just(1), 1 => Just(2), 6 => Just(3), 1 => Just(4usize)];
    let cases = (which, 0..8usize, vec(slip(), 1..3));
    let config = ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() };
    let run = TestRunner::new(config).run(&cases, |(folder, file, slips)| {
        let (folder, files) = &folders[folder];
        let (file, content) = &files[file % files.len()];
        let mut damaged = content.clone();
        slips.iter().for_each(|slip: &Slip| slip.make(&mut damaged));
        fs::write(file, damaged).unwrap();
        let result = use_up(folder.path());
        fs::write(file, content).unwrap();
        match result {
            Ok(()) => opened.set(opened.get() + 1),
            Err(error) => {
                let message = error.to_string();
                let path = folder.path().to_str().unwrap();
                assert!(message.contains(path) && !message.contains(char::is_control), "{message}");
                refused.set(refused.get() + 1);
            }
        }
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{} opened, {} refused", opened.get(), refused.get());
    assert!(opened.get() > 300 && refused.get() > 300, "every outcome is met");
}
