//! Validates public handshakes before they can burn an epoch.
//!
//! A handshake is held against the exact state it claims to be made in. The canonical log has one state per epoch, so the epoch
//! names it. If the state kept here is older, it follows the log first; if it is newer, the handshake has lost its race whatever
//! it says, and the cluster answers. Nothing is refused on the word of a state that might be wrong: before a refusal the state is
//! brought up to date with a linearizable read, completed with the epoch's proposals, and, if it has followed commits, rebuilt from
//! the newest GroupInfo (see `public_state.rs` for why a followed state can be poisoned).
//!
//! What cannot be validated passes: private handshakes, groups whose GroupInfo has no ratchet tree, and commits that may refer to
//! private proposals. Their members decide, as RFC 9420 has it.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use concordat_proto::log::v1::{self as pb, content::Content};
use group_log::GroupId;
use openmls_rust_crypto::RustCrypto;
use tokio::time::timeout;

use super::{
    cache::Cache,
    handshake::{Handshake, Ticket},
    parse::{self, GroupInfoIn, ParseError},
    public_state::{Checked, PublicState},
    replay::{after_commit, replay, take_in_proposal},
};
use crate::{
    cluster::LogReader,
    error::GatewayError,
    limits::{
        BLOCKING_VALIDATION_BYTES, CATCH_UP_ENTRIES_MAX, CATCH_UP_PAGE, LOOK_BACK_ENTRIES_MAX,
        MERGE_PATIENCE, PUBLIC_STATES_BYTES_MAX, PUBLIC_STATES_MAX,
    },
    metrics::{self, Validation},
    wire::{content, group_info},
};

/// The public states of many groups, bounded, the least recently used forgotten first.
pub struct Validator {
    crypto: Arc<RustCrypto>,
    log: Arc<dyn LogReader>,
    cache: Cache<Known>,
}

/// What is known of one group.
#[derive(Default)]
pub(super) struct Known {
    pub(super) position: Option<Position>,
    /// Counts every change that is not a merge of one's own, so that a staged commit is never merged into another state.
    generation: u64,
}

pub(super) struct Position {
    /// The last entry taken in.
    pub(super) seq: u64,
    /// The epoch after it.
    pub(super) epoch: u64,
    /// Absent if the state cannot be followed from the outside.
    pub(super) state: Option<PublicState>,
    /// The state was built from the GroupInfo of this epoch and has followed no commit.
    fresh: bool,
    /// Nothing better can be had: since it was begun anew from the newest GroupInfo, there was no commit.
    pub(super) anew: bool,
}

/// What has been done already for a handshake that does not validate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    None,
    CaughtUp,
    Rebuilt,
}

impl Validator {
    /// Reads what it needs to follow the groups from `log`.
    pub fn new(log: Arc<dyn LogReader>) -> Self {
        Self { crypto: Arc::default(), log, cache: Cache::new(PUBLIC_STATES_MAX, PUBLIC_STATES_BYTES_MAX) }
    }

    /// The cryptography that everything is verified with.
    pub fn crypto(&self) -> &RustCrypto {
        &self.crypto
    }

    pub(crate) fn log(&self) -> &dyn LogReader {
        &*self.log
    }

    /// What is remembered of a group.
    pub(super) fn slot(&self, group_id: &GroupId) -> Arc<tokio::sync::Mutex<Known>> {
        self.cache.slot(group_id)
    }

    /// Accounts for what is remembered of a group now.
    pub(super) fn settle(&self, group_id: &GroupId, known: &Known) {
        let state = known.position.as_ref().and_then(|p| p.state.as_ref());
        self.cache.account(group_id, state.map_or(0, PublicState::estimated_bytes));
    }

    /// Validates a handshake. No ticket: there is nothing to validate it against, or it has lost its race already.
    pub async fn check(&self, handshake: Handshake<'_>) -> Result<Option<Ticket>, GatewayError> {
        let slot = self.cache.slot(handshake.group_id);
        let mut known = slot.lock().await;
        let result = self.check_known(&mut known, &handshake).await;
        self.settle(handshake.group_id, &known);
        drop(known);
        metrics::validation(match &result {
            Ok((_, outcome)) => *outcome,
            Err(GatewayError::CommitInvalid(_) | GatewayError::Parse(_)) => Validation::Refused,
            Err(_) => Validation::Failed,
        });
        result.map(|(ticket, _)| ticket)
    }

