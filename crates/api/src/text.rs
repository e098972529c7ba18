//! Comparison of names, for messages that suggest the name that was meant.

/// The largest distance of similar words. A comparison ends as soon as it is exceeded, which bounds its cost.
const MAX_DISTANCE: usize = 2;

/// The number of letters to change, add, remove or swap with their neighbor to turn one word into
/// the other (optimal string alignment). `usize::MAX` stands for any number above 2.
#[must_use]
pub fn edit_distance(one: &str, other: &str) -> usize {
    // A character has up to four bytes.
    if one.len().abs_diff(other.len()) > 4 * MAX_DISTANCE {
        return usize::MAX;
    }
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > MAX_DISTANCE {
        return usize::MAX;
    }
    // The rows of the matrix for the preceding two letters.
    let (mut second, mut first) = (Vec::new(), Vec::new());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for i in 1..=one.len() {
        (second, first, row) = (first, row, second);
        let is_far = |row: &[usize]| row.iter().all(|distance| *distance > MAX_DISTANCE);
        if i > 2 && is_far(&first) && is_far(&second) {
            return usize::MAX;
        }
        row.clear();
        row.push(i);
        for j in 1..=other.len() {
            let substituted = first[j - 1] + usize::from(one[i - 1] != other[j - 1]);
            let is_swapped =
                i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
            let swapped = if is_swapped {
                second[j - 2] + 1
            } else {
                usize::MAX
            };
            row.push(
                substituted
                    .min(swapped)
                    .min(first[j] + 1)
                    .min(row[j - 1] + 1),
            );
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_changed_added_removed_and_swapped_letters() {
        for (one, other, distance) in [
            ("target", "target", 0),
            ("targte", "target", 1),
            ("atrgte", "target", 2),
            ("taget", "target", 1),
            ("targeeet", "target", 2),
            ("tárget", "target", 1),
            ("\u{feff}target", "target", 1),
            ("", "ab", 2),
        ] {
            assert_eq!(edit_distance(one, other), distance, "{one}");
            assert_eq!(edit_distance(other, one), distance, "{one}");
        }
        for (one, other) in [
            ("phases", "target"),
            ("target", "targetabc"),
            ("xyzget", "target"),
        ] {
            assert!(edit_distance(one, other) > 2, "{one}");
        }
    }
}
