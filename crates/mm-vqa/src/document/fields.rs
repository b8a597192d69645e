//! What was read of a page: a document, and its fields with confidences and places.

use super::place::Attention;
use super::spelling::Spelling;
use super::token_tree::{Leaf, TokenTree};
use super::tokens::TEXT_SEQUENCE;
use crate::Result;
use mm_data::DocumentValue;
use mm_text::Tokenizer;
use mm_text::generate::Hypothesis;
use mm_vision::PagePlacement;
use serde::{Deserialize, Serialize};

/// What was read of a page.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DocumentReading {
    /// The document. It has no members where nothing was found.
    pub json: DocumentValue,
    /// The texts of `json`, in its order.
    pub fields: Vec<FieldReading>,
    /// Whether the model ended the document; otherwise it was cut at `max_new_tokens`.
    pub finished: bool,
    /// Tags that the model opened and never closed; what followed them may be lost.
    pub unclosed: usize,
}

/// A text that was read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FieldReading {
    /// The path of its keys and positions in lists, as `items.0.price`.
    pub path: String,
    /// The text.
    pub text: String,
    /// The product of the probabilities of its tokens and of the tag that ends it, from 0 to 1.
    pub confidence: f64,
    /// Left, top, right and bottom of where it was read, in pixels of the page, if that is known.
    pub place: Option<[f64; 4]>,
}

/// The tokens of a text, and how they were found.
pub(super) struct ReadTokens<'a> {
    pub tokenizer: &'a Tokenizer,
    /// The prompt; its first token is the schema's.
    pub prompt: &'a [u32],
    /// Found after it.
    pub hypothesis: &'a Hypothesis,
    /// Tokens that are no text: padding and the end.
    pub silent: &'a [u32],
}

impl DocumentReading {
    /// The document that `read` tokens write. `attention` has a row for each of the hypothesis's tokens.
    ///
    /// # Errors
    /// The tokenizers library cannot decode the tokens.
    pub(super) fn new(read: &ReadTokens, attention: Option<(&Attention, &PagePlacement)>) -> Result<Self> {
        let ReadTokens { tokenizer, prompt, hypothesis, silent } = read;
        let after_schema = prompt.get(1..).unwrap_or_default();
        let is_text = |(_, id): &(Option<usize>, u32)| !silent.contains(id);
        let found = hypothesis.tokens.iter().enumerate().map(|(index, &id)| (Some(index), id));
        let tokens = after_schema.iter().map(|&id| (None, id)).chain(found);
        let (sources, ids): (Vec<Option<usize>>, Vec<u32>) = tokens.filter(is_text).unzip();
        let spelling = Spelling::new(tokenizer, &ids)?;
        // Of each character, the token of the hypothesis.
        let sources: Vec<Option<usize>> = spelling.tokens.iter().map(|&token| sources[token]).collect();
        let is_token = |text: &str| tokenizer.token_id(text).is_some();
        let tree = TokenTree::parse(spelling.characters, &is_token);
        let json = tree.value();
        if is_empty_sequence(&json) {
            return Ok(Self { finished: hypothesis.finished, unclosed: tree.unclosed, ..Self::default() });
        }
        let end = hypothesis.tokens.len().saturating_sub(usize::from(hypothesis.finished));
        let field = |(path, leaf): (String, &Leaf)| {
            let tokens = tokens_of(leaf, &sources);
            let closing = match leaf.closing {
                Some(at) => sources[at],
                None => hypothesis.finished.then_some(end), // the end token
            };
            let mut probability = tokens.clone();
            probability.extend(closing.filter(|closing| !tokens.contains(closing)));
            let log_probs = probability.iter().filter_map(|&token| hypothesis.log_probs.get(token));
            FieldReading {
                path,
                text: leaf.text.clone(),
                confidence: log_probs.map(|&log_prob| f64::from(log_prob)).sum::<f64>().exp().min(1.0),
                place: attention.and_then(|(attention, placement)| attention.place(&tokens, placement)),
            }
        };
        let fields = tree.leaves().into_iter().map(field).collect();
        Ok(Self { json, fields, finished: hypothesis.finished, unclosed: tree.unclosed })
    }

    /// Whether there is no text at all.
    pub fn is_empty(&self) -> bool {
        self.fields.iter().all(|field| field.text.is_empty())
    }

