//! Status as a table for people.

use std::{collections::BTreeMap, fmt::Write};

use concordat_proto::ordering::v1::{
    ExpectedCommit, GetStatusResponse, NodeAddress, RegisteredGateway, ShardStatus,
};

/// The status of a node: one line a shard, then one line a member.
pub(super) fn status(status: &GetStatusResponse) -> String {
    let mut text = String::new();
    let cluster = if status.cluster_id.is_empty() {
        "none (bootstrap one, or add this node to one)"
    } else {
        &status.cluster_id
    };
    let _ = writeln!(text, "node {}  version {}  cluster {cluster}", status.node_id, status.version);
    if status.shards.is_empty() {
        return text;
    }
    let header = [
        "shard",
        "leader",
        "quorum",
        "term",
        "voters",
        "learners",
        "log",
        "committed",
        "applied",
        "snapshot",
        "behind",
        "prefers",
        "network",
    ];
    let mut rows = vec![header.map(String::from)];
    rows.extend(status.shards.iter().map(row));
    write_rows(&mut text, &rows);
    text.push('\n');
    write_rows(&mut text, &nodes(status));
    text
}

/// Every member: where it is, and what it does in how many shards.
fn nodes(status: &GetStatusResponse) -> Vec<[String; 7]> {
    let mut members: BTreeMap<u64, (&NodeAddress, usize, usize)> = BTreeMap::new();
    for shard in &status.shards {
        for (nodes, votes) in [(&shard.voters, 1), (&shard.learners, 0)] {
            for node in nodes {
                let member = members.entry(node.node_id).or_insert((node, 0, 0));
                member.1 += votes;
                member.2 += 1 - votes;
            }
        }
    }
    let header = ["node", "site", "votes in", "learns in", "leads", "peers reach it at", "API"];
    let mut rows = vec![header.map(String::from)];
    rows.extend(members.into_values().map(|(node, votes, learns)| {
        let leads = status.shards.iter().filter(|shard| shard.leader_node_id == node.node_id).count();
        let site = if node.site.is_empty() { "-" } else { &node.site };
        [
            node.node_id.to_string(),
            site.to_owned(),
            votes.to_string(),
            learns.to_string(),
            leads.to_string(),
            node.peer_address.clone(),
            node.address.clone(),
        ]
    }));
    rows
}

/// Columns as wide as their widest cell.
fn write_rows<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let widths: Vec<usize> = (0..N).map(|i| rows.iter().map(|row| row[i].len()).max().unwrap_or(0)).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

/// Registered gateways, one line each.
pub(super) fn gateways(gateways: &[RegisteredGateway]) -> String {
    if gateways.is_empty() {
        return "no gateway is registered for any group\n".into();
    }
    let mut rows = vec![["gateway", "groups", "holds back", "connected"].map(String::from)];
    rows.extend(gateways.iter().map(|gateway| {
        let connected = if gateway.connected { "yes" } else { "NO" };
        [
            hex(&gateway.gateway_id),
            gateway.groups.to_string(),
            gateway.holds_back.to_string(),
            connected.into(),
        ]
    }));
    let mut text = String::new();
    write_rows(&mut text, &rows);
    text
}

/// What an operator should know before a gateway is evicted.
pub(super) fn cost_of_eviction(gateway: &RegisteredGateway) -> String {
    let warning = if gateway.connected {
        "\nIt is CONNECTED now: evict it only if its disk is lost, and stop it first."
    } else {
        ""
    };
    format!(
        "Gateway {} is registered for {} groups, and keeps old states from being deleted in {} of them.\n\
         Evicted, it blocks nobody any more. What it accepted without a quorum and still holds comes late: members read it only if \
         they still hold the states, and its authors have to send again.{warning}",
        hex(&gateway.gateway_id),
        gateway.groups,
        gateway.holds_back
    )
}

/// Hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn row(shard: &ShardStatus) -> [String; 13] {
    let name = if shard.shard == 0 { "0 directory".into() } else { shard.shard.to_string() };
    let leader = match shard.leader_node_id {
        0 => "none".into(),
        id => format!("node {id}"),
    };
    let quorum = match (shard.has_quorum, shard.quorum_age_ms) {
        (_, u64::MAX) => "never seen".into(),
        (true, age) => format!("yes, {age} ms"),
        (false, age) => format!("NO, {age} ms"),
    };
    let ids =
        |nodes: &[NodeAddress]| nodes.iter().map(|n| n.node_id.to_string()).collect::<Vec<_>>().join(",");
    let mut behind: Vec<String> = shard
        .matched_index
        .iter()
        .filter(|(node, _)| **node != shard.leader_node_id)
        .map(|(node, matched)| format!("{node}:{}", shard.last_log_index.saturating_sub(*matched)))
        .collect();
    behind.sort();
    [
        name,
        leader,
        quorum,
        shard.term.to_string(),
        ids(&shard.voters),
        ids(&shard.learners),
        shard.last_log_index.to_string(),
        shard.committed_index.to_string(),
        shard.applied_index.to_string(),
        shard.snapshot_index.to_string(),
        if behind.is_empty() { "-".into() } else { behind.join(" ") },
        if shard.preferred_site.is_empty() { "-".into() } else { shard.preferred_site.clone() },
        shard.expected_commit.as_ref().map_or_else(|| "-".into(), |it| network(it, shard.leader_node_id)),
    ]
}

/// What the network makes commits take, and who would make it less.
fn network(expected: &ExpectedCommit, leader: u64) -> String {
    let millis = |micros: u64| format!("{:.1} ms", micros as f64 / 1e3);
    let here = millis(expected.here_us);
    if expected.best_node_id == leader {
        return here;
    }
    format!("{here} (node {}: {})", expected.best_node_id, millis(expected.best_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_quorum_stands_out() {
        let shard = ShardStatus { shard: 1, leader_node_id: 2, quorum_age_ms: 900, ..Default::default() };
        let text = status(&GetStatusResponse {
            cluster_id: "c".into(),
            node_id: 1,
            shards: vec![shard],
            version: "0".into(),
        });
        assert!(text.contains("NO, 900 ms"), "{text}");
        assert!(text.contains("node 2"));
    }

    #[test]
    fn a_leader_that_belongs_elsewhere_shows_where_and_what_it_costs() {
        let expected = ExpectedCommit { here_us: 61_250, best_us: 20_000, best_node_id: 3 };
        assert_eq!(network(&expected, 1), "61.2 ms (node 3: 20.0 ms)");
        assert_eq!(network(&expected, 3), "61.2 ms");
        let shard = ShardStatus { preferred_site: "athens".into(), ..Default::default() };
        assert_eq!(row(&shard)[10..], ["-", "athens", "-"]);
    }

    #[test]
    fn the_cost_of_an_eviction_is_said_and_a_connected_gateway_stands_out() {
        let gone = RegisteredGateway {
            gateway_id: vec![0xab; 16].into(),
            groups: 7,
            holds_back: 3,
            connected: false,
        };
        let text = gateways(std::slice::from_ref(&gone));
        assert!(text.contains(&"ab".repeat(16)) && text.contains("NO"), "{text}");
        let cost = cost_of_eviction(&gone);
        assert!(
            cost.contains("7 groups") && cost.contains("3 of them") && cost.contains("comes late"),
            "{cost}"
        );
        let here = RegisteredGateway { connected: true, ..gone };
        assert!(cost_of_eviction(&here).contains("CONNECTED"));
    }

    #[test]
    fn every_member_is_shown_once_with_what_it_does() {
        let node = |node_id| NodeAddress {
            node_id,
            peer_address: format!("n{node_id}:7200"),
            address: format!("n{node_id}:7100"),
            site: if node_id == 2 { "east".into() } else { String::new() },
        };
        let shard = |shard| ShardStatus {
            shard,
            leader_node_id: 2,
            voters: vec![node(1), node(2)],
            learners: vec![node(3)],
            ..Default::default()
        };
        let status = GetStatusResponse {
            cluster_id: "c".into(),
            shards: vec![shard(0), shard(1)],
            ..Default::default()
        };
        let text = super::status(&status);
        let line = |start: &str| {
            let found = text.lines().find(|line| line.starts_with(start));
            found.unwrap_or_default().split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(line("2 "), ["2", "east", "2", "0", "2", "n2:7200", "n2:7100"], "{text}");
        assert_eq!(line("3 "), ["3", "-", "0", "2", "0", "n3:7200", "n3:7100"], "{text}");
    }

    #[test]
    fn a_node_without_a_cluster_says_what_to_do() {
        assert!(status(&GetStatusResponse::default()).contains("bootstrap"));
    }
}
