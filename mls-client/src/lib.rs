//! A client of Concordat: MLS groups (RFC 9420, on OpenMLS) that follow one agreed log.
//!
//! A [`Client`] keeps its state in one file, reaches a gateway through a [`Transport`], and makes three promises on top of what the
//! log promises:
//! - nothing is sent before it is stored, so a crash or a lost answer never leaves it outside its group;
//! - entries are applied strictly in order and checked against the log's hash chain;
//! - a change that lost its epoch is built again on the winner, until the log has it or it has nothing left to do.
//!
//! # Many clients in one process
//! ```no_run
//! use std::{path::Path, sync::Arc};
//! use mls_client::{Client, ClientId, EventKind, GrpcTransport, Identity, NewGroup, Options, Randomness, Store};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! async fn open(name: &str, gateway: &str) -> Result<Client, Box<dyn std::error::Error>> {
//!     let id = ClientId::new(name.to_owned())?;
//!     let mut store = Store::open(Path::new(&format!("{name}.state")))?;
//!     if Identity::load(&store)?.is_none() {
//!         Identity::create(&mut store, id.clone(), mls_client::DEFAULT_CIPHERSUITE)?;
//!     }
//!     let transport = Arc::new(GrpcTransport::new(gateway, &id)?);
//!     Ok(Client::new(store, transport, Options::default(), Randomness::from_os())?)
//! }
//! let ann = open("ann", "http://127.0.0.1:7400").await?;
//! let bob = open("bob", "http://127.0.0.1:7401").await?;
//! // Running clients publish KeyPackages, join by Welcome, follow their groups and reconnect by themselves.
//! let (ann_at_work, bob_at_work) = (ann.start(), bob.start());
//! let mut heard = bob.events();
//! bob.publish_key_packages().await?;
//!
//! let group = ann.create_group(NewGroup::default()).await?;
//! ann.invite(&group, &[bob.id().clone()]).await?;
//! ann.send(&group, "hello").await?;
//! while let Ok(event) = heard.recv().await {
//!     if let EventKind::MessageReceived { sender, body, .. } = event.kind {
//!         println!("{}: {}", String::from_utf8_lossy(&sender), String::from_utf8_lossy(&body));
//!         break;
//!     }
//! }
//! // What a test wants to compare: epoch, epoch authenticator, members, and every message.
//! let (a, b) = (ann.sync(&group).await?, bob.sync(&group).await?);
//! assert_eq!((a.epoch, a.epoch_authenticator), (b.epoch, b.epoch_authenticator));
//! println!("{:?}, {} messages", ann.counters(), bob.messages(&group, 0, 100)?.len());
//! ann_at_work.stop().await;
//! bob_at_work.stop().await;
//! # Ok(()) }
//! ```

mod branches;
pub mod client;
pub mod demls;
pub mod dimls;
pub mod error;
pub mod event;
pub mod limits;
pub mod store;
pub mod transport;

mod group;
mod identity;
mod provider;
mod wire;

pub use client::{Change, Client, Committed, Counters, KeyPackageCount, NewGroup, Options, Running, Sent};
pub use error::Error;
pub use event::{Event, EventKind};
pub use group::{GroupView, Intent, Invitee, MemberId};
pub use group_log::{ClientId, GroupId, GroupKind, Policy, StateId};
pub use identity::{DEFAULT_CIPHERSUITE, Identity};
pub use provider::Values;
pub use service_kit::rng::Randomness;
pub use store::{LeftReason, Place, Status, Store, StoredMessage};
pub use transport::{CallError, GrpcTransport, Mode, Security, Transport};
