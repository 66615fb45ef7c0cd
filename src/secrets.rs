//! Comparing what a peer brought with what it should have brought.

/// Whether both are the same; takes the same time wherever the first difference is.
pub fn equal(given: &str, wanted: &str) -> bool {
    let (a, b) = (given.as_bytes(), wanted.as_bytes());
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
