//! A tail that was never synced may be lost. Damage to what was synced is a refusal that names the remedy, never a shorter log.

use std::{
    fs,
    path::{Path, PathBuf},
};

use ordering_service::storage::StorageError;

use crate::support::{SHARD, all, append_stored, apply, crash_copy, entries, history, open, try_open};

fn files(directory: &Path, folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(directory.join(folder))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

/// A node that stored 40 entries, one sync each, and then crashed.
async fn crashed() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let storage = open(directory.path());
    let mut log = storage.shard(SHARD).unwrap().log;
    for index in 0..40 {
        append_stored(&mut log, entries(index..index + 1, 300)).await;
    }
    crash_copy(directory.path())
}

fn newest_log(directory: &Path) -> PathBuf {
    files(directory, "log", "segment").pop().unwrap()
}

/// What was written to the newest segment, without the zeros that are prepared behind it.
fn written(directory: &Path) -> Vec<u8> {
    let mut bytes = fs::read(newest_log(directory)).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    bytes
}

fn assert_corrupt(directory: &Path) {
    let error = try_open(directory).err().expect("damaged data is refused");
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("Remove the node from the cluster") && text.contains("never used"), "{text}");
    assert!(text.contains(&directory.display().to_string()), "{text}");
    // It stays refused.
    assert!(try_open(directory).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_that_was_never_synced_is_cut_off() {
    let crashed = crashed().await;
    let whole = written(crashed.path());
    // What a crash leaves of a write that was under way: its beginning, and zeros or rubbish where data never arrived.
    let torn: [&[u8]; 4] = [&[], &whole[..200], &[0; 900], &[0xa5; 700]];
    for torn in torn {
        let copy = crash_copy(crashed.path());
        let mut bytes = whole.clone();
        bytes.extend_from_slice(torn);
        fs::write(newest_log(copy.path()), bytes).unwrap();
        let storage = open(copy.path());
        let mut log = storage.shard(SHARD).unwrap().log;
        assert_eq!(all(&mut log).await, entries(0..40, 300));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_that_was_synced_is_missed() {
    let crashed = crashed().await;
    for cut in [1, 10, 300, 2000] {
        let copy = crash_copy(crashed.path());
        let path = newest_log(copy.path());
        let whole = written(copy.path());
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        assert_corrupt(copy.path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_anywhere_in_the_synced_log_is_noticed() {
    let crashed = crashed().await;
    let length = written(crashed.path()).len();
    // Every few bytes, so that checksums, lengths, types and contents of records are all hit.
    for at in (0..length).step_by(353).chain(length - 7..length) {
        let copy = crash_copy(crashed.path());
        let path = newest_log(copy.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        assert_corrupt(copy.path());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_log_or_database_or_marker_is_refused() {
    let crashed = crashed().await;
    let copy = crash_copy(crashed.path());
    fs::remove_file(newest_log(copy.path())).unwrap();
    assert_corrupt(copy.path());

    let copy = crash_copy(crashed.path());
    fs::remove_file(copy.path().join("synced")).unwrap();
    assert!(try_open(copy.path()).is_err());

    let copy = crash_copy(crashed.path());
    fs::remove_dir_all(copy.path().join("db")).unwrap();
    assert_corrupt(copy.path());

    for file in ["marker", "synced"] {
        let copy = crash_copy(crashed.path());
        fs::write(copy.path().join(file), b"rubbish").unwrap();
        assert_corrupt(copy.path());
    }
    let copy = crash_copy(crashed.path());
    fs::remove_file(copy.path().join("marker")).unwrap();
    assert_corrupt(copy.path());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_a_table_is_an_error_and_never_a_wrong_answer() {
    let directory = tempfile::tempdir().unwrap();
    let history = history(4, 10, 500);
    {
        let storage = open(directory.path());
        let shard = storage.shard(SHARD).unwrap();
        let (mut log, mut machine) = (shard.log, shard.state_machine);
        append_stored(&mut log, history.clone()).await;
        apply(&mut machine, history.clone()).await;
        // Closing flushes the state.
    }
    let read_all = |path: &Path| -> Result<Vec<_>, StorageError> {
        let storage = try_open(path)?;
        let reader = storage.shard(SHARD)?.reader;
        let mut found = Vec::new();
        for group in 0..4 {
            found.push(reader.entries(format!("group {group}").as_bytes(), 0, 100, usize::MAX)?);
        }
        Ok(found)
    };
    let good = read_all(directory.path()).unwrap();
    assert!(good.iter().all(|entries| entries.len() == 11));

    let tables = files(directory.path(), "db", "sst");
    assert!(!tables.is_empty(), "the state is in a table");
    let mut noticed = 0;
    for table in &tables {
        let length = fs::metadata(table).unwrap().len() as usize;
        for at in (0..length).step_by(length / 12 + 1) {
            let copy = crash_copy(directory.path());
            let path = copy.path().join("db").join(table.file_name().unwrap());
            let mut bytes = fs::read(&path).unwrap();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, bytes).unwrap();
            match read_all(copy.path()) {
                // A bit that nobody needs, in an index or a filter that was not asked.
                Ok(found) => assert_eq!(found, good, "{} at {at}", table.display()),
                Err(error) => {
                    assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
                    noticed += 1;
                }
            }
        }
    }
    assert!(noticed > 0);
}
