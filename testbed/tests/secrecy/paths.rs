//! Everything that can become of a group's id and a message, once, and all of it noted.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        ClaimKeyPackageRequest, CreateGroupRequest, ReadEntriesRequest, SubmitRequest, SubscribeRequest,
        UploadKeyPackagesRequest, WatchWelcomesRequest, subscribe_response::Event,
    },
    log::v1::{Content, GroupKind as WireKind, content::Content as Body},
};
use futures::StreamExt;
use links::Cut;
use mls_client::{
    CallError, Client, Committed, GroupId, GroupKind, NewGroup, Randomness, Status, Transport,
    dimls::{Policy, Session, Setup},
};
use prost::encoding::{WireType, encode_key, encode_varint};
use service_kit::{clock::SystemClock, tls::Role};
use testbed::{
    mls_bytes::{ContentType, group_info, private_message},
    raw,
    secrets::Secrets,
    wait::eventually,
};
use tokio::{join, time::timeout};

use crate::world::{PATIENCE, People, World};

const QUIET: Duration = Duration::from_secs(2);
/// How long a stream may be silent before it counts as a subscription to nothing.
const STREAM_PATIENCE: Duration = Duration::from_millis(300);
/// Races for one epoch: in one of them somebody loses.
const RACES: usize = 20;

/// Notes what an entry carries. Returns how much of it there was.
fn note(secrets: &mut Secrets, of: &str, content: Option<Content>) -> usize {
    match content.and_then(|content| content.content) {
        Some(Body::Create(create)) => secrets.add(&format!("the GroupInfo of {of}"), &create.group_info),
        Some(Body::Commit(commit)) => {
            secrets.add(&format!("the GroupInfo of {of}"), &commit.group_info);
            secrets.add("a Welcome", &commit.welcome);
            secrets.add(&format!("the commit of {of}"), &commit.message)
        }
        Some(Body::Application(said)) => {
            secrets.add(&format!("the application message of {of}"), &said.message)
        }
        Some(Body::Proposal(proposal)) => secrets.add(&format!("the proposal of {of}"), &proposal.message),
        _ => 0,
    }
}

async fn note_log(world: &World, secrets: &mut Secrets, of: &str, group: &GroupId) {
    let request = ReadEntriesRequest { group_id: group.to_bytes(), ..ReadEntriesRequest::default() };
    let entries = world.transport("ann", 0).read_entries(request).await.unwrap().entries;
    assert!(entries.len() > 2);
    for entry in entries {
        note(secrets, of, entry.content);
    }
}

async fn joined(client: &Client, group: &GroupId) {
    let is_in = || client.group(group).is_ok_and(|view| view.status == Status::Active).then_some(());
    eventually("the invited is in", PATIENCE, async || is_in()).await.unwrap();
}

/// Created, joined, talked in, raced for, left.
pub async fn ordered_group(world: &World, people: &People, secrets: &mut Secrets) {
    let People { ann, bob, .. } = people;
    bob.publish_key_packages().await.unwrap();
    let new = NewGroup { id: Some(world.ordered.clone()), ..NewGroup::default() };
    let group = ann.create_group(new).await.unwrap();
    ann.invite(&group, &[bob.id().clone()]).await.unwrap();
    joined(bob, &group).await;
    ann.send(&group, "a secret that nobody else may know").await.unwrap();
    let mut superseded = 0.0;
    for _ in 0..RACES {
        let (one, other) = join!(ann.update(&group), bob.update(&group));
        assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
        superseded = 0.0;
        for gateway in world.cluster.gateways() {
            let metrics = gateway.service().metrics().await.unwrap();
            let counted = metrics.series("concordat_gateway_submissions_total");
            superseded +=
                counted.filter(|(labels, _)| labels.contains("superseded")).map(|(_, n)| n).sum::<f64>();
        }
        if superseded > 0.0 {
            break;
        }
    }
    assert!(superseded > 0.0, "nobody lost a race");
    bob.leave(&group).await.unwrap();
    ann.update(&group).await.unwrap();
    note_log(world, secrets, "an ordered group", &group).await;
}

/// Uploaded, claimed, and a Welcome that lies in the inbox.
pub async fn key_packages_and_welcomes(world: &World, people: &People, secrets: &mut Secrets) {
    let People { ann, dan, .. } = people;
    dan.publish_key_packages().await.unwrap();
    let claim = ClaimKeyPackageRequest { client_id: dan.id().to_bytes(), claim_id: Bytes::new() };
    let claimed = world.transport("mallory", 2).claim_key_package(claim).await.unwrap();
    assert!(secrets.add("a KeyPackage", &claimed.key_package.unwrap().key_package) > 0);
    let group = ann.create_group(NewGroup::default()).await.unwrap();
    secrets.add("the id of another group", group.as_bytes());
    ann.invite(&group, &[dan.id().clone()]).await.unwrap();
    let mut inbox = world.transport("dan", 1).watch_welcomes(WatchWelcomesRequest::default()).await.unwrap();
    let pending = timeout(PATIENCE, inbox.next()).await.unwrap().unwrap().unwrap();
    assert!(secrets.add("a Welcome", &pending.welcome) > 0);
    assert_eq!(dan.join_waiting(QUIET).await.unwrap(), [group]);
}

