//! Writes the table of the Twemoji images. The crate's own lookup is one `match` with 4,000 arms, which takes
//! minutes to compile; a table compiles quickly.

use std::fmt::Write;
use std::path::Path;

/// The Unicode emoji version of `twemoji-assets` 1.5.1+17.0.2; later emoji have names but no image.
const DRAWN: emojis::EmojiVersion = emojis::EmojiVersion::new(17, 0);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let mut table = String::from("static PICTURES: &[(&str, &str, &[u8])] = &[\n");
    for default in emojis::iter() {
        let forms: Vec<_> = default.skin_tones().map_or_else(|| vec![default], Iterator::collect);
        for emoji in forms.into_iter().filter(|emoji| emoji.emoji_version() <= DRAWN) {
            let codes = codes(emoji.as_str());
            let (emoji, name, key) = (emoji.as_str(), codes.join("_").to_uppercase(), codes.join("-"));
            writeln!(table, "    ({emoji:?}, {key:?}, codes::U_{name}.data.0),")
                .expect("writing to a string never fails");
        }
    }
    table += "];\n";
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("pictures.rs"), table).expect("OUT_DIR can be written");
}

/// The code points as in Twemoji's file names: without presentation selectors unless the emoji is a joined
/// sequence.
fn codes(emoji: &str) -> Vec<String> {
    let joined = emoji.contains('\u{200d}') && emoji != "👁️‍🗨️";
    emoji.chars().filter(|&c| joined || c != '\u{fe0f}').map(|c| format!("{:x}", u32::from(c))).collect()
}
