//! What every service has: health, metrics, logs, an orderly end.

mod direct;
mod health;
mod lease;
mod metrics;
mod shards;
mod shutdown;
mod telemetry;
mod traces;

pub use direct::direct_client;
pub use health::{Readiness, serve};
pub use lease::{Election, Lost, Standing, Terms, Timing, TimingError};
pub use metrics::{Due, Metrics};
pub use shards::{Balance, Share};
pub use shutdown::Shutdown;
pub use telemetry::{LogFormat, PANIC, start as start_telemetry};
pub use traces::{Error as TracesError, Traces};
