//! "Did you mean": the key that somebody probably wanted to write.

/// The known key nearest to `wrong`, if one is near enough to be worth a hint.
///
/// `wrong` and `known` are whole paths. In this order: the same words with other separators (`link_rate_max` for `link.rate_max`), a
/// misspelt key of the same table, one of which it is the beginning (`key` for `key_file`), a misspelt table, the same key of another table.
pub(crate) fn nearest<'a>(wrong: &str, known: &'a [String]) -> Option<&'a str> {
    let (table, key) = split(wrong);
    let squeezed = |path: &str| path.replace(['.', '-'], "_").to_lowercase();
    let same_words = known.iter().find(|path| squeezed(path) == squeezed(wrong));
    let misspelt = || {
        let siblings = known.iter().filter(|path| split(path).0 == table);
        closest(key, siblings.map(|path| (split(path).1, path)))
    };
    let beginning = format!("{key}_");
    let begun = || known.iter().find(|path| split(path).0 == table && split(path).1.starts_with(&beginning));
    let misspelt_table = || {
        let namesakes = known.iter().filter(|path| split(path).1 == key);
        closest(table, namesakes.map(|path| (split(path).0, path)))
    };
    let elsewhere = || known.iter().find(|path| split(path).1 == key);
    same_words.or_else(misspelt).or_else(begun).or_else(misspelt_table).or_else(elsewhere).map(String::as_str)
}

/// What goes with the candidate nearest to `word`, if one is near enough.
pub(crate) fn closest<'a, T>(word: &str, candidates: impl Iterator<Item = (&'a str, T)>) -> Option<T> {
    if word.len() > HINT_MAX_BYTES {
        return None;
    }
    let ranked = candidates.map(|(candidate, payload)| (distance(word, candidate), payload));
    ranked.filter(|(cost, _)| *cost <= tolerance(word)).min_by_key(|(cost, _)| *cost).map(|(_, payload)| payload)
}

/// Path of the table, without the last part; and the last part.
pub(crate) fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('.').unwrap_or(("", path))
}

/// Longer than any key; comparing takes time in proportion to the square of the length.
const HINT_MAX_BYTES: usize = 100;

/// How many slips a word of this length may have and still be recognised: one in three letters.
fn tolerance(word: &str) -> usize {
    (word.chars().count() / 3).max(1)
}

/// Letters to insert, delete, replace or swap with their neighbour to make `a` from `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<String> {
        ["site", "link.rate_max", "link.keep_alive", "kafka.start", "topics.exclude"].map(String::from).to_vec()
    }

    #[test]
    fn distances_are_those_of_the_text_books() {
        for (a, b, expected) in [("", "abc", 3), ("kitten", "sitting", 3), ("rate_max", "rate_mxa", 1), ("same", "same", 0)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
            assert_eq!(distance(b, a), expected, "{b} {a}");
        }
    }

    #[test]
    fn a_slip_a_wrong_table_and_a_wrong_separator_are_recognised() {
        let known = known();
        assert_eq!(nearest("link.rate_mx", &known), Some("link.rate_max"));
        assert_eq!(nearest("rate_max", &known), Some("link.rate_max"));
        assert_eq!(nearest("kfaka.start", &known), Some("kafka.start"));
        assert_eq!(nearest("link_rate_max", &known), Some("link.rate_max"));
        assert_eq!(nearest("link.keep-alive", &known), Some("link.keep_alive"));
        assert_eq!(nearest("link.keep", &known), Some("link.keep_alive"));
    }

    #[test]
    fn a_strange_key_gets_no_hint() {
        assert_eq!(nearest("link.bananas", &known()), None);
        assert_eq!(nearest("topics.include.class", &known()), None);
    }
}
