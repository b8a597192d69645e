//! Namespaces stay out of other values.
//!
//! A namespace is the one value that a template can change, so the one through which a value could come to
//! contain itself; to print such a value would never end. A template that uses a namespace in another way
//! than through its attributes is refused.

use regex::Regex;
use std::collections::BTreeSet;
use std::sync::LazyLock;

/// The place of a namespace that is used as a value: the line, from 1, and the name.
pub(super) fn as_value(source: &str) -> Option<(usize, String)> {
    static ASSIGNED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\b(\w+)\s*=\s*namespace\s*\(").expect("the pattern is valid"));
    static NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b\w+\b").expect("the pattern is valid"));
    let code = code(source);
    let names: BTreeSet<&str> =
        ASSIGNED.captures_iter(&code).filter_map(|found| Some(found.get(1)?.as_str())).collect();
    let assigned: BTreeSet<usize> = ASSIGNED.find_iter(&code).map(|found| found.start()).collect();
    let mut calls_left = assigned.len();
    for found in NAME.find_iter(&code) {
        let (name, before, after) =
            (found.as_str(), code[..found.start()].trim_end(), code[found.end()..].trim_start());
        let is_attribute = before.ends_with('.');
        let is_used = if name == "namespace" {
            // The calls that are assigned come in the order of their names.
            let is_call = after.starts_with('(') && before.ends_with('=') && calls_left > 0;
            calls_left -= usize::from(is_call);
            !is_call && !is_attribute
        } else {
            let is_target = after.starts_with('=') && !after.starts_with("==");
            let is_base = after.starts_with(['.', '[']) || after.starts_with("is ");
            names.contains(name) && !is_attribute && !is_target && !is_base
        };
        if is_used {
            return Some((code[..found.start()].matches('\n').count() + 1, name.to_owned()));
        }
    }
    None
}

/// The source with everything but line ends blank outside of tags and inside of texts in quotes.
fn code(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let (mut tag_end, mut quote, mut is_escaped): (Option<&str>, Option<char>, bool) = (None, None, false);
    for (at, letter) in source.char_indices() {
        let is_shown = match (tag_end, quote) {
            (Some(_), Some(mark)) => {
                if !is_escaped && letter == mark {
                    quote = None;
                }
                is_escaped = letter == '\\' && !is_escaped;
                false
            }
            (Some(end), None) => {
                if source[at..].starts_with(end) {
                    tag_end = None;
                } else if matches!(letter, '\'' | '"') && end != "#}" {
                    quote = Some(letter);
                    is_escaped = false;
                }
                tag_end.is_some() && quote.is_none() && end != "#}"
            }
            (None, _) => {
                let tags = [("{%", "%}"), ("{{", "}}"), ("{#", "#}")];
                tag_end = tags.iter().find(|(begin, _)| source[at..].starts_with(begin)).map(|(_, end)| *end);
                false
            }
        };
        code.push(if is_shown || letter == '\n' { letter } else { ' ' });
    }
    code
}

#[cfg(test)]
mod tests {
    use super::as_value;

    #[test]
    fn attributes_of_namespaces_are_free_and_namespaces_as_values_are_found() {
        for source in [
            "{% set ns = namespace(a=1, b=[]) %}ns {{ ns.a }}{% set ns.a = ns.b + [ns['a']] %} ns",
            "{%- set ns=namespace( ) -%}{{ 'ns' ~ \"namespace(\" ~ x.ns ~ x.namespace }}{# ns #}",
            "{% if ns is defined %}{% set ns = namespace(a='\\'ns') %}{% endif %}",
            "namespace(ns) {{ messages }}",
        ] {
            assert_eq!(as_value(source), None, "{source}");
        }
        for (source, line, name) in [
            ("{% set ns = namespace() %}\n{% set ns.a = ns %}", 2, "ns"),
            ("{% set ns = namespace() %}{% set ns.a = [ns] %}", 1, "ns"),
            ("{% set ns = namespace() %}\n\n{{ f(ns) }}", 3, "ns"),
            ("{% set ns = namespace() %}{{ 'a' ~ ns }}", 1, "ns"),
            ("{% set ns = namespace() %}{% if ns == 1 %}{% endif %}", 1, "ns"),
            ("{{ [namespace()] }}", 1, "namespace"),
            ("{% set f = namespace %}", 1, "namespace"),
            ("{{ f(x=namespace()) }}{{ x }}", 1, "x"),
            ("{% set a, b = namespace(), namespace() %}", 1, "namespace"),
        ] {
            assert_eq!(as_value(source), Some((line, name.to_owned())), "{source}");
        }
    }
}
