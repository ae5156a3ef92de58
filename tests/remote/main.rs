//! The remote client against a simulated Toolzz.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses;
mod inventory;
mod outcomes;
mod pauses;
mod proxy;
mod refusals;
mod secrecy;
mod support;
mod tenure;
mod tls;
