//! Coming back into Send Groups that this client cannot follow any more, without being dragged out of the others.
//!
//! Whoever lacks one PSK loses the Send Group that needs it, and then every other one whose owner takes an epoch of the lost one. So a member
//! says with its next KeyPackage what it has lost; the owners of those Send Groups add it again at once, and all others take nothing from
//! them until they have seen that.

use std::collections::BTreeSet;

use super::{Member, Records, Session};
use crate::dimls::aad::CommitData;

impl<R: Records> Session<R> {
    /// Whose Send Groups this client has lost, of those who are still there.
    pub(super) fn lost_owners(&self) -> BTreeSet<Member> {
        let mut owners = self.record.removals.remaining(self.peers.len());
        owners.retain(|owner| *owner != self.me && self.peers[usize::from(*owner)].lost);
        owners
    }

    /// Whether there is something to be said about that: not again and again, since more may be lost in a moment.
    pub(super) fn has_to_ask(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.record.asked_at) >= self.record.policy.acknowledge_after_ms
            && !self.lost_owners().is_subset(&self.record.said_lost)
    }

    /// What this client says with the KeyPackage that it is about to send.
    pub(super) fn say_lost(&mut self, now_ms: u64) -> Vec<Member> {
        self.record.said_lost = self.lost_owners();
        self.record.asked_at = now_ms;
        self.record.said_lost.iter().copied().collect()
    }

    /// What another says in a commit about members that have lost Send Groups: itself, or those whom it adds again.
    pub(super) fn note(&mut self, from: Member, data: &CommitData) {
        let peer = &mut self.peers[usize::from(from)];
        for (member, generation) in &data.adds {
            let newest = peer.added.entry(*member).or_default();
            *newest = (*newest).max(*generation);
        }
        if let Some((generation, _)) = &data.key_package
            && *generation >= peer.lacks_since
        {
            peer.lacks_since = *generation;
            peer.lacks = data.lost.iter().copied().collect();
        }
        self.touched.insert(from);
    }

    /// Whether `member` has lost the Send Group of `owner`, as far as this client knows.
    pub(super) fn lacks(&self, member: Member, owner: Member) -> bool {
        let peer = &self.peers[usize::from(member)];
        let added = match owner == self.me {
            true => peer.used,
            false => self.peers[usize::from(owner)].added.get(&member).copied(),
        };
        member != self.me && peer.lacks.contains(&owner) && added.is_none_or(|added| added < peer.lacks_since)
    }

    /// Whether `member` waits for being added again here, and has sent what that takes.
    pub(super) fn asks_for_me(&self, member: Member) -> bool {
        let peer = &self.peers[usize::from(member)];
        let newest = peer.package.as_ref().map(|(generation, _)| *generation);
        self.lacks(member, self.me) && newest.is_some_and(|newest| newest >= peer.lacks_since)
    }
}
