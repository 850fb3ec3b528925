//! One group in memory, and everything that may happen to it. No IO: an operation changes a [`GroupWork`], and the caller stores it
//! whole or drops it, so the same code runs in a client and in a simulation.

mod commit;
mod create;
mod follow;
mod intent;
mod join;
mod send;
mod work;

pub(crate) use self::{
    commit::{build as build_commit, encode, is_member_proposal, is_to_be_removed, validate},
    create::{create, join_config, sender_ratchets, wire_format},
    follow::{apply, apply_own},
    join::{Coming, External, Invitation, join_external, join_welcome},
    send::{encrypt, enqueue, enqueue_leave, sent},
    work::{GroupWork, identities, members, mls_group_id},
};
pub use self::{
    intent::{Intent, Invitee, MemberId},
    work::GroupView,
};
