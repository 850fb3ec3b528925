//! What clients have just submitted: it goes to other gateways with the news of it, so that nobody has to ask for it first. Only this gateway
//! has it, so nobody gets it twice; and whoever misses it here fetches it.

use std::collections::VecDeque;

use group_log::dimls::DgroupId;

use super::{
    check::Item,
    limits::{RECENT_BYTES, RECENT_ITEMS},
};

/// The latest items, by the marks at which they came.
#[derive(Debug, Default)]
pub(super) struct Recent {
    items: VecDeque<(u64, DgroupId, Item)>,
    bytes: usize,
}

impl Recent {
    /// Marks rise.
    pub(super) fn push(&mut self, mark: u64, (dgroup, item): &(DgroupId, Item)) {
        self.bytes += item.bytes();
        self.items.push_back((mark, *dgroup, item.clone()));
        while self.items.len() > RECENT_ITEMS || self.bytes > RECENT_BYTES {
            let Some((.., oldest)) = self.items.pop_front() else { return };
            self.bytes -= oldest.bytes();
        }
    }

    /// Those after one mark, up to and including another.
    pub(super) fn between(&self, after: u64, to: u64) -> Vec<(DgroupId, Item)> {
        let wanted = self.items.iter().filter(|(mark, ..)| *mark > after && *mark <= to);
        wanted.map(|(_, dgroup, item)| (*dgroup, item.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use group_log::ClientId;

    use super::*;

    fn item(seq: u64, bytes: usize) -> (DgroupId, Item) {
        let owner = ClientId::new("ann").unwrap();
        (DgroupId([1; 32]), Item { owner, seq, message: vec![0; bytes].into(), welcome: Bytes::new() })
    }

    fn numbers(recent: &Recent, after: u64, to: u64) -> Vec<u64> {
        recent.between(after, to).iter().map(|(_, item)| item.seq).collect()
    }

    #[test]
    fn only_the_latest_are_kept_and_every_mark_has_its_own() {
        let mut recent = Recent::default();
        for seq in 1..=RECENT_ITEMS as u64 + 5 {
            recent.push(seq * 10, &item(seq, 1));
        }
        assert_eq!(numbers(&recent, 0, u64::MAX).len(), RECENT_ITEMS);
        assert_eq!(numbers(&recent, 100, 120), [11, 12]);
        // What is too large leaves nothing of itself, nor of those before it.
        recent.push(1 << 40, &item(1, RECENT_BYTES + 1));
        assert!(numbers(&recent, 0, u64::MAX).is_empty() && recent.bytes == 0);
        recent.push(1 << 41, &item(2, RECENT_BYTES));
        assert_eq!(numbers(&recent, 0, u64::MAX), [2]);
    }
}
