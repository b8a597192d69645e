//! Tokenizers as users meet them: any text, trained vocabularies, folders whole and broken.

use mm_text::{Error, Padding, TextClean, Tokenizer, train_bpe};
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

const CAPTIONS: [&str; 4] =
    ["A red apple", "a green apple, a red car", "Smörgåsbord 🍏", "two red apples' cars"];

const INPUTS: [&str; 2] = ["input_ids", "attention_mask"];

fn golden(folder: &str) -> Tokenizer {
    Tokenizer::from_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/text").join(folder))
        .unwrap()
}

fn trained(captions: &[&str], vocab_size: usize) -> Tokenizer {
    train_bpe(captions.iter().map(|caption| caption.to_string()), vocab_size, 16).unwrap()
}

static TOKENIZERS: LazyLock<Vec<Tokenizer>> =
    LazyLock::new(|| vec![trained(&CAPTIONS, 700), golden("clip_tokenizer"), golden("bert_tokenizer")]);

proptest! {
    #[test]
    fn any_text_becomes_ids_between_begin_and_end_token(text in any::<String>(), repeat in 1usize..4) {
        for tokenizer in TOKENIZERS.iter() {
            let ids = tokenizer.encode(&text.repeat(repeat)).unwrap();
            prop_assert!((2..=tokenizer.context_length()).contains(&ids.len()));
            prop_assert_eq!(ids.first().copied(), tokenizer.bos_id());
            prop_assert_eq!(ids.last().copied(), Some(tokenizer.eos_id()));
            prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
        }
    }
}

#[test]
fn an_over_long_text_keeps_its_end_token_and_is_counted() {
    let tokenizer = trained(&CAPTIONS, 700);
    let ids = tokenizer.encode(&"red ".repeat(50)).unwrap();
    assert_eq!((ids.len(), ids[15]), (16, tokenizer.eos_id()));
    assert_eq!(tokenizer.encode(&"red ".repeat(14)).unwrap().len(), 16);
    assert_eq!(tokenizer.over_long(), 1);
    assert!(matches!(tokenizer.with_context_length(1), Err(Error::Config(_))));
}

#[test]
fn training_does_not_depend_on_the_captions_order() {
    let mut reversed = CAPTIONS;
    reversed.reverse();
    let text = "a red greenish apple, smörgåsbord 🍏 cart";
    let expected = trained(&CAPTIONS, 560);
    for _ in 0..5 {
        let other = trained(&reversed, 560);
        assert_eq!(other.encode(text).unwrap(), expected.encode(text).unwrap());
        assert_eq!(saved(&other), saved(&expected));
    }
}

fn saved(tokenizer: &Tokenizer) -> serde_json::Value {
    let dir = tempfile::tempdir().unwrap();
    tokenizer.save(dir.path(), &INPUTS).unwrap();
    serde_json::from_slice(&fs::read(dir.path().join("tokenizer.json")).unwrap()).unwrap()
}

#[test]
fn a_trained_vocabulary_is_numbered_as_clips() {
    let tokenizer = trained(&CAPTIONS, 10_000);
    let vocab = &saved(&tokenizer)["model"]["vocab"];
    let size = tokenizer.vocab_size() as u64;
    assert!((515..10_000).contains(&size));
    for (token, id) in [("!", 0), ("a", 64), ("!</w>", 256), ("a</w>", 320), ("\u{143}</w>", 511)] {
        assert_eq!(vocab[token], id, "{token}");
    }
    assert_eq!(
        (&vocab["<|startoftext|>"], &vocab["<|endoftext|>"]),
        (&(size - 2).into(), &(size - 1).into())
    );
    assert_eq!(tokenizer.encode("A  RED apple").unwrap().len(), 5, "each word is one token");
}

#[test]
fn nothing_to_train_on_is_an_error() {
    assert!(matches!(train_bpe(std::iter::empty(), 600, 16), Err(Error::Training(_))));
    assert!(matches!(train_bpe(["a".to_owned()].into_iter(), 513, 16), Err(Error::Training(_))));
    assert_eq!(trained(&["a"], 514).vocab_size(), 514);
}

