//! What the peer makes of single captions. `data/goldens/caption-metrics` has more, and a check of every COCO
//! caption is in the crate's tests.

use super::*;

fn check(cases: &[(&str, &str)]) {
    for (caption, tokens) in cases {
        assert_eq!(tokenize(caption), *tokens, "{caption:?}");
    }
}

#[test]
fn words_are_lower_case_and_lose_their_punctuation() {
    check(&[
        ("A man, a plan; a canal: Panama!", "a man a plan a canal panama"),
        ("Two dogs (one brown) run.", "two dogs -lrb- one brown -rrb- run"),
        ("", ""),
        (" . ", ""),
        ("Really?! WOW!!!", "really ?! wow !!!"),
        ("a \"big\" 'red' ``bus''", "a big red bus"),
        ("stop... now -- or - never", "stop now or never"),
    ]);
}

#[test]
fn contractions_are_split_and_names_are_not() {
    check(&[
        ("they can't, won't and cannot", "they ca n't wo n't and can not"),
        ("it's the dogs' dog's", "it 's the dogs dog 's"),
        ("I'm gonna wanna; 'tis", "i 'm gon na wan na 't is"),
        ("O'Malley's o'clock hors-d'oeuvre y'all", "o'malley 's o'clock hors-d'oeuvre y' all"),
        ("rock'n'roll of the '90s", "rock 'n' roll of the '90s"),
    ]);
}

#[test]
fn abbreviations_keep_their_period_and_last_words_lose_it() {
    check(&[
        ("St. Louis vs. the U.S. at 5 p.m.", "st. louis vs. the u.s. at 5 p.m."),
        ("It is in. No. 5 says no.", "it is in no. 5 says no"),
        ("Mass. is a state, mass. is not.", "mass. is a state mass is not"),
        ("dogs.cats and foo., bar", "dogs.cats and foo. bar"),
        ("Inc.5", "inc. .5"),
        ("plan B. AS of now", "plan b as of now"),
    ]);
}

#[test]
fn numbers_dates_and_addresses_are_single_tokens() {
    check(&[
        ("1,000.50 at 5:30pm on 11/12/2013", "1,000.50 at 5:30 pm on 11/12/2013"),
        ("$5.00, US$5, 5% and \u{a3}5", "$ 5.00 us$ 5 5 % and # 5"),
        ("and/or w/ red-brick e-mails", "and/or w / red-brick e-mails"),
        ("see http://a.b/c?d=e. or www.foo.com", "see http://a.b/c?d=e or www.foo.com"),
        ("call (212) 555-1234 :)", "call -lrb-212-rrb-\u{a0}555-1234 -rrb-"),
    ]);
}

#[test]
fn a_mixed_fraction_is_two_words_for_bleu_and_one_for_rouge() {
    let tokens = tokenize("3 1/2 men");
    assert_eq!(tokens, "3\u{a0}1/2 men");
    assert_eq!(words(&tokens).collect::<Vec<_>>(), ["3", "1/2", "men"]);
    assert_eq!(spaced(&tokens).collect::<Vec<_>>(), ["3\u{a0}1/2", "men"]);
    assert_eq!((words("").count(), spaced("").count()), (0, 1));
}

#[test]
fn characters_outside_ascii_are_read_as_the_peer_reads_them() {
    check(&[
        ("\u{201c}Caf\u{e9}\u{201d} don\u{2019}t \u{2014} \u{bd} \u{2026}", "caf\u{e9} do n't 1/2"),
        ("a \u{1f600}b soft\u{ad}hyphen zero\u{200b}width", "a b softhyphen zero width"),
        ("\u{ff11}\u{ff12} \u{4e00}\u{4e8c}\u{3002}", "\u{ff11}\u{ff12} \u{4e00}\u{4e8c} \u{3002}"),
        ("\u{ffff}a\u{0}b\nc", "a b c"),
    ]);
}

#[test]
fn the_next_line_decides_about_the_period_of_a_letter() {
    assert_eq!(tokenize("the letter C."), "the letter c.");
    let lines =
        ["the letter C.", "A man", "the letter C.", "Two men", "", "", "vitamin C.", "", "The end :)"];
    let expected =
        ["the letter c", "a man", "the letter c.", "two men", "", "", "vitamin c", "", "the end -rrb-"];
    assert_eq!(tokenize_lines(&lines), expected);
    assert_eq!(tokenize_lines(&["nice :)", "b"])[0], "nice :-rrb-");
}

#[test]
fn very_long_captions_are_scanned() {
    let long = "a-".repeat(200_000);
    assert_eq!(tokenize(&long).len(), long.len() - 1);
    let tokens = tokenize(&"<!x ".repeat(2_000));
    assert!(tokens.starts_with("< x <"));
}
