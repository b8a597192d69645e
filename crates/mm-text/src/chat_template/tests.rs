//! Templates against transformers' renderings in `data/goldens/chat`, and templates that are wrong.

use super::*;
use chrono::NaiveDate;
use serde_json::Value as Json;
use std::fs;

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/goldens/chat")
}

fn conversation(messages: &Json) -> Vec<ChatMessage> {
    let part = |part: &Json| match part["text"].as_str() {
        Some(text) => ChatPart::Text(text.to_owned()),
        None => ChatPart::Image,
    };
    let message = |message: &Json| {
        let parts = message["content"].as_array().unwrap().iter().map(part).collect();
        ChatMessage::new(message["role"].as_str().unwrap(), parts)
    };
    messages.as_array().unwrap().iter().map(message).collect()
}

#[test]
fn templates_of_all_families_render_as_the_peer_does() {
    let folder = goldens();
    let conversations: Json = mm_core::read_json(&folder.join("conversations.json")).unwrap();
    let now = NaiveDate::from_ymd_opt(2026, 11, 28).unwrap().and_hms_opt(12, 34, 56).unwrap();
    let mut compared = 0;
    for family in ["chatml", "llama3", "mistral", "smolvlm", "idefics3", "llava", "qwen-vl", "features"] {
        let template = ChatTemplate::from_folder(&folder.join(family)).unwrap().unwrap();
        let expected: Json = mm_core::read_json(&folder.join(family).join("expected.json")).unwrap();
        for (name, texts) in expected.as_object().unwrap() {
            let messages = conversation(&conversations[name]);
            for (generation, expected) in [(false, &texts[0]), (true, &texts[1])] {
                let found = template.render_at(&messages, generation, now);
                match expected.as_str() {
                    Some(expected) => assert_eq!(found.unwrap(), expected, "{family}, {name}"),
                    None => {
                        let found = found.unwrap_err().to_string();
                        let message = expected["error"].as_str().unwrap();
                        assert!(
                            found.ends_with(&format!("it refuses the conversation: {message}")),
                            "{found}"
                        );
                    }
                }
                compared += 1;
            }
        }
        let without_images = conversations["image"].clone();
        let refused = template.render_at(&conversation(&without_images), true, now);
        let is_text_family = ["chatml", "llama3", "mistral", "features"].contains(&family);
        assert_eq!(refused.is_err(), is_text_family, "{family}");
    }
    assert!(compared > 100, "{compared}");
}

fn rendered(source: &str, messages: &[ChatMessage]) -> std::result::Result<String, String> {
    let template = ChatTemplate::new(source).map_err(|error| error.to_string())?;
    template.render(messages, false).map_err(|error| error.to_string())
}

fn refused(source: &str) -> String {
    rendered(source, &[ChatMessage::text("user", "hi")]).unwrap_err()
}

#[test]
fn each_message_has_the_form_that_the_template_reads() {
    let mixed = "{% for m in messages %}{% if m.role == 'system' %}{{ '<' + m.content + '>' }}{% else %}\
                 {% for part in m.content %}{{ part.text or '<image>' }}|{% endfor %}{% endif %}{% endfor %}";
    let parts = vec![ChatPart::Text("a".into()), ChatPart::Image, ChatPart::Text("b".into())];
    let messages = [
        ChatMessage::text("user", "x"),
        ChatMessage::text("system", "one"),
        ChatMessage::new("user", parts.clone()),
        ChatMessage::new("system", vec![ChatPart::Text("two".into()), ChatPart::Text("lines".into())]),
    ];
    assert_eq!(rendered(mixed, &messages).unwrap(), "x|<one>a|<image>|b|<two\nlines>");
    let printed = "{% for m in messages %}{{ m['content'] ~ ';' }}{% endfor %}";
    assert_eq!(rendered(printed, &messages[..2]).unwrap(), "x;one;");
    let error = rendered(printed, &messages).unwrap_err();
    assert!(error.contains("takes texts alone, and message 3 (user) has an image"), "{error}");
    let by_index = "{% for m in messages %}{{ m.content[0]['text'] }}{% endfor %}";
    assert_eq!(rendered(by_index, &messages[..2]).unwrap(), "xone");
    assert_eq!(rendered("{{ messages | length }}", &messages).unwrap(), "4");
    assert_eq!(rendered("{{ messages }}", &[]).unwrap(), "[]");
}

#[test]
fn a_template_that_is_wrong_is_one_error_with_its_line() {
    for (source, expected) in [
        ("{% for m in messages %}\n{{ m.content }", "the chat template, line 2: syntax error"),
        ("\n{% if %}", "line 2: syntax error"),
        ("\n\n{{ messages[0].absent.key }}", "line 3: undefined value"),
        ("{{ absent.key }}", "line 1: undefined value"),
        ("{{ absent() }}", "line 1: unknown function"),
        ("a\n{{ 'x' | absent }}", "line 2: unknown filter"),
        ("{{ 'x'.absent() }}", "line 1: unknown method"),
        ("{% include 'x' %}", "line 1: syntax error"),
        ("\n{{ raise_exception('no ' + messages[0].role) }}", "line 2: it refuses the conversation: no user"),
        ("{{ strftime_now('%Q') }}", "strftime_now: the format \"%Q\" is not known"),
        ("{{ 1 + 'a' }}", "line 1: invalid operation"),
        ("{{ 1 // 0 }}", "line 1: invalid operation"),
        ("{{ messages | tojson(absent=1) }}", "line 1: "),
    ] {
        let error = refused(source);
        assert!(error.starts_with("chat_template: the chat template"), "{error}");
        assert!(error.contains(expected) && !error.contains('\n'), "{source}: {error}");
    }
}

