//! How the state that a group's handshakes are held against comes about: built from a GroupInfo, and brought along the log.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use concordat_proto::log::v1::{self as pb, content::Content};
use group_log::GroupId;

use super::{
    parse::{self, GroupInfoIn, ParseError},
    public_state::PublicState,
    replay::{after_commit, replay, take_in_proposal},
    validate::{Known, Position, Validator},
};
use crate::{
    error::GatewayError,
    limits::{BLOCKING_VALIDATION_BYTES, CATCH_UP_ENTRIES_MAX, CATCH_UP_PAGE, LOOK_BACK_ENTRIES_MAX},
    wire::{content, group_info},
};

impl Validator {
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
    pub(super) async fn complete_proposals(
        &self,
        known: &mut Known,
        group_id: &GroupId,
    ) -> Result<(), GatewayError> {
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
