//! Properties of the pages of `kind = "invoices"`, over thousands of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use mm_data::{Dataset, DatasetConfig, Document, DocumentField, Sample};

fn open(keys: &str) -> Box<dyn Dataset> {
    let config: DatasetConfig = toml::from_str(&format!("kind = 'invoices'\n{keys}")).unwrap();
    config.open().unwrap()
}

fn document(sample: &Sample) -> &Document {
    sample.document.as_deref().unwrap()
}

fn field<'a>(document: &'a Document, key: &str) -> &'a DocumentField {
    document.fields.iter().find(|field| field.key == key).unwrap()
}

/// An amount in the smallest unit that its text has.
fn amount(document: &Document, key: &str) -> i64 {
    field(document, key).value.replace('.', "").parse().unwrap()
}

const WITH_ITEMS: &str =
    "fields = ['items', 'number', 'date', 'seller', 'currency', 'subtotal', 'tax', 'total']";

#[test]
fn an_index_always_gives_the_same_page() {
    let (one, other) = (open(""), open("samples = 50"));
    let seed = open("seed = 1");
    for index in 0..20 {
        let [first, second] = [&one, &other].map(|set| set.sample(index).unwrap());
        let pixels = |sample: &Sample| sample.image().unwrap().decode([255; 3]).unwrap();
        assert_eq!(pixels(&first), pixels(&second));
        assert_eq!(pixels(&first).dimensions(), (224, 320));
        assert_eq!(document(&first), document(&second));
        assert_ne!(document(&first), document(&seed.sample(index).unwrap()));
        assert_eq!(first.key, format!("train-{index:07}"));
    }
}

#[test]
fn items_add_up_to_the_subtotal_and_the_total() {
    let set = open(WITH_ITEMS);
    for index in 0..2000 {
        let sample = set.sample(index).unwrap();
        let document = document(&sample);
        let (mut sum, mut items) = (0, 0);
        while document.fields.iter().any(|field| field.key == format!("items.{items}.amount")) {
            let of = |part: &str| amount(document, &format!("items.{items}.{part}"));
            assert_eq!(of("quantity") * of("price"), of("amount"), "{index}");
            sum += of("amount");
            items += 1;
        }
        let [subtotal, tax, total] = ["subtotal", "tax", "total"].map(|key| amount(document, key));
        assert!((1..=5).contains(&items), "{items} items");
        assert_eq!(sum, subtotal, "{index}");
        let discount = subtotal + tax - total;
        assert!(discount >= 0 && discount <= subtotal * 15 / 100 + 1, "{index}");
        assert!(tax > 0 && total > 0);
        let has_decimals = field(document, "total").value.contains('.');
        assert_eq!(has_decimals, field(document, "currency").value != "JPY");
    }
}

#[test]
fn held_out_layouts_are_a_tenth_and_never_seen() {
    let labels = |split: &str| -> BTreeSet<String> {
        let set = open(&format!("split = '{split}'"));
        (0..2000).map(|index| set.sample(index).unwrap().label.unwrap()).collect()
    };
    let [train, seen, held_out, all] = ["train", "seen", "held_out", "all"].map(labels);
    assert!(train.len() >= 30 && held_out.len() * 10 >= train.len(), "{train:?} {held_out:?}");
    assert_eq!(train, seen);
    assert!(train.is_disjoint(&held_out));
    assert_eq!(all, &train | &held_out);
}

#[test]
fn a_seen_page_is_no_page_of_training() {
    let pages = |split: &str| -> HashSet<String> {
        let set = open(&format!("split = '{split}'"));
        (0..5000).map(|index| format!("{:?}", document(&set.sample(index).unwrap()).value)).collect()
    };
    let (train, seen) = (pages("train"), pages("seen"));
    assert_eq!((train.len(), seen.len()), (5000, 5000));
    assert!(train.is_disjoint(&seen));
}

#[test]
fn words_are_on_the_page_and_do_not_overlap() {
    for (split, size) in [("train", [224, 320]), ("held_out", [224, 320]), ("all", [448, 640])] {
        let set = open(&format!("split = '{split}'\nsize = {size:?}\nscan = false"));
        for index in 0..1500 {
            let sample = set.sample(index).unwrap();
            let words = &document(&sample).words;
            let label = sample.label.as_deref().unwrap();
            for (place, word) in words.iter().enumerate() {
                let [left, top, right, bottom] = word.bounds;
                let is_inside = left >= 4.0
                    && top >= 4.0
                    && right <= size[0] as f32 - 4.0
                    && bottom <= size[1] as f32 - 4.0;
                assert!(is_inside && left < right && top < bottom, "{index} {label} {word:?}");
                for other in &words[..place] {
                    let [l, t, r, b] = other.bounds;
                    let is_apart = right <= l || r <= left || bottom <= t || b <= top;
                    assert!(is_apart, "{index} {label} {word:?} {other:?}");
                }
            }
        }
    }
}

