//! Keeps credentials in step.
fn main() {}
