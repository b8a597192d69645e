//! Conversations with models by `mm chat`.

use crate::common::{failure, mm, success};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A path below `data/goldens`.
fn golden(name: &str) -> String {
    format!("{}/../../data/goldens/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn vlm(name: &str) -> String {
    golden(&format!("vlm/{name}"))
}

fn photo(name: &str) -> String {
    golden(&format!("images/photos/{name}.png"))
}

fn read_json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The JSON lines of `mm chat` with `arguments`.
fn chat(arguments: &[&str]) -> Vec<Value> {
    let printed = success(&[&["chat"], arguments].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A copy of the golden `name` without some of its files.
fn without(folder: &Path, name: &str, files: &[&str]) -> String {
    let copy = folder.join(name.replace('/', "-"));
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(golden(name)).unwrap() {
        let path = entry.unwrap().path();
        if !files.contains(&path.file_name().unwrap().to_str().unwrap()) {
            fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
        }
    }
    copy.to_str().unwrap().to_owned()
}

/// The tokens of ids in the model's vocabulary.
fn tokens(model: &str, ids: &Value) -> Vec<String> {
    let tokenizer = read_json(&format!("{model}/tokenizer.json"));
    let added = tokenizer["added_tokens"].as_array().unwrap();
    let token = |id: &Value| {
        let added =
            added.iter().find(|token| token["id"] == *id).map(|token| token["content"].as_str().unwrap());
        let vocabulary = tokenizer["model"]["vocab"].as_object().unwrap();
        let listed = || vocabulary.iter().find(|(_, found)| *found == id).map(|(token, _)| token.as_str());
        added.or_else(listed).unwrap().to_owned()
    };
    ids.as_array().unwrap().iter().map(token).collect()
}

#[test]
fn the_answer_is_the_peers_and_is_streamed_as_it_is_in_json() {
    let (model, image) = (vlm("smolvlm"), photo("chelsea"));
    let arguments = ["--model", &model, "--max-new-tokens", "8", &image, "What is this?"];
    let found = chat(&[&["--json"], &arguments[..]].concat());
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["prompt"], &found[0]["images"]), (&json!("What is this?"), &json!([image])));
    let expected = &read_json(&format!("{model}/generation.json"))["runs"][0]["outputs"][0][0];
    let answer = &found[0]["answers"][0];
    let given: Vec<&str> =
        answer["tokens"].as_array().unwrap().iter().map(|it| it["token"].as_str().unwrap()).collect();
    assert_eq!(given, tokens(&model, &expected["ids"]));
    for (token, expected) in
        answer["tokens"].as_array().unwrap().iter().zip(expected["log_probs"].as_array().unwrap())
    {
        let log_prob = token["probability"].as_f64().unwrap().ln();
        // Pixels may be off by a level.
        assert!((log_prob - expected.as_f64().unwrap()).abs() < 1e-2, "{token}");
    }
    assert_eq!((&found[0]["answer"], &found[0]["finished"]), (&answer["answer"], &json!(true)));
    let text = found[0]["answer"].as_str().unwrap();
    assert!(!text.is_empty());
    assert_eq!(success(&[&["chat"], &arguments[..]].concat()), format!("{text}\n"));
    let beams = success(&[&["chat", "--num-beams", "3"], &arguments[..]].concat());
    let found = chat(&[&["--json", "--num-beams", "3", "--num-captions", "2"], &arguments[..]].concat());
    let cut = if found[0]["finished"] == true { "" } else { " ..." };
    assert_eq!(beams, format!("{}{cut}\n", found[0]["answer"].as_str().unwrap()));
    assert_eq!(found[0]["answers"].as_array().unwrap().len(), 2);
    let table = success(&[&["chat", "--num-beams", "3", "--num-captions", "2"], &arguments[..]].concat());
    assert_eq!(table.lines().count(), 4, "{table}");
    for precision in ["bf16", "int8"] {
        assert_eq!(chat(&[&["--json", "--precision", precision], &arguments[..]].concat()).len(), 1);
    }
}

#[test]
fn a_conversation_goes_on_with_what_was_said_and_images_may_be_several_or_split() {
    let (model, chelsea, coffee) = (vlm("smolvlm"), photo("chelsea"), photo("coffee"));
    let options = ["--model", &model, "--max-new-tokens", "5"];
    let turns = |arguments: &[&str]| chat(&[&["--json"], &options[..], arguments].concat());
    let found = turns(&["--system", "Be short.", &chelsea, "red?", "--then", "blue?", "--then", "why?"]);
    let prompts: Vec<&str> = found.iter().map(|turn| turn["prompt"].as_str().unwrap()).collect();
    assert_eq!(prompts, ["red?", "blue?", "why?"]);
    assert_eq!(found[1]["images"], json!([]));
    assert_ne!(found[1]["answers"], turns(&["blue?"])[0]["answers"], "without what was said before");
    assert_eq!(found[0]["answers"], turns(&["--system", "Be short.", &chelsea, "red?"])[0]["answers"]);
    let printed = success(&[&["chat"], &options[..], &[&chelsea, "red?", "--then", "blue?"]].concat());
    assert!(printed.contains("\n\n> blue?\n"), "{printed}");

    let both = &turns(&[&chelsea, &coffee, "Which?"])[0]["answers"];
    assert_ne!(both, &turns(&[&coffee, &chelsea, "Which?"])[0]["answers"]);
    assert_ne!(
        &turns(&[&chelsea, "Which?"])[0]["answers"],
        &turns(&["--split-images", &chelsea, "Which?"])[0]["answers"]
    );
    let other = chat(&["--json", "--model", &vlm("llava"), "--max-new-tokens", "4", &chelsea, "What?"]);
    assert!(other[0]["answers"][0]["tokens"].as_array().unwrap().len() <= 4);
}

#[test]
fn a_file_of_prompts_has_the_answers_that_its_prompts_have_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::copy(photo("chelsea"), path("a.png")).unwrap();
    fs::copy(photo("coffee"), path("b.png")).unwrap();
    let lines = [
        json!({"id": 7, "images": ["a.png"], "prompt": "What is this?"}),
        json!({"prompt": "there is no image"}),
        json!({"images": ["b.png", "a.png"], "prompt": "Which?", "system": "Be short."}),
        json!({"images": ["b.png"], "prompt": "red?"}),
        json!({"images": ["none.png"], "prompt": "red?"}),
    ];
    let write = |count: usize| {
        let text: Vec<String> = lines[..count].iter().map(Value::to_string).collect();
        fs::write(path("in.jsonl"), text.join("\n") + "\n\n").unwrap();
    };
    let model = vlm("smolvlm");
    let (input, output) = (path("in.jsonl"), path("out.jsonl"));
    let options = ["--model", &model, "--max-new-tokens", "6"];
    let all = |more: &[&str]| {
        let arguments = [&["chat", "--jsonl", &input, "--out", &output], &options[..], more].concat();
        let done = mm(&arguments);
        let lines = fs::read_to_string(&output).unwrap();
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (done.status.code(), lines, String::from_utf8(done.stderr).unwrap())
    };
    write(4);
    let (code, answered, said) = all(&[]);
    assert_eq!((code, answered.len()), (Some(0), 4), "{said}");
    assert_eq!((&answered[0]["id"], &answered[0]["prompt"]), (&json!(7), &json!("What is this?")));
    let alone = [
        chat(&[&["--json"], &options[..], &[&path("a.png"), "What is this?"]].concat()),
        chat(&[&["--json"], &options[..], &["there is no image"]].concat()),
        chat(
            &[
                &["--json"],
                &options[..],
                &["--system", "Be short.", &path("b.png"), &path("a.png"), "Which?"],
            ]
            .concat(),
        ),
        chat(&[&["--json"], &options[..], &[&path("b.png"), "red?"]].concat()),
    ];
    for (answered, alone) in answered.iter().zip(&alone) {
        assert_eq!(
            (&answered["answer"], &answered["finished"]),
            (&alone[0]["answer"], &alone[0]["finished"])
        );
    }
    let drawn = |batch_size: &str| all(&["--sample", "--temperature", "2", "--batch-size", batch_size]).1;
    let answers = |lines: &[Value]| lines.iter().map(|line| line["answer"].clone()).collect::<Vec<_>>();
    assert_eq!(answers(&drawn("1")), answers(&drawn("3")));
    let printed = success(&[&["chat", "--jsonl", &input], &options[..]].concat());
    assert_eq!(printed.lines().count(), 4);

    write(5);
    let (code, answered, said) = all(&["--max-bad-samples", "1"]);
    assert_eq!((code, answered.len()), (Some(0), 5), "{said}");
    assert!(said.contains("1 of 5 prompts cannot be answered: line 5: cannot read the image"), "{said}");
    assert!(answered[4]["error"].as_str().unwrap().contains("none.png"));
    let drawn_5 = all(&["--max-bad-samples", "1", "--sample", "--temperature", "2", "--batch-size", "5"]).1;
    assert_eq!(answers(&drawn_5)[..4], answers(&drawn("2"))[..4]);
    let (code, answered, said) = all(&[]);
    assert_eq!((code, answered.len()), (Some(1), 5));
    assert!(said.contains("more than --max-bad-samples 0; the others are: line 5"), "{said}");
    for (text, expected) in [
        ("{\"prompt\": \"a\"}\n{\"images\": []}", "in.jsonl, line 2: missing field `prompt`"),
        ("{\"prompt\": 5}", "in.jsonl, line 1: invalid type"),
        ("[]", "in.jsonl, line 1: "),
        ("\n", "has no prompt"),
        ("{\"prompt\": \" \"}", "line 1: the prompt is empty"),
    ] {
        fs::write(&input, text).unwrap();
        let error = failure(&[&["chat", "--jsonl", &input], &options[..]].concat(), 1);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn text_models_answer_with_and_without_a_template() {
    let folder = tempfile::tempdir().unwrap();
    let model = golden("llama/llama");
    let options = ["--model", &model, "--max-new-tokens", "10", "--json", "a picture of"];
    let output = mm(&[&["chat"], &options[..]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("no chat template: it continues the prompt"), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    // The golden's first prompt is the begin token and these words.
    let expected = &read_json(&format!("{model}/generation.json"))["runs"][0]["outputs"][0][0];
    let count = found["answers"][0]["tokens"].as_array().unwrap().len();
    assert!((1..=10).contains(&count) && !expected["ids"].as_array().unwrap().is_empty());
    // 256 new tokens would be more than the model's positions.
    let longest = chat(&["--model", &model, "--json", "a picture of"]);
    assert!(longest[0]["answers"][0]["tokens"].as_array().unwrap().len() <= 37);

    let model = without(folder.path(), "llama/llama", &[]);
    let template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}a picture of";
    fs::write(format!("{model}/chat_template.jinja"), template).unwrap();
    let with_template = chat(&["--model", &model, "--max-new-tokens", "6", "--json", "the house"]);
    let plain =
        chat(&["--model", &model, "--max-new-tokens", "6", "--json", "--plain", "the house a picture of"]);
    assert_eq!(with_template[0]["answers"], plain[0]["answers"]);
    let text = with_template[0]["answer"].as_str().unwrap();
    let streamed = success(&["chat", "--model", &model, "--max-new-tokens", "6", "the house"]);
    assert_eq!(streamed.trim_end().trim_end_matches(" ..."), text);
    let refused = |arguments: &[&str]| failure(&[&["chat", "--model", &model], arguments].concat(), 1);
    assert!(refused(&[&photo("chelsea"), "a"]).contains("reads texts alone, and the prompt has 1 images"));
    assert!(refused(&["--split-images", "a"]).contains("--split-images is for models that read images"));
    fs::write(
        format!("{model}/chat_template.jinja"),
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
    )
    .unwrap();
    assert!(refused(&["a"]).contains("chat_template.jinja: the chat template, line 1: it takes more than"));
    fs::write(format!("{model}/chat_template.jinja"), "{{ raise_exception('no questions') }}").unwrap();
    assert!(refused(&["a"]).contains("it refuses the conversation: no questions"));
    fs::write(format!("{model}/chat_template.jinja"), "\n{{ user.name }}").unwrap();
    assert!(refused(&["a"]).contains("line 2: undefined value"));
}

#[test]
fn bad_input_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let (model, image) = (vlm("smolvlm"), photo("chelsea"));
    let refused = |arguments: &[&str]| failure(&[&["chat", "--model", &model], arguments].concat(), 1);
    assert!(refused(&[&image]).contains("the last argument is the prompt"));
    assert!(refused(&[&image, " "]).contains("the prompt is empty"));
    assert!(refused(&[&image, "a", "--then", ""]).contains("a prompt of --then is empty"));
    assert!(refused(&["no.png", "a"]).contains("cannot read the image no.png"));
    assert!(refused(&[&image, "<image> what?"]).contains("2 image tokens (<image>) for 1 images"));
    assert!(refused(&["<image> what?"]).contains("1 image tokens (<image>) for 0 images"));
    assert!(refused(&["--plain", &image, "what?"]).contains("0 image tokens (<image>) for 1 images"));
    assert!(refused(&["--top-p", "0.5", "a"]).contains("--top-p is for drawn"));
    let long = "what is this? ".repeat(40);
    assert!(refused(&[&image, &long]).contains("and the model 256 positions: shorten it"));
    let missing = folder.path().join("none").to_str().unwrap().to_owned();
    assert!(failure(&["chat", "--model", &missing, "a"], 1).contains("cannot open the model"));
    let captioner = failure(&["chat", "--model", &golden("caption/blip"), "a"], 1);
    assert!(captioner.contains("mm chat takes vision-language models and text models"), "{captioner}");
    failure(&["chat", "--model", &model], 2);
    failure(&["chat", "--model", &model, "--plain", "--system", "a", "b"], 2);

    let model = without(folder.path(), "vlm/smolvlm", &["chat_template.jinja"]);
    let output = mm(&["chat", "--model", &model, "--json", "--max-new-tokens", "4", &image, "what?"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("no chat template: its prompt is <image> for each image, a line end"), "{said}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let plain = ["--model", &model, "--json", "--plain", "--max-new-tokens", "4", &image, "<image>\nwhat?"];
    assert_eq!(found["answers"], chat(&plain)[0]["answers"]);
    let refused = |arguments: &[&str]| failure(&[&["chat", "--model", &model], arguments].concat(), 1);
    assert!(refused(&["--system", "a", "b"]).contains("a system message needs a chat template"));
    assert!(refused(&["a", "--then", "b"]).contains("--then needs a chat template"));
}
