//! Signs: entities, currency, brackets, faces, dashes and single symbols.

use super::characters::{END, is_inner_punctuation};
use super::scanner::{Becomes, Best, Text};
use super::unicode;

/// Entities of HTML.
pub fn entities(text: &Text, start: usize, best: &mut Best) {
    let first = text.at(start);
    if matches!(first, '\u{96}' | '\u{97}' | '\u{2013}'..='\u{2015}') {
        return best.offer_all(start + 1, Becomes::Fixed("--"));
    }
    if first != '&' {
        return;
    }
    if let Some(end) = text.longest_of(start, &["&md;", "&mdash;", "&ndash;"]) {
        best.offer_all(end, Becomes::Fixed("--"));
    }
    if let Some(end) = text.literal(start, "&amp;") {
        best.offer_all(end, Becomes::Fixed("&"));
    }
    let named = ["&ht;", "&tl;", "&ur;", "&lr;", "&qc;", "&ql;", "&qr;", "&odq;", "&cdq;"];
    if let Some(end) = text.longest_of(start, &named) {
        best.offer_all(end, Becomes::Same);
    }
    let digits = text.run(start + 2, |c| c.is_ascii_digit());
    if text.at(start + 1) == '#' && digits > start + 2 && text.at(digits) == ';' {
        best.offer_all(digits + 1, Becomes::Same);
    }
    if let Some(end) = text.literal(start, "&nbsp;") {
        best.offer_all(end, Becomes::Nothing);
    }
}

/// Signs of currency: `$` after capitals, and the others as the treebank writes them.
pub fn currency(text: &Text, start: usize, best: &mut Best) {
    let capitals = text.run(start, |c| c.is_ascii_uppercase());
    if text.at(capitals) == '$' {
        best.offer_all(capitals + 1, Becomes::Same);
    }
    let becomes = match text.at(start) {
        '#' => Becomes::Same,
        '\u{a2}' => Becomes::Fixed("cents"),
        '\u{a3}' => Becomes::Fixed("#"),
        '\u{80}' | '\u{a4}' | '\u{20a0}' | '\u{20ac}' => Becomes::Fixed("$"),
        '\u{a5}' | '\u{60b}' | '\u{e3f}' | '\u{20a4}' | '\u{ffe0}' | '\u{ffe1}' | '\u{ffe5}' | '\u{ffe6}' => {
            Becomes::Same
        }
        _ => return,
    };
    best.offer_all(start + 1, becomes);
}

/// Brackets, faces, dashes, periods and other runs of one sign.
pub fn symbols(text: &Text, start: usize, best: &mut Best) {
    let first = text.at(start);
    let run = |class: fn(char) -> bool| text.run(start, class);
    for (entity, sign, token) in [("&lt;", '<', "<"), ("&gt;", '>', ">")] {
        let end = if first == sign { Some(start + 1) } else { text.literal(start, entity) };
        if let Some(end) = end {
            best.offer_all(end, Becomes::Fixed(token));
        }
    }
    face(text, start, best);
    let token = match first {
        '{' => "-lcb-",
        '}' => "-rcb-",
        '[' => "-lsb-",
        ']' => "-rsb-",
        '(' => "-lrb-",
        ')' => "-rrb-",
        _ => "",
    };
    if !token.is_empty() {
        best.offer_all(start + 1, Becomes::Fixed(token));
    }
    match first {
        '-' => {
            let end = run(|c| c == '-');
            let is_dash = matches!(end - start, 3 | 4);
            best.offer_all(end, if is_dash { Becomes::Fixed("--") } else { Becomes::Same });
        }
        '@' => best.offer_all(run(|c| c == '@'), Becomes::Same),
        '#' => best.offer_all(run(|c| c == '#'), Becomes::Same),
        '_' => best.offer_all(run(|c| c == '_'), Becomes::Same),
        '*' => best.offer_all(run(|c| c == '*'), Becomes::Same),
        '?' | '!' => best.offer_all(run(|c| matches!(c, '?' | '!')), Becomes::Same),
        '.' => periods(text, start, best),
        '\u{85}' | '\u{2026}' => best.offer_all(start + 1, Becomes::Fixed("...")),
        '='
        | '/'
        | '\u{a1}'
        | '\u{bf}'
        | '\u{37e}'
        | '\u{589}'
        | '\u{61f}'
        | '\u{6d4}'
        | '\u{700}'..='\u{702}'
        | '\u{7fa}'
        | '\u{3002}' => best.offer_all(start + 1, Becomes::Same),
        c if is_inner_punctuation(c) => best.offer_all(start + 1, Becomes::Same),
        _ => {}
    }
    let mut stars = start;
    while stars < start + 6 && text.literal(stars, "\\*").is_some() {
        stars += 2;
    }
    if stars > start {
        best.offer_all(stars, Becomes::Same);
    }
}

