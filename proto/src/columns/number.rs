//! How a number is written.
//!
//! A decimal is kept as the integer of its digits, and its form says where the point stands. Forms of one column are mostly alike:
//!
//! ```text
//! u8  0  u8 digits after the point                  all have as many
//! u8  1  u8 digits at least                         filled with zeros in front; no point
//! u8  2  u8 at least, u8 at most                    after the point, zeros at the end left out; integers count in the smallest place
//! u8  3  u8 for each number                         0 to 17 digits after the point, 32 + n filled up to n digits
//! ```

use super::series;
use crate::codec::{DecodeError, Reader};

/// Most digits of a number: any of them fit an `i64`.
pub(super) const MAX_DIGITS: usize = 18;

const PADDED: u8 = 32;

/// A number in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Number {
    /// Its digits with its sign, the point left out.
    pub(super) digits: i64,
    /// Digits after the point, or [`PADDED`] and the digits that there are.
    pub(super) form: u8,
}

impl Number {
    /// The number that `text` begins with, and how many bytes it takes; `None` where there is none, or none that would be written the same way.
    pub(super) fn parse(text: &[u8]) -> Option<(Self, usize)> {
        let negative = text.first() == Some(&b'-');
        let unsigned = text.get(usize::from(negative)..)?;
        let whole = digits_of(unsigned);
        if whole == 0 || whole > MAX_DIGITS {
            return None;
        }
        if whole > 1 && unsigned.first() == Some(&b'0') {
            let number = Self { digits: value_of(unsigned.get(..whole)?), form: PADDED + whole as u8 };
            return (!negative).then_some((number, whole));
        }
        let fraction = match unsigned.get(whole) {
            Some(b'.') => digits_of(unsigned.get(whole + 1..)?),
            _ => 0,
        };
        let fraction = if whole + fraction > MAX_DIGITS { 0 } else { fraction };
        let mut digits = value_of(unsigned.get(..whole)?);
        let mut length = usize::from(negative) + whole;
        if fraction > 0 {
            let after = unsigned.get(whole + 1..whole + 1 + fraction)?;
            digits = digits * 10_i64.pow(fraction as u32) + value_of(after);
            length += 1 + fraction;
        }
        if negative && digits == 0 {
            return None;
        }
        Some((Self { digits: if negative { -digits } else { digits }, form: fraction as u8 }, length))
    }

    /// Appends the number as it was written.
    fn print(self, out: &mut Vec<u8>) {
        if self.digits < 0 {
            out.push(b'-');
        }
        let (least, point) = match self.form.checked_sub(PADDED) {
            Some(width) => (usize::from(width), 0),
            None => (usize::from(self.form) + 1, usize::from(self.form)),
        };
        // 20 digits hold any u64, and a form asks for at most MAX_DIGITS.
        let mut text = [b'0'; 20];
        let (mut rest, mut used) = (self.digits.unsigned_abs(), 0);
        for (place, byte) in text.iter_mut().rev().enumerate() {
            if rest == 0 && place >= least {
                break;
            }
            *byte = b'0' + (rest % 10) as u8;
            rest /= 10;
            used = place + 1;
        }
        let all = text.get(text.len() - used..).unwrap_or_default();
        let (whole, fraction) = all.split_at(used - point.min(used));
        out.extend_from_slice(whole);
        if !fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(fraction);
        }
    }
}

/// Appends the form and the series of the numbers of one slot, at least one. `digits` are changed to what is stored.
pub(super) fn put(out: &mut Vec<u8>, digits: &mut [i64], forms: &[u8]) {
    match common(digits, forms) {
        Form::Point(after) => out.extend_from_slice(&[0, after]),
        Form::Padded(width) => out.extend_from_slice(&[1, width]),
        Form::Trimmed { least, most } => {
            out.extend_from_slice(&[2, least, most]);
            for (digits, form) in digits.iter_mut().zip(forms) {
                *digits = digits.wrapping_mul(power(most - form));
            }
        }
        Form::Each => {
            out.push(3);
            out.extend_from_slice(forms);
        }
    }
    series::put(out, digits);
}

/// Reads the numbers of one slot, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Numbers<'a> {
    form: Form,
    forms: &'a [u8],
    next: usize,
    series: series::Series<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Point(u8),
    Padded(u8),
    Trimmed { least: u8, most: u8 },
    Each,
}

impl<'a> Numbers<'a> {
    /// Reads the numbers of a slot of `count` records, at least one.
    pub(super) fn read(reader: &mut Reader<'a>, count: usize) -> Result<Self, DecodeError> {
        let what = "number form";
        let mut forms: &[u8] = &[];
        let form = match reader.u8(what)? {
            0 => Form::Point(reader.u8(what)?),
            1 => Form::Padded(reader.u8(what)?),
            2 => Form::Trimmed { least: reader.u8(what)?, most: reader.u8(what)? },
            3 => {
                forms = reader.bytes(count, what)?;
                Form::Each
            }
            other => return Err(DecodeError::Unknown { what, value: u64::from(other) }),
        };
        let most = match form {
            Form::Point(most) | Form::Padded(most) => most,
            Form::Trimmed { least, most } => most.max(least),
            Form::Each => forms.iter().map(|form| form & !PADDED).max().unwrap_or(0),
        };
        if usize::from(most) > MAX_DIGITS {
            return Err(DecodeError::Range { what, value: u64::from(most), limit: MAX_DIGITS as u64 });
        }
        Ok(Self { form, forms, next: 0, series: series::Series::read(reader, count, "numbers")? })
    }

