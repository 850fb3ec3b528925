//! Which shard a new group goes to. Pure.

use std::collections::BTreeMap;

use group_log::GroupId;

/// Chooses a shard for a new group out of `shards` (each with the site of its leader; empty if nobody knows it): one that is led from
/// `own` site, where that is known and there is one, so that the group's commits have a short way; else any. None if there is no shard.
///
/// The same group gets the same shard out of the same choice, and groups are spread evenly over it.
pub fn choose_shard(group_id: &GroupId, shards: &BTreeMap<u32, String>, own: &str) -> Option<u32> {
    let at_home = shards.iter().filter(|(_, site)| !own.is_empty() && *site == own);
    let mut choice: Vec<u32> = at_home.map(|(shard, _)| *shard).collect();
    if choice.is_empty() {
        choice = shards.keys().copied().collect();
    }
    let turn = spread(group_id).checked_rem(choice.len())?;
    choice.get(turn).copied()
}

/// Spreads group ids evenly (FNV-1a, then mixed once more: ids that differ in their last digits alone would fall into few shards without
/// that). Any other spread would do as well: the directory remembers.
fn spread(group_id: &GroupId) -> usize {
    let hash = group_id.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    ((hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const GROUPS: u32 = 400;

    fn shards(sites: &[&str]) -> BTreeMap<u32, String> {
        (1..).zip(sites).map(|(shard, site)| (shard, (*site).to_owned())).collect()
    }

    /// How many of many groups each shard gets.
    fn chosen(sites: &[&str], own: &str) -> BTreeMap<u32, u32> {
        let shards = shards(sites);
        let mut groups = BTreeMap::new();
        for number in 0..GROUPS {
            let group = GroupId::new(format!("group-{number}").into_bytes()).expect("a short name");
            let shard = choose_shard(&group, &shards, own).expect("there are shards");
            assert_eq!(choose_shard(&group, &shards, own), Some(shard), "the same again");
            *groups.entry(shard).or_default() += 1;
        }
        groups
    }

    #[test]
    fn a_group_goes_to_a_shard_that_is_led_from_the_gateways_site() {
        assert_eq!(chosen(&["a", "b", "c"], "b"), BTreeMap::from([(2, GROUPS)]));
        let two = chosen(&["a", "b", "c", "b"], "b");
        assert_eq!(two.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from([2, 4]));
        assert!(two.values().all(|groups| *groups > GROUPS / 4), "{two:?}");
    }

    #[test]
    fn without_such_a_shard_or_a_site_groups_are_spread_over_all() {
        for (sites, own) in
            [(["a", "b", "c"], "d"), (["a", "b", "c"], ""), (["", "", ""], ""), (["", "", ""], "a")]
        {
            let groups = chosen(&sites, own);
            assert_eq!(groups.len(), 3, "{own:?} of {sites:?}");
            assert!(groups.values().all(|groups| *groups > GROUPS / 6), "{groups:?}");
        }
    }

    #[test]
    fn without_shards_there_is_no_choice() {
        let group = GroupId::new(&b"group"[..]).expect("a short name");
        assert_eq!(choose_shard(&group, &BTreeMap::new(), "a"), None);
    }
}
