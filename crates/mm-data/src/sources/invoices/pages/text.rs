//! Printed text with marks: which characters of a value each printed character shows.

use std::ops::Range;

/// A space that does not end a word: between the groups of a number.
pub(super) const HARD_SPACE: char = '\u{a0}';

/// A field of the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Number,
    Date,
    Seller,
    Currency,
    Subtotal,
    Tax,
    Total,
    Item(usize, ItemKey),
}

/// A field of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ItemKey {
    Description,
    Quantity,
    Price,
    Amount,
}

impl ItemKey {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Description => "description",
            Self::Quantity => "quantity",
            Self::Price => "price",
            Self::Amount => "amount",
        }
    }
}

impl Key {
    /// The path in the target: `total`, `items.0.amount`.
    pub(super) fn path(self) -> String {
        match self {
            Self::Number => "number".to_owned(),
            Self::Date => "date".to_owned(),
            Self::Seller => "seller".to_owned(),
            Self::Currency => "currency".to_owned(),
            Self::Subtotal => "subtotal".to_owned(),
            Self::Tax => "tax".to_owned(),
            Self::Total => "total".to_owned(),
            Self::Item(index, part) => format!("items.{index}.{}", part.word()),
        }
    }
}

/// Printed characters that show a value.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) key: Key,
    /// The printed characters.
    pub(super) range: Range<usize>,
    /// Pairs of a character of the value and the printed characters that show it.
    pub(super) shows: Vec<(usize, Range<usize>)>,
}

/// Printed characters with marks.
#[derive(Debug, Clone, Default)]
pub(super) struct Text {
    pub(super) chars: Vec<char>,
    pub(super) marks: Vec<Mark>,
}

impl Text {
    pub(super) fn plain(text: &str) -> Self {
        Self { chars: text.chars().collect(), marks: Vec::new() }
    }

    /// A value that is printed as it is.
    pub(super) fn copy(key: Key, value: &str) -> Self {
        let chars: Vec<char> = value.chars().collect();
        let shows = (0..chars.len()).map(|at| (at, at..at + 1)).collect();
        Self { marks: vec![Mark { key, range: 0..chars.len(), shows }], chars }
    }

    /// Text whose characters show a value: `shows` as in [`Mark`].
    pub(super) fn shown(key: Key, text: &str, shows: Vec<(usize, Range<usize>)>) -> Self {
        let chars: Vec<char> = text.chars().collect();
        Self { marks: vec![Mark { key, range: 0..chars.len(), shows }], chars }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chars.is_empty()
    }

    /// Appends text without a mark.
    pub(super) fn and(self, text: &str) -> Self {
        self.then(Self::plain(text))
    }

    /// Appends text.
    pub(super) fn then(mut self, other: Self) -> Self {
        let offset = self.chars.len();
        let moved = |range: &Range<usize>| range.start + offset..range.end + offset;
        self.chars.extend(other.chars);
        self.marks.extend(other.marks.into_iter().map(|mark| Mark {
            key: mark.key,
            range: moved(&mark.range),
            shows: mark.shows.iter().map(|(at, range)| (*at, moved(range))).collect(),
        }));
        self
    }
}
