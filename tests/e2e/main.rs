//! The operator's real binary against a real API server and a simulated Toolzz.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod admission;
mod adoption;
mod advisories;
mod asking;
mod chart;
mod commands;
mod connections;
mod crash;
mod crashpoints;
mod docs;
mod elections;
mod failures;
mod health;
mod install;
mod kubernetes_faults;
mod leader;
mod leaks;
mod lifecycle;
mod losses;
mod monitoring;
mod no_diff;
mod remote_faults;
mod rights;
mod rotation;
mod runs;
mod schema;
mod sequences;
mod shards;
mod shared;
mod shell;
mod support;
mod targets;
mod traces;
mod uninstall;
mod workloads;
