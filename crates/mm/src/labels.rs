//! Labels from the command line or a file.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;

/// The labels of `text`, a line of CSV: separated by commas, in double quotes where a label has one.
pub fn from_line(text: &str) -> Result<Vec<String>> {
    let (mut labels, mut rest) = (Vec::new(), text);
    loop {
        let (label, behind) =
            field(rest).with_context(|| format!("--labels {text:?}, label {}", labels.len() + 1))?;
        labels.push(label);
        match behind {
            Some(behind) => rest = behind,
            None => break,
        }
    }
    let count = labels.len();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (place, label) in labels.iter().enumerate().map(|(index, label)| (index + 1, label)) {
        ensure!(!label.is_empty(), "--labels {text:?}: label {place} of {count} is empty");
        if let Some(first) = places.insert(label, place) {
            bail!("--labels: {label:?} is given twice, as label {first} and as label {place}");
        }
    }
    Ok(labels)
}

/// The first field of a line of CSV, and what is behind its comma, where there is one.
fn field(text: &str) -> Result<(String, Option<&str>)> {
    let Some(quoted) = text.trim_start().strip_prefix('"') else {
        let (label, behind) =
            text.split_once(',').map_or((text, None), |(label, behind)| (label, Some(behind)));
        return Ok((label.trim().to_owned(), behind));
    };
    let (mut label, mut rest) = (String::new(), quoted);
    loop {
        let Some((part, behind)) = rest.split_once('"') else { bail!("its quote is never closed") };
        label.push_str(part);
        let Some(more) = behind.strip_prefix('"') else {
            let behind = behind.trim_start();
            ensure!(behind.is_empty() || behind.starts_with(','), "{behind:?} follows its closing quote");
            return Ok((label.trim().to_owned(), behind.strip_prefix(',')));
        };
        label.push('"');
        rest = more;
    }
}

/// The labels in a file: one a line, or in a `.json` a list or a map of classes as ImageNet's.
pub fn from_file(file: &Path) -> Result<Vec<String>> {
    let text = mm_data::text::read(file).context("cannot read the labels")?;
    let is_json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let labels = if is_json {
        from_json(&text).with_context(|| format!("{}", file.display()))?
    } else {
        from_lines(&text, file)?
    };
    ensure!(!labels.is_empty(), "{}: no label", file.display());
    Ok(labels)
}

fn from_lines(text: &str, file: &Path) -> Result<Vec<String>> {
    let (mut labels, mut lines) = (Vec::new(), HashMap::new());
    for (line, label) in mm_data::text::lines(text).enumerate().map(|(index, line)| (index + 1, line.trim()))
    {
        if label.is_empty() {
            continue;
        }
        if let Some(first) = lines.insert(label, line) {
            bail!("{}:{line}: {label:?} is given twice, first in line {first}", file.display());
        }
        labels.push(label.to_owned());
    }
    Ok(labels)
}

/// The classes of a list, `["tench", ...]`, or of a map by number or WordNet id:
/// `{"0": ["n01440764", "tench"], ...}`, `{"n01440764": "tench", ...}`, in the order of the keys. There `_`
/// stands for a space, and classes of one name are one label.
fn from_json(text: &str) -> Result<Vec<String>> {
    let classes: Vec<(String, String)> = match serde_json::from_str(text)? {
        Value::Array(classes) => {
            classes.iter().enumerate().map(|(index, class)| named(index, class)).collect::<Result<_>>()?
        }
        Value::Object(classes) => {
            let mut classes: Vec<_> = classes.into_iter().collect();
            classes.sort_by_key(|(key, _)| key.parse::<u64>().unwrap_or(u64::MAX));
            let class = |(key, class): &(String, Value)| {
                let (id, name) = named(key, class)?;
                Ok((id, name.replace('_', " ")))
            };
            classes.iter().map(class).collect::<Result<_>>()?
        }
        _ => bail!("expected a list of labels, or a map of numbers or WordNet ids"),
    };
    let (mut labels, mut ids): (Vec<String>, HashMap<String, String>) = (Vec::new(), HashMap::new());
    for (id, label) in classes {
        ensure!(!label.trim().is_empty(), "the label of {id} is empty");
        match ids.get(&label) {
            Some(first) => tracing::warn!("{first} and {id} are both {label:?}: they are one label"),
            None => {
                labels.push(label.clone());
                ids.insert(label, id);
            }
        }
    }
    Ok(labels)
}

/// The id and the name of the class at `key`.
fn named(key: impl std::fmt::Display, class: &Value) -> Result<(String, String)> {
    let pair = class.as_array().map(|pair| pair.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    match (class.as_str(), pair.flatten().as_deref()) {
        (Some(name), _) => Ok((key.to_string(), name.to_owned())),
        (None, Some(&[id, name])) => Ok((id.to_owned(), name.to_owned())),
        _ => bail!("{key} is {class}: expected a name, or a list of a WordNet id and a name"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_commas_and_are_doubled_in_a_label() {
        for (line, labels) in [
            ("a cat, a dog", vec!["a cat", "a dog"]),
            (r#""red, green",blue"#, vec!["red, green", "blue"]),
            (r#" "a ""big"" dog" , 5" pipe"#, vec![r#"a "big" dog"#, r#"5" pipe"#]),
            ("one", vec!["one"]),
        ] {
            assert_eq!(from_line(line).unwrap(), labels, "{line}");
        }
    }

    #[test]
    fn empty_labels_and_those_given_twice_are_refused_with_their_place() {
        for (line, part) in [
            ("a,,b", "label 2 of 3 is empty"),
            ("a,b,", "label 3 of 3 is empty"),
            ("", "label 1 of 1 is empty"),
            (r#"a,"" "#, "label 2 of 2 is empty"),
            ("a,b, a", "\"a\" is given twice, as label 1 and as label 3"),
            (r#"a,"b"#, "label 2: its quote is never closed"),
            (r#""a"b,c"#, "label 1: \"b,c\" follows its closing quote"),
        ] {
            let error = format!("{:#}", from_line(line).unwrap_err());
            assert!(error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn a_file_has_a_label_a_line_or_a_map_of_classes() {
        let folder = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let file = folder.path().join(name);
            std::fs::write(&file, text).unwrap();
            from_file(&file).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read("a.txt", "\u{feff}cat\r\n\r\n red, green \n").unwrap(), ["cat", "red, green"]);
        assert!(
            read("b.txt", "cat\n\ndog\ncat\n")
                .unwrap_err()
                .contains("b.txt:4: \"cat\" is given twice, first in line 1")
        );
        assert!(read("c.txt", "\n").unwrap_err().contains("c.txt: no label"));
        let numbers = r#"{"10": ["n3", "crane"], "2": ["n2", "great_white_shark"], 
                           "0": ["n1", "tench"], "11": ["n4", "crane"]}"#;
        assert_eq!(read("a.json", numbers).unwrap(), ["tench", "great white shark", "crane"]);
        assert_eq!(read("b.json", r#"{"n02": "goldfish", "n01": "tench"}"#).unwrap(), ["tench", "goldfish"]);
        assert_eq!(read("c.json", "\u{feff}[\"b_c\", \"a\"]").unwrap(), ["b_c", "a"]);
        assert!(read("d.json", r#"["a", ""]"#).unwrap_err().contains("d.json: the label of 1 is empty"));
        assert!(read("e.json", r#"{"0": 5}"#).unwrap_err().contains("0 is 5: expected a name"));
        assert!(read("f.json", "3").unwrap_err().contains("expected a list"));
        assert!(read("g.json", "[").unwrap_err().contains("g.json"));
    }
}
