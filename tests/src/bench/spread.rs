//! What many rounds say together; all take values in ascending order.

/// Mean of the middle half: as deaf to outliers as a median, and finer than the whole nanoseconds the kernel
/// reports.
pub(super) fn middle(sorted: &[f64]) -> f64 {
    let quarter = sorted.len() / 4;
    let half = &sorted[quarter..sorted.len() - quarter];
    half.iter().sum::<f64>() / half.len().max(1) as f64
}

/// The value that this part of all lies below, such as 0.5 for the median.
pub(super) fn part(sorted: &[f64], part: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((part * last).round() as usize).copied().unwrap_or(0.0)
}
