use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `total` of `unit`, with rate and time left; nothing where standard error is no terminal.
pub fn bar(total: u64, unit: &str) -> ProgressBar {
    let template =
        format!("{{bar:32.cyan/black.bright}} {{pos}}/{{len}} {unit}  {{per_sec}}  {{eta}} left  {{msg}}");
    let style = ProgressStyle::with_template(&template).expect("the template is valid").progress_chars("━━─");
    ProgressBar::new(total).with_style(style)
}
