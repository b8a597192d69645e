//! The tree of a sequence of tags and texts, with the characters that each text is from.

use super::tokens::{SEPARATOR, TEXT_SEQUENCE};
use mm_data::DocumentValue;

/// Objects within objects; what is deeper is a text.
const MAX_DEPTH: usize = 32;

/// A character and its index in the sequence.
type Character = (char, usize);

/// A sequence as a tree.
#[derive(Debug)]
pub(super) struct TokenTree {
    root: Node,
    /// Tags that are never closed, which are passed over.
    pub unclosed: usize,
}

/// An object, a list or a text.
#[derive(Debug)]
enum Node {
    Text(Leaf),
    List(Vec<Node>),
    Object(Members),
}

/// The members of an object, in order.
type Members = Vec<(String, Node)>;

/// A text of the tree.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Leaf {
    pub text: String,
    /// The indices of its characters in the sequence.
    pub characters: Vec<usize>,
    /// The index of the first character of the tag or separator after it.
    pub closing: Option<usize>,
}

impl TokenTree {
    /// The tree of a `sequence`, by the steps of transformers' `token2json`. `is_token` says which texts in
    /// angle brackets are tokens of their own, as `<yes/>`: these are written without the brackets.
    pub fn parse(sequence: Vec<char>, is_token: &dyn Fn(&str) -> bool) -> Self {
        let sequence = sequence.into_iter().zip(0..).collect();
        let mut parser = Parser { is_token, unclosed: 0 };
        let Groups { mut objects, rest, has_separator } = parser.parse(sequence, 0);
        let root = match objects.pop() {
            Some(only) if objects.is_empty() && !has_separator => Node::Object(only),
            None if !has_separator => {
                Node::Object(vec![(TEXT_SEQUENCE.to_owned(), Node::Text(leaf(&rest, None)))])
            }
            last => Node::List(objects.into_iter().chain(last).map(Node::Object).collect()),
        };
        Self { root, unclosed: parser.unclosed }
    }

    /// The tree as a document.
    pub fn value(&self) -> DocumentValue {
        self.root.value()
    }

    /// The texts in order, each with its path, as `items.0.price`.
    pub fn leaves(&self) -> Vec<(String, &Leaf)> {
        let mut leaves = Vec::new();
        self.root.collect(String::new(), &mut leaves);
        leaves
    }
}

impl Node {
    fn value(&self) -> DocumentValue {
        match self {
            Self::Text(leaf) => DocumentValue::Text(leaf.text.clone()),
            Self::List(items) => DocumentValue::List(items.iter().map(Self::value).collect()),
            Self::Object(members) => {
                let member = |(key, node): &(String, Self)| (key.clone(), node.value());
                DocumentValue::Object(members.iter().map(member).collect())
            }
        }
    }

    fn collect<'a>(&'a self, path: String, leaves: &mut Vec<(String, &'a Leaf)>) {
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match self {
            Self::Text(leaf) => leaves.push((path, leaf)),
            Self::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.collect(below(&index.to_string()), leaves);
                }
            }
            Self::Object(members) => {
                for (key, node) in members {
                    node.collect(below(key), leaves);
                }
            }
        }
    }
}

/// The objects of a sequence, between separators.
struct Groups {
    objects: Vec<Members>,
    /// What is left where no tag is found.
    rest: Vec<Character>,
    has_separator: bool,
}

struct Parser<'a> {
    is_token: &'a dyn Fn(&str) -> bool,
    unclosed: usize,
}

