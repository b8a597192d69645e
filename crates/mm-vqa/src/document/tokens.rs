//! Structured documents as sequences of tags and texts, in Donut's form: `<s_total>7.50</s_total>`, with
//! `<sep/>` between the items of a list.

use super::token_tree::TokenTree;
use mm_data::DocumentValue;

/// Between the items of a list.
pub const SEPARATOR: &str = "<sep/>";

/// The key that Donut gives to a text without tags.
pub(super) const TEXT_SEQUENCE: &str = "text_sequence";

/// The tag that begins the value of `key`, or ends it. It is also the prompt of a schema.
pub fn tag(key: &str, is_closing: bool) -> String {
    let slash = if is_closing { "/" } else { "" };
    format!("<{slash}s_{key}>")
}

/// The sequence of `value`, as Donut's `json2token` writes it with the keys in their order. `is_token` says
/// which texts in angle brackets are tokens of their own, as `<yes/>`: a value `yes` is written as this
/// token.
pub fn to_tokens(value: &DocumentValue, is_token: &dyn Fn(&str) -> bool) -> String {
    match value {
        DocumentValue::Object(members) => match members.as_slice() {
            [(key, value)] if key == TEXT_SEQUENCE => to_tokens(value, is_token),
            members => {
                let member = |(key, value): &(String, DocumentValue)| {
                    tag(key, false) + &to_tokens(value, is_token) + &tag(key, true)
                };
                members.iter().map(member).collect()
            }
        },
        DocumentValue::List(items) => {
            let items: Vec<String> = items.iter().map(|item| to_tokens(item, is_token)).collect();
            items.join(SEPARATOR)
        }
        DocumentValue::Text(text) => {
            let category = format!("<{text}/>");
            if is_token(&category) { category } else { text.clone() }
        }
    }
}

/// The document that a sequence writes: transformers' `token2json` of `DonutProcessor`. Any text is one: a
/// tag that is never closed is passed over, and a text without tags is the value of `text_sequence`.
/// `is_token` is as in [`to_tokens`].
pub fn from_tokens(sequence: &str, is_token: &dyn Fn(&str) -> bool) -> DocumentValue {
    TokenTree::parse(sequence.chars().collect(), is_token).value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(text: &str) -> DocumentValue {
        DocumentValue::Text(text.to_owned())
    }

    fn object(members: &[(&str, DocumentValue)]) -> DocumentValue {
        DocumentValue::Object(members.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    fn is_category(text: &str) -> bool {
        text == "<yes/>"
    }

    #[test]
    fn a_document_is_written_with_its_keys_in_order_and_read_back() {
        let item = |name: &str, count: &str| object(&[("nm", text(name)), ("cnt", text(count))]);
        let value = object(&[
            ("total", text("7.50")),
            ("menu", DocumentValue::List(vec![item("coffee", "2"), item("tea", "1")])),
            ("paid", text("yes")),
        ]);
        let sequence = "<s_total>7.50</s_total><s_menu><s_nm>coffee</s_nm><s_cnt>2</s_cnt><sep/>\
                        <s_nm>tea</s_nm><s_cnt>1</s_cnt></s_menu><s_paid><yes/></s_paid>";
        assert_eq!(to_tokens(&value, &is_category), sequence);
        assert_eq!(from_tokens(sequence, &is_category), value);
    }

    #[test]
    fn a_text_without_tags_is_a_text_sequence() {
        let value = object(&[(TEXT_SEQUENCE, text("a page of text"))]);
        assert_eq!(to_tokens(&value, &is_category), "a page of text");
        assert_eq!(from_tokens("a page of text", &is_category), value);
    }

    /// Values that sequences can tell apart: texts without spaces at their ends, no empty objects, lists of
    /// at least two items, and other keys at every depth, since a value ends at the first closing tag of its
    /// key.
    fn values(depth: usize) -> BoxedStrategy<DocumentValue> {
        let leaf = "([A-Za-z0-9.,€ü&-]( ?[A-Za-z0-9.,€ü/-]){0,6})?".prop_map(DocumentValue::Text);
        let texts = prop::collection::vec(leaf.clone(), 2..4).prop_map(DocumentValue::List);
        if depth == 0 {
            return prop_oneof![leaf, texts].boxed();
        }
        let objects = objects(depth - 1);
        let list = prop::collection::vec(objects.clone(), 2..4).prop_map(DocumentValue::List);
        prop_oneof![leaf, texts, objects, list].boxed()
    }

    fn objects(depth: usize) -> BoxedStrategy<DocumentValue> {
        prop::collection::vec(values(depth), 1..4)
            .prop_map(move |values| {
                let key = |index: usize| format!("k{depth}_{index}");
                let members = values.into_iter().enumerate().map(|(index, value)| (key(index), value));
                DocumentValue::Object(members.collect())
            })
            .boxed()
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(value in objects(3)) {
            let sequence = to_tokens(&value, &is_category);
            prop_assert_eq!(from_tokens(&sequence, &is_category), value);
        }

        #[test]
        fn any_text_is_a_document(text in "(<s_[aB]>|</s_[Ab]>|<sep/>|<|>|[ abſ1]|<yes/>|<s_|\\PC){0,60}") {
            from_tokens(&text, &is_category);
        }

        #[test]
        fn any_string_is_a_document(sequence in any::<String>()) {
            from_tokens(&sequence, &is_category);
        }
    }
}
