//! Bytes a second, as people write them.

use core::str::FromStr;

/// Bytes a second; 0 for no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rate(pub(crate) u64);

const UNITS: [(&str, u64); 8] = [
    ("", 1),
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "a rate is bytes a second such as 1500000, 500kB, 10MB or 64KiB".to_owned();
        let text = text.trim();
        let text = text.strip_suffix("/s").unwrap_or(text);
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = unit.trim_start();
        if unit.ends_with('b') {
            return Err(format!("\"{unit}\" stands for bits; {}", wrong()));
        }

        let known = UNITS.iter().find(|(name, _)| *name == unit || (unit == "KB" && *name == "kB"));
        let (_, factor) = known.ok_or_else(wrong)?;
        number.checked_mul(*factor).map(Self).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("1500000", 1_500_000),
            ("64KiB", 65_536),
            ("10MB", 10_000_000),
            ("10 MB/s", 10_000_000),
            ("2GiB", 2 << 30),
            ("1KB", 1_000),
        ] {
            assert_eq!(text.parse(), Ok(Rate(bytes)), "{text}");
        }
        for text in ["", "MB", "-1", "1.5MB", "10Mb", "10m", "10 XB", "99999999999GB"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }
}