impl Parser<'_> {
    fn parse(&mut self, mut rest: Vec<Character>, depth: usize) -> Groups {
        let (mut objects, mut members, mut has_separator) = (Vec::new(), Members::new(), false);
        while let Some((start_tag, key)) = first_tag(&rest) {
            let end = format!("</s_{key}>");
            let Some(end_at) = find(&rest, &end, 0) else {
                rest = without(rest, &start_tag);
                self.unclosed += 1;
                continue;
            };
            let end_length = end.chars().count();
            if let Some(content) = content(&rest, &start_tag, &end) {
                // The peer leaves out a value of tags alone.
                if let Some(node) = self.node(content, depth) {
                    insert(&mut members, key, node);
                }
            }
            rest = trim(&rest[end_at + end_length..]).to_vec();
            if begins_with(&rest, SEPARATOR) {
                rest.drain(..SEPARATOR.len());
                objects.push(std::mem::take(&mut members));
                has_separator = true;
            }
        }
        if !members.is_empty() {
            objects.push(members);
        }
        Groups { objects, rest, has_separator }
    }

    /// The value of a tag with this `content`.
    fn node(&mut self, content: Content, depth: usize) -> Option<Node> {
        let Content { characters, closing } = content;
        let has_tags = contains(&characters, "<s_") && contains(&characters, "</s_");
        if has_tags && depth < MAX_DEPTH {
            let mut objects = self.parse(characters, depth + 1).objects;
            return match objects.len() {
                0 => None,
                1 => objects.pop().map(Node::Object),
                _ => Some(Node::List(objects.into_iter().map(Node::Object).collect())),
            };
        }
        let mut leaves = Vec::new();
        let mut rest = characters.as_slice();
        loop {
            let separator = (0..rest.len()).find(|&at| begins_with(&rest[at..], SEPARATOR));
            let text = trim(&rest[..separator.unwrap_or(rest.len())]);
            let next = separator.map_or(closing, |at| rest[at].1);
            leaves.push(Node::Text(self.category(leaf(text, Some(next)))));
            match separator {
                Some(at) => rest = &rest[at + SEPARATOR.len()..],
                None => break,
            }
        }
        if leaves.len() == 1 { leaves.pop() } else { Some(Node::List(leaves)) }
    }

    /// A text that is a token of its own, without its brackets.
    fn category(&self, mut leaf: Leaf) -> Leaf {
        let inner = leaf.text.strip_prefix('<').and_then(|text| text.strip_suffix("/>"));
        if let Some(inner) = inner.filter(|_| (self.is_token)(&leaf.text)) {
            leaf.text = inner.to_owned();
        }
        leaf
    }
}

/// What is between two tags.
struct Content {
    /// Without white space around it.
    characters: Vec<Character>,
    /// The index of the first character of the closing tag.
    closing: usize,
}

/// The first opening tag of `text`, and its key.
fn first_tag(text: &[Character]) -> Option<(String, String)> {
    let rest = &text[find(text, "<s_", 0)?..];
    let length = rest.iter().position(|&(character, _)| character == '>')?;
    let tag: String = rest[..=length].iter().map(|&(character, _)| character).collect();
    // `<s_>` has an empty key, and `<s_` without its end is none.
    let key = rest.get(3..length)?.iter().map(|&(character, _)| character).collect();
    Some((tag, key))
}

/// What is between the first `start` and the next `end`.
fn content(text: &[Character], start: &str, end: &str) -> Option<Content> {
    let from = find(text, start, 0)? + start.chars().count();
    let to = find(text, end, from)?;
    Some(Content { characters: trim(&text[from..to]).to_vec(), closing: text[to].1 })
}

/// Sets the member `key`, in its place where there is one already.
fn insert(members: &mut Members, key: String, node: Node) {
    match members.iter_mut().find(|(name, _)| *name == key) {
        Some((_, value)) => *value = node,
        None => members.push((key, node)),
    }
}

fn leaf(text: &[Character], closing: Option<usize>) -> Leaf {
    Leaf {
        text: text.iter().map(|&(character, _)| character).collect(),
        characters: text.iter().map(|&(_, index)| index).collect(),
        closing,
    }
}

/// `text` without every `part`.
fn without(text: Vec<Character>, part: &str) -> Vec<Character> {
    let length = part.chars().count();
    let (mut kept, mut at) = (Vec::with_capacity(text.len()), 0);
    while at < text.len() {
        if begins_with(&text[at..], part) {
            at += length;
        } else {
            kept.push(text[at]);
            at += 1;
        }
    }
    kept
}