    /// Leaves out the fields with a confidence below `least`, and objects and lists that have no other, and
    /// gives their number. Paths count what is left.
    pub fn drop_below(&mut self, least: f64) -> usize {
        let before = self.fields.len();
        let mut fields = std::mem::take(&mut self.fields).into_iter();
        let mut kept = Vec::new();
        let json = std::mem::take(&mut self.json);
        let mut keep = |text: &str| {
            // Without a field there is no confidence either.
            let field = fields.next().filter(|field| field.text == text && field.confidence >= least);
            field.map(|field| kept.push(field)).is_some()
        };
        self.json = pruned(json, &mut keep).unwrap_or_default();
        self.fields = kept;
        let mut paths = paths(&self.json).into_iter();
        self.fields.iter_mut().zip(&mut paths).for_each(|(field, path)| field.path = path);
        before - self.fields.len()
    }
}

/// Whether `json` is a sequence without tags and without text.
fn is_empty_sequence(json: &DocumentValue) -> bool {
    let DocumentValue::Object(members) = json else { return false };
    matches!(members.as_slice(), [(key, DocumentValue::Text(text))]
        if key == TEXT_SEQUENCE && text.trim().is_empty())
}

/// The tokens of the hypothesis from the first of `leaf` to its last, ascending: white space need not have a
/// character of its own.
fn tokens_of(leaf: &Leaf, sources: &[Option<usize>]) -> Vec<usize> {
    let tokens = || leaf.characters.iter().filter_map(|&at| sources[at]);
    match (tokens().min(), tokens().max()) {
        (Some(first), Some(last)) => (first..=last).collect(),
        _ => Vec::new(),
    }
}

/// `value` with the texts that `keep` accepts; none where there are none.
fn pruned(value: DocumentValue, keep: &mut dyn FnMut(&str) -> bool) -> Option<DocumentValue> {
    match value {
        DocumentValue::Text(text) => keep(&text).then_some(DocumentValue::Text(text)),
        DocumentValue::List(items) => {
            let items: Vec<_> = items.into_iter().filter_map(|item| pruned(item, keep)).collect();
            (!items.is_empty()).then_some(DocumentValue::List(items))
        }
        DocumentValue::Object(members) => {
            let member = |(key, value)| Some((key, pruned(value, keep)?));
            let members: Vec<_> = members.into_iter().filter_map(member).collect();
            (!members.is_empty()).then_some(DocumentValue::Object(members))
        }
    }
}