#[test]
fn a_saved_tokenizer_opens_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    for tokenizer in TOKENIZERS.iter() {
        tokenizer.save(dir.path(), &INPUTS).unwrap();
        let opened = Tokenizer::from_dir(dir.path()).unwrap();
        let facts = |t: &Tokenizer| (t.bos_id(), t.eos_id(), t.pad_id(), t.context_length(), t.vocab_size());
        assert_eq!(facts(&opened), facts(tokenizer));
        assert_eq!(opened.encode("A red café 🍏!").unwrap(), tokenizer.encode("A red café 🍏!").unwrap());
    }
}

#[test]
fn what_a_tokenizers_files_say_is_in_those_that_are_written() {
    let dir = tempfile::tempdir().unwrap();
    let config = |tokenizer: &Tokenizer| -> serde_json::Value {
        tokenizer.save(dir.path(), &["input_ids"]).unwrap();
        serde_json::from_slice(&fs::read(dir.path().join("tokenizer_config.json")).unwrap()).unwrap()
    };
    let siglip2 = golden("siglip2_tokenizer");
    let written = config(&siglip2);
    for (name, value) in
        [("bos_token", "<bos>"), ("eos_token", "<eos>"), ("pad_token", "<pad>"), ("padding_side", "left")]
    {
        assert_eq!(written[name], value, "{written}");
    }
    assert_eq!(written["model_input_names"], serde_json::json!(["input_ids"]));
    assert!(written["sep_token"].is_null());
    let reopened = Tokenizer::from_dir(dir.path()).unwrap();
    for tokenizer in [&siglip2, &reopened] {
        let batch = tokenizer.encode_batch(&["a cat"], Padding::Fixed).unwrap();
        assert_eq!(
            batch.input_ids.int64_value(&[0, 63]),
            i64::from(tokenizer.eos_id()),
            "Gemma's pad on the left"
        );
        let batch = tokenizer.encode_batch(&["a cat", "the cat"], Padding::Longest).unwrap();
        assert_ne!(batch.input_ids.int64_value(&[0, 0]), i64::from(tokenizer.pad_id()));
    }
    assert_eq!(config(&golden("siglip_spiece"))["padding_side"], "right");
    assert_eq!(config(&golden("bert_vocab_txt"))["sep_token"], "[SEP]");
}

#[test]
fn openais_tokenizer_is_known_in_other_files_and_no_other_is_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let openais = Tokenizer::openai_clip().unwrap();
    openais.save(dir.path(), &INPUTS).unwrap();
    assert!(openais.is_openai_clip() && Tokenizer::from_dir(dir.path()).unwrap().is_openai_clip());
    assert!(TOKENIZERS.iter().all(|tokenizer| !tokenizer.is_openai_clip()));
}

#[test]
fn how_texts_are_cleaned_is_kept_in_the_files_and_changes_none_of_the_steps_there() {
    let dir = tempfile::tempdir().unwrap();
    let (curly, plain) = ("“Two” ﬁsh &amp; chips", "\"two\" fish & chips");
    for name in ["clip_tokenizer", "bert_tokenizer"] {
        let as_it_is = golden(name);
        let steps = saved(&as_it_is);
        let expected = as_it_is.encode(plain).unwrap();
        assert_eq!(as_it_is.text_clean(), TextClean::None);
        assert_ne!(as_it_is.encode(curly).unwrap(), expected, "{name}");
        let cleaned = as_it_is.with_text_clean(TextClean::Lower).unwrap();
        assert_eq!(cleaned.encode(curly).unwrap(), expected, "{name}");
        assert_eq!(saved(&cleaned), steps, "{name}");
        cleaned.save(dir.path(), &INPUTS).unwrap();
        let opened = Tokenizer::from_dir(dir.path()).unwrap().or_text_clean(TextClean::Whitespace).unwrap();
        assert_eq!(
            (opened.text_clean(), opened.encode(curly).unwrap()),
            (TextClean::Lower, expected),
            "{name}"
        );
        let restored = opened.with_text_clean(TextClean::None).unwrap();
        assert_eq!(restored.encode(curly).unwrap(), golden(name).encode(curly).unwrap(), "{name}");
    }
    let config = dir.path().join("tokenizer_config.json");
    let text = fs::read_to_string(&config).unwrap().replace("\"lower\"", "\"upper\"");
    fs::write(&config, text).unwrap();
    let error = Tokenizer::from_dir(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("text_clean is \"upper\": known are none, whitespace, lower and canonicalize"),
        "{error}"
    );
}