/// The index of the first `pattern` in `text` at `from` or later, whatever the case of letters.
fn find(text: &[Character], pattern: &str, from: usize) -> Option<usize> {
    let pattern: Vec<char> = pattern.chars().collect();
    let last = text.len().checked_sub(pattern.len())?;
    let is_here = |at: &usize| {
        text[*at..].iter().zip(&pattern).all(|(&(character, _), &expected)| is_same(character, expected))
    };
    (from..=last).find(is_here)
}

/// Whether two characters are the same for Python's `re.IGNORECASE`: their lower cases have the same upper
/// case.
fn is_same(a: char, b: char) -> bool {
    let lower = |character: char| character.to_lowercase().next().unwrap_or(character);
    a == b || {
        let (a, b) = (lower(a), lower(b));
        a == b || a.to_uppercase().eq(b.to_uppercase())
    }
}

fn begins_with(text: &[Character], part: &str) -> bool {
    let mut characters = text.iter();
    part.chars().all(|expected| characters.next().is_some_and(|&(character, _)| character == expected))
}

fn contains(text: &[Character], part: &str) -> bool {
    (0..text.len()).any(|at| begins_with(&text[at..], part))
}

/// `text` without the white space of Python's `str.strip` around it.
fn trim(text: &[Character]) -> &[Character] {
    let is_kept = |&(character, _): &Character| {
        !(character.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&character))
    };
    let start = text.iter().position(is_kept).unwrap_or(text.len());
    let end = text.iter().rposition(is_kept).map_or(start, |last| last + 1);
    &text[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(sequence: &str) -> TokenTree {
        TokenTree::parse(sequence.chars().collect(), &|token| token == "<yes/>")
    }

    #[test]
    fn each_text_knows_its_characters_and_the_tag_after_it() {
        let sequence = "<s_a> x y <sep/><yes/></s_a><s_b><s_c>z</s_c></s_b>";
        let tree = parse(sequence);
        let leaves = tree.leaves();
        let paths: Vec<&str> = leaves.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["a.0", "a.1", "b.c"]);
        let texts: Vec<&str> = leaves.iter().map(|(_, leaf)| leaf.text.as_str()).collect();
        assert_eq!(texts, ["x y", "yes", "z"]);
        let of = |leaf: &Leaf| -> String {
            let characters: Vec<char> = sequence.chars().collect();
            leaf.characters.iter().map(|&index| characters[index]).collect()
        };
        let written: Vec<String> = leaves.iter().map(|(_, leaf)| of(leaf)).collect();
        assert_eq!(written, ["x y", "<yes/>", "z"]);
        let closing: Vec<Option<&str>> =
            leaves.iter().map(|(_, leaf)| leaf.closing.map(|at| &sequence[at..at + 5])).collect();
        assert_eq!(closing, [Some("<sep/"), Some("</s_a"), Some("</s_c")]);
    }

    #[test]
    fn tags_that_are_never_closed_are_counted() {
        let tree = parse("<s_a><s_b>1</s_b><s_c>2");
        assert_eq!((tree.unclosed, tree.leaves().len()), (2, 1));
        assert_eq!(parse("<s_a>1</s_a>").unclosed, 0);
        assert_eq!(parse("<s_a><s_b>1</s_a>").unclosed, 0); // a text, for the peer as well
    }

    #[test]
    fn the_depth_is_bounded() {
        let depth = 5000;
        let open: String = (0..depth).map(|level| format!("<s_{level}>")).collect();
        let close: String = (0..depth).rev().map(|level| format!("</s_{level}>")).collect();
        let tree = parse(&(open + "x" + &close));
        let (path, _) = &tree.leaves()[0];
        assert_eq!(path.split('.').count(), MAX_DEPTH + 1);
    }
}
