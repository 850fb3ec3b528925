//! What an operator types: the programs as processes.

#![allow(clippy::unwrap_used)] // A panic in a test is its report.

use std::{
    fs,
    process::{Command, Output},
};

use testbed::{Cluster, ClusterOptions, find_binary};

fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(find_binary(program).unwrap()).args(args).envs(env.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn admin(cluster: &Cluster, command: &[&str]) -> Output {
    run(
        "ordering-service",
        &[&["admin", "--insecure-dev", "--server", cluster.node(1).address()], command].concat(),
        &[],
    )
}

#[test]
fn flags_stand_over_the_environment_and_that_over_the_file_and_unknown_keys_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("settings.toml");
    let path = file.to_str().unwrap();
    let programs = [
        (
            "ordering-service",
            "data_dir = '/data'\nadmin_listen = 'file:1'\nlisten = 'file:2'\npeer_listen = 'file:3'\n",
        ),
        (
            "mls-gateway",
            "ordering = ['n:7100']\nadmin_listen = 'file:1'\nlisten = 'file:2'\nprofile = 'wan'\n",
        ),
    ];
    for (program, text) in programs {
        fs::write(&file, text).unwrap();
        let args = ["serve", "--config", path, "--print-config", "--listen", "flag:9"];
        let env = [("CONCORDAT_LISTEN", "env:8"), ("CONCORDAT_ADMIN_LISTEN", "env:7")];
        let printed = run(program, &args, &env);
        let text = said(&printed);
        assert!(printed.status.success(), "{text}");
        assert!(text.contains("\nlisten = \"flag:9\"") || text.starts_with("listen = \"flag:9\""), "{text}");
        assert!(text.contains("admin_listen = \"env:7\""), "{text}");
        assert!(text.contains("file:3") || text.contains("wan"), "{text}");
        assert!(text.contains("tls_reload_seconds = 30"), "a default: {text}");

        fs::write(&file, "listn = 'h:1'\n").unwrap();
        let refused = run(program, &["serve", "--config", path], &[]);
        assert!(!refused.status.success() && said(&refused).contains("listn"), "{}", said(&refused));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shrink_takes_nodes_out_one_after_another_and_never_below_a_quorum() {
    let cluster = Cluster::start(ClusterOptions::default()).await.unwrap();
    for _ in 0..2 {
        cluster.add_node().await.unwrap();
    }
    let peers: Vec<String> = cluster.nodes().iter().map(|node| node.peer_address().to_owned()).collect();
    let keep = |nodes: &[usize]| -> Output {
        let keep = nodes.iter().flat_map(|at| ["--keep", peers[*at].as_str()]);
        let args: Vec<&str> = ["shrink", "--site", ""].into_iter().chain(keep).collect();
        admin(&cluster, &args)
    };
    let shrunk = keep(&[0, 1, 2]);
    assert!(shrunk.status.success(), "{}", said(&shrunk));
    let status = cluster.leader(1).await.unwrap().admin().status().await.unwrap();
    for shard in &status.shards {
        let mut ids: Vec<_> = shard.voters.iter().map(|voter| voter.node_id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [1, 2, 3]);
    }
    let again = keep(&[0, 1, 2]);
    assert!(again.status.success() && said(&again).contains("no node has to go"), "{}", said(&again));

    // Of two that would be left one does not answer: the third has to stay.
    cluster.node(2).service().kill().await.unwrap();
    let refused = keep(&[0, 1]);
    assert!(!refused.status.success(), "{}", said(&refused));
    let status = cluster.leader(1).await.unwrap().admin().status().await.unwrap();
    assert!(status.shards.iter().all(|shard| shard.voters.len() == 3), "{status:?}");
}
