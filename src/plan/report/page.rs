//! A page of tables and plots, that needs nothing but itself.

use super::plot::{NoPlot, Plot};
use crate::listing::escape;
use std::fmt::Write as _;

const STYLE: &str = "body{font:15px/1.45 sans-serif;max-width:980px;margin:2em auto;padding:0 1em;color:#202020}\
    table{border-collapse:collapse;margin:1em 0}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}\
    th:first-child,td:first-child{text-align:left}svg{max-width:100%;height:auto;margin:.5em 0}pre{background:#f6f6f6;padding:1em}";

/// A table: its first row is the head, the first column names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table(pub Vec<Vec<String>>);

impl Table {
    /// For a terminal: columns aligned, two spaces apart.
    #[must_use]
    pub fn text(&self) -> String {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let length =
            |row: &Vec<String>, column: usize| row.get(column).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.0.iter().map(|row| length(row, column)).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in &self.0 {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ = match column {
                    0 => write!(line, "{cell:<width$}"),
                    _ => write!(line, "  {cell:>width$}"),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn html(&self) -> String {
        let mut html = String::from("<table>\n");
        for (number, row) in self.0.iter().enumerate() {
            let tag = if number == 0 { "th" } else { "td" };
            html.push_str("<tr>");
            for cell in row {
                let _ = write!(html, "<{tag}>{}</{tag}>", escape(cell));
            }
            html.push_str("</tr>\n");
        }
        html + "</table>\n"
    }
}

/// A part of a page.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// A heading.
    Heading(String),
    /// A paragraph.
    Text(String),
    /// Something to be copied as it stands.
    Verbatim(String),
    /// A table.
    Table(Table),
    /// A plot.
    Plot(Plot),
}

/// The page as HTML.
///
/// # Errors
/// A plot can't be drawn.
pub fn html(title: &str, parts: &[Part]) -> Result<String, NoPlot> {
    let title = escape(title);
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <h1>{title}</h1>\n"
    );
    for part in parts {
        let element = match part {
            Part::Heading(text) => format!("<h2>{}</h2>\n", escape(text)),
            Part::Text(text) => format!("<p>{}</p>\n", escape(text)),
            Part::Verbatim(text) => format!("<pre>{}</pre>\n", verbatim(text)),
            Part::Table(table) => table.html(),
            Part::Plot(plot) => plot.svg()?,
        };
        html.push_str(&element);
    }
    Ok(html + "</html>\n")
}

/// Escaped line by line: an escape leaves no line breaks.
fn verbatim(text: &str) -> String {
    text.lines().map(escape).collect::<Vec<_>>().join("\n")
}

/// The same for a terminal, without the plots.
#[must_use]
pub fn text(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        match part {
            Part::Heading(heading) => text.extend(["\n", heading, "\n"]),
            Part::Text(paragraph) => text.extend([paragraph, "\n"]),
            Part::Verbatim(verbatim) => text.push_str(verbatim),
            Part::Table(table) => text.push_str(&table.text()),
            Part::Plot(_) => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table(vec![vec!["region".into(), "peak".into()], vec!["us".into(), "17.5 Gbit/s".into()]])
    }

    #[test]
    fn columns_are_aligned() {
        assert_eq!(table().text(), "region         peak\nus      17.5 Gbit/s\n");
    }

    #[test]
    fn a_page_escapes_and_needs_nothing_else() {
        let parts = [
            Part::Heading("a < b".into()),
            Part::Text("c & d".into()),
            Part::Verbatim("x = \"<1>\"\ny".into()),
            Part::Table(table()),
        ];
        let html = html("<plan>", &parts).unwrap();
        for expected in
            ["&lt;plan&gt;", "a &lt; b", "c &amp; d", "&lt;1&gt;&quot;\ny", "<td>17.5 Gbit/s</td>"]
        {
            assert!(html.contains(expected), "{expected}: {html}");
        }
        assert!(!html.contains("http") && !html.contains("src="));
        assert!(text(&parts).contains("c & d\n") && text(&parts).contains("x = \"<1>\""));
    }
}
