//! Real clients over a real gateway in front of a real cluster of three nodes, on loopback; and the command line as real processes.

#![allow(clippy::unwrap_used)] // A panic is the report.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use concordat_proto::{
    gateway::v1::{SubscribeRequest, subscribe_response::Event},
    log::v1::Reason,
};
use futures::{StreamExt, future::join_all};
use mls_client::{
    CallError, Client, ClientId, Committed, DEFAULT_CIPHERSUITE, Error, EventKind, GroupId, GrpcTransport,
    Identity, LeftReason, NewGroup, Options, Randomness, Status, Store, Transport,
};
use mls_gateway::server::{Gateway, Parts};
use ordering_service::{config::Config, dev::DevCluster, server::Seams};
use service_kit::net::tcp_network;
use tokio::time::{sleep, timeout};

/// Far beyond what a busy machine needs; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(180);

/// A cluster with two gateways.
struct Service {
    folder: tempfile::TempDir,
    cluster: DevCluster,
    gateways: Vec<Gateway>,
}

impl Service {
    async fn start() -> Service {
        Service::start_with(true, |_| {}).await
    }

    async fn start_with(members_only: bool, adjust: impl Fn(&mut Config)) -> Service {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cluster");
        let cluster = DevCluster::start_with(&path, 3, 2, Seams::system(), adjust).await.unwrap();
        let mut gateways = Vec::new();
        for _ in 0..2 {
            let network = tcp_network();
            let incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
            let mut parts = Parts::new(cluster.api_addresses(), incoming, network, Randomness::from_os());
            parts.members_only = members_only;
            let gateway = Gateway::start(parts).unwrap();
            gateway.ready().await;
            gateways.push(gateway);
        }
        Service { folder, cluster, gateways }
    }

    fn url(&self, n: usize) -> String {
        format!("http://{}", self.gateways[n % self.gateways.len()].address())
    }

    /// The client `name` at gateway `n`, with its state in the service's folder.
    fn client(&self, name: &str, n: usize) -> Client {
        let mut store = Store::open(&self.folder.path().join(name)).unwrap();
        if Identity::load(&store).unwrap().is_none() {
            Identity::create(&mut store, id(name), DEFAULT_CIPHERSUITE).unwrap();
        }
        let transport = GrpcTransport::new(&self.url(n), &id(name)).unwrap();
        Client::new(store, Arc::new(transport), Options::default(), Randomness::from_os()).unwrap()
    }

    async fn stop(self) {
        for gateway in self.gateways {
            gateway.stop().await;
        }
        self.cluster.stop().await;
    }
}

fn id(name: &str) -> ClientId {
    ClientId::new(name.to_owned()).unwrap()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(DEADLINE, wait).await.is_ok(), "never happened: {what}");
}

fn in_group(client: &Client, group: &GroupId) -> bool {
    client.group(group).is_ok_and(|view| view.status == Status::Active)
}

/// The service keeps ten entries of each group.
async fn forgetful(members_only: bool) -> Service {
    Service::start_with(members_only, |config| {
        config.keeping.limits.max_entries = Some(10);
        config.keeping.look_every = Duration::from_millis(100);
    })
    .await
}

