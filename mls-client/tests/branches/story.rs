//! What a story is told with: members with real MLS at the gateways of a network that is cut by hand.

use std::{path::Path, sync::Arc, sync::atomic::Ordering::SeqCst, time::Duration};

use mls_client::{
    Client, Committed, DEFAULT_CIPHERSUITE, Error, GroupId, GroupKind, Identity, NewGroup, Options, Place,
    Randomness, Status, Store,
};

use crate::support::{
    QUIET, id, impatient,
    net::{Net, NetTransport},
};

/// A member and its way to a gateway.
pub(crate) struct Member {
    pub(crate) client: Client,
    pub(crate) transport: Arc<NetTransport>,
}

impl std::ops::Deref for Member {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Member {
    pub(crate) fn open(net: &Net, folder: &Path, name: &str, site: usize) -> Member {
        Member::with(net, folder, name, site, Options { patience: Duration::ZERO, ..impatient() })
    }

    pub(crate) fn with(net: &Net, folder: &Path, name: &str, site: usize, options: Options) -> Member {
        let mut store = Store::open(&folder.join(name)).unwrap();
        if Identity::load(&store).unwrap().is_none() {
            Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
        }
        let transport = Arc::new(NetTransport::new(net, site, id(name)));
        let client = Client::new(store, transport.clone(), options, net.rng.fork()).unwrap();
        Member { client, transport }
    }

    pub(crate) fn move_to(&self, site: usize) {
        self.transport.site.store(site, SeqCst);
    }
}

pub(crate) struct Story {
    pub(crate) net: Net,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) group: GroupId,
    pub(crate) members: Vec<Member>,
}

/// A group whose members are each at a site of their own, or share the last one.
pub(crate) async fn story(names: &[&str]) -> Story {
    story_with(names, &Options { patience: Duration::ZERO, ..impatient() }).await
}

pub(crate) async fn story_with(names: &[&str], options: &Options) -> Story {
    let (net, folder) = (Net::new(3, Randomness::from_seed(11)), tempfile::tempdir().unwrap());
    let members: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(site, name)| Member::with(&net, folder.path(), name, site.min(2), options.clone()))
        .collect();
    for member in &members {
        member.publish_key_packages().await.unwrap();
    }
    let new = NewGroup { kind: GroupKind::Demls, ..NewGroup::default() };
    let group = members[0].create_group(new).await.unwrap();
    let others: Vec<_> = names[1..].iter().map(|name| id(name)).collect();
    members[0].invite(&group, &others).await.unwrap();
    for member in &members[1..] {
        assert_eq!(member.join_waiting(QUIET).await.unwrap(), std::slice::from_ref(&group));
    }
    net.pass(8);
    Story { net, folder, group, members }
}

impl Story {
    /// The network heals, and everybody does what he owes, until all is quiet.
    pub(crate) async fn heal(&self) {
        for _ in 0..6 {
            self.net.heal();
            for member in &self.members {
                for outcome in [
                    member.sync(&self.group).await.map(drop),
                    member.join_waiting(QUIET).await.map(drop),
                    member.resume(&self.group).await,
                    member.flush(&self.group).await,
                ] {
                    assert!(
                        matches!(
                            outcome,
                            Ok(())
                                | Err(Error::Call(_)
                                    | Error::NotMember(_)
                                    | Error::RemovalsFirst
                                    | Error::UnknownGroup)
                        ),
                        "{outcome:?}"
                    );
                }
            }
        }
    }

    /// All members are in one state, keep nothing else, and have read everything they were entitled to exactly once.
    pub(crate) fn check(&self) {
        let members = self.net.check(&self.group);
        let active: Vec<_> = self
            .members
            .iter()
            .filter(|m| m.group(&self.group).is_ok_and(|view| view.status == Status::Active))
            .collect();
        let mut names: Vec<_> = active.iter().map(|member| member.id().as_bytes().to_vec()).collect();
        names.sort();
        assert_eq!(members, names);
        let first = active[0].group(&self.group).unwrap();
        for member in &active {
            let view = member.group(&self.group).unwrap();
            assert_eq!(view.epoch_authenticator, first.epoch_authenticator, "{:?}", member.id());
            assert_eq!((view.epoch, view.state_id), (first.epoch, first.state_id));
            assert!(!view.provisional && !view.commit_pending && !view.repairing, "{view:?}");
            assert_eq!(view.retained_states, 1, "{:?} keeps more than it needs", member.id());
            let messages = member.messages(&self.group, 0, usize::MAX).unwrap();
            for accepted in self.net.accepted_messages(&self.group) {
                if !accepted.entitled.contains(&member.id().as_bytes().to_vec()) {
                    continue;
                }
                let expected = match accepted.side {
                    true => Place::Side { entry: accepted.id, seq: accepted.seq },
                    false => Place::Canonical { seq: accepted.seq },
                };
                let read = messages.iter().filter(|message| message.place == expected).count();
                assert_eq!(read, 1, "{:?} has read {accepted:?} so many times", member.id());
            }
        }
    }
}

pub(crate) fn is_provisional(committed: &Committed) -> bool {
    matches!(committed, Committed::Provisional { .. })
}

/// Far beyond what a busy machine needs; a test that waits this long has failed.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(120), wait).await.is_ok(), "never happened: {what}");
}
