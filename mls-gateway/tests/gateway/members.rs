//! Inside a group only its members write and read, at every gateway, also at one that has just started.

use bytes::Bytes;
use concordat_proto::{
    gateway::v1::{
        CloseGroupRequest, GetGroupInfoRequest, GetHeadRequest, ReadEntriesRequest, SetPolicyRequest,
        SubmitRequest, SubscribeRequest, submit_response::Outcome, subscribe_response::Event,
    },
    log::v1::{CanonicalCursor, Cursor, Entry, Policy, cursor::Chain},
};
use mls_gateway::server::Gateway;
use tonic::{Code, Status};

use crate::support::{
    Client, Events, accepted, assert_refused, client, create_request, gateway_with,
    member::{Member, tampered},
    outcome,
    real::RealCluster,
    soon, submit,
};

const GROUP: &[u8] = b"group";

async fn strict(cluster: &RealCluster) -> Gateway {
    gateway_with(&cluster.addresses(), |parts| parts.members_only = true).await
}

#[track_caller]
fn denied<T: std::fmt::Debug>(what: &str, answer: Result<T, Status>) {
    match answer {
        Err(status) => _ = assert_refused(&status, Code::PermissionDenied, "PERMISSION_DENIED"),
        Ok(answer) => panic!("{what} was let in: {answer:?}"),
    }
}

fn after(seq: u64) -> Option<Cursor> {
    let at = CanonicalCursor { seq, ..CanonicalCursor::default() };
    (seq > 0).then_some(Cursor { chain: Some(Chain::Canonical(at)) })
}

async fn read(calls: &mut Client, seq: u64) -> Result<Vec<Entry>, Status> {
    let request = ReadEntriesRequest {
        group_id: Bytes::from_static(GROUP),
        cursor: after(seq),
        max_entries: 0,
        linearizable: true,
    };
    calls.read_entries(request).await.map(|answer| answer.into_inner().entries)
}

/// Everything that one can ask of a group beside submitting to it and reading what one has been a member for.
async fn is_kept_out(calls: &mut Client) {
    let group_id = Bytes::from_static(GROUP);
    for linearizable in [true, false] {
        let head = GetHeadRequest { group_id: group_id.clone(), linearizable };
        denied("GetHead", calls.get_head(head).await);
    }
    denied("GetGroupInfo", calls.get_group_info(GetGroupInfoRequest { group_id: group_id.clone() }).await);
    for epoch in 0..4 {
        let close = CloseGroupRequest { group_id: group_id.clone(), epoch };
        denied("CloseGroup", calls.close_group(close).await);
        let policy = Some(Policy::default());
        let change = SetPolicyRequest { group_id: group_id.clone(), epoch, policy };
        denied("SetPolicy", calls.set_policy(change).await);
    }
}

async fn subscribe(calls: &mut Client, seq: u64) -> Result<(), Status> {
    let request = SubscribeRequest {
        group_id: Bytes::from_static(GROUP),
        cursor: after(seq),
        known_branch_entries: Vec::new(),
    };
    soon("a subscription", calls.subscribe(request)).await.map(drop)
}

