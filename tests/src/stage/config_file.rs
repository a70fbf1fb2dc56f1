//! The configuration files of a deployment, built from `table.key` and value.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// A TOML file in the making.
#[derive(Debug, Clone, Default)]
pub struct ConfigFile {
    /// Table to its keys and values; the top of the file is the empty table.
    tables: BTreeMap<String, BTreeMap<String, Value>>,
    /// Text put at the end as it is: arrays of tables.
    tail: String,
}

impl ConfigFile {
    /// Sets `path` (`kafka.start`, or `site` at the top of the file), replacing what was there.
    pub fn set(&mut self, path: &str, value: impl Into<Value>) {
        let (table, key) = path.rsplit_once('.').unwrap_or(("", path));
        self.tables.entry(table.to_owned()).or_default().insert(key.to_owned(), value.into());
    }

    /// Sets a key of a table whose keys have dots in them, as those of librdkafka.
    pub fn set_in(&mut self, table: &str, key: &str, value: impl Into<Value>) {
        self.tables.entry(table.to_owned()).or_default().insert(format!("\"{key}\""), value.into());
    }

    /// Puts text at the end of the file.
    pub fn append(&mut self, text: &str) {
        self.tail.push_str(text);
        self.tail.push('\n');
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        std::fs::write(path, self.render()?).with_context(|| format!("cannot write {}", path.display()))
    }

    fn render(&self) -> Result<String> {
        let mut text = String::new();
        for (table, values) in &self.tables {
            if !table.is_empty() {
                writeln!(text, "\n[{table}]")?;
            }
            for (key, value) in values {
                // JSON's texts, numbers, truth values and arrays of them are TOML.
                writeln!(text, "{key} = {value}")?;
            }
        }
        writeln!(text, "\n{}", self.tail)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn tables_follow_the_top_of_the_file() {
        let mut file = ConfigFile::default();
        file.set("kafka.start", "latest");
        file.set("site", "plant-7");
        file.set("site", "plant-8");
        file.set("topics.include", vec!["a", "b\\.c"]);
        file.set_in("kafka.librdkafka", "fetch.wait.max.ms", 10);
        file.append("[[topics.rule]]\nmatch = \"x\"");
        let expected = "site = \"plant-8\"\n\n[kafka]\nstart = \"latest\"\n\n[kafka.librdkafka]\n\"fetch.wait.max.ms\" = 10\n\n[topics]\n\
                        include = [\"a\",\"b\\\\.c\"]\n\n[[topics.rule]]\nmatch = \"x\"\n\n";
        assert_eq!(file.render().unwrap(), expected);
    }
}
