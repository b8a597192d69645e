//! JSON in the one form in which documents are compared, that of Donut's evaluation.

use super::super::python::strip;
use serde_json::{Number, Value};

/// An object: its keys, the shorter first and those of one length in order, each with its values. It has no
/// key without a value.
pub(super) type Fields = Vec<(String, Values)>;

/// The values of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Objects that are not empty.
    Objects(Vec<Fields>),
    /// Texts without white space at their ends.
    Texts(Vec<String>),
}

/// A document in the form of Donut's `normalize_dict`: null, false, 0 and what is empty are left out, every
/// other scalar becomes a text and a list of one. A list of other things than objects keeps its texts and
/// numbers.
pub(super) fn normalize(value: &Value) -> Values {
    match value {
        _ if is_falsy(value) => Values::Objects(Vec::new()),
        Value::Object(object) => {
            let mut fields: Fields =
                object.iter().map(|(key, value)| (key.clone(), normalize(value))).collect();
            fields.retain(|(_, values)| !values.is_empty());
            fields.sort_by(|(a, _), (b, _)| (a.chars().count(), a).cmp(&(b.chars().count(), b)));
            Values::Objects(if fields.is_empty() { Vec::new() } else { vec![fields] })
        }
        Value::Array(items) if items.iter().all(Value::is_object) => {
            let objects = items.iter().flat_map(|item| match normalize(item) {
                Values::Objects(objects) => objects,
                Values::Texts(_) => Vec::new(),
            });
            Values::Objects(objects.collect())
        }
        Value::Array(items) => {
            let texts = items.iter().filter(|item| item.is_string() || item.is_number()).map(text);
            Values::Texts(texts.filter(|text| !text.is_empty()).collect())
        }
        scalar => Values::Texts(vec![text(scalar)]),
    }
}

impl Values {
    fn is_empty(&self) -> bool {
        match self {
            Self::Objects(objects) => objects.is_empty(),
            Self::Texts(texts) => texts.is_empty(),
        }
    }
}

/// Whether Python takes the value for false.
fn is_falsy(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// `str(value).strip()` of a scalar.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number_text(number),
        Value::String(text) => strip(text).to_owned(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Python writes an exponent with its sign and at least two digits.
fn number_text(number: &Number) -> String {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = match exponent.strip_prefix('-') {
        Some(digits) => ('-', digits),
        None => ('+', exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    format!("{}e{sign}{digits:0>2}", mantissa.strip_suffix(".0").unwrap_or(mantissa))
}

/// The texts with the keys that lead to them, joined by points, without the places in lists: Donut's
/// `flatten`.
pub(super) fn flatten(values: &Values) -> Vec<(String, &str)> {
    fn walk<'a>(key: &str, values: &'a Values, found: &mut Vec<(String, &'a str)>) {
        match values {
            Values::Texts(texts) => found.extend(texts.iter().map(|text| (key.to_owned(), text.as_str()))),
            Values::Objects(objects) => {
                for (child, values) in objects.iter().flatten() {
                    let path = if key.is_empty() { child.clone() } else { format!("{key}.{child}") };
                    walk(&path, values, found);
                }
            }
        }
    }
    let mut found = Vec::new();
    walk("", values, &mut found);
    found
}

/// The text at a path of keys and places in lists joined by points, such as `items.0.price`. A list of one
/// is the same as its item, so its place may be left out or given for a single item.
pub(super) fn text_at(value: &Value, path: &str) -> Option<String> {
    let mut found = value;
    for step in path.split('.') {
        let place: Option<usize> = step.parse().ok();
        found = match (found, place) {
            (Value::Array(items), Some(place)) => items.get(place)?,
            (Value::Array(items), None) => items.first()?.get(step)?,
            (Value::Object(object), _) if object.contains_key(step) => object.get(step)?,
            (single, Some(0)) => single,
            _ => return None,
        };
    }
    if let Value::Array(items) = found {
        found = items.first()?;
    }
    (!found.is_object() && !found.is_array() && !is_falsy(found)).then(|| text(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_have_one_form() {
        let of = |value: Value| flatten_owned(&normalize(&value));
        let both = [
            json!({"total": " 5 ", "a": null, "bb": ["x", "", 7, true, [1]], "c": {"d": {}}}),
            json!({"bb": ["x", "7"], "total": ["5"]}),
        ];
        assert_eq!(of(both[0].clone()), of(both[1].clone()));
        assert_eq!(of(both[0].clone()), [("bb", "x"), ("bb", "7"), ("total", "5")].map(owned));
        let menu = json!({"menu": [{"name": "cake", "n": 2.0}, {}, {"name": "tea", "sub": {"k": true}}]});
        let expected =
            [("menu.n", "2.0"), ("menu.name", "cake"), ("menu.sub.k", "True"), ("menu.name", "tea")];
        assert_eq!(of(menu).len(), 4);
        assert_eq!(
            of(json!({"menu": [{"name": "cake", "n": 2.0}]})),
            expected[..2].iter().copied().map(owned).collect::<Vec<_>>()
        );
        assert_eq!(of(json!("a text")), [("", "a text")].map(owned));
        assert_eq!(of(json!([])), []);
        assert_eq!(number_text(&Number::from_f64(1e22).unwrap()), "1e+22");
        assert_eq!(number_text(&Number::from_f64(1.5e-7).unwrap()), "1.5e-07");
    }

    fn owned((key, text): (&str, &str)) -> (String, String) {
        (key.to_owned(), text.to_owned())
    }

    fn flatten_owned(values: &Values) -> Vec<(String, String)> {
        flatten(values).into_iter().map(|(key, text)| (key, text.to_owned())).collect()
    }

    #[test]
    fn a_path_leads_to_a_text() {
        let value =
            json!({"total": "5", "items": [{"price": "1"}, {"price": ["2", "3"]}], "one": {"k": "v"}});
        let at = |path: &str| text_at(&value, path);
        assert_eq!(at("total").as_deref(), Some("5"));
        assert_eq!(at("total.0").as_deref(), Some("5"));
        assert_eq!(at("items.1.price.1").as_deref(), Some("3"));
        assert_eq!(at("items.price").as_deref(), Some("1"));
        assert_eq!(at("one.0.k").as_deref(), Some("v"));
        for absent in ["", "total.1", "items", "items.2.price", "items.0.absent", "one"] {
            assert_eq!(at(absent), None, "{absent}");
        }
    }
}