    async fn check_known(
        &self,
        known: &mut Known,
        handshake: &Handshake<'_>,
    ) -> Result<(Option<Ticket>, Validation), GatewayError> {
        let group_id = handshake.group_id;
        if known.position.as_ref().is_none_or(|p| p.epoch < handshake.epoch) {
            self.catch_up(known, group_id, false).await?;
            // The node that was asked may lag behind the one that accepted the previous commit.
            if known.position.as_ref().is_some_and(|p| p.epoch < handshake.epoch) {
                self.catch_up(known, group_id, true).await?;
            }
        }
        let mut effort = Effort::None;
        loop {
            let Some(position) = &known.position else { return Ok((None, Validation::Unchecked)) };
            if position.epoch < handshake.epoch {
                return Err(GatewayError::EpochAhead { head_epoch: position.epoch, got: handshake.epoch });
            }
            if position.epoch > handshake.epoch {
                return Ok((None, Validation::Stale));
            }
            let Some(state) = &position.state else { return Ok((None, Validation::Unchecked)) };
            let error = match self.check_state(state, handshake) {
                Ok(checked) => {
                    let author = state.author(handshake.message, &checked);
                    let (group_id, epoch) = (group_id.clone(), position.epoch);
                    let ticket = Ticket { author, group_id, epoch, generation: known.generation, checked };
                    return Ok((Some(ticket), Validation::Passed));
                }
                Err(error) => error,
            };
            effort = match effort {
                Effort::None => {
                    self.catch_up(known, group_id, true).await?;
                    self.complete_proposals(known, group_id).await?;
                    Effort::CaughtUp
                }
                Effort::CaughtUp if !position.fresh => {
                    metrics::validation_rebuild();
                    self.rebuild(known, group_id, true).await?;
                    self.complete_proposals(known, group_id).await?;
                    Effort::Rebuilt
                }
                Effort::CaughtUp | Effort::Rebuilt if state.hidden_proposals => {
                    return Ok((None, Validation::Unchecked));
                }
                Effort::CaughtUp | Effort::Rebuilt => return Err(error),
            };
        }
    }

    /// Holds a handshake, and what came with it, against the state that it was made in.
    fn check_state(&self, state: &PublicState, handshake: &Handshake<'_>) -> Result<Checked, GatewayError> {
        let checked = state.check(&*self.crypto, handshake.kind, handshake.message.clone())?;
        if let Checked::Commit(staged) = &checked {
            if let Some(info) = handshake.group_info {
                staged.check_group_info(&*self.crypto, info)?;
            }
            if let Some(refs) = handshake.welcome {
                staged.check_welcome(&*self.crypto, refs)?;
            }
        }
        Ok(checked)
    }

    /// Goes on to the state after a handshake that the cluster has accepted.
    pub async fn accepted(&self, ticket: Ticket, accepted: &pb::Accepted) {
        let slot = self.cache.slot(&ticket.group_id);
        // Whoever waits for the answer must not wait for another's validation; the log tells the same later.
        let Ok(mut guard) = timeout(MERGE_PATIENCE, slot.lock()).await else { return };
        let known = &mut *guard;
        let Some(position) = known.position.as_mut() else { return };
        if position.epoch != ticket.epoch || known.generation != ticket.generation {
            return;
        }
        let Some(state) = position.state.as_mut() else { return };
        match ticket.checked {
            Checked::Proposal(proposal) => {
                // Entries in between are still to be read, so the position stays; the same proposal twice does no harm.
                state.add_proposal(*proposal);
            }
            Checked::Commit(staged) if accepted.epoch == ticket.epoch + 1 => {
                known.generation += 1;
                position.seq = accepted.seq;
                position.epoch = accepted.epoch;
                (position.fresh, position.anew) = (false, false);
                if state.merge(staged).is_err() {
                    position.state = None;
                }
            }
            Checked::Commit(_) => {}
        }
    }

