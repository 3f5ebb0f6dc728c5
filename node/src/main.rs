//! Rookery.
fn main() {}
