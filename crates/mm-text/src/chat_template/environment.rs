//! What templates may use: the syntax, functions, filters and methods of transformers' environment.

use super::json;
use chrono::NaiveDateTime;
use chrono::format::{Item, StrftimeItems};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{ValueKind, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;
use regex::Regex;
use std::sync::LazyLock;
use thiserror::Error;

/// The steps that a rendering may take: a conversation of 1,000 messages takes about a tenth of them.
pub(super) const STEPS: u64 = 1_000_000;
/// The depth of calls of macros within macros.
const CALLS: usize = 100;

/// The message of `raise_exception`.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct RaisedError(String);

pub(super) fn new() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.unwrap_or_default());
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(STEPS));
    environment.set_recursion_limit(CALLS);
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", raise_exception);
    environment.add_filter("tojson", json::tojson);
    // Strings are sequences in Python.
    let is_sequence = |value: &Value| {
        value.is_undefined() || matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map)
    };
    environment.add_test("sequence", is_sequence);
    environment
}

/// The source with line ends as Jinja reads them, and each `{% generation %}` block, which marks what the
/// assistant writes, as a scope without variables.
pub(super) fn with_known_blocks(source: &str) -> String {
    static BEGIN: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\{%([-+]?\s*)generation(\s*[-+]?)%\}").expect("the pattern is valid"));
    static END: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\{%([-+]?\s*)endgeneration(\s*[-+]?)%\}").expect("the pattern is valid")
    });
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let source = BEGIN.replace_all(&source, "{%${1}with${2}%}");
    END.replace_all(&source, "{%${1}endwith${2}%}").into_owned()
}

fn raise_exception(message: &str) -> Result<Value, Error> {
    let raised = RaisedError(message.to_owned());
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
}

/// The function `strftime_now(format)`, which gives the time `now`.
pub(super) fn strftime_at(now: NaiveDateTime) -> Value {
    Value::from_function(move |format: &str| {
        let items: Vec<Item<'_>> = StrftimeItems::new(format).collect();
        let mut text = String::new();
        // Names of time zones are among the items that a time without a zone cannot be formatted with.
        let written =
            std::fmt::Write::write_fmt(&mut text, format_args!("{}", now.format_with_items(items.iter())));
        if written.is_err() {
            let problem = format!("strftime_now: the format {format:?} is not known");
            return Err(Error::new(ErrorKind::InvalidOperation, problem));
        }
        Ok(text)
    })
}

/// Python's methods of strings and dictionaries.
fn method(state: &mut State, value: &Value, name: &str, arguments: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return pycompat::unknown_method_callback(state, value, name, arguments);
    };
    let pair = |parts: [&str; 3]| Value::from_iter(parts);
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let found = text.split_once(separator);
            Ok(pair(found.map_or([text, "", ""], |(before, after)| [before, separator, after])))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let found = text.rsplit_once(separator);
            Ok(pair(found.map_or(["", "", text], |(before, after)| [before, separator, after])))
        }
        "rsplit" => {
            let (separator, most): (&str, Option<usize>) = from_args(arguments)?;
            let most = most.map_or(usize::MAX, |most| most.saturating_add(1));
            let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
            parts.reverse();
            Ok(parts.into_iter().collect())
        }
        "title" => {
            let () = from_args(arguments)?;
            Ok(Value::from(title(text)))
        }
        _ => pycompat::unknown_method_callback(state, value, name, arguments),
    }
}

/// Python's `str.title`: a letter that follows no letter is in upper case, every other one in lower case.
fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut follows_letter = false;
    for letter in text.chars() {
        if follows_letter {
            titled.extend(letter.to_lowercase());
        } else {
            titled.extend(letter.to_uppercase());
        }
        follows_letter = letter.is_alphabetic();
    }
    titled
}
