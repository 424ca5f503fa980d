//! Names that people give.

pub(crate) use warren_settings::nearest;

/// Why a name will not do, or nothing if it will: `what` is 1 to 32 lower-case letters, digits and hyphens,
/// with a letter or digit at both ends, so that it is one DNS label.
pub(crate) fn objection(what: &str, name: &str) -> Option<String> {
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let ends = bytes.first().copied().is_some_and(letters) && bytes.last().copied().is_some_and(letters);
    let fits = bytes.len() <= 32 && bytes.iter().all(|&b| letters(b) || b == b'-');
    (!(ends && fits)).then(|| {
        format!(
            "{what} has 1 to 32 lower-case letters, digits and hyphens, and neither begins nor ends with a hyphen"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "dev", "gpu-1", "0", &"a".repeat(32)] {
            assert_eq!(objection("a name", good), None, "{good}");
        }
        for bad in ["", "-a", "a-", "Dev", "a.b", "a b", "a/b", "é", &"a".repeat(33)] {
            assert!(objection("a name", bad).is_some(), "{bad}");
        }
    }
}
