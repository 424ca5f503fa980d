//! The nearest names to one that does not exist.

/// How many nearest names are told.
const NEAREST_MAX: usize = 3;

/// The names among `known` that `wanted` was probably meant to be, the nearest first: at most a third of
/// the letters differ, or one begins with the other.
#[must_use]
pub fn nearest(wanted: &str, known: impl IntoIterator<Item = String>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(usize, String)> = known
        .into_iter()
        .filter_map(|name| {
            let lower = name.to_lowercase();
            let distance = distance(&wanted, &lower);
            let allowed = (wanted.chars().count().max(lower.chars().count()) / 3).max(1);
            let begins = !wanted.is_empty() && (lower.starts_with(&wanted) || wanted.starts_with(&lower));
            (distance <= allowed || begins).then_some((distance, name))
        })
        .collect();
    scored.sort();
    scored.truncate(NEAREST_MAX);
    scored.into_iter().map(|(_, name)| name).collect()
}

/// How many letters must be inserted, removed, changed or swapped with their neighbour to turn one word
/// into the other (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(wanted: &str) -> Vec<String> {
        nearest(wanted, ["dev", "devbox", "gpu-1", "gpu-2", "staging"].map(String::from))
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        assert_eq!(near("dve"), ["dev"]);
        assert_eq!(near("de"), ["dev", "devbox"]);
        assert_eq!(near("gpu1"), ["gpu-1"]);
        assert_eq!(near("Stagign"), ["staging"]);
        assert!(near("production").is_empty());
    }
}
