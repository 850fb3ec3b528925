//! One DeMLS group and everything that may happen to it: several states side by side, the canonical log followed strictly in order,
//! branches read as they come, and what is owed after a branch has lost.
//!
//! No network: an operation works on a [`BranchWork`] inside one transaction of the state file, which holds all of it or nothing.

mod branch;
mod commit;
mod create;
mod follow;
mod join;
mod process;
mod repair;
mod send;
mod stable;
mod work;

pub(crate) use self::{
    branch::learn,
    commit::{answered_provisionally, build_commit, set_aside},
    create::create,
    follow::{Followed, apply},
    join::{join_external, join_welcome},
    repair::{Duty, duty, owe},
    send::{answered, encrypt, enqueue, enqueue_leave, give_up},
    work::BranchWork,
};
