//! Numbers as people read them.

use std::time::Duration;

/// As a number that can be divided; beyond 2^53 to its first 15 digits.
#[expect(clippy::cast_precision_loss, reason = "for people and ratios")]
pub fn float(count: u64) -> f64 {
    count as f64
}

/// To the nearest thousandth; what is no number is 0.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
pub fn thousandths(number: f64) -> u64 {
    (number * 1_000.0).round() as u64
}

/// Whole microseconds, up to 584,000 years.
pub fn whole_micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// So many in so many microseconds; 0 in no time.
pub fn per_second(count: u64, micros: u64) -> f64 {
    if micros == 0 { 0.0 } else { float(count) * 1e6 / float(micros) }
}

/// With commas: "1,234,567".
pub fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Three digits or more: "0.123", "1.23", "12.3", "123", "1,235".
pub fn number(number: f64) -> String {
    match number {
        n if !n.is_finite() || n < 0.0 => "–".into(),
        0.0 => "0".into(),
        n if n < 0.9995 => format!("{n:.3}"),
        n if n < 9.995 => format!("{n:.2}"),
        n if n < 99.95 => format!("{n:.1}"),
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
        n => count(n.round() as u64),
    }
}

/// Microseconds: "12 µs", "1.23 ms", "45.6 s", "2 min 5 s", "3 h 20 min".
pub fn micros(micros: u64) -> String {
    let time = float(micros);
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{} ms", number(time / 1e3)),
        1_000_000..60_000_000 => format!("{} s", number(time / 1e6)),
        60_000_000..3_600_000_000 => {
            let seconds = micros / 1_000_000;
            format!("{} min {} s", seconds / 60, seconds % 60)
        }
        _ => {
            let minutes = micros / 60_000_000;
            format!("{} h {} min", count(minutes / 60), minutes % 60)
        }
    }
}

/// Microseconds that are no whole number: "0.123 µs".
pub fn mean_micros(time: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of a float saturates")]
    let whole = time.round() as u64;
    if time < 1_000.0 { format!("{} µs", number(time)) } else { micros(whole) }
}

/// Octets: "512 B", "1.50 KiB", "12.3 MiB".
pub fn octets(octets: f64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut left = octets;
    if left < 1_024.0 {
        return format!("{left:.0} B");
    }
    let mut unit = "B";
    for next in units {
        if left < 1_024.0 {
            break;
        }
        left /= 1_024.0;
        unit = next;
    }
    format!("{} {unit}", number(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_and_units_that_fit() {
        for (found, wanted) in [
            (count(0), "0"),
            (count(999), "999"),
            (count(1_000), "1,000"),
            (count(1_234_567), "1,234,567"),
            (number(0.0), "0"),
            (number(0.1234), "0.123"),
            (number(0.99951), "1.00"),
            (number(9.996), "10.0"),
            (number(99.96), "100"),
            (number(1234.5), "1,235"),
            (number(f64::NAN), "–"),
            (micros(999), "999 µs"),
            (micros(1_230), "1.23 ms"),
            (micros(999_999), "1,000 ms"),
            (micros(45_600_000), "45.6 s"),
            (micros(125_000_000), "2 min 5 s"),
            (micros(12_000_000_000), "3 h 20 min"),
            (mean_micros(0.5), "0.500 µs"),
            (mean_micros(250_000.0), "250 ms"),
            (octets(512.0), "512 B"),
            (octets(1_536.0), "1.50 KiB"),
            (octets(3.0 * 1_048_576.0), "3.00 MiB"),
        ] {
            assert_eq!(found, wanted);
        }
        assert_eq!(thousandths(12.3456), 12_346);
        assert_eq!(thousandths(f64::NAN), 0);
        assert_eq!(per_second(10, 2_000_000), 5.0);
        assert_eq!(per_second(10, 0), 0.0);
    }
}