/// An ellipsis, closed or with spaces between, or one period.
fn periods(text: &Text, start: usize, best: &mut Best) {
    let dots = text.run(start, |c| c == '.');
    if dots >= start + 3 {
        best.offer_all(dots.min(start + 5), Becomes::Fixed("..."));
    }
    let mut end = start;
    while text.at(end) == '.' && matches!(text.at(end + 1), ' ' | '\u{a0}') && text.at(end + 2) == '.' {
        end += 2;
    }
    if end >= start + 4 {
        best.offer_all(end + 1, Becomes::Fixed("..."));
    }
    best.offer_all(start + 1, Becomes::Same);
}

/// Faces such as `:-)`, before a character that is no letter or digit, and `^_^`.
fn face(text: &Text, start: usize, best: &mut Best) {
    let eyes = start + usize::from(matches!(text.at(start), '<' | '>'));
    if matches!(text.at(eyes), ':' | ';' | '=') {
        let nose = eyes + 1;
        for mouth in [nose + 1, nose] {
            let has_nose = mouth == nose || matches!(text.at(nose), '-' | 'o' | '*' | '\'');
            let is_mouth = matches!(
                text.at(mouth),
                '(' | ')' | 'D' | 'P' | 'd' | 'p' | 'O' | '\\' | '{' | '@' | '|' | '[' | ']'
            );
            let next = text.at(mouth + 1);
            if has_nose && is_mouth && next != END && !next.is_ascii_alphanumeric() {
                best.offer(mouth + 2, mouth + 1, Becomes::Joined);
            }
        }
    }
    let is_eye = |position| matches!(text.at(position), '^' | 'x' | '=' | '~' | '<' | '>');
    let is_cheek = |position| is_eye(position) || matches!(text.at(position), '-' | '\'');
    if is_eye(start) && text.literal(start + 1, ".[^x=~<>]").is_some() {
        best.offer_all(start + 10, Becomes::Same);
    }
    if is_cheek(start) && text.at(start + 1) == '_' && is_cheek(start + 2) {
        best.offer_all(start + 3, Becomes::Same);
    }
    if text.at(start) == '(' && is_cheek(start + 1) {
        // Without a mouth, with `_` or `.`, or with `-`, beside which a cheek is no dash.
        let is_quote = |position, also| text.at(position) == '\'' || text.at(position) == also;
        let is_bare = is_cheek(start + 2);
        let is_round = matches!(text.at(start + 2), '_' | '.') && is_cheek(start + 3);
        let is_flat = text.at(start + 2) == '-'
            && (is_eye(start + 1) || is_quote(start + 1, '\''))
            && (is_eye(start + 3) || is_quote(start + 3, '`'));
        for (is_face, end) in [(is_bare, start + 3), (is_round || is_flat, start + 4)] {
            if is_face && text.at(end) == ')' {
                best.offer_all(end + 1, Becomes::Joined);
            }
        }
    }
}

/// Symbols that are tokens alone, which every other rule precedes.
pub fn other_symbols(text: &Text, start: usize, best: &mut Best) {
    if text.literal(start, "<<").or_else(|| text.literal(start, ">>")).is_some() {
        best.offer_all(start + 2, Becomes::Same);
    }
    if is_symbol(text.at(start)) {
        best.offer_all(start + 1, Becomes::Same);
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '+' | '%' | '&' | '~' | '^' | '|' | '\\') || (!c.is_ascii() && unicode::is_symbol(c))
}