/// Commits until what came after entry `seq` is gone on every node.
async fn until_gone(service: &Service, client: &Client, group: &GroupId, seq: u64) {
    for _ in 0..15 {
        client.update(group).await.unwrap();
    }
    let gone = || {
        service.cluster.nodes().iter().all(|node| {
            let mut shards = node.node().shards.get().unwrap().iter().skip(1);
            shards.any(|shard| shard.reader().pruned(group.as_bytes()).unwrap().seq > seq)
        })
    };
    until("the beginning of the log is gone", gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_away_for_longer_than_the_log_is_kept_comes_back_by_itself() {
    let service = forgetful(true).await;
    let [ann, bob, cy] = [("ann", 0), ("bob", 1), ("cy", 1)].map(|(name, n)| service.client(name, n));
    for client in [&bob, &cy] {
        client.publish_key_packages().await.unwrap();
    }
    let group = ann.create_group(NewGroup::default()).await.unwrap();
    ann.invite(&group, &[id("bob"), id("cy")]).await.unwrap();
    for client in [&bob, &cy] {
        assert_eq!(client.join_waiting(Duration::from_secs(5)).await.unwrap().len(), 1);
    }
    let seen = bob.sync(&group).await.unwrap().seq;
    until_gone(&service, &ann, &group, seen).await;

    // One that runs, and one that only wants to say something.
    let mut events = bob.events();
    let running = bob.start();
    let missed = async {
        loop {
            if let EventKind::EntriesMissed { first, last } = events.recv().await.unwrap().kind {
                return (first, last);
            }
        }
    };
    let (first, last) = timeout(DEADLINE, missed).await.unwrap();
    assert_eq!(first, seen + 1);
    assert!(last > first + 10, "{first} to {last}");
    assert_eq!(bob.counters().messages_unreadable, 0);
    bob.send(&group, "I am back").await.unwrap();
    cy.send(&group, "so am I").await.unwrap();
    ann.sync(&group).await.unwrap();
    let bodies: Vec<_> =
        ann.messages(&group, 0, 100).unwrap().into_iter().map(|message| message.body).collect();
    assert_eq!(bodies, [b"I am back".to_vec(), b"so am I".to_vec()]);
    let members = [b"ann".to_vec(), b"bob".to_vec(), b"cy".to_vec()];
    let views =
        [ann.sync(&group).await.unwrap(), bob.sync(&group).await.unwrap(), cy.sync(&group).await.unwrap()];
    for view in &views {
        assert_eq!((view.epoch, &view.epoch_authenticator), (views[0].epoch, &views[0].epoch_authenticator));
        assert_eq!(view.members, members);
    }
    running.stop().await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_removed_while_it_was_away_does_not_come_back_by_itself() {
    // Where everybody may read, it sees by the GroupInfo that it is no member any more.
    let (service, bob, group) = removed_while_away(false).await;
    assert!(matches!(bob.sync(&group).await, Err(Error::NotMember(_))));
    assert_eq!(bob.group(&group).unwrap().status, Status::Left(LeftReason::RemovedUnseen));
    service.stop().await;
    // Where only members may, it is refused. No secret is deleted because a gateway says so.
    let (service, bob, group) = removed_while_away(true).await;
    let refused = bob.sync(&group).await.unwrap_err();
    assert!(
        matches!(&refused, Error::Call(CallError { reason: Some(Reason::PermissionDenied), .. })),
        "{refused:?}"
    );
    assert_eq!(bob.group(&group).unwrap().status, Status::Active);
    service.stop().await;
}

/// Bob was removed while he was away, and the entry that did it is gone from the log.
async fn removed_while_away(members_only: bool) -> (Service, Client, GroupId) {
    let service = forgetful(members_only).await;
    let [ann, bob] = [("ann", 0), ("bob", 1)].map(|(name, n)| service.client(name, n));
    bob.publish_key_packages().await.unwrap();
    let group = ann.create_group(NewGroup::default()).await.unwrap();
    ann.invite(&group, &[id("bob")]).await.unwrap();
    bob.join_waiting(Duration::from_secs(5)).await.unwrap();
    let seen = bob.group(&group).unwrap().seq;
    ann.remove(&group, &[id("bob")]).await.unwrap();
    until_gone(&service, &ann, &group, seen + 1).await;
    assert_eq!(ann.sync(&group).await.unwrap().members, [b"ann".to_vec()]);
    (service, bob, group)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_told_where_the_log_begins_and_how_to_come_back() {
    let service = forgetful(true).await;
    let ann = service.client("ann", 0);
    let group = ann.create_group(NewGroup::default()).await.unwrap();
    until_gone(&service, &ann, &group, 1).await;
    // A gateway that has followed the log all along, and one that has not.
    for gateway in 0..2 {
        let transport = GrpcTransport::new(&service.url(gateway), &id("ann")).unwrap();
        let request = SubscribeRequest { group_id: group.to_bytes(), ..SubscribeRequest::default() };
        let mut told: Vec<_> = transport.subscribe(request).await.unwrap().collect().await;
        let error = told.pop().unwrap().unwrap_err();
        assert_eq!(error.reason, Some(Reason::Pruned));
        let Some(Event::Pruned(pruned)) = told.pop().unwrap().unwrap().event else { panic!("{told:?}") };
        let head = pruned.head.unwrap();
        assert_eq!(error.facts["oldest_seq"], pruned.oldest_seq.to_string());
        assert!(pruned.oldest_seq > 2 && pruned.oldest_seq <= head.seq);
        let info = transport.get_group_info(group.to_bytes()).await.unwrap();
        assert_eq!(info.group_info, pruned.group_info);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_at_two_gateways_commit_and_talk_at_once() {
    let service = Service::start().await;
    let names = ["ann", "bob", "cy", "dan", "eve"];
    let clients: Vec<_> = names.iter().enumerate().map(|(n, name)| service.client(name, n)).collect();
    let running: Vec<_> = clients.iter().map(Client::start).collect();
    for published in join_all(clients.iter().map(Client::publish_key_packages)).await {
        let count = published.unwrap();
        assert!(count.one_time > 0 && count.last_resort);
    }
    let group = clients[0].create_group(NewGroup::default()).await.unwrap();
    clients[0].invite(&group, &names[1..4].iter().map(|name| id(name)).collect::<Vec<_>>()).await.unwrap();
    until("the invited are in", || clients[..4].iter().all(|client| in_group(client, &group))).await;

    let work = clients[..4].iter().enumerate().map(|(n, client)| {
        let group = group.clone();
        async move {
            client.update(&group).await.unwrap();
            client.send(&group, format!("one from {n}")).await.unwrap();
            // Everybody wants eve; one of them gets her in.
            client.invite(&group, &[id("eve")]).await.unwrap();
            client.send(&group, format!("two from {n}")).await.unwrap();
        }
    });
    join_all(work).await;
    until("eve is in", || in_group(&clients[4], &group)).await;
    clients[4].rejoin(&group).await.unwrap();
    let removed = clients[1].remove(&group, &[id("cy")]).await.unwrap();
    let Committed::Accepted { seq, .. } = removed else { panic!("{removed:?}") };
    until("cy has left", || !in_group(&clients[2], &group)).await;

    let members: Vec<_> = [0, 1, 3, 4].map(|n| &clients[n]).into();
    until("all are there", || members.iter().all(|c| c.group(&group).unwrap().seq >= seq)).await;
    let first = members[0].sync(&group).await.unwrap();
    for member in &members {
        let view = member.sync(&group).await.unwrap();
        assert_eq!((view.epoch, &view.state_id), (first.epoch, &first.state_id));
        assert_eq!(view.epoch_authenticator, first.epoch_authenticator);
        assert_eq!(view.members, [b"ann".to_vec(), b"bob".to_vec(), b"dan".to_vec(), b"eve".to_vec()]);
    }
    for member in &members[..3] {
        assert_eq!(member.messages(&group, 0, 100).unwrap().len(), 8);
        assert_eq!(member.counters().messages_unreadable, 0);
    }
    for running in running {
        running.stop().await;
    }
    drop(clients);
    // From the state file alone: the same place, and the conversation goes on.
    let ann = service.client("ann", 1);
    assert_eq!(ann.group(&group).unwrap(), first);
    ann.send(&group, "back").await.unwrap();
    drop(ann);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_come_with_their_reason() {
    let service = Service::start().await;
    let ann = service.client("ann", 0);
    let nobody = ann.create_group(NewGroup::default()).await.unwrap();
    let refused = |error: Error| match error {
        Error::Call(CallError { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let error = ann.invite(&nobody, &[id("nobody")]).await.unwrap_err();
    assert_eq!(refused(error), Some(Reason::KeyPackagesExhausted));
    let unknown = GroupId::new("no such group").unwrap();
    let error = ann.rejoin(&unknown).await.unwrap_err();
    assert_eq!(refused(error), Some(Reason::GroupNotFound));
    let bob = service.client("bob", 1);
    let named = NewGroup { id: Some(nobody.clone()), ..NewGroup::default() };
    assert_eq!(refused(bob.create_group(named).await.unwrap_err()), Some(Reason::GroupExists));
    assert!(matches!(bob.group(&nobody).unwrap().status, Status::Left(_)));
    // Nobody listens there.
    let lost = GrpcTransport::new("127.0.0.1:1", &id("ann")).unwrap();
    assert!(lost.key_package_status().await.unwrap_err().is_temporary());
    drop((ann, bob));
    service.stop().await;
}

/// The command line of one person.
struct Person<'a> {
    url: String,
    state: std::path::PathBuf,
    name: &'a str,
}

impl<'a> Person<'a> {
    fn new(service: &Service, folder: &Path, name: &'a str, n: usize) -> Self {
        Person { url: service.url(n), state: folder.join(format!("{name}.state")), name }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mls-client"));
        command.env("CONCORDAT_GATEWAY", &self.url).env("CONCORDAT_STATE", &self.state).args(words);
        command
    }

    /// What a command prints.
    fn run(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} {words:?}: {error}", self.name);
        String::from_utf8(output.stdout).unwrap()
    }

    /// What a command says when it fails.
    fn fail(&self, words: &[&str]) -> String {
        let output = self.command(words).output().unwrap();
        assert!(!output.status.success(), "{} {words:?}", self.name);
        String::from_utf8(output.stderr).unwrap()
    }

    fn talk(&self) -> Talk {
        let mut command = self.command(&["watch", "--talk"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let heard = BufReader::new(child.stdout.take().unwrap());
        Talk { child, heard }
    }
}

/// A `watch --talk` that runs.
struct Talk {
    child: Child,
    heard: BufReader<ChildStdout>,
}

impl Talk {
    fn say(&mut self, line: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
    }

    /// Reads until the line comes.
    fn hear(&mut self, wanted: &str) {
        let mut line = String::new();
        while line.trim_end() != wanted {
            line.clear();
            assert!(self.heard.read_line(&mut line).unwrap() > 0, "ended before `{wanted}`");
        }
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_have_a_conversation_on_the_command_line() {
    let service = Service::start().await;
    let folder = tempfile::tempdir().unwrap();
    let ann = Person::new(&service, folder.path(), "ann", 0);
    let bob = Person::new(&service, folder.path(), "bob", 1);
    let talked = tokio::task::block_in_place(|| {
        assert!(ann.fail(&["status"]).contains("mls-client identity"));
        assert!(ann.run(&["identity", "ann"]).contains("You are ann"));
        assert!(ann.fail(&["identity", "ann"]).contains("already"));
        bob.run(&["identity", "bob"]);
        assert!(ann.fail(&["send", "hello"]).contains("create"));
        let group = ann.run(&["create"]);
        assert!(bob.run(&["join", "--wait", "0"]).contains("No invitation"));
        assert!(ann.run(&["invite", "bob"]).contains("Members: ann, bob"));
        assert_eq!(bob.run(&["join"]), group);
        assert!(ann.run(&["send", "hello,", "bob"]).contains("Sent as entry 3"));

        let mut watching = bob.talk();
        watching.hear("ann: hello, bob");
        assert!(bob.fail(&["status"]).contains("in use by another process"));
        watching.say("hello, ann");
        watching.hear("you: hello, ann");
        let mut answering = ann.talk();
        answering.hear("bob: hello, ann");
        answering.say("how are you?");
        watching.hear("ann: how are you?");
        watching.end();
        answering.end();

        assert!(bob.run(&["update", "-g", &group[..4]]).contains("epoch 2"));
        let status = ann.run(&["status"]);
        assert!(status.contains("members   ann, bob") && status.contains(group.trim()), "{status}");
        let agreement =
            |status: &str| status.lines().find(|line| line.contains("agreement")).map(str::to_owned);
        assert_eq!(agreement(&status), agreement(&bob.run(&["status"])));
        assert!(bob.run(&["leave"]).contains("asked"));
        assert!(ann.run(&["send", "alone again"]).contains("epoch 3"));
        assert!(bob.run(&["status"]).contains("left"));
        assert!(ann.fail(&["invite", "nobody"]).contains("KEY_PACKAGES_EXHAUSTED"));
        true
    });
    assert!(talked);
    service.stop().await;
}
