//! Who has to go, and which old keys may. Pure.
//!
//! Removals only ever add up: whoever was removed by one owner is removed by all, whatever order they hear of it in. So all Send Groups
//! come to the same members without any agreement. Coming back takes a new DGroup.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::graph::Member;

/// Everything known about removals.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removals {
    /// Who was removed, and by whom first, as far as this member has seen.
    removed: BTreeMap<Member, Member>,
}

impl Removals {
    /// The owner `by` has removed `member`. Returns whether that is news.
    pub fn saw(&mut self, member: Member, by: Member) -> bool {
        match self.removed.entry(member) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(by);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }

    /// Who removed this member first, if anybody did.
    pub fn by(&self, member: Member) -> Option<Member> {
        self.removed.get(&member).copied()
    }

    /// All members of a DGroup of `members` that nobody has removed.
    pub fn remaining(&self, members: usize) -> BTreeSet<Member> {
        (0..members as Member).filter(|member| !self.removed.contains_key(member)).collect()
    }

    /// Whom the owner `me` has to remove now: those in its Send Group whom others have removed, and those of whom it has not heard for
    /// `offline_after_ms`. `heard` is when it last heard of each member.
    pub fn owed(
        &self,
        me: Member,
        in_group: &BTreeSet<Member>,
        heard: &[u64],
        now_ms: u64,
        offline_after_ms: u64,
    ) -> BTreeSet<Member> {
        let silent = |member: Member| {
            heard
                .get(usize::from(member))
                .is_some_and(|heard| now_ms.saturating_sub(*heard) >= offline_after_ms)
        };
        in_group
            .iter()
            .copied()
            .filter(|member| *member != me)
            .filter(|member| self.removed.contains_key(member) || silent(*member))
            .collect()
    }
}

/// How much of the time since a member last looked at it counts as its own absence, and so not as the silence of others. Whoever is there
/// looks more often than it replaces leaves. All times in milliseconds.
pub fn own_absence(looked_at: u64, now_ms: u64, replace_every_ms: u64) -> u64 {
    now_ms.saturating_sub(looked_at).saturating_sub(replace_every_ms)
}

/// Which generations of one's own KeyPackages may be deleted: owners use them in rising order, so a generation is over when every
/// remaining owner has used it or a newer one. At most `keep` of the newest stay in any case; the newest stays always.
pub fn spent_generations(
    held: &BTreeSet<u64>,
    used_by_owners: impl Iterator<Item = Option<u64>>,
    keep: usize,
) -> Vec<u64> {
    let all_used = used_by_owners.map(|used| used.map_or(0, |g| g + 1)).min().unwrap_or(u64::MAX);
    let surplus = held.len().saturating_sub(keep.max(1));
    let newest = held.last().copied();
    held.iter()
        .copied()
        .enumerate()
        .filter(|(index, generation)| {
            (*generation < all_used || *index < surplus) && Some(*generation) != newest
        })
        .map(|(_, generation)| generation)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(members: &[Member]) -> BTreeSet<Member> {
        members.iter().copied().collect()
    }

    #[test]
    fn a_removal_by_one_is_owed_by_all_and_silence_counts() {
        let mut removals = Removals::default();
        assert!(removals.saw(2, 1));
        assert!(!removals.saw(2, 3), "the first one counts");
        assert_eq!(removals.by(2), Some(1));
        let heard = [0, 950, 950, 100];
        assert_eq!(removals.owed(0, &set(&[0, 1, 2, 3]), &heard, 1000, 900), set(&[2, 3]));
        assert_eq!(removals.owed(0, &set(&[0, 1]), &heard, 1000, 900), set(&[]), "nobody is removed twice");
        assert_eq!(removals.remaining(4), set(&[0, 1, 3]));
    }

    #[test]
    fn whoever_was_away_does_not_take_the_others_for_gone() {
        assert_eq!(own_absence(1000, 1250, 300), 0, "it was there all the time");
        assert_eq!(own_absence(1000, 11_300, 300), 10_000);
        assert_eq!(own_absence(1000, 900, 300), 0, "clocks go back now and then");
    }

    #[test]
    fn a_key_stays_until_the_last_owner_has_used_it() {
        let held: BTreeSet<u64> = (0..4).collect();
        let spent = |used: &[Option<u64>]| spent_generations(&held, used.iter().copied(), 100);
        assert_eq!(spent(&[Some(2), Some(1)]), [0, 1]);
        assert!(spent(&[Some(2), None]).is_empty());
        assert_eq!(spent(&[Some(3), Some(3)]), [0, 1, 2], "the newest may be needed for coming back");
        assert_eq!(spent_generations(&held, [None].into_iter(), 2), [0, 1], "the bound holds all the same");
    }

    proptest! {
        #[test]
        fn removals_come_to_the_same_members_in_any_order(
            seen in proptest::collection::vec((0u16..8, 0u16..8), 0..20), seed: u64,
        ) {
            let mut shuffled = seen.clone();
            let n = shuffled.len().max(1);
            (0..shuffled.len()).for_each(|i| shuffled.swap(i, (seed as usize).wrapping_mul(i + 7) % n));
            let all = |seen: &[(Member, Member)]| {
                let mut removals = Removals::default();
                seen.iter().for_each(|(member, by)| { removals.saw(*member, *by); });
                removals.remaining(8)
            };
            prop_assert_eq!(all(&seen), all(&shuffled));
        }
    }
}
