//! Which links are up when.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use links::{Cut, Links};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tokio::{sync::oneshot, task::JoinHandle, time::sleep};

/// Links that are up at a time.
pub(crate) const UP_AT_ONCE: usize = 4;
/// How long they stay so.
const TURN: Duration = Duration::from_millis(1500);

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
    pub(crate) up: BTreeMap<(String, String), usize>,
}

impl Schedule {
    pub(crate) fn start(links: Arc<Links>, pairs: Vec<(String, String)>, seed: u64) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut changes = Changes::default();
            let mut order = pairs;
            loop {
                order.shuffle(&mut rng);
                for (number, (a, b)) in order.iter().enumerate() {
                    // The names are those that the links were made with.
                    let _ = if number < UP_AT_ONCE {
                        links.heal_both(a, b)
                    } else {
                        links.cut_both(a, b, Cut::Reset)
                    };
                }
                let cut = |(a, b): &&(String, String)| !links.is_cut(a, b).unwrap_or(true);
                let up: Vec<_> = order.iter().filter(cut).cloned().collect();
                changes.turns += 1;
                changes.most_up = changes.most_up.max(up.len());
                for link in up {
                    *changes.up.entry(link).or_default() += 1;
                }
                tokio::select! {
                    () = sleep(TURN) => {}
                    _ = &mut stopped => return changes,
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
