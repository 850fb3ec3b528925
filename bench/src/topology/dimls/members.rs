//! The members of one DGroup at the sites' gateways: some are sessions that decrypt and send, all others get every item.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, future::ready};
use mls_client::{
    ClientId, DEFAULT_CIPHERSUITE, Identity, Security, Store,
    dimls::{
        DgroupId, Item, MemoryRecords, Policy, Session, Setup,
        remote::{Delivery, Remote},
    },
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinSet, block_in_place},
    time::sleep,
};

use super::{
    gateways::Gateways,
    journal::{Journal, What},
    worker::{Order, Standing, Worker},
};
use crate::{
    limits::POLL_INTERVAL,
    topology::{
        limits::{DGROUP_DEADLINE, SESSIONS_AT_SITE, SET_UP_AT_ONCE, SMALL_DGROUP},
        spec::Topology,
    },
};

/// Sites of `members` members, by the sites' weights.
pub(super) fn spread(topology: &Topology, members: usize) -> Vec<usize> {
    let most = topology.sites.iter().map(|site| site.members).max().unwrap_or_default();
    let in_round = |round| topology.sites.iter().enumerate().filter(move |(_, site)| site.members > round);
    let turns: Vec<usize> = (0..most).flat_map(|round| in_round(round).map(|(at, _)| at)).collect();
    turns.iter().copied().cycle().take(members).collect()
}

/// Which of the members at these sites are sessions.
pub(super) fn sessions(sites: &[usize]) -> BTreeSet<usize> {
    let at_site = if sites.len() <= SMALL_DGROUP { SESSIONS_AT_SITE } else { 1 };
    let mut counts: HashMap<usize, usize> = HashMap::new();
    let is_one = |(_, site): &(usize, &usize)| {
        let count = counts.entry(**site).or_default();
        *count += 1;
        *count <= at_site
    };
    sites.iter().enumerate().filter(is_one).map(|(number, _)| number).collect()
}

/// The time until nothing more may be asked of anybody: the policy of members that do what they are told.
const NEVER: u64 = 1_000_000_000_000;

struct AtWork {
    orders: mpsc::UnboundedSender<Order>,
    standing: watch::Receiver<Standing>,
}

