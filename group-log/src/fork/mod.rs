//! The fork rules: what becomes of a DeMLS group whose gateways lost the quorum and found it again.
//!
//! The cluster decides ([`apply`], in Raft order): submissions as in any group, reports of branches, the close of a collection, and
//! what gateways acknowledge. A gateway keeps branches in a [`BranchTree`] and knows by a [`ModeMachine`] when it may. A group without
//! a branch is the special case in which nothing but submissions ever happens.

mod answer;
mod close;
mod codec;
mod draft;
mod facts;
mod follow;
mod marks;
mod memory;
mod modes;
mod obligations;
mod rank;
mod report;
mod stable;
mod state;
mod submit;
mod tree;
mod view;

pub use answer::{Answer, Rejection};
pub use close::Close;
pub use facts::{CommitFacts, GatewayId, LeafId};
pub use follow::{FollowError, LogEntry, follow};
pub use marks::{Item, Mark};
pub use memory::MemoryFork;
pub use modes::{Mode, ModeMachine, ModeTimes, Service, Signals, Transition};
pub use obligations::covers;
pub use rank::{Rank, best_path, ticket};
pub use report::Report;
pub use state::{BranchEntry, Candidate, Collecting, Dead, ForkState, Recorded, Registration};
pub use tree::{BranchRefusal, BranchTree};
pub use view::{Appended, ForkChange, ForkView, Payload};

use crate::{content::Submission, view::ReadError};
use draft::Draft;

/// Something for one group's replicated state. All are idempotent: the same bytes again change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::large_enum_variant,
    reason = "commands are decoded and applied one by one, never kept in numbers"
)]
pub enum Command {
    /// A client wants something in the log.
    Submit {
        /// What it wants. In a DeMLS group `parent_state_id` must be present for whatever was made in a state.
        submission: Submission,
        /// For a commit or a create, what it does to the membership.
        facts: CommitFacts,
    },
    /// A gateway tells of branches.
    Report(Report),
    /// The leader ends a collection.
    Close(Close),
    /// A gateway has nothing unreported at or below a position.
    Ack {
        /// Who.
        gateway: GatewayId,
        /// The number that it got when it registered.
        registration: u64,
        /// Number of an entry.
        position: u64,
    },
    /// A gateway wants to serve the group also without a quorum.
    Register {
        /// Who.
        gateway: GatewayId,
        /// The log it has, durably, and below which it promised not to fork: a number of an entry.
        position: u64,
        /// [`ForkState::departures`] as far as it has heard: a registration that was overtaken by a departure is refused.
        departures: u64,
    },
    /// A gateway lets go of the group: it holds no branch, has acknowledged all there is, and will not fork before it registers again.
    Release {
        /// Who.
        gateway: GatewayId,
        /// The number that it got when it registered: only that registration ends.
        registration: u64,
    },
    /// A gateway is not waited for any longer.
    Evict {
        /// Who.
        gateway: GatewayId,
    },
}

/// What becomes of a command, and what to store. After [`Answer::Rejected`] and the like there is nothing to store.
pub fn apply<V: ForkView>(
    view: &V,
    command: &Command,
) -> Result<(Answer, Option<ForkChange>), ReadError<V::Error>> {
    let mut draft = Draft::new(view)?;
    let answer = match command {
        Command::Submit { submission, facts } => submit::submit(&mut draft, submission, facts)?,
        Command::Report(report) => report::report(&mut draft, report)?,
        Command::Close(close) => close::close(&mut draft, close)?,
        Command::Ack { gateway, registration, position } => {
            stable::ack(&mut draft, *gateway, *registration, *position)?
        }
        Command::Register { gateway, position, departures } => {
            stable::register(&mut draft, *gateway, *position, *departures)?
        }
        Command::Release { gateway, registration } => stable::release(&mut draft, *gateway, *registration)?,
        Command::Evict { gateway } => stable::evict(&mut draft, *gateway)?,
    };
    Ok((answer, draft.finish()))
}
