//! Which links are up when.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use links::{Cut, Links};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tokio::{sync::oneshot, task::JoinHandle, time::sleep};

use crate::gateways::Pair;

/// Links that are up at a time.
pub(crate) const UP_AT_ONCE: usize = 6;
/// Between two looks at what links have carried.
const LOOK: Duration = Duration::from_millis(50);
/// Whatever links carry, the next ones are dealt after so many turns.
const TURNS_MAX: u32 = 30;

/// Switches links for as long as it is not stopped.
pub(crate) struct Schedule {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Changes>,
}

/// What the links did.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Turns.
    pub(crate) turns: usize,
    /// The most links that were up at once.
    pub(crate) most_up: usize,
    /// How many turns each link was up.
    pub(crate) up: BTreeMap<Pair, usize>,
    /// Links altogether.
    pub(crate) links: usize,
}

impl Schedule {
    /// Links are dealt like cards: the next few are up for one `turn`, or longer if the machine takes longer to use them, and all are dealt
    /// before the deck is shuffled again.
    pub(crate) fn start(links: Arc<Links>, pairs: Vec<Pair>, seed: u64, turn: Duration) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut changes = Changes { links: pairs.len(), ..Changes::default() };
            let mut deck: Vec<Pair> = Vec::new();
            let mut is_over = false;
            loop {
                let mut hand: Vec<Pair> = Vec::new();
                while hand.len() < UP_AT_ONCE.min(pairs.len()) {
                    if deck.is_empty() {
                        deck = pairs.clone();
                        deck.shuffle(&mut rng);
                    }
                    let Some(next) = deck.pop() else { break };
                    if !hand.contains(&next) {
                        hand.push(next);
                    }
                }
                // First down, then up, so that there are never more than that. The names are those that the links were made with.
                for (a, b) in pairs.iter().filter(|pair| !hand.contains(pair)) {
                    let _ = links.cut_both(a, b, Cut::Reset);
                }
                for (a, b) in &hand {
                    let _ = links.heal_both(a, b);
                }
                let whole = |(a, b): &&Pair| !links.is_cut(a, b).unwrap_or(true);
                let up: Vec<Pair> = pairs.iter().filter(whole).cloned().collect();
                changes.turns += 1;
                changes.most_up = changes.most_up.max(up.len());
                for link in up {
                    *changes.up.entry(link).or_default() += 1;
                }
                tokio::select! {
                    () = be_used(&links, &hand, turn) => {}
                    _ = &mut stopped, if !is_over => is_over = true,
                }
                // Every link has its turn first.
                if is_over && changes.up.len() == changes.links {
                    return changes;
                }
            }
        });
        Schedule { stop, task }
    }

    /// Leaves the links as they are.
    pub(crate) async fn stop(self) -> Changes {
        let _ = self.stop.send(());
        self.task.await.unwrap_or_default()
    }
}

/// Until all these links have carried something both ways, and as long again: on a busy machine connecting takes its time. At least for
/// one `turn`.
async fn be_used(links: &Links, hand: &[Pair], turn: Duration) {
    // The names are those that the links were made with.
    let carried = |(a, b): &Pair| [links.bytes(a, b).unwrap_or(0), links.bytes(b, a).unwrap_or(0)];
    let before: Vec<[u64; 2]> = hand.iter().map(carried).collect();
    let is_used =
        |(pair, before): (&Pair, &[u64; 2])| carried(pair).iter().zip(before).all(|(now, then)| now > then);
    let begun = Instant::now();
    while !hand.iter().zip(&before).all(is_used) && begun.elapsed() < turn * TURNS_MAX {
        sleep(LOOK).await;
    }
    let connected = begun.elapsed();
    sleep(connected.max(turn.saturating_sub(connected))).await;
}
