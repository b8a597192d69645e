//! Tables as text.

/// Lays rows out in columns: the first to the left, the others to the right, the header underlined.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    render_left(1, header, rows)
}

/// As [`render`], with the first `left` columns to the left.
pub fn render_left(left: usize, header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(String::as_str);
        cells.chain(header.get(column).copied()).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            line += gap;
            line += &if column < left { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
        }
        format!("{}\n", line.trim_end())
    };
    let header: Vec<String> = header.iter().map(|&cell| cell.to_owned()).collect();
    let rule: Vec<String> = widths.iter().map(|&width| "─".repeat(width)).collect();
    let body: String = rows.iter().map(|row| line(row)).collect();
    format!("{}{}{body}", line(&header), line(&rule))
}

/// A text on one line that leaves room for other columns.
pub fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A share as a percentage with one decimal.
pub fn percent(share: f64) -> String {
    format!("{:.1}%", 100.0 * share)
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["a cat".to_owned(), "9.5%".to_owned()], vec!["dog".to_owned(), "90.5%".to_owned()]];
        assert_eq!(
            super::render(&["label", "p"], &rows),
            "label      p\n─────  ─────\na cat   9.5%\ndog    90.5%\n"
        );
        assert_eq!(
            super::render_left(2, &["label", "p"], &rows),
            "label  p\n─────  ─────\na cat  9.5%\ndog    90.5%\n"
        );
    }
}
