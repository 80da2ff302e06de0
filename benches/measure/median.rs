//! The middle of many figures.

/// The middle one, or the mean of the two in the middle. Not a number where there are none.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let (low, high) = (sorted.len().saturating_sub(1) / 2, sorted.len() / 2);
    (at(low) + at(high)) / 2.0
}