/// Alice's group with these members, created and joined through `calls`.
async fn group_of(calls: &mut Client, alice: &mut Member, others: &mut [&mut Member]) {
    calls.create_group(create_request(alice.create(GROUP))).await.unwrap();
    let packages: Vec<_> = others.iter().map(|other| (other.name, other.key_package(false))).collect();
    let add = alice.commit(&packages, &[]);
    let welcome = add.welcome.clone();
    accepted(submit(calls, add).await);
    alice.merge();
    others.iter_mut().for_each(|other| other.join(&welcome));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_neither_writes_nor_reads_whatever_it_has_got_hold_of() {
    let cluster = RealCluster::start().await;
    let (east, west) = (strict(&cluster).await, strict(&cluster).await);
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let mut alices = client(&east, b"alice");
    group_of(&mut alices, &mut alice, &mut [&mut bob]).await;
    let hello = bob.say("hello");
    let stolen = [alice.say("stolen"), bob.propose_update(), alice.update()];
    for gateway in [&east, &west] {
        let mut mallorys = client(gateway, b"mallory");
        for message in stolen.clone() {
            denied("Submit", mallorys.submit(message).await);
        }
        for seq in [0, 1, 2] {
            denied("ReadEntries", read(&mut mallorys, seq).await);
            denied("Subscribe", subscribe(&mut mallorys, seq).await);
        }
        is_kept_out(&mut mallorys).await;
    }
    // None of it did any harm.
    accepted(submit(&mut client(&west, b"bob"), hello).await);
    accepted(submit(&mut alices, stolen[2].clone()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_is_submitted_by_its_author_only_and_a_group_is_created_by_a_member() {
    let cluster = RealCluster::start().await;
    let gateway = strict(&cluster).await;
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let (mut alices, mut bobs) = (client(&gateway, b"alice"), client(&gateway, b"bob"));
    denied("CreateGroup", bobs.create_group(create_request(alice.create(b"hers"))).await);
    group_of(&mut alices, &mut alice, &mut [&mut bob]).await;
    let update = alice.update();
    denied("another's commit", bobs.submit(update.clone()).await);
    denied("another's proposal", alices.submit(bob.propose_update()).await);
    accepted(submit(&mut alices, update).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_removed_is_cut_off_from_that_commit_on_and_comes_back_by_being_added() {
    let cluster = RealCluster::start().await;
    let east = strict(&cluster).await;
    let (mut alice, mut bob, mut cat) = (Member::new("alice"), Member::new("bob"), Member::new("cat"));
    let mut alices = client(&east, b"alice");
    group_of(&mut alices, &mut alice, &mut [&mut bob, &mut cat]).await;
    // Bob listens at one gateway and has not been seen at the other.
    let west = strict(&cluster).await;
    let mut bobs = client(&west, b"bob");
    let mut listening = Events::open(&mut bobs, GROUP, None).await;
    listening.entries(2).await;
    let late = bob.say("too late");
    let late_update = bob.update();

    accepted(submit(&mut alices, alice.say("before")).await);
    let leaf = bob.group().own_leaf_index().u32();
    let removal = accepted(submit(&mut alices, alice.commit(&[], &[leaf])).await);
    alice.merge();
    let secret = accepted(submit(&mut alices, alice.say("after")).await);
    assert_eq!((removal.seq, secret.seq), (4, 5));

    // His subscription ends with the commit that removed him.
    assert_eq!(listening.entries(2).await.last().unwrap().seq, removal.seq);
    let ended = loop {
        match listening.next().await {
            Ok(Event::Entry(entry)) => panic!("entry {} was shown", entry.seq),
            Ok(_) => {}
            Err(status) => break status,
        }
    };
    assert_refused(&ended, Code::PermissionDenied, "PERMISSION_DENIED");

    // Wherever he asks: he reads up to there, and does nothing else.
    let fresh = strict(&cluster).await;
    for gateway in [&east, &west, &fresh] {
        let mut bobs = client(gateway, b"bob");
        for seq in [2, 3] {
            let shown = read(&mut bobs, seq).await.unwrap();
            assert_eq!(shown.last().unwrap().seq, removal.seq, "from {seq}");
            let mut again = Events::open(&mut bobs, GROUP, Some((seq, Bytes::new()))).await;
            assert_eq!(again.entries((removal.seq - seq) as usize).await.last().unwrap().seq, removal.seq);
            assert_eq!(again.next().await.unwrap_err().code(), Code::PermissionDenied);
        }
        for seq in [removal.seq, secret.seq] {
            denied("ReadEntries", read(&mut bobs, seq).await);
            denied("Subscribe", subscribe(&mut bobs, seq).await);
        }
        denied("Submit", bobs.submit(late.clone()).await);
        // What became of a commit that he made before: it lost to the one that removed him, which he may see.
        let Outcome::Superseded(lost) = submit(&mut bobs, late_update.clone()).await else { panic!() };
        assert_eq!(lost.winner.unwrap().seq, removal.seq);
        is_kept_out(&mut bobs).await;
        // The others go on.
        accepted(submit(&mut client(gateway, b"alice"), alice.say("we go on")).await);
    }

    let mut back = Member::new("bob");
    let add = alice.commit(&[("bob", back.key_package(false))], &[]);
    let welcome = add.welcome.clone();
    accepted(submit(&mut alices, add).await);
    alice.merge();
    back.join(&welcome);
    for gateway in [&east, &west, &fresh] {
        let mut bobs = client(gateway, b"bob");
        accepted(submit(&mut bobs, back.say("back again")).await);
        assert!(read(&mut bobs, 0).await.unwrap().len() > 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_publish_no_group_info_are_followed_to_the_one_that_removes() {
    let cluster = RealCluster::start().await;
    let east = strict(&cluster).await;
    let (mut alice, mut bob) = (Member::new("alice"), Member::new("bob"));
    let mut alices = client(&east, b"alice");
    group_of(&mut alices, &mut alice, &mut [&mut bob]).await;
    let leaf = bob.group().own_leaf_index().u32();
    let mut seqs = Vec::new();
    for removes in [vec![], vec![leaf], vec![]] {
        let commit = SubmitRequest { group_info: Bytes::new(), ..alice.commit(&[], &removes) };
        seqs.push(accepted(submit(&mut alices, commit).await).seq);
        alice.merge();
    }
    let fresh = strict(&cluster).await;
    for gateway in [&east, &fresh] {
        let mut bobs = client(gateway, b"bob");
        assert_eq!(read(&mut bobs, 2).await.unwrap().last().unwrap().seq, seqs[1]);
        denied("ReadEntries", read(&mut bobs, seqs[1]).await);
        is_kept_out(&mut bobs).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_a_group_info_comes_in_by_an_external_commit_of_its_own_and_by_no_other() {
    let cluster = RealCluster::start().await;
    let gateway = strict(&cluster).await;
    let (mut alice, mut cat) = (Member::new("alice"), Member::new("cat"));
    let (mut alices, mut cats) = (client(&gateway, b"alice"), client(&gateway, b"cat"));
    group_of(&mut alices, &mut alice, &mut []).await;
    let join = cat.join_external(&alice.group_info(true));
    denied("another's external commit", client(&gateway, b"mallory").submit(join.clone()).await);
    let broken = SubmitRequest { message: tampered(&join.message), ..join.clone() };
    let error = outcome(cats.submit(broken).await).unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    denied("ReadEntries", read(&mut cats, 0).await);
    accepted(submit(&mut cats, join).await);
    cat.merge_if_pending();
    accepted(submit(&mut cats, cat.say("hello")).await);
    assert_eq!(read(&mut cats, 0).await.unwrap().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_private_handshakes_a_published_tree_tells_who_was_removed() {
    let cluster = RealCluster::start().await;
    let east = strict(&cluster).await;
    let (mut alice, mut bob) = (Member::private("alice"), Member::private("bob"));
    let mut alices = client(&east, b"alice");
    group_of(&mut alices, &mut alice, &mut [&mut bob]).await;
    accepted(submit(&mut client(&east, b"bob"), bob.say("in")).await);
    let leaf = bob.group().own_leaf_index().u32();
    let late = bob.say("too late");
    let removal = accepted(submit(&mut alices, alice.commit(&[], &[leaf])).await);
    alice.merge();
    accepted(submit(&mut alices, alice.say("after")).await);
    let fresh = strict(&cluster).await;
    for gateway in [&east, &fresh] {
        let mut bobs = client(gateway, b"bob");
        denied("Submit", bobs.submit(late.clone()).await);
        assert_eq!(read(&mut bobs, 2).await.unwrap().last().unwrap().seq, removal.seq);
        is_kept_out(&mut bobs).await;
        is_kept_out(&mut client(gateway, b"mallory")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_tree_the_members_are_who_created_it_and_who_was_welcomed() {
    let cluster = RealCluster::start().await;
    let east = strict(&cluster).await;
    let (mut alice, mut bob) = (Member::private("alice"), Member::private("bob"));
    let mut alices = client(&east, b"alice");
    alice.create(GROUP);
    alices.create_group(create_request(alice.group_info(false))).await.unwrap();
    let mut bobs = client(&east, b"bob");
    denied("ReadEntries", read(&mut bobs, 0).await);
    let mut add = alice.commit(&[("bob", bob.key_package(false))], &[]);
    let welcome = add.welcome.clone();
    add.group_info = Bytes::new();
    accepted(submit(&mut alices, add).await);
    alice.merge();
    bob.join(&welcome);
    let mut cat = Member::new("cat");
    let fresh = strict(&cluster).await;
    for gateway in [&east, &fresh] {
        let mut bobs = client(gateway, b"bob");
        accepted(submit(&mut bobs, bob.say("hello")).await);
        assert!(read(&mut bobs, 0).await.unwrap().len() >= 3);
        let mut mallorys = client(gateway, b"mallory");
        denied("Submit", mallorys.submit(alice.say("stolen")).await);
        denied("ReadEntries", read(&mut mallorys, 0).await);
        is_kept_out(&mut mallorys).await;
        // Nobody here can tell whether an external commit holds.
        let join = cat.join_external(&alice.group_info(true));
        denied("an external commit", client(gateway, b"cat").submit(join).await);
    }
}