/// All of them.
pub(super) struct Members {
    pub(super) journal: Arc<Journal>,
    /// How many there are.
    pub(super) count: usize,
    workers: Vec<AtWork>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Members {
    /// Brings a DGroup together, over the links as they are.
    pub(super) async fn start(
        topology: &Topology,
        gateways: &Gateways,
        count: usize,
        dir: &Path,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let (sites, names) = (spread(topology, count), (0..count).map(|n| format!("member-{n:03}")));
        let ids = names.map(ClientId::new).collect::<Result<Vec<_>, _>>()?;
        let mut nonce = [0; 16];
        nonce[..8].copy_from_slice(&seed.to_be_bytes());
        nonce[8..].copy_from_slice(&(count as u64).to_be_bytes());
        let setup = Setup::new(nonce, ids.clone(), [u16::from(DEFAULT_CIPHERSUITE)], 32)?;
        let numbers: Arc<HashMap<_, _>> = Arc::new(ids.iter().cloned().zip(0..).collect());
        let journal = Arc::new(Journal::default());
        let mut members =
            Self { journal: Arc::clone(&journal), count, workers: Vec::new(), tasks: JoinSet::new() };
        let (mut remotes, mut announced) = (Vec::new(), Vec::new());
        let chosen = sessions(&sites);
        for (number, id) in ids.iter().enumerate() {
            let site = sites[number];
            let url = format!("http://{}", gateways.addresses[site]);
            let remote = Remote::new(&url, id, &Security::default())?;
            remotes.push(remote.clone());
            if chosen.contains(&number) {
                let path = dir.join(format!("dgroup-{count}-member-{number}.state"));
                let session = block_in_place(|| begin(Store::open(&path)?, id, &setup, |store| store))?;
                let (orders, to_do) = mpsc::unbounded_channel();
                let (standing, stands) = watch::channel(Standing::default());
                members.workers.push(AtWork { orders, standing: stands });
                let (journal, numbers) = (Arc::clone(&journal), Arc::clone(&numbers));
                let read = HashMap::new();
                let orders = to_do;
                announced.push((
                    remote.clone(),
                    None,
                    Some(Worker { number, site, session, remote, journal, numbers, orders, standing, read }),
                ));
            } else {
                let first = block_in_place(|| {
                    let session = begin(Store::in_memory()?, id, &setup, |_| MemoryRecords::default())?;
                    anyhow::Ok(session.outbox().next().cloned())
                })?;
                announced.push((remote, first, None));
            }
        }
        let announce = |(remote, first, worker): (Remote, Option<Item>, Option<Worker>)| {
            let setup = &setup;
            async move {
                remote.create(setup).await?;
                if let Some(item) = first {
                    remote.submit(&setup.id(), &item).await?;
                }
                anyhow::Ok(worker)
            }
        };
        let all = futures::stream::iter(announced).map(announce).buffer_unordered(SET_UP_AT_ONCE);
        let workers: Vec<Worker> = all.try_filter_map(|worker| ready(Ok(worker))).try_collect().await?;
        workers.into_iter().for_each(|worker| _ = members.tasks.spawn(worker.run()));
        members.wait("every session to meet everybody", |standing| standing.met + 1 == count).await?;
        members.workers.iter().try_for_each(|worker| worker.orders.send(Order::Add))?;
        let busy = members.workers.len();
        members
            .wait("every session to be in every other's Send Group", |standing| {
                standing.entered + 1 == busy && standing.sent > 1
            })
            .await?;
        members.listen(&remotes, &numbers, &chosen, setup.id()).await?;
        Ok(members)
    }

    /// All members that are no sessions get every item from now on.
    async fn listen(
        &mut self,
        remotes: &[Remote],
        numbers: &Arc<HashMap<ClientId, usize>>,
        chosen: &BTreeSet<usize>,
        id: DgroupId,
    ) -> anyhow::Result<()> {
        // What came before is not asked for again.
        let mut cursor = Vec::new();
        for (client, number) in numbers.iter() {
            let worker = chosen.iter().position(|session| session == number);
            let sent = worker.map_or(1, |at| self.workers[at].standing.borrow().sent);
            cursor.push((client.clone(), sent));
        }
        let (caught_up, mut are_ready) = mpsc::unbounded_channel();
        for remote in
            remotes.iter().enumerate().filter(|(number, _)| !chosen.contains(number)).map(|(_, r)| r)
        {
            let (remote, cursor, caught_up) = (remote.clone(), cursor.clone(), caught_up.clone());
            let (journal, numbers) = (Arc::clone(&self.journal), Arc::clone(numbers));
            self.tasks.spawn(async move {
                let mut told = remote.subscribe(&id, &cursor).await?;
                while let Some(delivery) = told.next().await {
                    match delivery? {
                        Delivery::Item(item) => {
                            let owner = *numbers.get(&item.owner).context("an item of nobody")?;
                            journal.arrived((owner, item.seq));
                            // It is not decrypted here.
                            journal.taken((owner, item.seq));
                        }
                        Delivery::CaughtUp => _ = caught_up.send(()),
                        Delivery::Dropped { .. } => {
                            anyhow::bail!("a gateway has dropped items that are measured")
                        }
                    }
                }
                anyhow::bail!("a subscription ended")
            });
        }
        let mut waiting = self.count - chosen.len();
        while waiting > 0 {
            tokio::select! {
                Some(()) = are_ready.recv() => waiting -= 1,
                Some(ended) = self.tasks.join_next() => ended?.context("a member of a DGroup")?,
            }
        }
        Ok(())
    }

    /// How many members are sessions.
    pub(super) fn sessions(&self) -> usize {
        self.workers.len()
    }

    /// The session with this number sends something that is due at this moment.
    pub(super) fn send(&self, session: usize, what: What, due: Instant) -> anyhow::Result<()> {
        Ok(self.workers[session % self.workers.len()].orders.send(Order::Send(what, due))?)
    }

    async fn wait(&mut self, what: &str, holds: impl Fn(Standing) -> bool) -> anyhow::Result<()> {
        let begun = Instant::now();
        while !self.workers.iter().all(|worker| holds(*worker.standing.borrow())) {
            self.check()?;
            anyhow::ensure!(
                begun.elapsed() < DGROUP_DEADLINE,
                "waited {DGROUP_DEADLINE:?} in vain for {what}"
            );
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Fails if a member has failed.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        match self.tasks.try_join_next() {
            Some(ended) => ended?.context("a member of a DGroup"),
            None => Ok(()),
        }
    }
}

/// A member's session that does nothing by itself. `records` gives the place where it is kept.
fn begin<R: mls_client::dimls::Records>(
    mut store: Store,
    id: &ClientId,
    setup: &Setup,
    records: impl FnOnce(Store) -> R,
) -> anyhow::Result<Session<R>> {
    let policy = Policy { acknowledge_after_ms: NEVER, replace_every_ms: NEVER, offline_after_ms: 3 * NEVER };
    let identity = Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE)?;
    Ok(Session::create(records(store), identity, setup, policy, 0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_spread_by_weight_and_every_site_has_a_session() {
        let mut topology = Topology::find("continent").unwrap();
        topology.sites[1].members = 3;
        topology.sites[2].members = 0;
        let sites = spread(&topology, 9);
        assert_eq!(sites, [0, 1, 1, 1, 0, 1, 1, 1, 0]);
        assert_eq!(sessions(&sites), BTreeSet::from([0, 1, 2, 4]));
        assert_eq!(
            sessions(&spread(&topology, 64)),
            BTreeSet::from([0, 1]),
            "one at a site in a large group"
        );
    }
}