#[test]
fn places_are_at_the_printed_characters() {
    let set = open(&format!("split = 'all'\n{WITH_ITEMS}"));
    for index in 0..1500 {
        let sample = set.sample(index).unwrap();
        let document = document(&sample);
        for field in &document.fields {
            let value: Vec<char> = field.value.chars().collect();
            assert_eq!(field.places.len(), value.len(), "{field:?}");
            for (&character, place) in value.iter().zip(&field.places) {
                let Some([x, y]) = *place else {
                    let may_be_missing =
                        field.key == "date" && matches!(character, '-' | '0') || character == ' ';
                    assert!(may_be_missing, "{index} {field:?}");
                    continue;
                };
                let within =
                    |bounds: [f32; 4]| x > bounds[0] && x < bounds[2] && y > bounds[1] && y < bounds[3];
                let word = document.words.iter().find(|word| within(word.bounds));
                // The middle of a long date's month, the spaces of a name, and the sign of a currency beside
                // an amount are in words of other fields or between words.
                if character == ' ' || field.key == "currency" {
                    continue;
                }
                let word = word.unwrap_or_else(|| panic!("{index} {field:?} is in no word"));
                assert_eq!(word.field.as_deref(), Some(field.key.as_str()), "{index} {word:?}");
                let nearest = word.characters.iter().position(|c| (c[0] - x).abs() + (c[1] - y).abs() < 0.01);
                if let Some(nearest) = nearest {
                    let printed = word.text.chars().nth(nearest).unwrap();
                    let is_same = printed == character
                        || character == '.' && printed == ','
                        || field.key == "date" && printed.is_alphabetic();
                    assert!(is_same, "{index} {field:?} {printed}");
                } else {
                    assert_eq!(field.key, "date", "{index} {field:?}");
                }
            }
        }
    }
}

#[test]
fn printed_dates_and_currencies_have_one_reading() {
    let set = open("split = 'all'\nfields = ['date', 'currency']");
    let mut codes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut separators = HashMap::new();
    for index in 0..3000 {
        let sample = set.sample(index).unwrap();
        let document = document(&sample);
        let date: Vec<&str> = field(document, "date").value.split('-').collect();
        let code = &field(document, "currency").value;
        for word in &document.words {
            match word.field.as_deref() {
                Some("date") => {
                    for separator in ['.', '/'] {
                        let parts: Vec<&str> = word.text.split(separator).collect();
                        if parts.len() == 3 {
                            assert_eq!(parts, [date[2], date[1], date[0]]);
                            *separators.entry(separator).or_insert(0) += 1;
                        }
                    }
                }
                Some("currency") => {
                    codes.entry(word.text.replace('-', "")).or_default().insert(code.clone());
                }
                _ => {}
            }
        }
    }
    assert_eq!(separators.len(), 2);
    for (sign, codes) in &codes {
        assert_eq!(codes.len(), 1, "{sign} is {codes:?}");
    }
    assert!(codes.len() >= 12, "{codes:?}");
}

#[test]
fn blank_pages_have_an_empty_target_and_change_no_other_page() {
    let (set, full) = (open("blank = 0.25"), open(""));
    let mut blank = 0;
    for index in 0..400 {
        let sample = set.sample(index).unwrap();
        if sample.label.as_deref() == Some("blank") {
            blank += 1;
            assert_eq!(serde_json::to_string(&document(&sample).value).unwrap(), "{}");
            assert!(document(&sample).words.is_empty() && document(&sample).fields.is_empty());
            let pixels = sample.image().unwrap().decode([0; 3]).unwrap();
            assert!(pixels.pixels().all(|pixel| pixel.0[0] > 60));
        } else {
            assert_eq!(document(&sample), document(&full.sample(index).unwrap()));
        }
    }
    assert!((60..140).contains(&blank), "{blank} of 400");
}

#[test]
fn the_target_has_the_keys_of_the_config_in_their_order() {
    let set = open("fields = ['total', 'date']");
    let sample = set.sample(3).unwrap();
    let text = serde_json::to_string(&document(&sample).value).unwrap();
    assert!(text.starts_with("{\"date\":\"20") && text.contains("\",\"total\":\""), "{text}");
    let all = open(WITH_ITEMS).sample(3).unwrap();
    let keys: Vec<&str> = match &document(&all).value {
        mm_data::DocumentValue::Object(members) => members.iter().map(|(key, _)| key.as_str()).collect(),
        other => panic!("{other:?}"),
    };
    assert_eq!(keys, ["number", "date", "seller", "currency", "subtotal", "tax", "total", "items"]);
    assert!(all.captions[0].starts_with("an invoice of "));
}

#[test]
fn targets_have_known_characters_alone() {
    for keys in ["fields = ['number', 'date', 'currency', 'subtotal', 'tax', 'total']", WITH_ITEMS] {
        let keys = format!("split = 'all'\n{keys}");
        let config: mm_data::invoices::InvoicesConfig = toml::from_str(&keys).unwrap();
        let known: HashSet<char> = config.characters().chars().collect();
        let set = open(&keys);
        for index in 0..3000 {
            for field in &document(&set.sample(index).unwrap()).fields {
                assert!(field.value.chars().all(|character| known.contains(&character)), "{field:?}");
            }
        }
    }
}
