//! A proxy in front of a real Kubernetes API server, for tests: it stops, breaks and delays what it is told to and
//! remembers what was asked. The names are those of the simulator of the remote API.
//!
//! ```no_run
//! # async fn example(config: kube::Config) -> Result<(), Box<dyn std::error::Error>> {
//! use test_kubeproxy::{Fault, Operation, Point, Proxy, Times};
//!
//! let proxy = Proxy::start(config)?; // the credentials it adds
//! std::fs::write("kubeconfig", proxy.kubeconfig("default"))?; // for the client under test; holds no credentials
//! proxy.fault(|asked| asked.operation == Operation::Patch, Times::Next(1), Fault::conflict());
//! let gate = proxy.hold(|asked| asked.is_write_to("configmaps"), Point::Committed);
//! gate.until_held(1).await; // written, and nobody knows
//! gate.discard(); // the client's connection breaks
//! # Ok(()) }
//! ```
//!
//! # How a request goes
//! Received and entered in the journal → the first fault that meets it decides → gates [`Point::BeforeSent`] → forwarded
//! ([`Commit::Now`]) or not ([`Commit::Never`]) → gates [`Point::Committed`] → reply. What passed its gates is carried out
//! even where its client is gone. Watches are streamed; [`Proxy::lag`] holds their events back, [`Proxy::cut_watches`]
//! ends them.
//!
//! Bodies pass through and are not kept: of a request that creates something the name is read, nothing else.

mod asked;
mod exchange;
mod faults;
mod gate;
mod journal;
mod proxy;
mod server;
mod state;
mod stream;

pub use asked::{Asked, Operation};
pub use faults::{Commit, Fault, Reply, RuleId, Times};
pub use gate::{Gate, GateId, Point};
pub use journal::Entry;
pub use proxy::{Error, Lag, Proxy};
pub use state::State;
