//! Who is in a group, as far as its log shows it.

use std::collections::BTreeSet;

use bytes::Bytes;
use concordat_proto::log::v1::{Entry, content::Content};
use group_log::{ClientId, GroupId};
use openmls::prelude::Sender;

use super::{
    parse,
    public_state::PublicState,
    replay::{after_commit, take_in_proposal},
    validate::{Known, Validator},
};
use crate::{
    access::rules::note,
    error::GatewayError,
    limits::{
        CATCH_UP_PAGE, FAREWELL_BYTES_MAX, FAREWELL_ENTRIES_MAX, LOOK_BACK_ENTRIES_MAX,
        ROSTER_LOG_ENTRIES_MAX,
    },
    wire::{content, group_info},
};

/// The members of a group after one of its entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// The epoch.
    pub epoch: u64,
    /// The last entry that it knows of.
    pub seq: u64,
    /// The members' client ids.
    pub members: BTreeSet<ClientId>,
    /// They were read from a ratchet tree.
    pub is_seen: bool,
}

impl Validator {
    /// The members as this gateway knows them without asking anybody, if it does.
    pub async fn roster_known(&self, group_id: &GroupId) -> Option<Roster> {
        let slot = self.slot(group_id);
        let known = slot.lock().await;
        of_state(&known)
    }

    /// The members at the end of the log, read from wherever that is cheapest: the state that is kept for validation, the newest
    /// GroupInfo, or the log of a group that shows no tree, from where `before` ends. A linearizable answer is not given on the word
    /// of a state that may have been led astray.
    ///
    /// # Errors
    /// The log can not be read, or is too long to find the members of a group that shows no tree.
    pub async fn roster(
        &self,
        group_id: &GroupId,
        linearizable: bool,
        before: Option<&Roster>,
    ) -> Result<Roster, GatewayError> {
        let slot = self.slot(group_id);
        let mut known = slot.lock().await;
        self.catch_up(&mut known, group_id, linearizable).await?;
        if linearizable && known.position.as_ref().is_some_and(|position| !position.anew) {
            self.rebuild(&mut known, group_id, true).await?;
        }
        self.settle(group_id, &known);
        let seen = of_state(&known);
        drop(known);
        match seen {
            Some(roster) => Ok(roster),
            None => self.roster_of_hidden(group_id, linearizable, before).await,
        }
    }

    /// The members of a group whose tree is not seen now: those of its newest visible tree, and whom commits brought in since.
    async fn roster_of_hidden(
        &self,
        group_id: &GroupId,
        linearizable: bool,
        before: Option<&Roster>,
    ) -> Result<Roster, GatewayError> {
        let answer = self.log().head(group_id, linearizable, true).await?;
        let mut roster = Roster {
            epoch: answer.head.epoch,
            seq: answer.head.seq,
            members: BTreeSet::new(),
            is_seen: false,
        };
        if let Some(members) = self.members_in(&answer.group_info).await? {
            // Nobody's view of the tree is older than the newest GroupInfo, so what came after it is short.
            if let Some(entries) = self.look_back(group_id, answer.head.seq, answer.group_info_epoch).await? {
                roster.members = members;
                entries.iter().for_each(|entry| note(&mut roster.members, entry, is_external));
                return Ok(roster);
            }
        }
        let mut after = 0;
        if let Some(before) = before.filter(|before| !before.is_seen && before.seq <= answer.head.seq) {
            (after, roster.members) = (before.seq, before.members.clone());
        }
        if answer.head.seq - after > ROSTER_LOG_ENTRIES_MAX {
            return Err(GatewayError::overloaded(
                "the log in which the members of a group without a visible ratchet tree are looked for",
                format_args!("{ROSTER_LOG_ENTRIES_MAX} entries"),
            ));
        }
        let mut is_cut = false;
        while after < answer.head.seq {
            let page = match self.log().entries(group_id, after, CATCH_UP_PAGE, linearizable).await {
                Err(error) if error.oldest_kept().is_some_and(|oldest| after + 1 < oldest) => {
                    after = error.oldest_kept().map_or(after, |oldest| oldest - 1);
                    is_cut = true;
                    continue;
                }
                page => page?,
            };
            let Some(last) = page.last() else { break };
            after = last.seq;
            for entry in page.iter().take_while(|entry| entry.seq <= answer.head.seq) {
                note(&mut roster.members, entry, is_external);
                // What shows how its author came in may have been given up; a member it was, or its commit had not been accepted.
                if is_cut
                    && changes_members(entry)
                    && let Ok(author) = ClientId::new(entry.author.clone())
                {
                    roster.members.insert(author);
                }
            }
        }
        Ok(roster)
    }