    /// Appends the next number's text: at most 20 bytes.
    pub(super) fn print_next(&mut self, out: &mut Vec<u8>) {
        let mut digits = self.series.next();
        let form = match self.form {
            Form::Point(after) => after,
            Form::Padded(width) => PADDED + width,
            Form::Trimmed { least, most } => {
                let mut after = most;
                while after > least && digits % 10 == 0 {
                    digits /= 10;
                    after -= 1;
                }
                after
            }
            Form::Each => self.forms.get(self.next).copied().unwrap_or(0),
        };
        self.next += 1;
        Number { digits, form }.print(out);
    }
}

/// The form that all numbers have; [`Form::Each`] where they have none.
fn common(digits: &[i64], forms: &[u8]) -> Form {
    let (Some(least), Some(most)) = (forms.iter().min().copied(), forms.iter().max().copied()) else {
        return Form::Each;
    };
    if least == most && most < PADDED {
        return Form::Point(most);
    }
    let mut numbers = digits.iter().zip(forms);
    if let Some(width) = most.checked_sub(PADDED) {
        let fits = |(digits, form): (&i64, &u8)| *form == most || (*form == 0 && *digits >= power(width - 1));
        return if numbers.all(fits) { Form::Padded(width) } else { Form::Each };
    }
    let trimmed = |(digits, form): (&i64, &u8)| {
        let fits = digits.checked_mul(power(most - form)).is_some();
        fits && (*form == least || digits % 10 != 0)
    };
    if numbers.all(trimmed) { Form::Trimmed { least, most } } else { Form::Each }
}

/// A power of ten; forms know up to 18 digits.
fn power(exponent: u8) -> i64 {
    10_i64.pow(u32::from(exponent).min(MAX_DIGITS as u32))
}

fn digits_of(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

fn value_of(digits: &[u8]) -> i64 {
    digits.iter().fold(0, |value, byte| value * 10 + i64::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn round_trip(texts: &[&str]) -> (u8, usize) {
        let (mut digits, mut forms) = (Vec::new(), Vec::new());
        for text in texts {
            let (number, length) = Number::parse(text.as_bytes()).unwrap();
            assert_eq!(length, text.len(), "{text}");
            digits.push(number.digits);
            forms.push(number.form);
        }
        let mut out = Vec::new();
        put(&mut out, &mut digits, &forms);
        let mut reader = Reader::new(&out);
        let mut numbers = Numbers::read(&mut reader, texts.len()).unwrap();
        reader.finish("numbers").unwrap();
        for text in texts {
            let mut printed = Vec::new();
            numbers.print_next(&mut printed);
            assert_eq!(String::from_utf8(printed).unwrap(), *text);
        }
        (out[0], out.len())
    }

    #[test]
    fn each_form_is_found() {
        assert_eq!(round_trip(&["1", "0", "-22", "999999999999999999"]).0, 0);
        assert_eq!(round_trip(&["1.50", "-0.07", "22.00"]).0, 0);
        assert_eq!(round_trip(&["03", "12", "00", "123"]).0, 1);
        assert_eq!(round_trip(&["21.4", "21.43", "21", "0.1", "-0.5", "100"]).0, 2);
        assert_eq!(round_trip(&["21.0", "21.43", "0.1"]).0, 2);
        assert_eq!(round_trip(&["1.50", "1.5", "007", "-3"]).0, 3);
    }

    #[test]
    fn numbers_that_would_be_written_otherwise_are_none() {
        assert_eq!(Number::parse(b"-0"), None);
        assert_eq!(Number::parse(b"-007"), None);
        assert_eq!(Number::parse(b"1234567890123456789"), None);
        assert_eq!(Number::parse(b"-"), None);
        assert_eq!(Number::parse(b"x"), None);
        // The point belongs to the text where nothing follows it, or too much.
        assert_eq!(Number::parse(b"7.").unwrap().1, 1);
        assert_eq!(Number::parse(b"7.123456789012345678").unwrap().1, 1);
        assert_eq!(Number::parse(b"007.5").unwrap().1, 3);
    }

    #[test]
    fn forms_that_no_number_has_are_refused() {
        for bytes in [&[0, 19][..], &[1, 33], &[2, 3, 60], &[3, 64]] {
            assert!(matches!(Numbers::read(&mut Reader::new(bytes), 1), Err(DecodeError::Range { .. })), "{bytes:?}");
        }
        assert!(matches!(Numbers::read(&mut Reader::new(&[4]), 1), Err(DecodeError::Unknown { .. })));
    }

    proptest! {
        #[test]
        fn any_numbers_round_trip(texts in prop::collection::vec("(-?[1-9][0-9]{0,9}|0)(\\.[0-9]{1,8})?|-0\\.0{0,3}[1-9]|0[0-9]{1,17}", 1..20)) {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            round_trip(&texts);
        }
    }
}
