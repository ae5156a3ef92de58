//! The Toolzz credential API, as seen from here.
//!
//! - [`Connection`]: one account at Toolzz. Every call goes through its token bucket, its pauses and its token.
//! - [`Outcome`]: done, not done, or unknown. Nothing in an error comes from a remote body or header.
//! - [`Inventory`]: what is known of the credentials there, from listings and from the answers to own writes.
//!
//! Nothing here decides anything: what an outcome means for a resource is the planner's business.

mod address;
mod catalogue;
mod client;
mod clock;
mod config;
mod connect;
mod gate;
mod inventory;
mod outcome;
mod probe;
mod proxy;
mod tenure;
mod token;
mod wire;

pub use address::Addresses;
pub use catalogue::Catalogue;
pub use client::{Connection, Listed, NewCredential, Observer, Operation};
pub use clock::Clock;
use config::host_and_port;
pub use config::{Config, ConfigError};
pub use connect::ConnectFailure;
pub use gate::State;
pub use inventory::{Inventory, Judge, Reading};
pub use outcome::{Lost, NotDone, Outcome, Refusal, Unknown, Unreadable};
pub use proxy::{Proxy, ProxyError};
pub use tenure::{LEAST_TENURE, Tenure};
pub use token::{TokenError, TokenSource};