    /// Validates the GroupInfo that a group begins with, if it shows a ratchet tree. The state is for [`Validator::created`].
    pub async fn check_create(&self, info: GroupInfoIn) -> Result<Option<PublicState>, GatewayError> {
        Ok(self.build(info).await??)
    }

    /// Remembers the state of a group whose creation the cluster has accepted.
    pub async fn created(&self, group_id: &GroupId, state: Option<PublicState>, accepted: &pb::Accepted) {
        let Some(mut state) = state else { return };
        state.has_all_proposals = true;
        let bytes = state.estimated_bytes();
        let slot = self.cache.slot(group_id);
        let mut known = slot.lock().await;
        // The same create again, long after: what is known is newer.
        if known.position.is_none() && accepted.epoch == state.epoch() {
            known.position = Some(Position {
                seq: accepted.seq,
                epoch: accepted.epoch,
                state: Some(state),
                fresh: true,
                anew: true,
            });
            known.generation += 1;
            drop(known);
            self.cache.account(group_id, bytes);
        }
    }

    pub(super) async fn build(
        &self,
        info: GroupInfoIn,
    ) -> Result<Result<Option<PublicState>, ParseError>, GatewayError> {
        if info.bytes < BLOCKING_VALIDATION_BYTES {
            return Ok(PublicState::build(&*self.crypto, info));
        }
        let crypto = Arc::clone(&self.crypto);
        let built = tokio::task::spawn_blocking(move || PublicState::build(&*crypto, info)).await;
        built.map_err(|_| GatewayError::Protocol("validation ended early"))
    }

    /// Follows the log to its end, or starts over if that is cheaper.
    pub(super) async fn catch_up(
        &self,
        known: &mut Known,
        group_id: &GroupId,
        linearizable: bool,
    ) -> Result<(), GatewayError> {
        let Some(from) = known.position.as_ref().map(|p| p.seq) else {
            return self.rebuild(known, group_id, linearizable).await;
        };
        let head = self.log.head(group_id, linearizable, false).await?.head;
        if head.seq.saturating_sub(from) > CATCH_UP_ENTRIES_MAX {
            return self.rebuild(known, group_id, true).await;
        }
        let mut newest_info = None;
        let mut after = from;
        while after < head.seq {
            let page = match self.log.entries(group_id, after, CATCH_UP_PAGE, linearizable).await {
                Err(error) if error.oldest_kept().is_some() => {
                    return self.rebuild(known, group_id, true).await;
                }
                page => page?,
            };
            let Some(last) = page.last().map(|e| e.seq) else { break };
            for entry in &page {
                self.take_in(known, entry, &mut newest_info);
            }
            after = last;
        }
        self.recover_from(known, newest_info).await
    }

    /// A state that could not follow begins again at the newest GroupInfo that the entries carried, if it is of the epoch reached.
    async fn recover_from(&self, known: &mut Known, info: Option<(u64, Bytes)>) -> Result<(), GatewayError> {
        let Some(position) = known.position.as_mut().filter(|p| p.state.is_none()) else { return Ok(()) };
        if let Some((epoch, bytes)) = info
            && epoch == position.epoch
            && let Ok(info) = parse::group_info(&bytes)
        {
            position.state = self.build(info).await?.unwrap_or(None);
            (position.fresh, position.anew) = (true, true);
            known.generation += 1;
        }
        Ok(())
    }

    /// Takes in one accepted entry.
    fn take_in(&self, known: &mut Known, entry: &pb::Entry, newest_info: &mut Option<(u64, Bytes)>) {
        let Some(position) = known.position.as_mut() else { return };
        if entry.seq != position.seq + 1 {
            return;
        }
        position.seq = entry.seq;
        match content(entry) {
            Some(Content::Proposal(proposal)) => {
                take_in_proposal(&self.crypto, position.state.as_mut(), &proposal.message)
            }
            Some(Content::Commit(commit)) => {
                known.generation += 1;
                position.epoch = entry.epoch + 1;
                (position.fresh, position.anew) = (false, false);
                position.state =
                    position.state.take().and_then(|s| after_commit(&self.crypto, s, &commit.message));
                if let Some(info) = group_info(entry) {
                    *newest_info = Some((entry.epoch + 1, info.clone()));
                }
            }
            _ => {}
        }
    }

