//! A field's text parted into literals and slots.

use super::number::Number;
use super::{NUMBER, TEXT, is_mark};

/// What stands in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// A number.
    Number(Number),
    /// Text, never empty.
    Text(&'a [u8]),
}

/// Appends a field's template to `template` and what stands in its slots to `parts`.
pub(super) fn part<'a>(field: &'a [u8], template: &mut Vec<u8>, parts: &mut Vec<Part<'a>>) {
    if field.iter().any(|byte| is_mark(*byte)) {
        template.push(TEXT);
        return parts.push(Part::Text(field));
    }
    let mut rest = field;
    let mut before = 0u8;
    while let Some(byte) = rest.first().copied() {
        let begins_word = !before.is_ascii_alphanumeric();
        // A word of letters and digits in no order, as of an identifier or a hash, is text: as a template each would be one of its own.
        let opaque = if begins_word && byte.is_ascii_alphanumeric() { uuid(rest).unwrap_or_else(|| opaque_word(rest)) } else { 0 };
        let may_begin = byte.is_ascii_digit() || (byte == b'-' && begins_word);
        let taken = if opaque > 0 {
            let (word, _) = rest.split_at(opaque);
            template.push(TEXT);
            parts.push(Part::Text(word));
            opaque
        } else if let Some((number, length)) = may_begin.then(|| Number::parse(rest)).flatten() {
            template.push(NUMBER);
            parts.push(Part::Number(number));
            length
        } else {
            template.push(byte);
            1
        };
        let (done, left) = rest.split_at(taken.min(rest.len()));
        before = done.last().copied().unwrap_or(0);
        rest = left;
    }
}

/// Appends a field's template that keeps nothing of its text.
pub(super) fn whole<'a>(field: &'a [u8], template: &mut Vec<u8>, parts: &mut Vec<Part<'a>>) {
    if !field.is_empty() {
        template.push(TEXT);
        parts.push(Part::Text(field));
    }
}

/// Length of the UUID at the beginning of `text`, as everybody writes them: its groups of digits and letters would be numbers, words and texts, in each UUID others.
fn uuid(text: &[u8]) -> Option<usize> {
    let (uuid, rest) = text.split_at_checked(UUID_GROUPS.iter().sum::<usize>() + UUID_GROUPS.len() - 1)?;
    let mut groups = uuid.split(|byte| *byte == b'-');
    let alike = UUID_GROUPS
        .iter()
        .all(|length| groups.next().is_some_and(|group| group.len() == *length && group.iter().all(u8::is_ascii_hexdigit)));
    let ends = rest.first().is_none_or(|byte| !byte.is_ascii_alphanumeric());
    (alike && ends && groups.next().is_none()).then_some(uuid.len())
}

/// Hexadecimal digits of a UUID's groups (RFC 9562, section 4).
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

/// Length of the word at the beginning of `text` if it is opaque, else 0.
fn opaque_word(text: &[u8]) -> usize {
    let mut changes = 0;
    let mut length = 0;
    let mut in_digits = text.first().is_some_and(u8::is_ascii_digit);
    let mut letters = 0;
    for byte in text.iter().take_while(|byte| byte.is_ascii_alphanumeric()) {
        let digit = byte.is_ascii_digit();
        changes += usize::from(digit != in_digits);
        letters += usize::from(!digit);
        in_digits = digit;
        length += 1;
    }
    // A date and a time joined by a T are not meant, and more digits than a number has are.
    let joined = changes == 2 && letters == 1;
    let long = changes == 0 && in_digits && length > super::number::MAX_DIGITS;
    if long || (changes >= 2 && !joined && length >= LEAST_OPAQUE) { length } else { 0 }
}

/// Shorter words with digits in them are mostly names.
const LEAST_OPAQUE: usize = 4;

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn template(text: &str) -> (String, usize) {
        let (mut template, mut parts) = (Vec::new(), Vec::new());
        part(text.as_bytes(), &mut template, &mut parts);
        (String::from_utf8(template).unwrap().replace('\0', "#").replace('\u{1}', "$"), parts.len())
    }

    #[test]
    fn numbers_and_hashes_become_slots() {
        let of = |text| template(text).0;
        assert_eq!(of(r#"{"t":-3.25,"id":"press-03"}"#), r#"{"t":#,"id":"press-#"}"#);
        assert_eq!(of("2026-11-22T10:11:12.123Z"), "#-#-#T#:#:#Z");
        assert_eq!(of("3f2a9c77-p3-12kW"), "$-p#-#kW");
        assert_eq!(of("-0 -07 1e-9 10.0.0.1"), "-# -# #e-# #.#");
        assert_eq!(of("12345678901234567890123"), "$");
        assert_eq!(template("a\u{2}b"), ("$".to_owned(), 1));
        assert_eq!(template(""), (String::new(), 0));
    }

    #[test]
    fn a_uuid_is_one_text_whatever_its_digits() {
        for uuid in ["3f2a9c77-1234-4abc-a0ff-00112233aabb", "00000000-0000-4000-8000-000000000000", "ABCDEFAB-CDEF-4ABC-BDEF-ABCDEFABCDEF"]
        {
            assert_eq!(template(uuid), ("$".to_owned(), 1), "{uuid}");
            assert_eq!(template(&format!(r#"{{"job":"{uuid}","n":7}}"#)), (r#"{"job":"$","n":#}"#.to_owned(), 2), "{uuid}");
        }
        for other in [
            "abcdefab-cdef-4abc-bdef-abcdefabcdefa",
            "abcdefab-cdef-4abc-bdef-abcdefabcde",
            "abcdefab-cdef-4abcb-def-abcdefabcdef",
            "abcdefab-cdef-gabc-bdef-abcdefabcdef",
        ] {
            assert!(!template(other).0.starts_with('$'), "{other}");
        }
    }
}
