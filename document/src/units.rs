//! Texts with a unit: spans of time, calendar periods, sizes.

use std::time::Duration;

/// A span that a duration can't hold, because months differ in length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// So many days, at least one.
    Days(u32),
    /// So many calendar months, at least one; a year is twelve.
    Months(u32),
}

/// A unit and what one of it is worth.
type Unit = (&'static str, u64);

const DURATION: [Unit; 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE: [Unit; 7] = [
    ("B", 1),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];
/// A century: longer spans are slips, and arithmetic on times stays far from its limits.
const DURATION_MS_MAX: u64 = 100 * 366 * 86_400_000;
const MONTHS_MAX: u32 = 1200;

/// Reads `40ms`, `10s`, `10m`, `24h`, `400d`: a whole number and a unit, up to a century.
///
/// # Errors
/// What is wrong, as a message that ends a sentence on the text.
pub fn duration(text: &str) -> Result<Duration, String> {
    let hint = "a duration is a whole number with a unit: ms, s, m, h or d, such as 40ms";
    match scaled(text, &DURATION, hint)? {
        ms if ms <= DURATION_MS_MAX => Ok(Duration::from_millis(ms)),
        _ => Err(format!("`{text}` is longer than a century")),
    }
}

/// Reads `16MiB`, `1 GiB`, `500kB`, or a plain number of bytes.
///
/// # Errors
/// What is wrong, as a message.
pub fn byte_size(text: &str) -> Result<u64, String> {
    if let Ok(bytes) = text.parse() {
        return Ok(bytes);
    }
    let hint = "a size is a whole number of bytes, or one with a unit: B, kB, MB, GB, KiB, MiB or GiB, such as 16MiB";
    scaled(text, &SIZE, hint)
}

/// Reads `13 months`, `2 years`, `90 days`, `90d`.
///
/// # Errors
/// What is wrong, as a message.
pub fn period(text: &str) -> Result<Period, String> {
    let units = [
        ("d", 0),
        ("day", 0),
        ("days", 0),
        ("month", 1),
        ("months", 1),
        ("year", 12),
        ("years", 12),
    ];
    let wrong = || format!("`{text}` is not understood; write days, months or years, such as 13 months or 90 days");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let (_, months_each) = units.into_iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let months = number.saturating_mul(months_each);
    if number == 0 {
        return Err(format!("`{text}` keeps nothing; the least is 1 day"));
    }
    if months > MONTHS_MAX || (months_each == 0 && number > 36_600) {
        return Err(format!("`{text}` is longer than a century"));
    }
    Ok(match months_each {
        0 => Period::Days(number),
        _ => Period::Months(months),
    })
}

fn scaled(text: &str, units: &[Unit], hint: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is not understood; {hint}");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let (_, factor) = units.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number
        .checked_mul(*factor)
        .ok_or_else(|| format!("`{text}` is too large"))
}

/// `13 months` -> `13`, `months`.
fn split(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    (!number.is_empty()).then_some((number, unit.strip_prefix(' ').unwrap_or(unit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_an_end() {
        for (text, ms) in [
            ("0ms", 0),
            ("40ms", 40),
            ("8s", 8000),
            ("10m", 600_000),
            ("24h", 86_400_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(duration("400d"), Ok(Duration::from_secs(400 * 86_400)));
        for text in [
            "",
            "40",
            "ms",
            "-1s",
            "1.5s",
            "1h30m",
            "1w",
            "10 months",
            "1  s",
            "99999999999999999999s",
        ] {
            let message = duration(text).unwrap_err();
            assert!(
                message.starts_with(&format!("`{text}` is not understood; a duration is")),
                "{message}"
            );
        }
        assert_eq!(
            duration("999999999d"),
            Err("`999999999d` is longer than a century".to_owned())
        );
        assert_eq!(
            duration("9999999999999999999d"),
            Err("`9999999999999999999d` is too large".to_owned())
        );
    }

    #[test]
    fn sizes_tell_thousands_from_binary_thousands() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("1B", 1),
            ("1kB", 1000),
            ("1KiB", 1024),
            ("16 MiB", 16 << 20),
        ] {
            assert_eq!(byte_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(byte_size("2GB"), Ok(2_000_000_000));
        for text in ["", "MiB", "1mib", "1.5MiB", "-1", "1 TiB", "1KB"] {
            let message = byte_size(text).unwrap_err();
            assert!(
                message.starts_with(&format!("`{text}` is not understood; a size is")),
                "{message}"
            );
        }
        assert_eq!(
            byte_size("18446744073709551615GiB"),
            Err("`18446744073709551615GiB` is too large".to_owned())
        );
    }

    #[test]
    fn periods_count_days_or_calendar_months() {
        for (text, expected) in [
            ("13 months", Period::Months(13)),
            ("1 month", Period::Months(1)),
            ("2 years", Period::Months(24)),
            ("90 days", Period::Days(90)),
            ("90d", Period::Days(90)),
        ] {
            assert_eq!(period(text), Ok(expected), "{text}");
        }
        assert_eq!(
            period("0 days"),
            Err("`0 days` keeps nothing; the least is 1 day".to_owned())
        );
        assert_eq!(
            period("101 years"),
            Err("`101 years` is longer than a century".to_owned())
        );
        assert_eq!(
            period("4000000000 years"),
            Err("`4000000000 years` is longer than a century".to_owned())
        );
        for text in ["", "13", "13m", "months", "13 moons", "1.5 months"] {
            assert!(
                period(text).unwrap_err().contains("is not understood; write days"),
                "{text}"
            );
        }
    }
}
