//! Each objective is learned by each kind of model.

use super::{aesthetic, clip, config, lists, preferences, ratings, train};
use mm_data::shapes::{ShapesConfig, ShapesContent};
use mm_data::{Dataset, DatasetConfig};
use mm_train::Evaluation;
use std::sync::Arc;

fn value(evaluation: &Evaluation, name: &str) -> f64 {
    evaluation.metric(name).unwrap_or_else(|| panic!("no {name} in {:?}", evaluation.metrics))
}

#[test]
fn mlps_learn_ratings_preferences_and_lists_of_images_that_they_have_not_seen() {
    for (objective, sets, least) in [
        ("regression", [ratings(1, 200), ratings(2, 60)], [("spearman", 0.9), ("pearson", 0.9)]),
        ("preferences", [preferences(1, 200), preferences(2, 60)], [("accuracy", 0.9), ("accuracy", 0.9)]),
        ("ranking", [lists(1, 200), lists(2, 60)], [("accuracy", 0.9), ("top_1", 0.8)]),
    ] {
        for model in ["hidden = [32]", "hidden = [32, 16, 8, 4]"] {
            let folder = tempfile::tempdir().unwrap();
            let config = config(folder.path(), &aesthetic(model), objective, "steps = 150\nlr = 0.02");
            let (_, trained) = train(&config, [&sets[0], &sets[1]]);
            for (name, least) in least {
                let reached = value(&trained, name);
                assert!(reached > least, "{objective}, {model}: {name} is {reached}");
            }
        }
    }
}

#[test]
fn an_ensemble_has_members_that_differ_and_measures_their_disagreement() {
    let folder = tempfile::tempdir().unwrap();
    let sets = [preferences(1, 100), preferences(2, 60)];
    let model = aesthetic("hidden = [16]\nensemble = 4");
    let config = config(folder.path(), &model, "preferences", "steps = 60\nlr = 0.02");
    let (_, trained) = train(&config, [&sets[0], &sets[1]]);
    assert!(value(&trained, "accuracy") > 0.85 && value(&trained, "disagreement") > 0.01, "{trained:?}");
    // Images of colors far from the border between right and wrong are those that members agree on.
    if let Some(auroc) = trained.metric("disagreement_auroc") {
        assert!((0.0..=1.0).contains(&auroc));
    }
    let table = &trained.tables[0];
    assert_eq!((table.columns.len(), &table.rows[0][0].text()[..]), (4, "all"));
    assert_eq!(trained.plots[0].lines.len(), 2);
}

/// The share of pairs in the right order after training `model` on 32 edits, which are measured themselves.
fn fitted(model: &str, train_keys: &str) -> f64 {
    let edits =
        ShapesConfig { samples: 32, size: 32, content: ShapesContent::Edits, ..ShapesConfig::default() };
    let edits: Arc<dyn Dataset> = Arc::from(DatasetConfig::Shapes(edits).open().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), model, "preferences", train_keys);
    let (_, trained) = train(&config, [&edits, &edits]);
    assert!(trained.tables[0].rows.len() > 2, "each kind of edit has a row: {trained:?}");
    value(&trained, "accuracy")
}

#[test]
fn a_clip_learns_which_image_a_caption_describes_whole_by_its_head_and_by_adapters() {
    let untrained = fitted(&clip(""), "steps = 1\nlr = 1e-9");
    let lora = "[lora]\nrank = 8\nalpha = 16\ntargets = ['all-linear']";
    for (model, keys) in [
        (clip(""), "steps = 120\nlr = 3e-3".to_owned()),
        (clip("trains = 'head'"), "steps = 120\nlr = 3e-2".to_owned()),
        (clip(""), format!("steps = 120\nlr = 1e-2\n{lora}")),
    ] {
        let reached = fitted(&model, &keys);
        assert!(reached > untrained.max(0.5) + 0.15, "{model}{keys}: {reached} from {untrained}");
    }
}
