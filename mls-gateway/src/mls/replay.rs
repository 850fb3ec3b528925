//! How a public state follows what the cluster has accepted.

use std::collections::VecDeque;

use bytes::Bytes;
use concordat_proto::log::v1::{self as pb, content::Content};
use openmls_rust_crypto::RustCrypto;

use super::{
    parse::{self, MessageKind},
    public_state::{Checked, CommitInvalid, PublicState, Staged},
};
use crate::wire::content;

/// Takes in an accepted proposal.
pub(crate) fn take_in_proposal(crypto: &RustCrypto, state: Option<&mut PublicState>, bytes: &Bytes) {
    let Some(state) = state else { return };
    match parse::message(bytes).map(|m| m.public) {
        Ok(Some(public)) => {
            // One that does not validate was accepted by a gateway that could not see the group; members ignore it.
            if let Ok(Checked::Proposal(proposal)) = state.check(crypto, MessageKind::Proposal, public) {
                state.add_proposal(*proposal);
            }
        }
        Ok(None) | Err(_) => state.hidden_proposals = true,
    }
}

/// The state after an accepted commit, unless it cannot be seen from outside.
pub(crate) fn after_commit(
    crypto: &RustCrypto,
    mut state: PublicState,
    bytes: &Bytes,
) -> Option<PublicState> {
    let public = parse::message(bytes).ok()?.public?;
    let staged = commit(state.check(crypto, MessageKind::Commit, public)).ok()?;
    state.merge(staged).ok()?;
    Some(state)
}

fn commit(checked: Result<Checked, CommitInvalid>) -> Result<Staged, CommitInvalid> {
    match checked? {
        Checked::Commit(staged) => Ok(staged),
        Checked::Proposal(_) => {
            Err(CommitInvalid { kind: MessageKind::Commit, detail: "it is a proposal".into() })
        }
    }
}

/// The state after these accepted handshakes, unless it cannot be seen from outside.
pub(super) fn replay(
    crypto: &RustCrypto,
    mut state: PublicState,
    entries: &VecDeque<pb::Entry>,
) -> Option<PublicState> {
    state.has_all_proposals = true;
    for entry in entries {
        match content(entry)? {
            Content::Proposal(proposal) => take_in_proposal(crypto, Some(&mut state), &proposal.message),
            Content::Commit(commit) => state = after_commit(crypto, state, &commit.message)?,
            _ => {}
        }
    }
    Some(state)
}
