//! Links between sites, in user space: TCP connections between real processes that take as long as they would between distant places,
//! and that can be cut. For tests, the demo and benchmarks, on machines whose kernel cannot do it and without privileges.
//!
//! Every process that connects from one site to another is given a local address for its target ([`Links::open`]). What is sent over
//! a connection from `a` to `b` travels in the direction a → b, the answers in the direction b → a; each direction has its own
//! [`Quality`], its own gate ([`Links::cut`], [`Links::heal`]) and its own count of bytes.
//!
//! What is emulated, and what is not:
//! - A direction's connections share its bandwidth, first come, first served. Bytes of one connection stay in order.
//! - The first bytes of a connection wait for the round trip of its handshake. The kernel accepts the caller at once, so `connect`
//!   itself does not take that time, and does not fail while the link is cut: the connection is silent, or reset, instead.
//! - A cut that stalls loses what is on its way; it arrives one delay after the link has healed, as if it had been sent again at that
//!   moment. TCP's own wait before it sends again, which can be as long as the cut, is left out.
//! - Acknowledgements are not emulated: over a link that is cut in one direction the other direction goes on.
//! - Bytes are counted as they arrive, without the headers of TCP and IP.
//!
//! ```no_run
//! use std::time::Duration;
//! use links::{Cut, Links, Quality};
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let links = Links::start(["athens", "oslo"], 7)?;
//! links.set_both("athens", "oslo", Quality::delay(Duration::from_millis(30)))?;
//! let address = links.open("athens", "oslo", "127.0.0.1:7200")?;
//! // A process in Athens connects to `address` and talks to 127.0.0.1:7200, 60 ms away.
//! links.split(&[&["athens"], &["oslo"]], Cut::Stall)?;
//! links.heal_all();
//! # Ok(()) }
//! ```

mod connection;
mod direction;
pub mod limits;
mod network;
mod pipe;
mod quality;
mod timer;

pub use direction::Cut;
pub use network::{LinkError, Links};
pub use quality::Quality;
