//! Noun phrases such as `the small striped red circle`, and the objects that they match.

use std::fmt::Write;

use super::object::{Colour, HELD_OUT, Object, Pattern, Shape, Size};

/// The attributes of an object in a phrase. It matches every object with these attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Description {
    /// The size, if it is in the phrase.
    pub size: Option<Size>,
    /// The pattern, if it is in the phrase.
    pub pattern: Option<Pattern>,
    /// The color, if it is in the phrase.
    pub colour: Option<Colour>,
    /// The shape, if it is in the phrase; otherwise the phrase has the word `shape`.
    pub shape: Option<Shape>,
}

/// The attributes in a phrase: a bitwise or of the constants below.
pub(super) type Naming = u8;
pub(super) const SIZE: Naming = 1;
pub(super) const PATTERN: Naming = 2;
pub(super) const COLOUR: Naming = 4;
pub(super) const SHAPE: Naming = 8;
pub(super) const EVERYTHING: Naming = SIZE | PATTERN | COLOUR | SHAPE;

impl Description {
    /// These attributes of an object.
    pub(super) fn of(object: &Object, naming: Naming) -> Self {
        Self {
            size: (naming & SIZE != 0).then_some(object.size),
            pattern: (naming & PATTERN != 0).then_some(object.pattern),
            colour: (naming & COLOUR != 0).then_some(object.colour),
            shape: (naming & SHAPE != 0).then_some(object.shape),
        }
    }

    /// All four attributes of an object.
    pub fn full(object: &Object) -> Self {
        Self::of(object, EVERYTHING)
    }

    /// Whether the object has all attributes of the phrase.
    pub fn fits(&self, object: &Object) -> bool {
        self.size.is_none_or(|size| size == object.size)
            && self.pattern.is_none_or(|pattern| pattern == object.pattern)
            && self.colour.is_none_or(|colour| colour == object.colour)
            && self.shape.is_none_or(|shape| shape == object.shape)
    }

    /// Whether the phrase has one of the [`HELD_OUT`] combinations.
    pub fn is_held_out(&self) -> bool {
        HELD_OUT.iter().any(|&(colour, shape)| self.colour == Some(colour) && self.shape == Some(shape))
    }

    /// `small striped red circle`, `red shape`.
    pub fn singular(&self) -> String {
        let mut phrase = String::with_capacity(32);
        let adjectives =
            [self.size.map(Size::word), self.pattern.map(Pattern::word), self.colour.map(Colour::word)];
        for adjective in adjectives.into_iter().flatten() {
            phrase.push_str(adjective);
            phrase.push(' ');
        }
        phrase.push_str(self.shape.map_or("shape", Shape::word));
        phrase
    }

    /// `small striped red circles`, `crosses`.
    pub fn plural(&self) -> String {
        let mut phrase = self.singular();
        phrase.push_str(if phrase.ends_with('s') { "es" } else { "s" });
        phrase
    }

    /// `a red circle`, `an orange square`.
    pub fn indefinite(&self) -> String {
        let phrase = self.singular();
        let article = if phrase.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
        format!("{article} {phrase}")
    }

    /// `the red circle`.
    pub fn definite(&self) -> String {
        format!("the {}", self.singular())
    }

    /// `one red circle`, `two red circles`.
    pub fn numbered(&self, count: usize) -> String {
        format!("{} {}", number_word(count), if count == 1 { self.singular() } else { self.plural() })
    }

    /// `a red circle` for one, `two red circles` for more.
    pub fn counted(&self, count: usize) -> String {
        if count == 1 { self.indefinite() } else { self.numbered(count) }
    }
}

/// A small number in words, up to the counts of scenes and negatives.
pub(super) fn number_word(number: usize) -> &'static str {
    ["no", "one", "two", "three", "four", "five", "six"].get(number).copied().unwrap_or("seven")
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn listed(items: &[String]) -> String {
    let mut list = String::with_capacity(32 * items.len());
    for (place, item) in items.iter().enumerate() {
        let joint = match place {
            0 => "",
            _ if place + 1 == items.len() => " and ",
            _ => ", ",
        };
        // Writing to a string never fails.
        let _ = write!(list, "{joint}{item}");
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_are_english() {
        let orange = Description { colour: Some(Colour::Orange), ..Description::default() };
        assert_eq!(orange.indefinite(), "an orange shape");
        assert_eq!(orange.counted(2), "two orange shapes");
        let cross = Description { shape: Some(Shape::Cross), size: Some(Size::Small), ..orange };
        assert_eq!(
            (cross.indefinite(), cross.plural()),
            ("a small orange cross".into(), "small orange crosses".into())
        );
        assert_eq!(
            (cross.definite(), cross.numbered(1)),
            ("the small orange cross".into(), "one small orange cross".into())
        );
    }

    #[test]
    fn lists_end_with_and() {
        let items = ["a", "b", "c"].map(String::from);
        assert_eq!(
            [listed(&items[..1]), listed(&items[..2]), listed(&items)],
            ["a", "a and b", "a, b and c"]
        );
    }
}
