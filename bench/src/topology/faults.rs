//! What members notice of a dead leader and of a site that is cut off: probes at every site, one commit after another.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use links::Cut;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    chain::Chain,
    chains::Chains,
    client::{Answer, Client},
    limits::{PROBE_DEADLINE, PROBE_EVERY, PROBES_BESIDE, RECOVERY_DEADLINE},
    world::{HOME_NODE, World},
};

/// What a fault did. Milliseconds; nothing where service did not come back while the fault lasted.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Faults {
    /// How long each fault lasted.
    pub(crate) lasted_s: f64,
    /// The leader is killed: the longest time that a site went without an accepted commit.
    pub(crate) leader_death_ms: Option<f64>,
    /// The home site is cut off: the same, of the sites on the other side.
    pub(crate) cut_others_ms: Option<f64>,
    /// Commits accepted in the meantime at the site that is cut off ...
    pub(crate) cut_home_commits: u64,
    /// ... and at all others.
    pub(crate) cut_others_commits: u64,
    /// From the healing of the links until every site had a commit accepted.
    pub(crate) healed_ms: Option<f64>,
}

/// The moments at which one site's commits were accepted.
type Accepted = Arc<Mutex<Vec<Instant>>>;

struct Probes {
    sites: Vec<(String, Accepted)>,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Probes {
    async fn start(world: &World, chains: &Chains, time: Duration) -> anyhow::Result<Self> {
        let most = (time.as_secs_f64() / PROBE_EVERY.as_secs_f64()).ceil() as usize + 2;
        let (mut sites, mut tasks, stop) = (Vec::new(), JoinSet::new(), CancellationToken::new());
        let chains = chains.get("probe", 2, world.clients.len(), most).await?;
        for (client, chain) in world.clients.iter().zip(chains) {
            client.create(&chain).await?;
            let accepted = Accepted::default();
            tasks.spawn(probe(client.clone(), chain, Arc::clone(&accepted), stop.clone()));
            sites.push((client.site.clone(), accepted));
        }
        Ok(Self { sites, stop, tasks })
    }

    /// The first commit that was accepted at each site after `moment`; nothing if a site has none.
    fn served_after(&self, moment: Instant, concerned: impl Fn(&str) -> bool) -> Option<Vec<Instant>> {
        let first = |accepted: &Accepted| accepted.lock().iter().find(|at| **at > moment).copied();
        self.sites.iter().filter(|(site, _)| concerned(site)).map(|(_, accepted)| first(accepted)).collect()
    }

    /// The longest pause of any of these sites that begins before `until` and has ended.
    fn longest_pause(
        &self,
        from: Instant,
        until: Instant,
        concerned: impl Fn(&str) -> bool,
    ) -> Option<Duration> {
        let pauses = self.sites.iter().filter(|(site, _)| concerned(site)).map(|(_, accepted)| {
            let accepted = accepted.lock();
            let before = accepted.iter().rev().find(|at| **at <= from).copied().unwrap_or(from);
            let during: Vec<Instant> =
                accepted.iter().filter(|at| **at > from && **at <= until).copied().collect();
            let moments: Vec<Instant> = std::iter::once(before).chain(during.iter().copied()).collect();
            let longest = moments.windows(2).map(|w| w[1] - w[0]).max()?;
            // A site that has had no answer since is still without service.
            let waiting = until - *during.last()?;
            (waiting <= longest || waiting < (until - from) / 2).then_some(longest)
        });
        pauses.collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    fn count(&self, from: Instant, until: Instant, concerned: impl Fn(&str) -> bool) -> u64 {
        let within =
            |accepted: &Accepted| accepted.lock().iter().filter(|at| **at > from && **at <= until).count();
        self.sites.iter().filter(|(site, _)| concerned(site)).map(|(_, a)| within(a) as u64).sum()
    }

    async fn all_served(&self, since: Instant) -> Option<Duration> {
        while since.elapsed() < RECOVERY_DEADLINE {
            if let Some(moments) = self.served_after(since, |_| true) {
                return moments.into_iter().max().map(|last| last - since);
            }
            sleep(PROBE_EVERY).await;
        }
        None
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(())
    }
}

async fn probe(
    client: Client,
    chain: Arc<Chain>,
    accepted: Accepted,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    for commit in &chain.commits {
        loop {
            let answer = tokio::select! {
                answer = client.commit(commit, PROBE_DEADLINE, PROBE_DEADLINE) => answer?,
                () = stop.cancelled() => return Ok(()),
            };
            match answer {
                Some(Answer::Accepted) => break accepted.lock().push(Instant::now()),
                Some(Answer::Superseded) => anyhow::bail!("a commit without a rival was superseded"),
                None => {}
            }
        }
        tokio::select! {
            () = sleep(PROBE_EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

/// Kills the leader and starts it again; then cuts the home site off and heals the links.
pub(crate) async fn run(world: &World, chains: &Chains, lasting: Duration) -> anyhow::Result<Faults> {
    // Both faults, recovery after each, and some service before.
    let probes = Probes::start(world, chains, lasting * 3 + PROBES_BESIDE).await?;
    let begun = Instant::now();
    anyhow::ensure!(probes.all_served(begun).await.is_some(), "some site is not served before any fault");
    let home = world.topology.home.clone();
    let mut faults = Faults { lasted_s: lasting.as_secs_f64(), ..Faults::default() };

    let leader = world.cluster.node(HOME_NODE);
    let killed = Instant::now();
    leader.service().kill().await?;
    sleep(lasting).await;
    let pause = probes.longest_pause(killed, Instant::now(), |_| true);
    faults.leader_death_ms = pause.map(millis);
    leader.service().start()?;
    leader.service().wait_ready().await?;
    let back = Instant::now();
    anyhow::ensure!(
        probes.all_served(back).await.is_some(),
        "some site is not served after the leader came back"
    );
    world.lead_from_home().await?;

    // Whoever leads from home is on the side that has no majority, unless it is the only voter.
    let cut = Instant::now();
    world.links.isolate(&home, Cut::Stall)?;
    sleep(lasting).await;
    let healed = Instant::now();
    faults.cut_others_ms = probes.longest_pause(cut, healed, |site| site != home).map(millis);
    faults.cut_home_commits = probes.count(cut, healed, |site| site == home);
    faults.cut_others_commits = probes.count(cut, healed, |site| site != home);
    world.links.heal_all();
    faults.healed_ms = probes.all_served(healed).await.map(millis);
    probes.finish().await?;
    Ok(faults)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
