//! The clients, their groups, and the gateways that they stand at.

use std::{path::Path, sync::Arc};

use anyhow::Context;
use mls_client::{
    Client, ClientId, DEFAULT_CIPHERSUITE, GroupId, GrpcTransport, Identity, NewGroup, Options, Randomness,
    Running, Status, Store,
};
use testbed::wait::until;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::{
    limits::{BENCH, MAX_MEMBERS, SETTLE_DEADLINE, SETUP_AT_ONCE},
    progress::Progress,
    roster::Roster,
};

/// One client at work.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) client: Client,
    /// Follows the groups in the background for as long as it is held.
    _running: Running,
}

impl Member {
    pub(crate) fn id(&self) -> &ClientId {
        self.client.id()
    }

    /// Whether this client takes part in the group now.
    pub(crate) fn is_in(&self, group: &GroupId) -> bool {
        self.client.group(group).is_ok_and(|view| view.status == Status::Active)
    }
}

/// One group with everybody who is, was or may become a member. The first is the founder, whom nobody removes.
pub(crate) struct Group {
    pub(crate) name: String,
    pub(crate) id: GroupId,
    pub(crate) members: Vec<Arc<Member>>,
    /// Who was a member in which epoch, as the founder saw it.
    pub(crate) roster: Roster,
}

/// Opens all clients, creates the groups, and waits until everybody has joined.
pub(crate) async fn build(
    sizes: &[usize],
    gateways: &[String],
    dir: &Path,
    seed: u64,
    progress: &Progress,
) -> anyhow::Result<Vec<Arc<Group>>> {
    let mut members = open_all(sizes, gateways, dir, seed, progress).await?;
    let mut tasks = JoinSet::new();
    for (number, size) in sizes.iter().enumerate() {
        let members = std::mem::take(&mut members[number]);
        tasks.spawn(found(format!("group {}", number + 1), members, *size));
    }
    let mut groups = Vec::new();
    while let Some(group) = tasks.join_next().await {
        groups.push(Arc::new(group??));
        progress.now(format!("{} of {} groups have all their members", groups.len(), sizes.len()));
    }
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(groups)
}

async fn open_all(
    sizes: &[usize],
    gateways: &[String],
    dir: &Path,
    seed: u64,
    progress: &Progress,
) -> anyhow::Result<Vec<Vec<Arc<Member>>>> {
    let at_once = Arc::new(Semaphore::new(SETUP_AT_ONCE));
    let mut tasks = JoinSet::new();
    let mut total = 0;
    for (group, size) in sizes.iter().enumerate() {
        for number in 0..size + BENCH {
            let name = format!("g{}-{:02}", group + 1, number + 1);
            let gateway = gateways[total % gateways.len()].clone();
            let (path, at_once) = (dir.join("clients").join(format!("{name}.state")), Arc::clone(&at_once));
            let rng = Randomness::from_seed(seed.wrapping_add(total as u64));
            total += 1;
            tasks.spawn(async move {
                let _permit = at_once.acquire_owned().await?;
                let member = open(name.clone(), &gateway, &path, rng)
                    .await
                    .with_context(|| format!("client {name}"))?;
                anyhow::Ok((group, number, member))
            });
        }
    }
    let mut opened: Vec<Vec<_>> = sizes.iter().map(|_| Vec::new()).collect();
    let mut done = 0;
    while let Some(result) = tasks.join_next().await {
        let (group, number, member) = result??;
        opened[group].push((number, Arc::new(member)));
        done += 1;
        progress.now(format!("{done} of {total} clients have an identity and KeyPackages"));
    }
    for group in &mut opened {
        group.sort_by_key(|(number, _)| *number);
    }
    Ok(opened.into_iter().map(|group| group.into_iter().map(|(_, member)| member).collect()).collect())
}

/// Opens one client with KeyPackages at `gateway`, and sets it to work.
pub(crate) async fn open(
    name: String,
    gateway: &str,
    path: &Path,
    rng: Randomness,
) -> anyhow::Result<Member> {
    let id = ClientId::new(name.clone().into_bytes())?;
    let mut store = Store::open(path)?;
    Identity::create(&mut store, id.clone(), DEFAULT_CIPHERSUITE)?;
    let transport = Arc::new(GrpcTransport::new(&format!("http://{gateway}"), &id)?);
    let client = Client::new(store, transport, Options::default(), rng)?;
    client.publish_key_packages().await?;
    let running = client.start();
    Ok(Member { name, client, _running: running })
}

/// The founder creates the group and invites all but the bench by one commit.
async fn found(name: String, members: Vec<Arc<Member>>, size: usize) -> anyhow::Result<Group> {
    anyhow::ensure!(size <= MAX_MEMBERS, "a group has at most {MAX_MEMBERS} members");
    let founder = &members[0];
    // Listens before anything happens, so that it misses nothing.
    let listener = Roster::listen(founder);
    let id = founder.client.create_group(NewGroup::default()).await?;
    let roster = listener.follow(&id);
    let invited: Vec<_> = members[1..size].iter().map(|member| member.id().clone()).collect();
    founder.client.invite(&id, &invited).await.with_context(|| format!("inviting everybody to {name}"))?;
    until(format!("all members to join {name}"), SETTLE_DEADLINE, || {
        members[..size].iter().all(|member| member.is_in(&id)).then_some(())
    })
    .await?;
    Ok(Group { name, id, members, roster })
}
