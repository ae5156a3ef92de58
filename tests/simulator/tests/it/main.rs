//! The simulator as its clients see it.
#![expect(clippy::expect_used, reason = "helpers of tests are tests")]

mod client;
mod control;
mod endpoints;
mod faults;
mod gates;
mod program;
