//! Aligned tables for people.

use std::fmt;

/// Rows of text under headings. Columns are as wide as their widest cell; a column of numbers is aligned right.
#[derive(Clone, Debug, Default)]
pub struct Table {
    headings: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings and no rows.
    pub fn new<H: Into<String>>(headings: impl IntoIterator<Item = H>) -> Self {
        Self { headings: headings.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Appends a row. Missing cells are empty; cells beyond the headings are dropped.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) -> &mut Self {
        let mut row: Vec<String> = cells.into_iter().map(Into::into).collect();
        row.resize(self.headings.len(), String::new());
        self.rows.push(row);
        self
    }

    /// Whether it has no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn column(&self, index: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().filter_map(move |row| row.get(index)).map(String::as_str)
    }
}

impl fmt::Display for Table {
    /// Headings and rows, a line each, two blanks between columns, no blanks at the end of a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns: Vec<(usize, bool)> = self
            .headings
            .iter()
            .enumerate()
            .map(|(index, heading)| {
                let width = self.column(index).map(width).max().unwrap_or(0).max(width(heading));
                let number = self.column(index).any(is_number) && self.column(index).all(|cell| is_number(cell) || is_blank(cell));
                (width, number)
            })
            .collect();
        for row in std::iter::once(&self.headings).chain(&self.rows) {
            let mut line = String::new();
            for (cell, (wide, number)) in row.iter().zip(&columns) {
                let fill = " ".repeat(wide - width(cell));
                match number {
                    true => line.extend([fill.as_str(), cell, "  "]),
                    false => line.extend([cell, fill.as_str(), "  "]),
                }
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

fn is_number(cell: &str) -> bool {
    cell.starts_with(|first: char| first.is_ascii_digit() || first == '-') && cell.contains(|c: char| c.is_ascii_digit())
}

fn is_blank(cell: &str) -> bool {
    matches!(cell, "" | "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_right_and_text_is_left() {
        let mut table = Table::new(["topic", "partition", "lag", "state"]);
        table.row(["alarms", "0", "12", "flowing"]);
        table.row(["wärme.v1", "11", "-", ""]);
        table.row(["x"]);
        let expected = "\
topic     partition  lag  state
alarms            0   12  flowing
wärme.v1         11    -
x
";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn an_empty_table_is_its_headings() {
        let table = Table::new(["site", "lag"]);
        assert!(table.is_empty());
        assert_eq!(table.to_string(), "site  lag\n");
    }
}
