//! Comparison of names, for messages that suggest the name that was meant.

/// Words whose lengths differ by more bytes are not compared, which bounds the cost of a long word.
const MAX_LENGTH_DIFFERENCE: usize = 8;

/// The number of letters to change, add, remove or swap with their neighbor to turn one word into
/// the other (optimal string alignment). `usize::MAX` for words whose lengths differ by more than 8 bytes.
#[must_use]
pub fn edit_distance(one: &str, other: &str) -> usize {
    if one.len().abs_diff(other.len()) > MAX_LENGTH_DIFFERENCE {
        return usize::MAX;
    }
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    // The rows of the matrix for the preceding two letters.
    let (mut second, mut first) = (Vec::new(), Vec::new());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for i in 1..=one.len() {
        (second, first, row) = (first, row, second);
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