#[test]
fn a_special_token_in_a_cleaned_text_is_text() {
    let text = "a cat<|endoftext|>b";
    let is_special = |tokenizer: &Tokenizer| {
        let ids = tokenizer.encode(text).unwrap();
        ids[1..ids.len() - 1].contains(&tokenizer.eos_id())
    };
    assert!(is_special(&golden("clip_tokenizer")), "as in transformers");
    assert!(
        !is_special(&golden("clip_tokenizer").with_text_clean(TextClean::Lower).unwrap()),
        "as in open_clip"
    );
}

#[test]
fn a_batch_is_padded_to_the_longest_text_or_to_the_context() {
    let tokenizer = trained(&CAPTIONS, 10_000);
    let batch = tokenizer.encode_batch(&["a red apple", "car"], Padding::Longest).unwrap();
    assert_eq!(batch.input_ids.size(), [2, 5]);
    assert_eq!(
        batch.input_ids.int64_value(&[1, 4]),
        i64::from(tokenizer.eos_id()),
        "CLIP pads with its end token"
    );
    assert_eq!(batch.attention_mask.sum_dim_intlist(1, false, None), tch::Tensor::from_slice(&[5i64, 3]));
    assert_eq!(tokenizer.encode_batch(&["car"], Padding::Fixed).unwrap().input_ids.size(), [1, 16]);
}

#[test]
fn broken_folders_name_the_file_and_the_fault() {
    let fault = |files: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Tokenizer::from_dir(dir.path()).unwrap_err().to_string()
    };
    let vocab = r#"{"a":0,"b</w>":1,"ab</w>":2,"<|startoftext|>":3,"<|endoftext|>":4}"#;
    assert!(fault(&[]).contains("expected tokenizer.json"));
    assert!(fault(&[("vocab.json", vocab)]).contains("expected tokenizer.json"));
    assert!(fault(&[("tokenizer.json", "{")]).contains("tokenizer.json: "));
    assert!(fault(&[("vocab.json", "[]"), ("merges.txt", "")]).contains("vocab.json: expected an object"));
    assert!(fault(&[("vocab.json", "{}"), ("merges.txt", "")]).contains("no <|startoftext|>"));
    assert!(
        fault(&[("vocab.json", vocab), ("merges.txt", "#version: 0.2\na b</w> c")])
            .contains("merges.txt: line 2")
    );
    assert!(fault(&[("vocab.json", vocab), ("merges.txt", "a c</w>")]).contains("c</w>"));
    let word_level = r#"{"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
    assert!(fault(&[("tokenizer.json", word_level)]).contains("empty text"));
}

/// A copy of a golden folder with `files` beside its own, and the fields of `config` in its
/// `tokenizer_config.json`.
fn golden_with(
    folder: &str,
    config: &[(&str, serde_json::Value)],
    files: &[(&str, serde_json::Value)],
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/text").join(folder);
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        fs::copy(&entry, dir.path().join(entry.file_name().unwrap())).unwrap();
    }
    let file = dir.path().join("tokenizer_config.json");
    let mut fields: serde_json::Value = fs::read(&file)
        .map_or_else(|_| serde_json::json!({}), |bytes| serde_json::from_slice(&bytes).unwrap());
    for (name, value) in config {
        fields[*name] = value.clone();
    }
    fs::write(file, fields.to_string()).unwrap();
    for (name, json) in files {
        fs::write(dir.path().join(name), json.to_string()).unwrap();
    }
    dir
}

// The ids of the next three tests are those of transformers 5.23.0.