#[track_caller]
fn refused<T>(answer: Result<T, CallError>) -> String {
    let Err(error) = answer else { panic!("this must be refused") };
    format!("{:?}", error.reason.unwrap())
}

fn message(bytes: impl Into<Bytes>) -> SubmitRequest {
    SubmitRequest { message: bytes.into(), ..SubmitRequest::default() }
}

/// What is refused names what is wrong with it, and not what it is.
pub async fn refusals(world: &World, secrets: &mut Secrets) {
    let (ann, mallory) = (world.transport("ann", 0), world.transport("mallory", 2));
    let said = Randomness::from_os().bytes::<64>();
    assert!(secrets.add("a refused message", &said) > 0);
    let (ordered, unknown) = (world.ordered.as_bytes(), Randomness::from_os().bytes::<20>());
    assert!(secrets.add("the id of a group that is not there", &unknown) > 0);
    let private = |group: &[u8], epoch| private_message(group, epoch, ContentType::Application, &said);
    let mut reasons = BTreeSet::new();
    let outsider = message(private(ordered, 1));
    reasons.insert(refused(mallory.submit(outsider).await));
    reasons.insert(refused(ann.submit(message(private(&unknown, 0))).await));
    reasons.insert(refused(ann.submit(message(private(ordered, 1000))).await));
    reasons.insert(refused(ann.submit(message(said.to_vec())).await));
    let cut_off = private(ordered, 1);
    reasons.insert(refused(ann.submit(message(cut_off.slice(..cut_off.len() - 1))).await));
    let with_welcome =
        SubmitRequest { welcome: Bytes::copy_from_slice(&said), ..message(private(ordered, 1)) };
    reasons.insert(refused(ann.submit(with_welcome).await));
    let create = |group_info| CreateGroupRequest { group_info, kind: WireKind::Mls.into(), policy: None };
    reasons.insert(refused(mallory.create_group(create(group_info(ordered, 0))).await));
    reasons.insert(refused(mallory.create_group(create(Bytes::copy_from_slice(&said))).await));
    let upload = UploadKeyPackagesRequest { key_packages: vec![said.to_vec().into()], replace: false };
    reasons.insert(refused(mallory.upload_key_packages(upload).await));
    let read = ReadEntriesRequest { group_id: world.ordered.to_bytes(), ..ReadEntriesRequest::default() };
    reasons.insert(refused(mallory.read_entries(read).await));
    reasons.insert(refused(mallory.get_group_info(world.ordered.to_bytes()).await));
    // A handshake whose signature is wrong, in an epoch that is over: it is told who has won.
    let request = ReadEntriesRequest { group_id: world.ordered.to_bytes(), ..ReadEntriesRequest::default() };
    let entries = ann.read_entries(request).await.unwrap().entries;
    let commit = entries.into_iter().rev().find_map(|entry| match entry.content?.content? {
        Body::Commit(commit) => Some(commit.message),
        _ => None,
    });
    let mut spoiled = commit.unwrap().to_vec();
    *spoiled.last_mut().unwrap() ^= 1;
    let _ = ann.submit(message(spoiled)).await;
    assert!(reasons.len() >= 5, "{reasons:?}");
}

/// Fields with ids and bytes in places where nobody expects them, to every method of both services.
pub async fn junk(world: &World, secrets: &mut Secrets) {
    let drawn = Randomness::from_os().bytes::<32>();
    assert!(secrets.add("junk", &drawn) > 0);
    let mut input = Vec::new();
    for (field, bytes) in [(1, world.forking.as_bytes()), (2, &drawn[..]), (3, world.ordered.as_bytes())] {
        encode_key(field, WireType::LengthDelimited, &mut input);
        encode_varint(bytes.len() as u64, &mut input);
        input.extend(bytes);
    }
    let (gateway, node) = (world.cluster.gateways()[1].clone(), world.cluster.node(1));
    let as_role = |role| world.cluster.dialer(&role).unwrap();
    let targets = [
        ("concordat.gateway.v1.Gateway", world.dialer("mallory"), gateway.address()),
        ("concordat.gateway.v1.DimlsGroups", world.dialer("mallory"), gateway.address()),
        ("concordat.relay.v1.Relay", as_role(Role::Gateway("testbed".into())), gateway.relay()),
        ("concordat.mesh.v1.Mesh", as_role(Role::Gateway("testbed".into())), gateway.relay()),
        ("concordat.ordering.v1.Ordering", as_role(Role::Gateway("testbed".into())), node.address()),
        ("concordat.raft.v1.Peers", as_role(Role::Node(Some(9))), node.peer_address()),
    ];
    for (service, dialer, address) in targets {
        let channel = dialer.channel(address);
        for method in raw::methods(service) {
            for input in [&input[..], &input[..input.len() - 1], &drawn[..]] {
                let input = vec![Bytes::copy_from_slice(input)];
                raw::call(&channel, &method, input, world.id("mallory").as_bytes(), STREAM_PATIENCE).await;
            }
        }
    }
}

