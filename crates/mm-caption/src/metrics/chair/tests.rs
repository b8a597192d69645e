//! Tests of CHAIR: singulars, tokens, mentions, and the published program's results on written captions.

use std::collections::BTreeMap;

use super::singular::singular;
use super::tokens::tokens;
use super::*;

fn classes(caption: &str) -> Vec<&'static str> {
    CocoObjects::get().mentions(caption).into_iter().map(|mention| mention.class).collect()
}

#[test]
fn the_table_has_the_80_classes_of_coco() {
    let objects = CocoObjects::get();
    assert_eq!(objects.classes().len(), 80);
    assert_eq!((objects.classes()[0], objects.classes()[79]), ("person", "toothbrush"));
    assert_eq!(objects.class("villager"), Some("person"));
    assert_eq!(objects.class("dining table"), Some("dining table"));
    assert_eq!(objects.class("village"), None);
}

#[test]
fn plurals_and_pairs_of_words_name_objects() {
    assert_eq!(classes("Two men, three women and their children."), ["person"; 3]);
    assert_eq!(classes("hot dogs with wine glasses on a desk"), ["hot dog", "wine glass", "dining table"]);
    assert_eq!(classes("a baby elephant near an adult"), ["elephant", "person"]);
    assert_eq!(classes("a passenger train; a passenger"), ["train", "person"]);
    assert_eq!(classes("the seat of the toilet"), ["toilet"]);
    assert_eq!(classes("a toilet seat, the seat"), ["toilet"]);
    assert_eq!(classes("a bow tie"), ["tie"]);
    assert_eq!(classes("skis, ski, scissors, mice, geese"), ["skis", "skis", "scissors", "mouse", "bird"]);
    assert_eq!(classes("dogs' bowls and the cat's"), ["dog", "bowl", "cat"]);
    // As in the published program.
    assert_eq!(classes("a bus, two buses, a hot-dog, dog/cat"), ["bus"]);
    assert_eq!(classes(""), [""; 0]);
}

#[test]
fn tokens_split_symbols_from_words() {
    for (caption, expected) in [
        ("a dog's, a \"cat\".", "a dog 's , a \" cat \" ."),
        ("don't (really) 5:30 1,000 x:y", "do n't ( really ) 5:30 1,000 x : y"),
        ("wait--no... u.s. e.g.", "wait - - no . . . u.s . e.g ."),
        ("red-brick and/or", "red-brick and/or"),
        ("’ é 🦊 '", "’ é 🦊 '"),
        ("", ""),
    ] {
        assert_eq!(tokens(caption).join(" "), expected, "{caption}");
    }
}

#[test]
fn singulars_follow_the_rules_of_pattern() {
    for (word, expected) in [
        ("knives", "knife"),
        ("leaves", "leaf"),
        ("wolves", "wolf"),
        ("gloves", "glove"),
        ("benches", "bench"),
        ("puppies", "puppy"),
        ("doggies", "doggies"),
        ("quizzes", "quiz"),
        ("shoes", "shoe"),
        ("canoes", "cano"),
        ("vases", "vase"),
        ("bases", "basis"),
        ("roses", "rose"),
        ("women", "woman"),
        ("glass", "glas"),
        ("bus", "bu"),
        ("s", "s"),
        ("dogs'", "dog's"),
        ("", ""),
    ] {
        assert_eq!(singular(word), expected, "{word}");
    }
}

#[test]
fn instances_and_references_are_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("instances.json");
    let categories = r#"[{"id": 1, "name": "person"}, {"id": 67, "name": "dining table"}]"#;
    let write = |annotations: &str, categories: &str| {
        let images = r#"[{"id": 7}, {"id": 8}]"#;
        let text =
            format!(r#"{{"images": {images}, "annotations": {annotations}, "categories": {categories}}}"#);
        std::fs::write(&path, text).unwrap();
    };
    write(r#"[{"image_id": 7, "category_id": 67, "segmentation": [[1.5]], "iscrowd": 0}]"#, categories);
    let mut images = ImageObjects::default();
    images.add_instances(&path).unwrap();
    images.add_reference(7, "a man with a hat");
    let report = images.chair(&[(7, "a woman at a table with a dog and a dog"), (8, "nothing")]).unwrap();
    assert_eq!((report.chair_s, report.chair_i), (0.5, 0.5));
    assert_eq!((report.mentions, report.hallucinated), (4, 2));
    assert_eq!(images.chair(&[(8, "a dog")]).unwrap().chair_i, 1.0);
    assert_eq!(ImageObjects::default().chair::<&str>(&[]).unwrap().chair_s, 0.0);
    let message = images.chair(&[(9, "a dog")]).unwrap_err().to_string();
    assert!(message.starts_with("image 9 has neither instances nor reference captions"), "{message}");

    let message_of = || ImageObjects::default().add_instances(&path).unwrap_err().to_string();
    write(r#"[{"image_id": 7, "category_id": 5}]"#, categories);
    assert!(message_of().contains("an annotation of image 7 has the unknown category 5"), "{}", message_of());
    write("[]", r#"[{"id": 1, "name": "zombie"}]"#);
    assert!(message_of().contains("category \"zombie\" is not a class of COCO"), "{}", message_of());
    write("[{}]", categories);
    assert!(message_of().contains("missing field `image_id` at line 1"), "{}", message_of());
    std::fs::remove_file(&path).unwrap();
    assert!(message_of().contains("instances.json: "), "{}", message_of());
}

/// Captions with the mentions that the published program finds.
#[derive(Deserialize)]
struct Golden {
    captions: Vec<(String, Vec<(String, String)>)>,
    singulars: BTreeMap<String, String>,
}

#[test]
fn mentions_equal_those_of_the_published_program() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/caption-chair/chair.json");
    let golden: Golden = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (caption, expected) in &golden.captions {
        let mentions = CocoObjects::get().mentions(caption);
        let found: Vec<_> =
            mentions.into_iter().map(|mention| (mention.word, mention.class.to_owned())).collect();
        assert_eq!(found, *expected, "{caption}");
    }
    for (word, expected) in &golden.singulars {
        assert_eq!(singular(word), *expected, "{word}");
    }
}