/// The paths of the texts of `value`, in order.
fn paths(value: &DocumentValue) -> Vec<String> {
    fn collect(value: &DocumentValue, path: String, paths: &mut Vec<String>) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match value {
            DocumentValue::Text(_) => paths.push(path),
            DocumentValue::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    collect(item, below(&index.to_string()), paths);
                }
            }
            DocumentValue::Object(members) => {
                for (key, value) in members {
                    collect(value, below(key), paths);
                }
            }
        }
    }
    let mut found = Vec::new();
    collect(value, String::new(), &mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_text::character_tokenizer;
    use proptest::prelude::*;

    fn tokenizer() -> Tokenizer {
        let tags = ["<s_pay>", "<s_a>", "</s_a>", "<s_b>", "</s_b>", "<sep/>", "<yes/>"].map(str::to_owned);
        character_tokenizer("0123456789. x".chars(), &tags, 64).unwrap()
    }

    /// The reading of `text`, whose tokens after the first have the probabilities 1/2, 1/3, 1/4, ...
    fn read(prompt: &str, text: &str, finished: bool) -> DocumentReading {
        let tokenizer = tokenizer();
        let mut tokens = tokenizer.encode_words(text).unwrap();
        if finished {
            tokens.push(tokenizer.eos_id());
        }
        let log_probs = (2..).take(tokens.len()).map(|number| -(number as f32).ln()).collect();
        let hypothesis = Hypothesis { tokens, log_probs, score: 0.0, finished };
        let prompt = tokenizer.encode_words(prompt).unwrap();
        let silent = [tokenizer.eos_id(), tokenizer.pad_id()];
        let read =
            ReadTokens { tokenizer: &tokenizer, prompt: &prompt, hypothesis: &hypothesis, silent: &silent };
        DocumentReading::new(&read, None).unwrap()
    }

    fn confidence(field: &FieldReading) -> u32 {
        (1.0 / field.confidence).round() as u32
    }

    #[test]
    fn a_field_has_the_probability_of_its_tokens_and_of_the_tag_that_ends_it() {
        let reading = read("<s_pay>", "<s_a>1.<sep/></s_a><s_b><yes/></s_b>", true);
        let fields: Vec<(&str, &str, u32)> = reading
            .fields
            .iter()
            .map(|field| (field.path.as_str(), field.text.as_str(), confidence(field)))
            .collect();
        // Tokens: <s_a> 2, "1" 3, "." 4, <sep/> 5, </s_a> 6, <s_b> 7, <yes/> 8, </s_b> 9, </s> 10.
        assert_eq!(fields, [("a.0", "1.", 3 * 4 * 5), ("a.1", "", 6), ("b", "yes", 8 * 9)]);
        assert!(reading.finished && reading.unclosed == 0 && !reading.is_empty());
        let json = serde_json::to_value(&reading).unwrap();
        assert_eq!(json["json"], serde_json::json!({"a": ["1.", ""], "b": "yes"}));
    }

    #[test]
    fn a_prompt_of_several_tokens_is_a_part_of_the_document() {
        let reading = read("<s_pay><s_a>1</s_a><s_b>", "2</s_b>", true);
        let fields: Vec<(&str, u32)> =
            reading.fields.iter().map(|field| (field.path.as_str(), confidence(field))).collect();
        assert_eq!(fields, [("a", 1), ("b", 6)]);
    }

    #[test]
    fn a_document_that_never_closes_is_what_was_closed() {
        let reading = read("<s_pay>", "<s_a>1</s_a><s_b>2", false);
        assert_eq!((reading.fields.len(), reading.unclosed, reading.finished), (1, 1, false));
        let text = read("<s_pay>", "1.0 x", true);
        assert_eq!((text.fields[0].path.as_str(), confidence(&text.fields[0])), ("text_sequence", 5040));
    }

    proptest! {
        #[test]
        fn any_tokens_are_a_reading(
            tokens in prop::collection::vec(0u32..30, 0..40),
            prompt in prop::collection::vec(0u32..12, 0..4),
            finished: bool,
        ) {
            let log_probs = vec![-0.1; tokens.len()];
            let hypothesis = Hypothesis { tokens, log_probs, score: 0.0, finished };
            let (tokenizer, hypothesis) = (&tokenizer(), &hypothesis);
            let read = ReadTokens { tokenizer, prompt: &prompt, hypothesis, silent: &[0, 2] };
            let mut reading = DocumentReading::new(&read, None).unwrap();
            prop_assert!(reading.fields.iter().all(|field| (0.0..=1.0).contains(&field.confidence)));
            prop_assert_eq!(paths(&reading.json).len(), reading.fields.len());
            let (count, left_out) = (reading.fields.len(), reading.drop_below(0.8));
            prop_assert_eq!(reading.fields.len() + left_out, count);
            let found: Vec<String> = reading.fields.iter().map(|field| field.path.clone()).collect();
            prop_assert_eq!(paths(&reading.json), found);
        }
    }

    #[test]
    fn a_blank_page_has_no_fields() {
        for finished in [true, false] {
            let reading = read("<s_pay>", "", finished);
            let nothing = DocumentReading { finished, ..DocumentReading::default() };
            assert_eq!(reading, nothing);
            assert!(reading.is_empty());
        }
    }

    #[test]
    fn fields_of_low_confidence_are_left_out_and_counted() {
        let mut reading = read("<s_pay>", "<s_a>1<sep/>2<sep/>3</s_a><s_b>4</s_b>", true);
        reading.fields[0].confidence = 0.4;
        reading.fields[3].confidence = 0.1;
        reading.fields[1].confidence = 0.9;
        reading.fields[2].confidence = 0.8;
        assert_eq!(reading.drop_below(0.5), 2);
        let paths: Vec<(&str, &str)> =
            reading.fields.iter().map(|field| (field.path.as_str(), field.text.as_str())).collect();
        assert_eq!(paths, [("a.0", "2"), ("a.1", "3")]);
        assert_eq!(reading.json.to_json(), serde_json::json!({"a": ["2", "3"]}));
        assert_eq!((reading.drop_below(1.0), reading.json.clone()), (2, DocumentValue::default()));
        assert!(reading.is_empty());
    }
}
