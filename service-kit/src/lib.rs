//! What both services share: the seams to the outside world (clock, randomness, network) and the plumbing of a well-behaved
//! process (admin HTTP, statuses, tracing, shutdown).
//!
//! The services reach the outside world only through [`clock`], [`rng`] and [`net`], so that a whole cluster can be put into a
//! deterministic simulation by passing in other implementations. Monotonic time is `tokio::time`, which a simulation controls itself.

pub mod admin;
pub mod channel;
pub mod clock;
pub mod cut;
pub mod limits;
mod linger;
pub mod loopback;
pub mod metrics;
pub mod net;
pub mod resolve;
pub mod rng;
pub mod settings;
pub mod shutdown;
pub mod status;
mod tcp;
pub mod telemetry;
pub mod tls;