#[test]
fn tokens_that_were_added_to_a_vocabulary_have_their_ids() {
    let text = "a cat <new> dog <NEW> x<new>y";
    let added = serde_json::json!({ "<new>": 4514 });
    let older = golden_with("clip_tokenizer", &[], &[("added_tokens.json", added)]);
    let expected = [4512, 320, 2368, 4514, 1929, 4514, 343, 4514, 344, 4513];
    let opened = Tokenizer::from_dir(older.path()).unwrap();
    assert_eq!(opened.encode(text).unwrap(), expected);
    assert_eq!((opened.vocab_size(), opened.largest_word_id(), opened.eos_is_largest()), (4515, 4513, false));

    let token = |content: &str, special: bool| {
        serde_json::json!({ "4514": { "content": content, "lstrip": false, "normalized": !special,
                                      "rstrip": false, "single_word": false, "special": special } })
    };
    let newer = golden_with("clip_tokenizer", &[("added_tokens_decoder", token("<new>", false))], &[]);
    assert_eq!(Tokenizer::from_dir(newer.path()).unwrap().encode(text).unwrap(), expected);
    let special = golden_with("clip_tokenizer", &[("added_tokens_decoder", token("<New>", true))], &[]);
    let ids = Tokenizer::from_dir(special.path()).unwrap().encode("a cat <New> dog <NEW>").unwrap();
    assert_eq!(ids, [4512, 320, 2368, 4514, 1929, 283, 686, 285, 4513]);

    let bert =
        golden_with("bert_vocab_txt", &[], &[("added_tokens.json", serde_json::json!({ "[new]": 580 }))]);
    let ids = Tokenizer::from_dir(bert.path()).unwrap().encode("a cat [new] [NEW]").unwrap();
    assert_eq!(ids, [2, 7, 541, 580, 56, 1, 55, 3]);

    let wrong = golden_with("clip_tokenizer", &[("added_tokens_decoder", serde_json::json!([1]))], &[]);
    let message = Tokenizer::from_dir(wrong.path()).unwrap_err().to_string();
    assert!(message.contains("tokenizer_config.json: added_tokens_decoder is [1]"), "{message}");
}

#[test]
fn roles_in_a_file_of_their_own_go_before_those_in_the_config_that_lists_no_tokens() {
    let map = [("special_tokens_map.json", serde_json::json!({ "pad_token": { "content": "<mask>" } }))];
    let pad = |config: &[(&str, serde_json::Value)]| {
        Tokenizer::from_dir(golden_with("siglip2_tokenizer", config, &map).path()).unwrap().pad_id()
    };
    assert_eq!(pad(&[]), 4);
    let listed = serde_json::json!({ "0": { "content": "<pad>", "lstrip": false, "normalized": false,
                                            "rstrip": false, "single_word": false, "special": true } });
    assert_eq!(pad(&[("added_tokens_decoder", listed)]), 0);
}

#[test]
fn what_a_tokenizer_json_puts_around_a_text_goes_before_what_the_config_says_is_added() {
    let added = |begin: bool, end: bool| [("add_bos_token", begin.into()), ("add_eos_token", end.into())];
    let whole = golden_with("siglip2_tokenizer", &added(true, false), &[]);
    assert_eq!(Tokenizer::from_dir(whole.path()).unwrap().encode("a cat").unwrap(), [286, 364, 464, 1]);
    // Without an end token there, a text would have none, which no tower takes.
    let bare = golden_with("siglip2_tokenizer", &added(false, true), &[]);
    let file = bare.path().join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    json["post_processor"] = serde_json::Value::Null;
    fs::write(file, json.to_string()).unwrap();
    assert_eq!(Tokenizer::from_dir(bare.path()).unwrap().encode("a cat").unwrap(), [286, 364, 464, 1]);
}

#[test]
fn tokenizers_that_read_texts_otherwise_say_in_what_they_differ() {
    let differ = |a: &Tokenizer, b: &Tokenizer| a.difference(b).unwrap();
    let clip = golden("clip_tokenizer");
    assert_eq!(clip.difference(&golden("clip_tokenizer")), None);
    assert!(differ(&clip, &golden("bert_tokenizer")).contains("begin token is 4512 and would be "));
    let shorter = golden("clip_tokenizer").with_context_length(9).unwrap();
    assert!(differ(&clip, &shorter).contains("length is 77 and would be 9"));
    let cased = |is_lower: bool| {
        let dir = golden_with("bert_vocab_txt", &[("do_lower_case", is_lower.into())], &[]);
        Tokenizer::from_dir(dir.path()).unwrap()
    };
    assert!(differ(&cased(true), &cased(false)).contains("the text \"A photo of a CAT"));
}
