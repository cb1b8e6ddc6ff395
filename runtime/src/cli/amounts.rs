// SPDX-License-Identifier: Apache-2.0
//! Amounts on the command line as Go programs write them: sizes (`512m`, `1.5GiB`) and durations (`100ms`, `1m30s`).

use std::time::Duration;

/// A size in bytes: a decimal number, perhaps with a fraction, and k, m, g, t or p (powers of 1024), perhaps followed
/// by `b` or `ib`, in any case.
pub fn size(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let letters = unit.strip_suffix('b').unwrap_or(&unit);
    let letters = match letters.strip_suffix('i') {
        Some(letter) if letter.len() == 1 && unit.ends_with('b') => letter,
        Some(_) => return None,
        None => letters,
    };
    let exponent = match letters {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    let factor = 1024_i64.pow(exponent);
    match number.split_once('.') {
        None => number.parse::<i64>().ok()?.checked_mul(factor),
        // As Go: the fraction of the unit, cut off at whole bytes.
        Some((whole, part)) if !whole.is_empty() && !part.is_empty() && !part.contains('.') => {
            let bytes = number.parse::<f64>().ok()? * factor as f64;
            (bytes < i64::MAX as f64).then_some(bytes as i64)
        }
        Some(_) => None,
    }
}

/// A duration: one or more of a decimal number, perhaps with a fraction, and h, m, s, ms, us, µs or ns.
pub fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut nanoseconds = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number = &rest[..end];
        rest = &rest[end..];
        let unit = &rest[..rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len())];
        rest = &rest[unit.len()..];
        let factor = match unit {
            "h" => 3.6e12,
            "m" => 6e10,
            "s" => 1e9,
            "ms" => 1e6,
            "us" | "µs" | "μs" => 1e3,
            "ns" => 1.0,
            _ => return None,
        };
        let number =
            number.bytes().any(|byte| byte.is_ascii_digit()).then(|| number.parse::<f64>().ok())??;
        nanoseconds += number * factor;
    }
    // Go counts nanoseconds in 63 bits.
    (!text.is_empty() && nanoseconds < i64::MAX as f64)
        .then(|| Duration::from_nanos(nanoseconds.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("32", Some(32)),
            ("32b", Some(32)),
            ("500m", Some(500 << 20)),
            ("500M", Some(500 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2 kb", Some(2048)),
            ("3KiB", Some(3072)),
            ("1t", Some(1 << 40)),
            ("1p", Some(1 << 50)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("9000p", None),
            ("-1", None),
            ("", None),
            ("m", None),
            ("1mm", None),
            ("1ib", None),
            ("1ki", None),
            ("1.", None),
            (".5k", None),
            ("1.2.3k", None),
            ("0x10", None),
            ("1  k", None),
        ] {
            assert_eq!(size(text), bytes, "{text:?}");
        }
    }

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("5s", Some(5000)),
            ("100ms", Some(100)),
            ("1m30s", Some(90_000)),
            ("1.5h", Some(5_400_000)),
            ("2000us", Some(2)),
            ("2000µs", Some(2)),
            ("0", Some(0)),
            ("0s", Some(0)),
            (".5s", Some(500)),
            ("5", None),
            ("", None),
            ("s", None),
            (".s", None),
            ("-5s", None),
            ("5x", None),
            ("1s 2s", None),
            ("9999999999h", None),
        ] {
            assert_eq!(duration(text), milliseconds.map(Duration::from_millis), "{text:?}");
        }
    }
}