/// Items that are brought to one gateway, carried to others, and read there.
pub async fn dimls_group(world: &World, secrets: &mut Secrets) {
    let (store, identity) = world.identity("ann");
    let members = ["ann", "bob"].map(|name| world.id(name).clone());
    let suite = identity.ciphersuite();
    let setup = Setup::new(
        Randomness::from_os().bytes(),
        members,
        [u16::from(suite)],
        u16::try_from(suite.hash_length()).unwrap(),
    )
    .unwrap();
    let dgroup = setup.id();
    assert!(secrets.add("the id of a DiMLS group", &dgroup.0) > 0);
    let session = Session::create(store, identity, &setup, Policy::default(), SystemClock::shared().now_ms());
    let session = session.unwrap();
    let near = world.remote("ann", 0);
    near.create(&setup).await.unwrap();
    for item in session.outbox() {
        assert!(secrets.add("a DiMLS item", &item.message) > 0);
        near.submit(&dgroup, item).await.unwrap();
        // In the name of somebody else, and at no place.
        let mut wrong = item.clone();
        wrong.owner = world.id("bob").clone();
        assert!(near.submit(&dgroup, &wrong).await.is_err());
    }
    let far = world.remote("bob", 2);
    eventually("the item comes to another gateway", PATIENCE, async || {
        let mut told = far.subscribe(&dgroup, &[]).await.ok()?;
        let first = timeout(QUIET, told.next()).await.ok()??.ok()?;
        matches!(first, mls_client::dimls::remote::Delivery::Item(_)).then_some(())
    })
    .await
    .unwrap();
    assert!(world.remote("mallory", 2).subscribe(&dgroup, &[]).await.is_err());
}

/// A DeMLS group goes on at one site of a network that has split, and its branch comes into the log.
pub async fn branches(world: &World, people: &People, secrets: &mut Secrets) {
    let People { ann, bob, .. } = people;
    let new = NewGroup { id: Some(world.forking.clone()), kind: GroupKind::Demls, ..NewGroup::default() };
    let group = ann.create_group(new).await.unwrap();
    ann.invite(&group, &[bob.id().clone()]).await.unwrap();
    joined(bob, &group).await;
    world.links.split(&[&["a"], &["b"], &["c"]], Cut::Stall).unwrap();
    eventually("a branch takes a commit", PATIENCE, async || {
        let updated = timeout(PATIENCE, ann.update(&group)).await.unwrap();
        matches!(updated, Ok(Committed::Provisional { .. })).then_some(())
    })
    .await
    .unwrap();
    timeout(PATIENCE, ann.send(&group, "without a quorum")).await.unwrap().unwrap();
    let request = SubscribeRequest { group_id: group.to_bytes(), ..SubscribeRequest::default() };
    let mut told = world.transport("ann", 0).subscribe(request).await.unwrap();
    let mut noted = 0;
    while noted == 0 {
        let event = timeout(PATIENCE, told.next()).await.unwrap().unwrap().unwrap().event;
        if let Some(Event::BranchEntry(event)) = event {
            noted += note(secrets, "a branch", event.entry.and_then(|entry| entry.content));
        }
    }
    world.links.heal_all();
    eventually("the branches are in the log", PATIENCE, async || {
        let updated = timeout(PATIENCE, ann.update(&group)).await.unwrap();
        matches!(updated, Ok(Committed::Accepted { .. })).then_some(())
    })
    .await
    .unwrap();
    note_log(world, secrets, "a DeMLS group", &group).await;
}

/// Everything is read from the disks.
pub async fn after_the_restart(world: &World) {
    for group in [&world.ordered, &world.forking] {
        for gateway in 0..3 {
            let transport = world.transport("ann", gateway);
            let request = ReadEntriesRequest { group_id: group.to_bytes(), ..ReadEntriesRequest::default() };
            eventually("the log is read after the restart", PATIENCE, async || {
                transport.read_entries(request.clone()).await.ok().filter(|page| !page.entries.is_empty())
            })
            .await
            .unwrap();
        }
    }
}
