//! A DeMLS group while its network is split: real clients at every site, the home site cut off, and both sides committing.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use links::Cut;
use mls_client::{
    Client, ClientId, Committed, DEFAULT_CIPHERSUITE, GroupId, GroupKind, GrpcTransport, Identity, NewGroup,
    Options, Randomness, Running, Status, Store,
};
use parking_lot::Mutex;
use testbed::wait::until;
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    limits::{DELIVERY_DEADLINE, RECOVERY_DEADLINE, SPLIT_PAUSE, STORAGE_COMMITS},
    row::Row,
    world::World,
};

/// What was measured. Milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Split {
    /// Members: one at each site.
    pub(crate) members: usize,
    pub(crate) lasted: Duration,
    /// From the cut until the home site had a commit on a branch; nothing if it never had one.
    pub(crate) first_on_branch: Option<Duration>,
    /// Commits that the home site made meanwhile, all on its branch but those that came before the cut was noticed.
    pub(crate) home_commits: u64,
    /// Commits that the other sites made, ordered by their quorum.
    pub(crate) others_commits: u64,
    /// From the heal until every client was in one state with nothing left over; nothing if that took too long.
    pub(crate) converged: Option<Duration>,
    /// What a client's file grew by for each commit before the split, in bytes.
    pub(crate) bytes_per_commit: f64,
    /// The same for a plain MLS group.
    pub(crate) mls_bytes_per_commit: f64,
    /// What the files grew by for each commit of any side while states were retained, in bytes.
    pub(crate) split_bytes_per_commit: f64,
}

struct Member {
    site: String,
    client: Client,
    file: PathBuf,
    _running: Running,
}

/// Measures on a world whose links are whole and which is led from home.
pub(crate) async fn run(
    world: &World,
    lasting: Duration,
    dir: &Path,
    seed: u64,
) -> anyhow::Result<Option<Split>> {
    let home = world.topology.home.clone();
    let mut members = Vec::new();
    for (site, gateway) in world.topology.sites.iter().zip(world.cluster.gateways()) {
        if site.members > 0 {
            let rng = Randomness::from_seed(seed.wrapping_add(members.len() as u64));
            members.push(open(&site.name, gateway.address(), dir, rng).await?);
        }
    }
    // Without members on both sides there is nothing to see.
    let Some(at_home) = members.iter().position(|member| member.site == home).filter(|_| members.len() > 1)
    else {
        return Ok(None);
    };
    let mls = found(&members, at_home, GroupKind::Mls).await?;
    let mls_bytes_per_commit = storage(&members[at_home], &mls).await?;
    let group = found(&members, at_home, GroupKind::Demls).await?;
    let bytes_per_commit = storage(&members[at_home], &group).await?;

    let before: u64 = members.iter().map(Member::stored).sum();
    let cut = Instant::now();
    world.links.isolate(&home, Cut::Stall)?;
    let stop = CancellationToken::new();
    let (first, counts) = (Arc::new(Mutex::new(None)), Arc::new([AtomicU64::new(0), AtomicU64::new(0)]));
    let mut committers = JoinSet::new();
    for member in &members {
        let (client, group, is_home) = (member.client.clone(), group.clone(), member.site == home);
        let (stop, first, counts) = (stop.clone(), Arc::clone(&first), Arc::clone(&counts));
        committers.spawn(async move {
            while !stop.is_cancelled() {
                let answer = tokio::select! {
                    answer = client.update(&group) => answer,
                    () = stop.cancelled() => return,
                };
                match answer {
                    Ok(Committed::Provisional { .. }) => {
                        if is_home {
                            first.lock().get_or_insert_with(|| cut.elapsed());
                        }
                        counts[usize::from(!is_home)].fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(Committed::Accepted { .. }) => {
                        counts[usize::from(!is_home)].fetch_add(1, Ordering::Relaxed);
                    }
                    // It goes on with it by itself.
                    Ok(Committed::NothingToDo) | Err(_) => {}
                }
                sleep(SPLIT_PAUSE).await;
            }
        });
    }
    sleep(lasting).await;
    stop.cancel();
    while committers.join_next().await.is_some() {}
    let during: u64 = members.iter().map(Member::stored).sum();
    let [home_commits, others_commits] = [0, 1].map(|side: usize| counts[side].load(Ordering::Relaxed));
    world.links.heal_all();
    let healed = Instant::now();
    let settled =
        until("one state at every site", RECOVERY_DEADLINE, || is_settled(&members, &group).then_some(()));
    let converged = settled.await.ok().map(|()| healed.elapsed());
    let commits = (home_commits + others_commits).max(1) * members.len() as u64;
    let first_on_branch = *first.lock();
    Ok(Some(Split {
        members: members.len(),
        lasted: lasting,
        first_on_branch,
        home_commits,
        others_commits,
        converged,
        bytes_per_commit,
        mls_bytes_per_commit,
        split_bytes_per_commit: during.saturating_sub(before) as f64 / commits as f64,
    }))
}

impl Member {
    /// Bytes of the client's file, with what is still in its log.
    fn stored(&self) -> u64 {
        let wal = PathBuf::from(format!("{}-wal", self.file.display()));
        [&self.file, &wal].iter().filter_map(|path| path.metadata().ok()).map(|meta| meta.len()).sum()
    }
}

async fn open(site: &str, gateway: &str, dir: &Path, rng: Randomness) -> anyhow::Result<Member> {
    let folder = dir.join("clients");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{site}.state"));
    let id = ClientId::new(format!("split-{site}").into_bytes())?;
    let mut store = Store::open(&file)?;
    Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE)?;
    let transport = Arc::new(GrpcTransport::new(&format!("http://{gateway}"), &id)?);
    let client = Client::new(store, transport, Options::default(), rng)?;
    client.publish_key_packages().await.with_context(|| format!("a client at `{site}`"))?;
    let running = client.start();
    Ok(Member { site: site.to_owned(), client, file, _running: running })
}

