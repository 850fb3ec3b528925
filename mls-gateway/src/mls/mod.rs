//! What the gateway understands of MLS: it reads what is on the wire, and it validates public handshakes. It holds no secrets.

mod cache;
mod catch_up;
mod handshake;
mod key_package;
mod no_storage;
mod parse;
mod public_state;
mod replay;
mod roster;
mod validate;

pub use handshake::{Handshake, Ticket};
pub use key_package::{ParsedKeyPackage, key_package};
pub use parse::{
    GroupInfoIn, MessageIn, MessageKind, ParseError, Problem, check_recipients, group_info, message, sender,
    welcome,
};
pub use public_state::{Checked, CommitInvalid, Membership, PublicState, Staged};
pub(crate) use replay::{after_commit, take_in_proposal};
pub use roster::{Roster, changes_members, members_of};
pub use validate::Validator;
