//! The operator's real binary against a real API server and a simulated Toolzz.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod adoption;
mod asking;
mod chart;
mod connections;
mod crash;
mod elections;
mod examples;
mod failures;
mod leader;
mod lifecycle;
mod losses;
mod remote_faults;
mod rotation;
mod sequences;
mod shared;
mod support;
mod targets;
