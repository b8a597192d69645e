//! How an image was made, in the text form of AUTOMATIC1111's web UI, which most programs write into the
//! entry `parameters` of a PNG:
//!
//! ```text
//! a red star,
//! on a blue sky
//! Negative prompt: blurry
//! Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model: NAME
//! ```

use std::fmt;

/// The keyword of the text in a PNG.
pub const PARAMETERS_KEYWORD: &str = "parameters";

/// A last line with fewer fields is one of the prompt.
const FEWEST_FIELDS: usize = 3;

const NEGATIVE: &str = "Negative prompt:";

/// How an image was made.
///
/// ```
/// use mm_diffusion::ImageParameters;
///
/// let text = "a red star, on a blue sky\nSteps: 20, Sampler: Euler a, Seed: 1, Template: \"a, b\"";
/// let parameters = ImageParameters::parse(text);
/// assert_eq!(parameters.prompt, "a red star, on a blue sky");
/// assert_eq!(parameters.get("Template"), Some("a, b"));
/// assert_eq!(parameters.to_string(), text);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageParameters {
    /// The prompt, of one or several lines.
    pub prompt: String,
    /// The negative prompt; empty where there is none.
    pub negative_prompt: String,
    /// The fields in their order, as `Steps` and `20`.
    pub fields: Vec<(String, String)>,
}

impl ImageParameters {
    /// Reads the text of any program. What has not the form is taken for the prompt, so there is no error.
    pub fn parse(text: &str) -> Self {
        let lines: Vec<&str> = text.trim().split('\n').map(str::trim).collect();
        let has_fields = |line: &str| fields(line).len() >= FEWEST_FIELDS;
        // Extensions write lines of their own below the one that begins with the steps.
        let start = lines
            .iter()
            .rposition(|line| line.starts_with("Steps:") && has_fields(line))
            .or_else(|| lines.len().checked_sub(1).filter(|&last| has_fields(lines[last])))
            .unwrap_or(lines.len());
        let (texts, settings) = lines.split_at(start);
        let mut parameters = Self::default();
        let mut is_negative = false;
        for line in texts {
            let line = match line.strip_prefix(NEGATIVE) {
                Some(rest) => {
                    is_negative = true;
                    rest.trim()
                }
                None => line,
            };
            let target = match is_negative {
                true => &mut parameters.negative_prompt,
                false => &mut parameters.prompt,
            };
            if !target.is_empty() {
                target.push('\n');
            }
            target.push_str(line);
        }
        parameters.fields = settings.iter().flat_map(|line| fields(line)).collect();
        parameters
    }

    /// The value of the first field `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl fmt::Display for ImageParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.prompt)?;
        if !self.negative_prompt.is_empty() {
            write!(f, "\n{NEGATIVE} {}", self.negative_prompt)?;
        }
        for (index, (name, value)) in self.fields.iter().enumerate() {
            let before = if index == 0 { "\n" } else { ", " };
            write!(f, "{before}{name}: {}", quoted(value))?;
        }
        Ok(())
    }
}

/// `value`, as a string of JSON where readers would take it apart.
fn quoted(value: &str) -> String {
    let is_plain = !value.contains([',', ':', '\n', '\r', '"']) && value.trim() == value && !value.is_empty();
    if is_plain { value.to_owned() } else { serde_json::Value::from(value).to_string() }
}

/// The fields `NAME: VALUE, NAME: VALUE` of a line. A piece between commas without a name belongs to the
/// value before it, which its writer should have quoted.
fn fields(line: &str) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        if let Some((name, value, after)) = field(rest) {
            fields.push((name.to_owned(), value));
            rest = after;
            continue;
        }
        let (piece, after) = until_comma(rest);
        if let Some((_, value)) = fields.last_mut().filter(|_| !piece.trim().is_empty()) {
            value.push(',');
            value.push_str(piece.trim_end());
        }
        rest = after;
    }
    fields
}

/// The field that `text` begins with, and what is behind its comma.
fn field(text: &str) -> Option<(&str, String, &str)> {
    let end = text.find([':', ',']).filter(|&end| text[end..].starts_with(':'))?;
    let name = text[..end].trim();
    let is_in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | ' ' | '-' | '/');
    let is_name = name.starts_with(|c: char| c.is_alphanumeric() || c == '_')
        && name.chars().all(is_in_name)
        && name.chars().nth(1).is_some();
    if !is_name {
        return None;
    }
    let value = text[end + 1..].trim_start();
    if let Some(length) = quoted_length(value) {
        let after = value[length..].trim_start();
        let decoded = serde_json::from_str::<String>(&value[..length]).ok();
        if let (Some(decoded), true) = (decoded, after.is_empty() || after.starts_with(',')) {
            return Some((name, decoded, after.get(1..).unwrap_or_default()));
        }
    }
    let (value, after) = until_comma(value);
    Some((name, value.trim().to_owned(), after))
}

