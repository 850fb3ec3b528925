//! Group ids, client ids and message bytes are in no log and in no metric, however far the log's filter is opened and whatever becomes of
//! what carries them.

#![allow(clippy::unwrap_used, unreachable_pub)] // A panic in a test is its report; what files share is public.

mod paths;
mod world;

use std::{
    fs,
    path::{Path, PathBuf},
};

use testbed::{limits::STOP_DEADLINE, secrets::Secrets};

use crate::world::{People, World};

/// What processes have printed, and the logs that RocksDB keeps beside the data.
fn logs(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            found.extend(logs(&path));
        } else if name.starts_with("LOG") || path.parent() == Some(dir) && name.ends_with(".log") {
            found.push(path);
        }
    }
    // The write-ahead logs are data.
    found.retain(|path| {
        !path.file_stem().is_some_and(|stem| stem.as_encoded_bytes().iter().all(u8::is_ascii_digit))
    });
    found
}

/// What is stored below `dir`, one after another, without the room that files have reserved.
fn data(dir: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut more = if path.is_dir() { data(&path) } else { fs::read(&path).unwrap() };
        more.truncate(more.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
        bytes.append(&mut more);
    }
    bytes
}

fn assert_none(secrets: &Secrets, place: &str, text: &[u8]) {
    let found = secrets.find(text);
    assert!(found.is_empty(), "{place} shows what it must not: {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_groups_and_clients_are_called_and_say_is_in_no_log_and_no_metric() {
    let world = World::start().await;
    let mut secrets = Secrets::new();
    world.add_names(&mut secrets);
    let people = People::of(&world);
    paths::ordered_group(&world, &people, &mut secrets).await;
    paths::key_packages_and_welcomes(&world, &people, &mut secrets).await;
    paths::refusals(&world, &mut secrets).await;
    paths::junk(&world, &mut secrets).await;
    paths::dimls_group(&world, &mut secrets).await;
    paths::branches(&world, &people, &mut secrets).await;
    people.leave().await;
    let scrapes = world.metrics().await;
    // What is read back from the disk, and said about connections that were lost.
    for service in world.services() {
        service.restart().await;
    }
    paths::after_the_restart(&world).await;
    let scrapes = [scrapes, world.metrics().await].concat();

    assert!(secrets.pieces() > 200, "{} pieces are looked for", secrets.pieces());
    for (name, text) in &scrapes {
        assert!(text.contains("concordat_"), "{name}: {text}");
        assert_none(&secrets, &format!("/metrics of {name}"), text.as_bytes());
    }
    for service in world.services() {
        service.stop(STOP_DEADLINE).await;
    }
    let dir = world.cluster.dir();
    let logs = logs(&dir);
    let mut printed = String::new();
    for path in &logs {
        let text = fs::read(path).unwrap();
        eprintln!("secrecy: {} has {} KiB", path.strip_prefix(&dir).unwrap().display(), text.len() / 1024);
        assert_none(&secrets, &path.display().to_string(), &text);
        printed.push_str(&String::from_utf8_lossy(&text));
    }

    // The controls: everything was printed that may be, and what was looked for is what went over the wires, since it is on the disks.
    assert!(
        logs.len() >= 6 + 3 + 3,
        "the logs of six processes, of three nodes' and three gateways' data: {logs:?}"
    );
    for target in ["ordering_service::", "mls_gateway::", "openraft::"] {
        let is_shown =
            |line: &str| line.contains(target) && ["DEBUG", "TRACE"].iter().any(|l| line.contains(l));
        assert!(printed.lines().any(is_shown), "the filter was not open for {target}");
    }
    let stored: Vec<u8> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|path| data(&path))
        .collect();
    let on_disk = secrets.find(&stored);
    for what in [
        "the id of an ordered group",
        "the id of a DeMLS group",
        "the id of a DiMLS group",
        "the name of ann",
        "the commit of an ordered group",
        "the application message of an ordered group",
        "a Welcome",
        "a KeyPackage",
        "the commit of a branch",
        "a DiMLS item",
    ] {
        assert!(on_disk.iter().any(|found| found.what == what), "{what} is on no disk: {on_disk:?}");
    }
    world.end();
}

#[test]
fn what_is_searched_for_is_found_where_it_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("node-1")).unwrap();
    let (id, bytes) = (b"engineers-0123456789abcdef", [0x5a, 1, 2, 3, 250, 251, 252, 253, 254, 255, 9, 8, 7]);
    let mut secrets = Secrets::new();
    secrets.add("id", id);
    secrets.add("bytes", &bytes);
    let line = format!("2026-01-01T00:00:00Z DEBUG h2: frame={bytes:?}\n");
    fs::write(dir.path().join("node-1.log"), line).unwrap();
    fs::write(
        dir.path().join("node-1").join("LOG"),
        format!("compaction from '{}'\n", hex::encode_upper(id)),
    )
    .unwrap();
    fs::write(dir.path().join("node-1").join("000004.log"), id).unwrap();
    let found: Vec<_> =
        logs(dir.path()).iter().map(|path| secrets.find(&fs::read(path).unwrap()).len()).collect();
    assert_eq!(found, [1, 1], "both logs, and not the data");
}