    /// How far `client`, who is no member any more, may read after the entry `from`: up to the entry that took it out of the group, if
    /// the log shows trees with the client at `from`, and later trees without. Looks at [`FAREWELL_ENTRIES_MAX`] entries at a time;
    /// if it is still a member after those, that is how far.
    ///
    /// # Errors
    /// The log can not be read.
    pub async fn farewell(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        from: u64,
    ) -> Result<Option<u64>, GatewayError> {
        let head = self.log().head(group_id, true, false).await?.head.seq;
        let Some(first) = self.shown_before(group_id, from.min(head)).await? else { return Ok(None) };
        let scan = self.scan(group_id, first, head).await?;
        let has = async |at: usize| -> Result<bool, GatewayError> {
            let members = self.members_in(&scan.trees[at].1).await?;
            Ok(members.is_some_and(|members| members.contains(client)))
        };
        let Some(last) = scan.trees.len().checked_sub(1) else { return Ok(None) };
        if !has(0).await? {
            return Ok(None);
        }
        let (mut with, mut without) = (0, scan.trees.len());
        if has(last).await? {
            with = last;
        } else {
            without = last;
            // Halving finds one removal, also if the client was added again in between: then it hides more than it must, and shows
            // nothing that it must not.
            while without - with > 1 {
                let middle = with + (without - with) / 2;
                if has(middle).await? { with = middle } else { without = middle }
            }
        }
        let (from, info) = &scan.trees[with];
        let to = scan.trees.get(without).map_or(scan.end, |(seq, _)| *seq);
        if scan.commits.iter().filter(|seq| **seq > *from && **seq <= to).eq([&to]) {
            return Ok(Some(to));
        }
        // Commits without a GroupInfo lie between: which of them was it?
        self.follow_until_removed(group_id, client, (*from, info), to).await.map(Some)
    }

    /// The newest entry at or before `seq` that carries a GroupInfo, as far back as it is looked for.
    async fn shown_before(&self, group_id: &GroupId, seq: u64) -> Result<Option<u64>, GatewayError> {
        let (mut end, least) = (seq, seq.saturating_sub(LOOK_BACK_ENTRIES_MAX));
        // Who has read nothing begins with the create.
        if seq == 0 {
            return Ok(Some(0));
        }
        while end > least {
            let start = end.saturating_sub(CATCH_UP_PAGE.into());
            let page = self.log().entries(group_id, start, CATCH_UP_PAGE, true).await?;
            let shown = page.iter().rev().find(|entry| entry.seq <= end && group_info(entry).is_some());
            if let Some(shown) = shown {
                return Ok(Some(shown.seq.saturating_sub(1)));
            }
            end = start;
        }
        Ok(None)
    }

    /// What the log shows after the entry `after`.
    async fn scan(&self, group_id: &GroupId, after: u64, head: u64) -> Result<Scan, GatewayError> {
        let mut scan = Scan { end: after, ..Scan::default() };
        let mut bytes = 0;
        while scan.end < head && scan.end - after < FAREWELL_ENTRIES_MAX && bytes < FAREWELL_BYTES_MAX {
            let page = self.log().entries(group_id, scan.end, CATCH_UP_PAGE, true).await?;
            let Some(last) = page.last() else { break };
            scan.end = last.seq;
            for entry in &page {
                if matches!(content(entry), Some(Content::Commit(_))) {
                    scan.commits.push(entry.seq);
                }
                if let Some(info) = group_info(entry) {
                    bytes += info.len();
                    scan.trees.push((entry.seq, info.clone()));
                }
            }
        }
        Ok(scan)
    }

    /// Goes on from a tree with the client, commit by commit, to the one that removes it, or as far as the commits can be seen.
    async fn follow_until_removed(
        &self,
        group_id: &GroupId,
        client: &ClientId,
        (from, info): (u64, &Bytes),
        to: u64,
    ) -> Result<u64, GatewayError> {
        let Ok(info) = parse::group_info(info) else { return Ok(from) };
        let Some(mut state) = self.build(info).await?.ok().flatten() else { return Ok(from) };
        let mut after = from;
        while after < to {
            let page = self.log().entries(group_id, after, CATCH_UP_PAGE, true).await?;
            let Some(last) = page.last().map(|entry| entry.seq) else { break };
            for entry in page.iter().take_while(|entry| entry.seq <= to) {
                match content(entry) {
                    Some(Content::Proposal(p)) => {
                        take_in_proposal(self.crypto(), Some(&mut state), &p.message)
                    }
                    Some(Content::Commit(c)) => {
                        let Some(next) = after_commit(self.crypto(), state, &c.message) else {
                            // What this commit does is not seen, so it is the first that is not shown.
                            return Ok(entry.seq - 1);
                        };
                        state = next;
                        if !members_of(&state).contains(client) {
                            return Ok(entry.seq);
                        }
                    }
                    _ => {}
                }
            }
            after = last;
        }
        Ok(to)
    }

    /// The members that a GroupInfo shows, if it shows a tree that holds.
    async fn members_in(&self, info: &Bytes) -> Result<Option<BTreeSet<ClientId>>, GatewayError> {
        let Ok(info) = parse::group_info(info) else { return Ok(None) };
        Ok(self.build(info).await?.ok().flatten().map(|state| members_of(&state)))
    }
}

/// What a part of a log shows.
#[derive(Default)]
struct Scan {
    /// GroupInfos, and the entries that carry them.
    trees: Vec<(u64, Bytes)>,
    commits: Vec<u64>,
    /// The last entry that was looked at.
    end: u64,
}

fn of_state(known: &Known) -> Option<Roster> {
    let position = known.position.as_ref()?;
    let members = members_of(position.state.as_ref()?);
    Some(Roster { epoch: position.epoch, seq: position.seq, members, is_seen: true })
}

/// The client ids in a tree. A leaf whose identity is none belongs to nobody here.
pub fn members_of(state: &PublicState) -> BTreeSet<ClientId> {
    state.identities().filter_map(|identity| ClientId::new(identity).ok()).collect()
}

fn is_external(message: &Bytes) -> bool {
    let public = parse::message(message).ok().and_then(|m| m.public);
    public.is_some_and(|message| matches!(message.sender(), Sender::NewMemberCommit))
}

/// The entry is one after which others may be members.
pub fn changes_members(entry: &Entry) -> bool {
    matches!(content(entry), Some(Content::Commit(_)))
}
