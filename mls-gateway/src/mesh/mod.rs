//! DiMLS groups at a gateway: kept on its own disk, brought to other gateways whenever there is a way, without any cluster.
//!
//! [`stream`] is the rule of one stream, pure; [`store`] keeps streams; [`check`] says what belongs in them. [`api`] serves clients,
//! [`exchange`] other gateways, and [`link`] pulls from them by the rules of [`pull`]. [`keep`] puts storage and links together, for a gateway in front of a cluster
//! as well as for one without, which [`server`] is.

pub mod api;
pub mod check;
pub mod cli;
pub mod exchange;
pub mod keep;
pub mod limits;
pub mod link;
pub mod pull;
mod recent;
mod rows;
pub mod server;
pub mod store;
pub mod stream;

pub use keep::{DimlsParts, KeepError};
pub use server::{MeshGateway, MeshParts};
pub use store::Bounds;
