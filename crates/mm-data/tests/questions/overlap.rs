//! The overlap of two data sets.

use std::path::Path;

use mm_data::{DatasetConfig, Fault, Overlap, Shared};
use mm_image::RgbImage;

/// A file of VQA-RAD: each question as its text, its image and its case.
fn write(folder: &Path, questions: &[(&str, &str, u32)]) -> DatasetConfig {
    let row = |(qid, (text, image, case)): (usize, &(&str, &str, u32))| {
        format!(
            r#"{{"qid": {qid}, "phrase_type": "freeform", "image_case_url": "case {case}",
"image_name": "{image}", "question": "{text}", "answer": "yes"}}"#
        )
    };
    let rows: Vec<_> = questions.iter().enumerate().map(row).collect();
    let path = folder.join("rad.json");
    std::fs::write(&path, format!("[{}]", rows.join(", "))).unwrap();
    toml::from_str(&format!("kind = 'vqa_rad'\npath = {path:?}\nimages_root = {folder:?}")).unwrap()
}

/// Blocks of different brightness.
fn picture(number: u32) -> RgbImage {
    RgbImage::from_fn(48, 48, |x, y| {
        let level = (x / 8 + 1) * (y / 8 + 3) * (4 * number + 7) % 11 * 23;
        [level as u8; 3].into()
    })
}

fn counts(shared: &Shared) -> [u64; 4] {
    [shared.distinct, shared.shared, shared.total, shared.total_shared]
}

#[test]
fn shared_images_questions_and_groups_are_counted() {
    let (test, train) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    picture(0).save(test.path().join("a.png")).unwrap();
    picture(1).save(test.path().join("b.png")).unwrap();
    picture(2).save(test.path().join("c.png")).unwrap();
    picture(0).save(train.path().join("d.png")).unwrap();
    picture(1).save(train.path().join("e.bmp")).unwrap();
    let tests = [
        ("Is it  a lung?", "a.png", 1),
        ("Where?", "a.png", 1),
        ("Which organ?", "b.png", 2),
        ("Where?", "c.png", 3),
        ("What?", "missing.png", 3),
    ];
    let trains = [("is it a lung?", "d.png", 7), ("Where?", "e.bmp", 3), ("Where?", "e.bmp", 3)];
    let (data, with) = (write(test.path(), &tests), write(train.path(), &trains));
    let (data, with) = (data.open().unwrap(), with.open().unwrap());
    let overlap = Overlap::of(&*data, &*with, 1, &|_| {}).unwrap();
    assert_eq!((overlap.data.samples, overlap.with.samples), (5, 3));
    assert_eq!(overlap.data.bad, [(Fault::File, 1)].into());
    assert_eq!(counts(&overlap.files), [3, 1, 4, 2]);
    assert_eq!(counts(&overlap.pixels), [3, 2, 4, 3]);
    assert_eq!(counts(&overlap.lookalikes), [3, 2, 4, 3]);
    assert_eq!(counts(&overlap.questions), [4, 2, 5, 3]);
    assert_eq!(counts(&overlap.image_questions), [4, 1, 4, 1]);
    assert_eq!(counts(&overlap.groups), [3, 1, 5, 2]);
    let examples: Vec<_> = overlap
        .questions
        .examples
        .iter()
        .map(|it| (it.data.as_str(), it.with.as_str(), it.text.as_str()))
        .collect();
    assert_eq!(examples, [("0", "0", "Is it  a lung?"), ("1", "1", "Where?")]);
    assert_eq!(overlap.groups.examples[0].text, "case 3");
    assert_eq!(overlap, Overlap::of(&*data, &*with, 4, &|_| {}).unwrap());
    let json = serde_json::to_string(&overlap).unwrap();
    assert_eq!(serde_json::from_str::<Overlap>(&json).unwrap(), overlap);
}

#[test]
fn a_data_set_shares_all_with_itself_and_progress_ends_at_the_sum() {
    let shapes: DatasetConfig =
        toml::from_str("kind = 'shapes'\nsamples = 40\nsize = 32\ncontent = 'questions'").unwrap();
    let source = shapes.open().unwrap();
    let last = std::sync::atomic::AtomicUsize::new(0);
    let progress = |done| {
        last.fetch_max(done, std::sync::atomic::Ordering::Relaxed);
    };
    let overlap = Overlap::of(&*source, &*source, 2, &progress).unwrap();
    assert_eq!(last.into_inner(), 80);
    for shared in [&overlap.files, &overlap.pixels, &overlap.questions, &overlap.image_questions] {
        assert_eq!((shared.distinct, shared.total), (shared.shared, shared.total_shared));
        assert_eq!(shared.examples.len(), 10);
    }
    assert_eq!(counts(&overlap.groups), [0; 4]);
}
