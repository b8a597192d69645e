//! Filters on metadata: `label = "cat" and (width >= 512 or not caption ~ "dog")`.
//!
//! A filter is a condition on the fields of an item's metadata and on its `key` and `set`. `=`, `!=`, `<`,
//! `<=`, `>` and `>=` compare with a number or a quoted text, `~` finds a text in a text, whatever the case;
//! `and`, `or`, `not` and parentheses join conditions. An item without the field fulfils none of the
//! conditions on it.

use crate::{Error, Result};

/// A condition on the metadata of items.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// Both hold.
    And(Box<Filter>, Box<Filter>),
    /// One of the two holds, or both.
    Or(Box<Filter>, Box<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// A field against a value.
    Compare(String, Comparison, Value),
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `~`: the field contains the text.
    Contains,
}

/// A value in a filter.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// Comparisons by their symbols; a longer symbol stands before its beginning.
const SYMBOLS: [(&str, Comparison); 7] = [
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
    ("~", Comparison::Contains),
];

/// The parentheses and `not`s that may stand inside each other.
const DEPTH: usize = 64;

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// It is no filter; the first wrong character is named.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        let filter = parser.any()?;
        match parser.rest().is_empty() {
            true => Ok(filter),
            false => Err(parser.error("expected `and`, `or` or the end")),
        }
    }

    /// The condition in SQL, with the comparisons that `compare` writes.
    pub(crate) fn to_sql(&self, compare: &mut dyn FnMut(&str, Comparison, &Value) -> String) -> String {
        match self {
            Self::And(a, b) => format!("({} AND {})", a.to_sql(compare), b.to_sql(compare)),
            Self::Or(a, b) => format!("({} OR {})", a.to_sql(compare), b.to_sql(compare)),
            Self::Not(a) => format!("(NOT {})", a.to_sql(compare)),
            Self::Compare(name, comparison, value) => compare(name, *comparison, value),
        }
    }
}

impl Comparison {
    /// The comparison in SQL of `field` with `value`, false where one is NULL. `position` is the function of
    /// the dialect that gives the position of a text in a text.
    pub(crate) fn to_sql(self, field: &str, value: &str, position: &str) -> String {
        let operator = match self {
            Self::Contains => {
                return format!("coalesce({position}(lower({field}), lower({value})) > 0, false)");
            }
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        };
        format!("coalesce({field} {operator} {value}, false)")
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    /// The text that is not read yet, without leading spaces.
    fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    fn error(&self, problem: &str) -> Error {
        let position = self.text[..self.at].chars().count() + 1;
        Error::Filter { filter: self.text.to_owned(), position, problem: problem.to_owned() }
    }

    /// Reads `symbol` if it comes next.
    fn symbol(&mut self, symbol: &str) -> bool {
        let found = self.rest().starts_with(symbol);
        self.at += if found { symbol.len() } else { 0 };
        found
    }

    /// Reads the word `word`, in any case, if it comes next.
    fn word(&mut self, word: &str) -> bool {
        let found = self.rest().split(|c: char| !is_name(c)).next().unwrap_or_default();
        let is_word = found.eq_ignore_ascii_case(word);
        self.at += if is_word { found.len() } else { 0 };
        is_word
    }

    /// Conditions joined by `or`.
    fn any(&mut self) -> Result<Filter> {
        let mut filter = self.all()?;
        while self.word("or") {
            filter = Filter::Or(Box::new(filter), Box::new(self.all()?));
        }
        Ok(filter)
    }

    /// Conditions joined by `and`.
    fn all(&mut self) -> Result<Filter> {
        let mut filter = self.one()?;
        while self.word("and") {
            filter = Filter::And(Box::new(filter), Box::new(self.one()?));
        }
        Ok(filter)
    }

    fn one(&mut self) -> Result<Filter> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(self.error("too many parentheses inside each other"));
        }
        let filter = if self.word("not") {
            Filter::Not(Box::new(self.one()?))
        } else if self.symbol("(") {
            let filter = self.any()?;
            if !self.symbol(")") {
                return Err(self.error("expected `)`"));
            }
            filter
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn comparison(&mut self) -> Result<Filter> {
        let rest = self.rest();
        let name = rest.split(|c: char| !is_name(c)).next().unwrap_or_default();
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(self.error("expected the name of a field, such as `label`"));
        }
        self.at += name.len();
        let Some(&(_, comparison)) = SYMBOLS.iter().find(|(symbol, _)| self.symbol(symbol)) else {
            return Err(self.error("expected =, !=, <, <=, >, >= or ~"));
        };
        let before = self.at;
        let value = self.value()?;
        if comparison == Comparison::Contains && matches!(value, Value::Number(_)) {
            self.at = before;
            return Err(self.error("~ finds a text: write it in quotes"));
        }
        Ok(Filter::Compare(name.to_owned(), comparison, value))
    }

    fn value(&mut self) -> Result<Value> {
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|&c| c == '"' || c == '\'') {
            let inside = &rest[1..];
            let Some(end) = inside.find(quote) else {
                return Err(self.error("the quoted text does not end"));
            };
            self.at += end + 2;
            return Ok(Value::Text(inside[..end].to_owned()));
        }
        let is_numeric = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let number = rest.split(|c: char| !is_numeric(c)).next().unwrap_or_default();
        match number.parse::<f64>() {
            Ok(value) if value.is_finite() => {
                self.at += number.len();
                Ok(Value::Number(value))
            }
            _ => Err(self.error("expected a number, or a text in quotes")),
        }
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sql(text: &str) -> String {
        let mut count = 0;
        let mut compare = |name: &str, comparison: Comparison, _: &Value| {
            count += 1;
            comparison.to_sql(name, &format!("?{count}"), "instr")
        };
        Filter::parse(text).unwrap().to_sql(&mut compare)
    }

    fn refused(text: &str) -> (usize, String) {
        match Filter::parse(text) {
            Err(Error::Filter { position, problem, .. }) => (position, problem),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn and_binds_closer_than_or_and_parentheses_closer_still() {
        let (a, b) = ("coalesce(a = ?1, false)", "coalesce(b >= ?2, false)");
        let c = "coalesce(instr(lower(c), lower(?3)) > 0, false)";
        assert_eq!(sql("a=1 and b >= 2.5 or c ~ 'x'"), format!("(({a} AND {b}) OR {c})"));
        assert_eq!(sql("a=1 AND (b>='2' Or not c~\"x\")"), format!("({a} AND ({b} OR (NOT {c})))"));
    }

    #[test]
    fn a_wrong_filter_is_refused_at_its_first_wrong_character() {
        let cases = [
            ("", 1, "the name of a field"),
            ("label", 6, "expected =, !="),
            ("label = cat", 9, "a text in quotes"),
            ("label = 'cat", 9, "does not end"),
            ("é = 1", 1, "the name of a field"),
            ("a = 'é' b", 9, "`and`, `or` or the end"),
            ("(a = 1", 7, "expected `)`"),
            ("a ~ 1", 4, "in quotes"),
            ("a = nan", 5, "a number"),
        ];
        for (text, position, problem) in cases {
            let (at, said) = refused(text);
            assert!(at == position && said.contains(problem), "{text}: {at}: {said}");
        }
        assert!(refused(&format!("{}a = 1", "not ".repeat(100_000))).1.contains("too many"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_filter_or_an_error(text in "[a-c0-9 ()'\"=<>~!andort.é-]{0,40}") {
            let _ = Filter::parse(&text);
        }
    }
}
