//! Comparison of names, for messages that suggest the name that was meant.

/// The number of letters to change, add, remove or swap with their neighbor to turn one word into
/// the other (optimal string alignment). Words whose lengths differ by more than 64 bytes are not compared.
#[must_use]
pub fn edit_distance(one: &str, other: &str) -> usize {
    if one.len().abs_diff(other.len()) > 64 {
        return usize::MAX;
    }
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    let mut rows = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let substituted = rows[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
                let transposed =
                    i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
                let transposed = if transposed {
                    rows[i - 2][j - 2] + 1
                } else {
                    usize::MAX
                };
                substituted
                    .min(transposed)
                    .min(rows[i - 1][j] + 1)
                    .min(rows[i][j - 1] + 1)
            };
        }
    }
    rows[one.len()][other.len()]
}
