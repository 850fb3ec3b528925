//! The bounds of the mesh, each with its unit.

use std::time::Duration;

/// DGroups that one gateway keeps. Beyond that new ones are refused.
pub const DGROUPS_MAX: u64 = 10_000;
/// An encoded setup, in bytes.
pub const SETUP_BYTES_MAX: usize = 64 * 1024;
/// What one stream may take up, in bytes of its items, unless configured otherwise. Beyond that its oldest items are dropped.
pub const STREAM_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What all streams together may take up, in bytes, unless configured otherwise. Beyond that the largest stream loses its oldest items.
pub const TOTAL_BYTES_MAX: u64 = 8 * 1024 * 1024 * 1024;
/// What an item counts for beside its messages, in bytes.
pub const ITEM_OVERHEAD_BYTES: u64 = 256;
/// Items in front of which others are missing that are kept of one stream.
pub const AHEAD_MAX: u64 = 1024;
/// Items read from the disk at once.
pub const PAGE_ITEMS: usize = 256;
/// Bytes of items read from the disk at once, unless one item is larger.
pub const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Items stored in one transaction.
pub const STORE_BATCH_ITEMS: usize = 256;
/// Bytes of items stored in one transaction, unless one item is larger.
pub const STORE_BATCH_BYTES: usize = 4 * 1024 * 1024;
/// Events that wait for a slow reader.
pub const EVENTS_MAX: usize = 64;
/// Items that go to watching gateways with the news of them. What has been pushed out by later ones is fetched.
pub const RECENT_ITEMS: usize = 256;
/// Bytes of those.
pub const RECENT_BYTES: usize = 1024 * 1024;
/// States of streams in one answer to a watcher.
pub const WATCH_PAGE: usize = 1000;
/// Ranges in one fetch.
pub const RANGES_MAX: usize = 1000;
/// DGroups in one answer to a client.
pub const LISTED_MAX: usize = 1000;
/// Other gateways that one gateway pulls from.
pub const PEERS_MAX: usize = 256;
/// Shortest and longest pause before a lost link is tried again.
pub const LINK_PAUSE: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(1);
/// How long a fetch may give nothing before the link counts as lost.
pub const FETCH_SILENCE: Duration = Duration::from_secs(10);
/// How long items that one gateway has dropped are waited for, in case another one still has them.
pub const DROPPED_PATIENCE: Duration = Duration::from_secs(60 * 60);
