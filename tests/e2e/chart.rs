//! The chart: see the tests that run the binary under its rights.