fn until_comma(text: &str) -> (&str, &str) {
    text.split_once(',').unwrap_or((text, ""))
}

/// The length in bytes of the string in quotes that `text` begins with.
fn quoted_length(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    let mut characters = text.strip_prefix('"')?.bytes().enumerate();
    let end = characters.find(|&(_, byte)| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    Some(end.0 + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn texts_of_other_programs_are_read() {
        let text = "masterpiece, (red star:1.2), [sky|sea]\nSteps: few, many, more\n\n<lora:pixel:0.8>\n\
            Negative prompt: blurry, text\nwatermark\n\
            Steps: 30, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 4294967295, Size: 512x768, \
            Model hash: 6ce0161689, Model: v1-5-pruned, Denoising strength: 0.55, Clip skip: 2, \
            Lora hashes: \"pixel: 5e5f, other: 77\", Hires upscaler: 4x_foolhardy, Version: v1.9.4";
        let found = ImageParameters::parse(text);
        assert_eq!(
            found.prompt,
            "masterpiece, (red star:1.2), [sky|sea]\nSteps: few, many, more\n\n<lora:pixel:0.8>"
        );
        assert_eq!(found.negative_prompt, "blurry, text\nwatermark");
        assert_eq!(found.fields.len(), 12);
        assert_eq!(found.get("Sampler"), Some("DPM++ 2M Karras"));
        assert_eq!(found.get("Lora hashes"), Some("pixel: 5e5f, other: 77"));
        assert_eq!(found.to_string(), text);
    }

    #[test]
    fn what_is_not_quoted_as_it_should_be_is_kept() {
        let text = "a cat\nSteps: 4, ADetailer prompt: a face, detailed, 8k, Civitai resources: \
            [{\"type\":\"lora\",\"weight\":1}], Note: \"open, Version: 1\nTemplate: a {cat|dog}";
        let found = ImageParameters::parse(text);
        let expected = [
            pair("Steps", "4"),
            pair("ADetailer prompt", "a face, detailed, 8k"),
            pair("Civitai resources", "[{\"type\":\"lora\",\"weight\":1}]"),
            pair("Note", "\"open"),
            pair("Version", "1"),
            pair("Template", "a {cat|dog}"),
        ];
        assert_eq!((found.prompt.as_str(), &found.fields[..]), ("a cat", &expected[..]));
    }

    #[test]
    fn a_text_without_fields_is_a_prompt() {
        assert_eq!(
            ImageParameters::parse("a cat: black, white"),
            ImageParameters { prompt: "a cat: black, white".to_owned(), ..ImageParameters::default() }
        );
        assert_eq!(ImageParameters::parse(" \n"), ImageParameters::default());
        assert_eq!(ImageParameters::parse("Steps: 1, Seed: 2, Size: 8x8").get("Size"), Some("8x8"));
    }

    proptest! {
        #[test]
        fn no_text_panics(
            text in "\\PC{0,80}",
            lines in "([ -~\n]|Steps: |Negative prompt:|, |\\\\|\"){0,60}",
        ) {
            for text in [text, lines] {
                let found = ImageParameters::parse(&text);
                prop_assert!(found.prompt.len() <= text.len());
            }
        }

        #[test]
        fn what_is_written_is_read_again(
            prompt in "[a-zA-Z(é][ -~é]{0,30}[a-z.)](\n[a-z(][ -~]{0,20}[a-z.)]){0,2}",
            negative in "([a-z][ -~]{0,20}[a-z)])?",
            values in proptest::collection::vec("\\PC{0,12}", 3..6),
        ) {
            let fields = values.into_iter().enumerate().map(|(i, value)| (format!("Field {i}"), value));
            let parameters = ImageParameters {
                prompt,
                negative_prompt: negative,
                fields: [pair("Steps", "2")].into_iter().chain(fields).collect(),
            };
            prop_assert_eq!(ImageParameters::parse(&parameters.to_string()), parameters);
        }
    }
}
