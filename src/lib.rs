//! Keeps provider credentials in Toolzz in step with Kubernetes Secrets.
//!
//! The rooms, and which way they look:
//!
//! - [`api`]: the custom resources and the words the rooms share. No I/O.
//! - [`plan`]: what to do next, as a value. Pure: no client, no clock, no async.
//! - [`remote`]: the Toolzz API: outcomes, listings, throttling.
//! - [`secrets`]: from references to key material that cannot be printed.
//! - [`controller`]: the shell: watches, the loop, one effect per step.
//! - `kubernetes`: a time limit for calls of the Kubernetes API, and their errors without what they quote.
//! - [`runtime`]: leader election, health, metrics, logs, shutdown.
//! - [`cli`]: the commands.
//!
//! `controller → plan, remote, secrets, api`; `plan → api`; `remote, secrets → api`.

pub mod api;
pub mod cli;
pub mod controller;
#[cfg(test)]
mod fuzz;
mod kubernetes;
pub mod plan;
pub mod remote;
pub mod runtime;
pub mod secrets;
