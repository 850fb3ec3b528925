//! The commands for DiMLS groups, as a person types them, at a gateway without a cluster.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{fs, path::Path, process::Stdio, time::Duration};

use mls_gateway::mesh::{DimlsParts, MeshGateway, MeshParts};
use service_kit::{net::tcp_network, rng::Randomness};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    time::{Instant, timeout},
};

const PATIENCE: Duration = Duration::from_secs(60);

struct Person<'a> {
    name: &'a str,
    dir: &'a Path,
    gateway: String,
}

impl Person<'_> {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mls-client"));
        command.env("CONCORDAT_GATEWAY", &self.gateway);
        command.env("CONCORDAT_STATE", self.dir.join(format!("{}.state", self.name)));
        command.args(args).stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }

    /// Runs a command to its end. Returns what it printed.
    async fn does(&self, args: &[&str]) -> Result<String, String> {
        let output = timeout(PATIENCE, self.command(args).output()).await.expect("it ends").unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }

    /// Watches until a line is shown, or for so long.
    async fn watches(&self, for_line: &str, long: Duration) -> bool {
        let mut child = self.command(&["dgroup", "watch"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let shown = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line == for_line {
                    return true;
                }
            }
            false
        };
        let shown = timeout(long, shown).await.unwrap_or(false);
        child.kill().await.unwrap();
        shown
    }
}

#[tokio::test]
async fn a_conversation_without_any_cluster() {
    let dir = tempfile::tempdir().unwrap();
    let network = tcp_network();
    let incoming = network.listen("127.0.0.1:0".into()).await.unwrap();
    let mesh = network.listen("127.0.0.1:0".into()).await.unwrap();
    let dimls = DimlsParts::new(dir.path().join("gateway"));
    let parts = MeshParts::trusting(dimls, incoming, mesh, network, Randomness::from_os());
    let gateway = MeshGateway::start(parts).unwrap();
    let url = format!("http://{}", gateway.address());
    let person = |name| Person { name, dir: dir.path(), gateway: url.clone() };
    let (ann, bob) = (person("ann"), person("bob"));
    for person in [&ann, &bob] {
        let said = person.does(&["identity", person.name]).await.unwrap();
        assert!(said.contains("has no cluster"), "{said}");
    }
    let alone = ann.does(&["create", "--kind", "dimls"]).await.unwrap_err();
    assert!(alone.contains("--with"), "{alone}");
    let id = ann.does(&["create", "--kind", "dimls", "--with", "bob"]).await.unwrap();
    assert_eq!(bob.does(&["dgroup", "join"]).await.unwrap(), id);
    // One after the other is there for a moment, until each has added the other.
    let begun = Instant::now();
    let ready = |status: &str| status.contains("reads and is read");
    while !ready(&ann.does(&["dgroup", "status"]).await.unwrap())
        || !ready(&bob.does(&["dgroup", "status"]).await.unwrap())
    {
        assert!(begun.elapsed() < PATIENCE, "they do not come together");
        for person in [&ann, &bob] {
            person.watches("", Duration::from_millis(700)).await;
        }
    }
    ann.does(&["dgroup", "send", "hello,", "bob"]).await.unwrap();
    assert!(bob.watches("ann: hello, bob", PATIENCE).await);
    bob.does(&["dgroup", "--id", &id[..6], "send", "hello, ann"]).await.unwrap();
    assert!(ann.watches("bob: hello, ann", PATIENCE).await);
    // Whoever claims to be another is told so, and not kept waiting.
    fs::copy(dir.path().join("ann.state"), dir.path().join("eve.state")).unwrap();
    let eve = person("eve");
    ann.does(&["dgroup", "send", "as", "myself"]).await.unwrap();
    let refused = eve.does(&["dgroup", "send", "as", "ann"]).await.unwrap_err();
    assert!(refused.contains("restored from a copy"), "{refused}");
    // What was read is kept.
    assert!(ann.watches("bob: hello, ann", PATIENCE).await);
    let unknown = ann.does(&["dgroup", "--id", "zz", "send", "x"]).await.unwrap_err();
    assert!(unknown.contains("dgroup join"), "{unknown}");
}