#[test]
fn a_template_that_does_not_end_or_grows_without_bound_is_an_error() {
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% macro f(n) %}{{ f(n + 1) }}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
        "{% set ns = namespace(s='ab') %}{% for i in range(100) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{{ 'a' * 100000000000 }}",
        "{{ range(1000000000000) | list }}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    ] {
        let error = refused(source);
        assert!(error.starts_with("chat_template: the chat template"), "{source}: {error}");
    }
    let error = refused("\n{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}");
    assert!(error.ends_with("line 2: it takes more than 1000000 steps: it does not end"), "{error}");
}

#[test]
fn deep_values_do_not_overflow_the_stack() {
    let deep =
        "{% set ns = namespace(a=[]) %}{% for i in range(100000) %}{% set ns.a = [ns.a] %}{% endfor %}";
    assert_eq!(rendered(deep, &[]).as_deref(), Ok(""));
    let printed = rendered(&format!("{deep}{{{{ ns.a }}}}"), &[]);
    assert!(printed.is_err() || printed.is_ok_and(|text| text.len() == 200_002));
    assert!(rendered(&format!("{deep}{{{{ ns.a | tojson }}}}"), &[]).unwrap_err().contains("nested deeper"));
}

#[test]
fn methods_of_pythons_strings_give_what_python_gives() {
    for (expression, expected) in [
        ("'they\\'re a1b'.title()", "They'Re A1B"),
        ("'<think>a'.removeprefix('<think>')", "a"),
        ("'a</s>'.removesuffix('</s>') ~ 'a'.removesuffix('b')", "aa"),
        ("'a=b=c'.partition('=') | join('|')", "a|=|b=c"),
        ("'a=b=c'.rpartition('=') | join('|')", "a=b|=|c"),
        ("'a'.partition('=') | join('|')", "a||"),
        ("'a,b,c'.rsplit(',', 1) | join('|')", "a,b|c"),
        ("'a b  c'.split(' ') | length", "4"),
        ("' a b  c '.split() | length", "3"),
        ("'x' in messages[0].role or 'x' is sequence", "True"),
        ("{'b': 1, 'a': [none, 'é<']} | tojson", "{\"b\": 1, \"a\": [null, \"é<\"]}"),
        ("{'b': 1, 'a': {}} | tojson(sort_keys=true, separators=(',', ':'))", "{\"a\":{},\"b\":1}"),
        ("'\u{1f600}' | tojson(ensure_ascii=true)", "\"\\ud83d\\ude00\""),
        ("[[], [1]] | tojson(indent=2)", "[\n  [],\n  [\n    1\n  ]\n]"),
    ] {
        let found = rendered(&format!("{{{{ {expression} }}}}"), &[ChatMessage::text("user", "hi")]);
        assert_eq!(found.as_deref(), Ok(expected), "{expression}");
    }
}

#[test]
fn the_template_of_a_folder_is_in_one_of_four_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let found =
        || ChatTemplate::from_folder(folder.path()).map(|found| found.map(|it| it.source().to_owned()));
    assert_eq!(found().unwrap(), None);
    write("tokenizer_config.json", r#"{"chat_template": null, "eos_token": {"content": "</s>"}}"#);
    assert_eq!(found().unwrap(), None);
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "tool_use", "template": "t"}]}"#);
    let error = found().unwrap_err().to_string();
    assert!(error.ends_with("no chat template is named default, only tool_use"), "{error}");
    write("tokenizer_config.json", r#"{"chat_template": 5}"#);
    assert!(found().unwrap_err().to_string().contains("neither a text nor a list"));
    write("tokenizer_config.json", r#"{"chat_template": "{{ eos_token", "eos_token": "</s>"}"#);
    let error = found().unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json: the chat template, line 1: syntax error"), "{error}");
    write("processor_config.json", r#"{"image_seq_len": 64}"#);
    write("chat_template.json", r#"{"chat_template": "json"}"#);
    assert_eq!(found().unwrap().as_deref(), Some("json"));
    write("chat_template.jinja", "{{ eos_token }}{{ bos_token }}");
    let template = ChatTemplate::from_folder(folder.path()).unwrap().unwrap();
    assert_eq!(template.render(&[], false).unwrap(), "</s>");
    let saved = tempfile::tempdir().unwrap();
    template.save(saved.path()).unwrap();
    let again = ChatTemplate::from_folder(saved.path()).unwrap().unwrap();
    assert_eq!(again.source(), template.source());
    fs::write(folder.path().join("chat_template.jinja"), [0xff, 0xfe]).unwrap();
    assert!(found().unwrap_err().to_string().contains("it is not UTF-8"));
}