async fn found(members: &[Member], founder: usize, kind: GroupKind) -> anyhow::Result<GroupId> {
    let client = &members[founder].client;
    let group = client.create_group(NewGroup { kind, ..NewGroup::default() }).await?;
    let others = members.iter().enumerate().filter(|(i, _)| *i != founder);
    let others: Vec<ClientId> = others.map(|(_, member)| member.client.id().clone()).collect();
    client.invite(&group, &others).await?;
    let all_in = || {
        let is_in = |m: &Member| m.client.group(&group).is_ok_and(|view| view.status == Status::Active);
        members.iter().all(is_in).then_some(())
    };
    until("every client to join", DELIVERY_DEADLINE, all_in).await?;
    Ok(group)
}

/// What one member's file grows by for each of its commits.
async fn storage(member: &Member, group: &GroupId) -> anyhow::Result<f64> {
    let before = member.stored();
    for _ in 0..STORAGE_COMMITS {
        member.client.update(group).await?;
    }
    Ok(member.stored().saturating_sub(before) as f64 / f64::from(STORAGE_COMMITS))
}

/// Everybody is in one state, and nothing is provisional, pending, owed or retained.
fn is_settled(members: &[Member], group: &GroupId) -> bool {
    let views: Option<Vec<_>> = members.iter().map(|member| member.client.group(group).ok()).collect();
    let Some(views) = views else { return false };
    let Some(first) = views.first() else { return false };
    views.iter().all(|view| {
        view.status == Status::Active
            && view.state_id == first.state_id
            && !(view.provisional || view.commit_pending || view.repairing)
            && view.retained_states == 1
    })
}

impl Row {
    /// The column of the design `demls`.
    pub(crate) fn of_split(topology: &str, sites: usize, split: &Split) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self {
            topology: topology.into(),
            design: "demls".into(),
            group_size: split.members,
            sites,
            fault_lasted_s: Some(split.lasted.as_secs_f64()),
            branch_ms: split.first_on_branch.map(ms),
            cut_home_commits: Some(split.home_commits),
            cut_others_commits: Some(split.others_commits),
            healed_ms: split.converged.map(ms),
            client_bytes_per_commit: Some(split.bytes_per_commit),
            split_client_bytes_per_commit: Some(split.split_bytes_per_commit),
            ..Self::default()
        }
    }
}
