//! Every golden model in every form: it opens again and gives the same rows, or is refused and nothing is
//! written.

use crate::folders::{VARIANTS, Variant, Whole, all, assert_same, rows};
use mm_clip::{CheckpointFormat, ModelConverter, StoredType};
use std::collections::BTreeSet;

const FORMS: [CheckpointFormat; 3] =
    [CheckpointFormat::Hf, CheckpointFormat::OpenClip, CheckpointFormat::Openai];

#[test]
fn every_conversion_gives_the_same_rows_or_is_refused() {
    let mut kept = BTreeSet::new();
    for (name, variant) in all().iter().flat_map(|name| VARIANTS.map(|variant| (name, variant))) {
        let Some(whole) = Whole::new(name, variant) else { continue };
        let expected = rows(whole.path());
        for form in FORMS {
            let to = whole.folder.path().join("converted");
            let written = ModelConverter::read(whole.path(), None).unwrap().write(&to, form, StoredType::F32);
            let what = format!("{name} {variant:?} as {form:?}");
            match written {
                Ok(()) => {
                    assert_same(&expected, &rows(to.to_str().unwrap()), &what);
                    std::fs::remove_dir_all(&to).unwrap();
                    kept.insert(what);
                }
                Err(error) => {
                    assert!(!to.exists(), "{what}: {error}");
                    assert_ne!(form, whole.form, "{what}, the form that it came in: {error}");
                }
            }
        }
        std::fs::remove_dir_all(whole.folder.path()).unwrap();
    }
    for what in [
        "clip/clip Plain as OpenClip",
        "clip/clip-legacy-eos Added as OpenClip",
        "clip/open-clip-vit Added as Hf",
        "clip/open-clip-vit Longest as OpenClip",
        "clip/open-clip-biomed Plain as OpenClip",
        "clip/open-clip-biomed Plain as Hf",
        "clip/open-clip-resnet Longest as Hf",
        "clip/openai-vit Plain as Openai",
        "clip/openai-resnet Plain as Hf",
        "clip/siglip Squashed as Hf",
        "clip/siglip Short as Hf",
        "clip/vit Squashed as Hf",
        "clip/bert Plain as Hf",
        "sentences/mean Plain as Hf",
    ] {
        assert!(kept.contains(what), "{what} is refused; kept are {kept:?}");
    }
    for what in [
        "clip/clip Short as OpenClip",      // open_clip cuts where the positions end
        "clip/open-clip-vit Longest as Hf", // transformers has no name for it
        "clip/siglip Plain as OpenClip",
        "clip/bert Plain as OpenClip",
        "clip/open-clip-biomed Plain as Openai",
    ] {
        assert!(!kept.contains(what), "{what} is not refused");
    }
}

#[test]
fn a_shorter_length_of_texts_is_refused_with_both_numbers() {
    let whole = Whole::new("clip/clip", Variant::Short).unwrap();
    let to = whole.folder.path().join("converted");
    let written = ModelConverter::read(whole.path(), None).unwrap().write(
        &to,
        CheckpointFormat::OpenClip,
        StoredType::F32,
    );
    let message = written.unwrap_err().to_string();
    assert!(
        message.contains("truncates texts at 6 tokens, and readers of this format would at the 12 positions"),
        "{message}"
    );
}
