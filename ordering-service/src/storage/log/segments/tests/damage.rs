//! A bit that is wrong somewhere is refused or harmless. It is never a wrong row, a shorter log or a forgotten vote.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use proptest::prelude::*;

use super::{Op, Pair, same, segment_files};
use crate::storage::{error::StorageError, log::segments::format::BLOCK_MAGIC};

/// A log with everything in it: several segments, truncations across them, rows that were forgotten, a segment that was rewritten.
static SAMPLE: LazyLock<Pair> = LazyLock::new(|| {
    let mut pair = Pair::new();
    let append = |shard, size| Op::Append { shard, count: 6, size };
    for round in 0..10 {
        for shard in 0..3 {
            pair.run(&append(shard, 120 + 40 * shard as usize));
            pair.run(&Op::Mark { shard, which: round % 3 });
            pair.sync();
        }
        if round % 3 == 2 {
            pair.run(&Op::Truncate { shard: 1, back: 11 });
        }
        if round == 6 {
            for shard in 0..3 {
                pair.run(&Op::Purge { shard, share: 0.7 });
                pair.run(&Op::Forget { shard, every: 1 + u64::from(shard) });
            }
            pair.run(&Op::Reclaim);
        }
    }
    pair.run(&Op::Purge { shard: 0, share: 0.5 });
    pair.run(&Op::Forget { shard: 0, every: 2 });
    pair.sync();
    pair.check();
    assert!(segment_files(pair.directory.path()).len() > 2);
    pair
});

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = vec![directory.join("synced")];
    all.extend(fs::read_dir(directory.join("log")).unwrap().map(|file| file.unwrap().path()));
    all.sort();
    all
}

fn copy(from: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join("log")).unwrap();
    for file in files(from) {
        fs::copy(&file, copy.path().join(file.strip_prefix(from).unwrap())).unwrap();
    }
    copy
}

/// What was written to the newest segment, without the space that is prepared behind it.
fn written(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).unwrap();
    bytes.truncate(SAMPLE.segments().writer.lock().end as usize);
    bytes
}

/// Opens a damaged copy and reads everything. True if the damage was noticed.
fn noticed(copy: &Path) -> bool {
    let read = super::open(copy).and_then(|segments| same(&segments, &SAMPLE.memory, &SAMPLE.forgotten));
    match read {
        Ok(()) => false,
        Err(error) => {
            assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");
            assert!(error.to_string().contains(&copy.display().to_string()), "{error}");
            true
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_flipped_bit_anywhere_is_refused_or_harmless(file in any::<prop::sample::Index>(), at in 0.0..1.0f64, bit in 0..8u32) {
        let copy = copy(SAMPLE.directory.path());
        let all = files(copy.path());
        let path = file.get(&all);
        let mut bytes = fs::read(path).unwrap();
        let at = (bytes.len() as f64 * at) as usize;
        bytes[at] ^= 1 << bit;
        fs::write(path, bytes).unwrap();
        noticed(copy.path());
    }

    #[test]
    fn a_file_that_is_cut_is_refused_or_harmless(file in any::<prop::sample::Index>(), keep in 0.0..1.0f64) {
        let copy = copy(SAMPLE.directory.path());
        let all = files(copy.path());
        let path = file.get(&all);
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..(bytes.len() as f64 * keep) as usize]).unwrap();
        noticed(copy.path());
    }
}

/// Where blocks begin in a segment file, and where it ends.
fn block_bounds(bytes: &[u8]) -> Vec<usize> {
    let begins = bytes.windows(BLOCK_MAGIC.len()).enumerate();
    let begins = begins.filter(|(_, window)| *window == BLOCK_MAGIC).map(|(at, _)| at);
    begins.chain([bytes.len()]).collect()
}

#[test]
fn a_segment_that_is_cut_between_two_blocks_is_refused() {
    // What is left is whole in itself: only its end can tell.
    for number in 0..segment_files(SAMPLE.directory.path()).len() {
        let path = segment_files(SAMPLE.directory.path()).remove(number);
        let bounds = block_bounds(&fs::read(path).unwrap());
        for end in &bounds[..bounds.len() - 1] {
            let copy = copy(SAMPLE.directory.path());
            let path = segment_files(copy.path()).remove(number);
            fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(*end as u64).unwrap();
            assert!(noticed(copy.path()), "byte {end} of {}", path.display());
        }
    }
}

#[test]
fn every_byte_of_the_newest_segment_counts() {
    let copy = copy(SAMPLE.directory.path());
    let path = segment_files(copy.path()).pop().unwrap();
    let whole = written(&path);
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x20;
        fs::write(&path, bytes).unwrap();
        assert!(noticed(copy.path()), "byte {at} of {}", whole.len());
        // It stays refused.
        assert!(super::open(copy.path()).is_err());
    }
}

#[test]
fn a_segment_that_is_gone_or_another_disks_is_refused() {
    let count = segment_files(SAMPLE.directory.path()).len();
    let copy_of = |number: usize| {
        let copy = copy(SAMPLE.directory.path());
        let path = segment_files(copy.path()).remove(number);
        (copy, path)
    };
    let (copy, newest) = copy_of(count - 1);
    fs::remove_file(newest).unwrap();
    assert!(noticed(copy.path()));

    let (copy, newest) = copy_of(count - 1);
    fs::copy(&segment_files(SAMPLE.directory.path())[0], newest).unwrap();
    assert!(noticed(copy.path()));

    let (copy, _) = copy_of(0);
    let error = super::SegmentMedium::open(copy.path(), [6; 16], super::SEGMENT).err().unwrap();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error:?}");

    let (copy, _) = copy_of(0);
    fs::remove_file(copy.path().join("synced")).unwrap();
    assert!(matches!(super::open(copy.path()), Err(StorageError::Corrupt { .. })));
    let (copy, _) = copy_of(0);
    fs::remove_dir_all(copy.path().join("log")).unwrap();
    assert!(matches!(super::open(copy.path()), Err(StorageError::Corrupt { .. })));
}

#[test]
fn damage_is_noticed_though_the_evidence_lags() {
    // After a loss of power the mark may be a second old: later blocks know better.
    let copy = copy(SAMPLE.directory.path());
    crate::storage::synced::SyncedMark::create(copy.path()).unwrap();
    let path = segment_files(copy.path()).pop().unwrap();
    let whole = written(&path);
    // All but the last block were synced before it was written.
    for at in (0..whole.len() - 1200).step_by(101) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(noticed(copy.path()), "byte {at} of {}", whole.len());
    }
}
