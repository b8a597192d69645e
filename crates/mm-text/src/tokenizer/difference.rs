//! Whether two tokenizers give the same ids.

use super::Tokenizer;

/// Texts on which tokenizers with other cleaning, case, splitting or normalization differ.
const PROBES: [&str; 6] = [
    "A photo of a CAT, and (two) dogs' tails!",
    "  runs\tof   white\nspace ",
    "Caf\u{e9} cafe\u{301} na\u{ef}ve \u{df} \u{130}",
    "\u{201c}curly\u{201d} \u{fb01}ne \u{ff21}\u{ff22} &amp;amp; 10\u{b2}",
    "\u{732b}\u{3068}\u{72ac} \u{1f34f}\u{1f3fd} 3.14 x_y #tag",
    "",
];

impl Tokenizer {
    /// The first difference to `other` that changes ids or batches; none if there is none. The settings of
    /// both are compared, and the ids of some texts.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let facts = [
            ("begin token", self.bos, other.bos),
            ("end token", Some(self.eos), Some(other.eos)),
            ("padding token", Some(self.pad), Some(other.pad)),
            ("length", Some(self.context_length as u32), Some(other.context_length as u32)),
            ("side of the padding", Some(self.pads_left.into()), Some(other.pads_left.into())),
        ];
        if let Some((what, a, b)) = facts.into_iter().find(|(_, a, b)| a != b) {
            let shown = |id: Option<u32>| id.map_or("none".to_owned(), |id| id.to_string());
            return Some(format!("its {what} is {} and would be {}", shown(a), shown(b)));
        }
        if self.inner.get_vocab(true) != other.inner.get_vocab(true) {
            return Some("its vocabulary would be another".to_owned());
        }
        let added =
            self.inner.get_added_vocabulary().get_vocab().keys().map(|token| format!("a {token} b{token}c"));
        let long = "one word after another ".repeat(self.context_length);
        let texts = PROBES.iter().map(|&text| text.to_owned()).chain(added).chain([long]);
        let ids = |tokenizer: &Self, text: &str| tokenizer.encode(text).ok();
        let differs = texts.into_iter().find(|text| ids(self, text) != ids(other, text));
        differs.map(|text| format!("the text {text:?} would have other ids"))
    }
}
