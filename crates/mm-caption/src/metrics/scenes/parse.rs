//! The grammar of the captions of shapes: `a large red circle above a star`, `exactly two stars`, lists.

use mm_data::shapes::{Colour, Description, Pattern, Relation, Shape, Size};

/// The number words; the place is the number.
const NUMBERS: [&str; 11] =
    ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/// Words before the first noun phrase that state nothing on their own.
const OPENINGS: [&[&str]; 4] = [&["a", "picture", "of"], &["there", "is"], &["there", "are"], &["exactly"]];

/// A noun phrase: `a small red circle`, `two shapes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Phrase {
    /// The attributes that the objects have.
    pub description: Description,
    /// The exact number of objects in the scene; `None` after an article, which says that there is at least
    /// one.
    pub number: Option<usize>,
}

impl Phrase {
    /// The number of distinct objects that the phrase refers to.
    pub fn referents(&self) -> usize {
        self.number.unwrap_or(1)
    }
}

/// A caption as a sequence of noun phrases.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedCaption {
    /// The noun phrases in order.
    pub phrases: Vec<Phrase>,
    /// The relation of each phrase to the next, one fewer than phrases; `None` between the items of a list.
    pub relations: Vec<Option<Relation>>,
    /// The text from the first word that is not in the grammar; the whole caption if it is empty.
    pub unparsed: Option<String>,
}

impl ParsedCaption {
    /// Reads a caption. Every form that [`Scene::captions`](mm_data::shapes::Scene::captions) and
    /// [`Scene::negatives`](mm_data::shapes::Scene::negatives) make is read completely.
    ///
    /// Upper case, the order of adjectives, the number of a noun (`two circle`) and a period at the end are
    /// accepted. Other words end the parse; the phrases before them stand.
    pub fn parse(caption: &str) -> Self {
        let tokens = tokens(caption);
        let words: Vec<&str> = tokens.iter().map(String::as_str).collect();
        let mut parser = Parser { words: &words, at: 0 };
        let mut parsed = Self::default();
        parser.skip_opening();
        let mut relation = None;
        // A separator counts as read only together with the phrase after it.
        let mut read = 0;
        while let Some(phrase) = parser.phrase() {
            let last = parsed.phrases.last().map_or(1, Phrase::referents);
            // The grammar relates single objects.
            if relation.is_some() && (last != 1 || phrase.referents() != 1) {
                break;
            }
            if !parsed.phrases.is_empty() {
                parsed.relations.push(relation);
            }
            parsed.phrases.push(phrase);
            read = parser.at;
            match parser.separator() {
                Some(next) => relation = next,
                None => break,
            }
        }
        if read < words.len() || parsed.phrases.is_empty() {
            parsed.unparsed = Some(words[read..].join(" "));
        }
        parsed
    }
}

/// Lower-case words, with commas as their own tokens and without a period at the end.
fn tokens(caption: &str) -> Vec<String> {
    let caption = caption.trim();
    let caption = caption.strip_suffix('.').unwrap_or(caption);
    caption.to_lowercase().replace(',', " , ").split_whitespace().map(str::to_owned).collect()
}

struct Parser<'a> {
    words: &'a [&'a str],
    at: usize,
}

impl Parser<'_> {
    /// Skips these words if they are next.
    fn skip(&mut self, words: &[&str]) -> bool {
        let is_next = self.words[self.at..].starts_with(words);
        if is_next {
            self.at += words.len();
        }
        is_next
    }

    fn skip_opening(&mut self) {
        OPENINGS.iter().any(|opening| self.skip(opening));
    }

    /// A noun phrase, with an article or a number.
    fn phrase(&mut self) -> Option<Phrase> {
        let &determiner = self.words.get(self.at)?;
        let number = NUMBERS.iter().position(|&word| word == determiner);
        if number.is_none() && !["a", "an", "the"].contains(&determiner) {
            return None;
        }
        self.at += 1;
        let mut description = Description::default();
        loop {
            let word = *self.words.get(self.at)?;
            self.at += 1;
            if let Some(size) = Size::ALL.into_iter().find(|size| size.word() == word) {
                put(&mut description.size, size)?;
            } else if let Some(pattern) = Pattern::ALL.into_iter().find(|pattern| pattern.word() == word) {
                put(&mut description.pattern, pattern)?;
            } else if let Some(colour) = Colour::ALL.into_iter().find(|colour| colour.word() == word) {
                put(&mut description.colour, colour)?;
            } else if is_noun(word, "shape") {
                return Some(Phrase { description, number });
            } else {
                description.shape = Some(Shape::ALL.into_iter().find(|shape| is_noun(word, shape.word()))?);
                return Some(Phrase { description, number });
            }
        }
    }

    /// The words between two phrases: a relation, or `None` for a comma or `and`.
    fn separator(&mut self) -> Option<Option<Relation>> {
        let comma = self.skip(&[","]);
        if self.skip(&["and"]) {
            return Some(None);
        }
        let which = self.skip(&["which", "is"]);
        let relation = Relation::ALL.into_iter().find(|relation| {
            let words: Vec<&str> = relation.words().split(' ').collect();
            self.skip(&words)
        });
        if relation.is_none() && (which || !comma) {
            return None;
        }
        Some(relation)
    }
}

/// Sets an attribute; `None` if the phrase has it already, as in `a red blue circle`.
fn put<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.replace(value).is_none().then_some(())
}

/// Whether a word is the noun in the singular or plural.
fn is_noun(word: &str, noun: &str) -> bool {
    word.strip_prefix(noun).is_some_and(|ending| matches!(ending, "" | "s" | "es"))
}