    /// Starts over from the newest GroupInfo.
    pub(super) async fn rebuild(
        &self,
        known: &mut Known,
        group_id: &GroupId,
        linearizable: bool,
    ) -> Result<(), GatewayError> {
        let answer = self.log.head(group_id, linearizable, true).await?;
        let head = answer.head;
        known.generation += 1;
        known.position = None;
        let state = match parse::group_info(&answer.group_info) {
            Ok(info) => self.build(info).await?.unwrap_or(None),
            Err(_) => None,
        };
        let behind = answer.group_info_epoch < head.epoch;
        let mut position = Position { seq: head.seq, epoch: head.epoch, state, fresh: !behind, anew: true };
        if behind && let Some(state) = position.state.take() {
            // The last committers published no GroupInfo: go on from the one there is, through their commits.
            let entries = self.look_back(group_id, head.seq, answer.group_info_epoch).await?;
            position.state = entries.and_then(|entries| replay(&self.crypto, state, &entries));
        }
        known.position = Some(position);
        Ok(())
    }

    /// Adds the proposals of the current epoch that were accepted before the state was built.
    async fn complete_proposals(&self, known: &mut Known, group_id: &GroupId) -> Result<(), GatewayError> {
        let Some(position) = known.position.as_mut() else { return Ok(()) };
        let Some(state) = position.state.as_mut().filter(|s| !s.has_all_proposals) else { return Ok(()) };
        if let Some(entries) = self.look_back(group_id, position.seq, position.epoch).await? {
            for entry in &entries {
                if let Some(Content::Proposal(proposal)) = content(entry) {
                    take_in_proposal(&self.crypto, Some(state), &proposal.message);
                }
            }
            state.has_all_proposals = true;
        } else {
            // Too far back to look: what a commit refers to may be there.
            state.hidden_proposals = true;
        }
        Ok(())
    }

    /// The handshakes after the one that began `epoch`, up to the entry `last`; nothing if that is too far back.
    pub(super) async fn look_back(
        &self,
        group_id: &GroupId,
        last: u64,
        epoch: u64,
    ) -> Result<Option<VecDeque<pb::Entry>>, GatewayError> {
        let mut handshakes: VecDeque<pb::Entry> = VecDeque::new();
        let mut end = last;
        while end > 0 && last - end < LOOK_BACK_ENTRIES_MAX {
            let start = end.saturating_sub(CATCH_UP_PAGE.into());
            let mut page = Vec::new();
            let mut after = start;
            while after < end {
                // Linearizable, so that a node that lags does not hide a proposal.
                let part = match self.log.entries(group_id, after, CATCH_UP_PAGE, true).await {
                    // What was given up lies before the newest GroupInfo: the rest is enough.
                    Err(error) if error.oldest_kept().is_some_and(|oldest| after + 1 < oldest) => {
                        after = error.oldest_kept().map_or(end, |oldest| oldest - 1);
                        continue;
                    }
                    part => part?,
                };
                let Some(newest) = part.last().map(|e| e.seq) else { break };
                after = newest;
                page.extend(part.into_iter().filter(|e| e.seq <= end));
            }
            for entry in page.into_iter().rev() {
                match content(&entry) {
                    Some(Content::Create(_)) => return Ok(Some(handshakes)),
                    Some(Content::Commit(_)) if entry.epoch.saturating_add(1) == epoch => {
                        return Ok(Some(handshakes));
                    }
                    Some(Content::Commit(_) | Content::Proposal(_)) => handshakes.push_front(entry),
                    _ => {}
                }
            }
            end = start;
        }
        Ok(None)
    }
}
