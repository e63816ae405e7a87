//! A table for people.

/// A column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    title: &'static str,
    is_right: bool,
}

impl Column {
    /// A column of text.
    pub const fn left(title: &'static str) -> Self {
        Self { title, is_right: false }
    }

    /// A column of numbers.
    pub const fn right(title: &'static str) -> Self {
        Self { title, is_right: true }
    }
}

/// Rows below titles.
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each column.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, its titles in bold if it may have colours.
    pub fn to_text(&self, has_colours: bool) -> String {
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&titles).chain(&self.rows).collect();
        let width = |index: usize| {
            let cells = lines.iter().filter_map(|cells| cells.get(index));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut text = String::new();
        for (number, cells) in lines.iter().enumerate() {
            let mut line = String::new();
            for ((column, cell), width) in self.columns.iter().zip(cells.iter()).zip(&widths) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let cell = if column.is_right { padding + cell } else { cell.clone() + &padding };
                line = if line.is_empty() { cell } else { line + "  " + &cell };
            }
            let line = line.trim_end();
            text.push_str(&if number == 0 && has_colours {
                format!("\x1b[1m{line}\x1b[0m\n")
            } else {
                format!("{line}\n")
            });
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(&[Column::left("NAME"), Column::right("N"), Column::left("X")]);
        table.row(vec!["é".to_owned(), "100".to_owned(), "-".to_owned()]);
        table.row(vec!["longer".to_owned(), "7".to_owned(), "long".to_owned()]);
        assert_eq!(table.to_text(false), "NAME      N  X\né       100  -\nlonger    7  long\n");
        assert!(table.to_text(true).starts_with("\x1b[1mNAME"));
    }
}
