//! The bounds of the gateway, each with its unit.

use std::time::Duration;

// --- Submissions ---

/// An encoded command, in bytes: the ordering API takes no more.
pub const COMMAND_BYTES_MAX: usize = 4 * 1024 * 1024;
/// One gRPC message from a client, in bytes: a submission with its Welcome and GroupInfo, or a batch of KeyPackages.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 5 * 1024 * 1024;
/// One gRPC message from an ordering node, in bytes: a page of entries.
pub const CLUSTER_MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a node may send ahead on one stream, in bytes. A window is spent once a round trip, so one that begins small and probes holds up
/// large entries where sites are far apart.
pub const CLUSTER_STREAM_WINDOW: u32 = 8 * 1024 * 1024;
/// The same for all streams of one connection, in bytes.
pub const CLUSTER_CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// How long one submission is retried before its caller is told that it is unavailable.
pub const SUBMIT_DEADLINE: Duration = Duration::from_secs(10);
/// How long one attempt on one node may take before it counts as lost.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(3);
/// Unanswered submissions of one SubmitStream; the stream is not read any further while it has that many.
pub const STREAM_IN_FLIGHT_MAX: usize = 256;
/// Answers of one SubmitStream that wait for a slow client.
pub const STREAM_ANSWERS_MAX: usize = 64;

// --- The pipelined stream to a node ---

/// Submissions in one batch to a node; the ordering API takes no more.
pub const BATCH_SUBMISSIONS_MAX: usize = 1024;
/// Bytes in one batch to a node, unless a single submission is larger.
pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Unanswered submissions on the stream to one node.
pub const NODE_IN_FLIGHT_MAX: usize = 8192;
/// Unanswered submissions of one group at one gateway, so that no group takes the places of the others.
pub const GROUP_IN_FLIGHT_MAX: usize = NODE_IN_FLIGHT_MAX / 4;
/// Bytes of unanswered submissions on the stream to one node.
pub const NODE_IN_FLIGHT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of unanswered submissions of one group at one gateway.
pub const GROUP_IN_FLIGHT_BYTES_MAX: usize = NODE_IN_FLIGHT_BYTES_MAX / 4;
/// Batches that wait for the transport.
pub const NODE_BATCHES_QUEUED_MAX: usize = 4;
/// Nodes that a gateway keeps connections to. Addresses beyond that are not learnt.
pub const NODES_MAX: usize = 64;
/// The shard that holds the directory of groups and KeyPackages.
pub const DIRECTORY_SHARD: u32 = 0;
/// Shards that a gateway believes in: the directory and 64 data shards.
pub const SHARDS_MAX: u32 = 65;

/// First pause before a submission is tried again; doubled each time up to [`RETRY_PAUSE_MAX`].
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(4);
/// Longest pause before a submission is tried again.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_millis(250);
/// Pause before a broken stream to a node is opened again.
pub const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection attempt to a node may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle connection to a node is pinged.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the answer to such a ping may take.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// So often the way to a node is measured when it becomes known, ...
pub const DISTANCE_FIRST: u32 = 3;
/// ... with this pause between, ...
pub const DISTANCE_PAUSE: Duration = Duration::from_millis(20);
/// ... and at this interval afterwards.
pub const DISTANCE_INTERVAL: Duration = Duration::from_secs(10);
/// A node whose round trip is shorter by so much is worth following instead of another.
pub const NEARER_BY: Duration = Duration::from_millis(5);
/// How long one read on one node may take before another node is asked.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the node that is asked for the entries which a log names may lag behind the node that showed the log.
pub const NAMED_ENTRIES_PATIENCE: Duration = Duration::from_secs(2);
/// Pause before it is asked again.
pub const NAMED_ENTRIES_PAUSE: Duration = Duration::from_millis(25);
/// How long a read is tried on all nodes.
pub const READ_DEADLINE: Duration = Duration::from_secs(6);

// --- The quorum ---

/// A node's report of a quorum counts for this long; nodes send one at least every 100 ms.
pub const QUORUM_REPORT_TTL: Duration = Duration::from_millis(1000);
/// So much of the time in which the gateway itself did not get to run, since a quorum last answered, is not counted as silence.
pub const DEAFNESS_EXCUSED_MAX: Duration = Duration::from_millis(250);
/// How often the mode of each shard is looked at.
pub const MODE_TICK: Duration = Duration::from_millis(50);
/// A shard without a quorum for this long is unavailable: submissions fail at once. Until then they wait, because an
/// election usually ends sooner.
pub const SUSPECT_PATIENCE: Duration = Duration::from_secs(3);
/// What a client is told to wait before it tries an unavailable group again.
pub const NO_QUORUM_RETRY_AFTER: Duration = Duration::from_millis(1000);
/// What a client is told to wait before it asks again what became of a submission.
pub const OUTCOME_UNKNOWN_RETRY_AFTER: Duration = Duration::from_millis(250);
/// What a client is told to wait when a bound of the gateway is reached.
pub const OVERLOADED_RETRY_AFTER: Duration = Duration::from_millis(500);

// --- Caches ---

/// Groups whose shard is remembered.
pub const LOCATIONS_MAX: usize = 100_000;
/// Groups whose public state is kept for validation.
pub const PUBLIC_STATES_MAX: usize = 10_000;
/// Bytes of public states kept for validation, as estimated.
pub const PUBLIC_STATES_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Entries that validation reads to bring a public state up to date, before it starts over from the newest GroupInfo.
pub const CATCH_UP_ENTRIES_MAX: u64 = 4096;
/// Entries that validation looks back to find the proposals of the current epoch.
pub const LOOK_BACK_ENTRIES_MAX: u64 = 8192;
/// Entries in one page that validation reads.
pub const CATCH_UP_PAGE: u32 = 256;
/// Inputs of at least this many bytes are validated on a thread of their own.
pub const BLOCKING_VALIDATION_BYTES: usize = 32 * 1024;

/// How long an accepted commit waits to be merged into the public state, before that is left to the log.
pub const MERGE_PATIENCE: Duration = Duration::from_millis(20);

// --- Fan-out ---

/// Bytes of recent entries of all groups together that subscribers share.
pub const RING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of recent entries of one group.
pub const RING_BYTES_PER_GROUP_MAX: usize = 8 * 1024 * 1024;
/// What an entry in a ring counts for beside its payload, in bytes.
pub const RING_ENTRY_OVERHEAD: usize = 256;
/// Entries that one subscriber takes from a ring at a time.
pub const PULL_ENTRIES_MAX: usize = 64;
/// Entries in one page that a subscriber behind the ring reads.
pub const BEHIND_PAGE: u32 = 256;
/// Subscriptions of all clients together.
pub const SUBSCRIPTIONS_MAX: usize = 100_000;
/// Groups that are followed at the same time.
pub const FOLLOWED_GROUPS_MAX: usize = 100_000;
/// Events that wait for a slow subscriber; it pulls no further while it has that many.
pub const SUBSCRIBER_EVENTS_MAX: usize = 32;
/// How long a group is followed after its last subscriber has left.
pub const FOLLOW_LINGER: Duration = Duration::from_secs(30);
/// How often groups without subscribers are looked for.
pub const FOLLOW_SWEEP: Duration = Duration::from_secs(5);
/// How long the followed node may lack an entry that the cluster has accepted, before another node is followed.
pub const FOLLOW_LAG_MAX: Duration = Duration::from_secs(2);
/// A node must have been the nearer one for so long before it is followed instead of another: it may have just come back.
pub const FOLLOW_NEARER_AFTER: Duration = Duration::from_secs(5);
/// Requests to the followed node that wait for the transport.
pub const FOLLOW_REQUESTS_MAX: usize = 1024;
/// How often a node may show a log whose hashes do not fit, before its readers are told.
pub const MISMATCHES_MAX: u32 = 3;
/// Pause before a group that the followed node does not know yet is asked for again.
pub const FOLLOW_RETRY_PAUSE: Duration = Duration::from_millis(100);

// --- DeMLS groups ---

/// Length of a dmls_epoch, in bytes: KDF.Nh of the cipher suites there are.
pub const DMLS_EPOCH_BYTES: std::ops::RangeInclusive<usize> = 32..=64;
/// Leaves of a tree in which members are looked for.
pub const LEAF_INDEX_MAX: u32 = 1 << 16;
/// DeMLS groups that a gateway serves at the same time.
pub const DEMLS_GROUPS_MAX: usize = 20_000;
/// With so many groups the gateway is crowded.
pub const DEMLS_GROUPS_CROWDED: usize = DEMLS_GROUPS_MAX / 10 * 9;
/// A DeMLS group that nobody has used for so long is let go. A client that comes after that needs a quorum first.
pub const DEMLS_IDLE: Duration = Duration::from_secs(24 * 3600);
/// The same while the gateway is crowded.
pub const DEMLS_IDLE_CROWDED: Duration = Duration::from_secs(600);
/// Groups that nobody uses are looked for so often: four times in the time after which they are let go, within these bounds.
pub const DEMLS_SWEEP_MIN: Duration = Duration::from_millis(50);
/// See [`DEMLS_SWEEP_MIN`].
pub const DEMLS_SWEEP_MAX: Duration = Duration::from_secs(60);
/// Entries of the copied log that are kept below the stable one, with their payload. Whoever is further behind reads from the nodes.
pub const LOG_ENTRIES_KEPT: u64 = 4096;
/// Entries that are deleted at a time, at least, unless fewer are kept.
pub const LOG_ENTRIES_PRUNED_MIN: u64 = 256;
/// Groups whose kind is remembered.
pub const KINDS_MAX: usize = 100_000;
/// Payload of one group's branches, in bytes.
pub const BRANCH_BYTES_PER_GROUP_MAX: usize = 256 * 1024 * 1024;
/// Public states of one group that are kept at the same time: the head, and the ends of a few branches.
pub const STATES_PER_GROUP_MAX: usize = 4;
/// States of one group whose members are remembered.
pub const MEMBERS_PER_GROUP_MAX: usize = 32;
/// Commits that are gone through from the nearest GroupInfo to a state.
pub const REPLAY_COMMITS_MAX: usize = 1024;
/// Entries of the log that are looked through for the proposals of one state.
pub const PROPOSAL_SEARCH_ENTRIES_MAX: u64 = 8192;

/// Entries of a followed log that wait to be written.
pub const LOG_QUEUE_ENTRIES_MAX: usize = 4096;
/// Their payload, in bytes.
pub const LOG_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Entries that are written at a time.
pub const LOG_BATCH_ENTRIES: usize = 256;
/// Entries that one subscriber reads from the disk at a time.
pub const SUBSCRIBER_READ_ENTRIES: usize = 64;
/// Payload of such a read, in bytes.
pub const SUBSCRIBER_READ_BYTES: usize = 1024 * 1024;
/// Known branch entries that a subscriber may name.
pub const KNOWN_BRANCH_ENTRIES_MAX: usize = 4096;
/// Branch entries in one request or answer.
pub const BRANCH_IDS_MAX: usize = 1024;
/// Payload of branch entries in one request or answer, in bytes.
pub const BRANCH_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How long a submission waits for the mode to be decided before its client is told to come back.
pub const MODE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the answer to the creation of a DeMLS group waits for the cluster to count on this gateway for it.
pub const REGISTRATION_PATIENCE: Duration = Duration::from_secs(1);
/// How long a submission waits for the state that it was made in to become known here.
pub const PARENT_PATIENCE: Duration = Duration::from_secs(1);
/// What a client is told to wait while branches are brought together.
pub const RECONCILING_RETRY_AFTER: Duration = Duration::from_millis(200);
/// Between two acknowledgements of a group, in which nothing but commits happens.
pub const ACK_PAUSE: Duration = Duration::from_secs(2);
/// Between two acknowledgements of a group whose branches have just been brought together.
pub const ACK_PAUSE_SETTLING: Duration = Duration::from_millis(400);
/// How long after the last sign of a branch that is so: clients do again what they did on the side that lost.
pub const SETTLING: Duration = Duration::from_secs(30);
/// Pause before the cluster is told again what it has not recorded yet.
pub const REPORT_PAUSE: Duration = Duration::from_millis(500);
/// Pause before a registration or an acknowledgement that failed is tried again.
pub const DUTY_PAUSE: Duration = Duration::from_millis(500);

// --- The relay between gateways ---

/// Peers that a gateway is configured with.
pub const RELAY_PEERS_MAX: usize = 64;
/// Links between two gateways that pass something on for one another.
pub const RELAY_HOPS_MAX: u32 = 8;
/// Gateways in one announcement.
pub const RELAY_REACH_MAX: usize = 256;
/// One message between gateways, in bytes.
pub const RELAY_MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How often a gateway says whom it reaches.
pub const RELAY_HEARTBEAT: Duration = Duration::from_millis(100);
/// Silence after which a link counts as cut.
pub const RELAY_SILENCE_MAX: Duration = Duration::from_millis(500);
/// Pause before a peer is dialed again.
pub const RELAY_RECONNECT_PAUSE: Duration = Duration::from_millis(200);
/// How long one request to another gateway may take.
pub const RELAY_REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a command that is passed on may take.
pub const RELAY_FORWARD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long changes are gathered before others are told of them.
pub const RELAY_DIGEST_PAUSE: Duration = Duration::from_millis(20);
/// How often the log is asked for from a gateway that reaches a quorum, while this one reaches none.
pub const RELAY_LOG_PAUSE: Duration = Duration::from_millis(200);
/// Digests in one message.
pub const RELAY_DIGESTS_MAX: usize = 4096;
/// Ids that an asker may name as known.
pub const RELAY_HAVE_MAX: usize = 65_536;
/// How long a sequencer that is not ready yet is waited for before the next one is asked.
pub const SEQUENCER_PATIENCE: Duration = Duration::from_millis(400);
/// Pause before a sequencer that is not ready yet is asked again.
pub const SEQUENCER_PAUSE: Duration = Duration::from_millis(20);
/// How long a second gateway may take to write an entry before the answer names one copy.
pub const SECOND_COPY_PATIENCE: Duration = Duration::from_millis(500);

// --- Clients, KeyPackages, Welcomes ---

/// Entries in one page for a client.
pub const READ_PAGE_MAX: u32 = 1000;
/// Entries in one page for a client that names no number.
pub const READ_PAGE_DEFAULT: u32 = 100;
/// KeyPackages in one upload.
pub const KEY_PACKAGES_PER_UPLOAD_MAX: usize = 100;
/// One KeyPackage, in bytes.
pub const KEY_PACKAGE_BYTES_MAX: usize = 32 * 1024;
/// Length of a claim id, in bytes.
pub const CLAIM_ID_BYTES: usize = 16;
/// Batches of Welcomes that wait for a slow client; it is served by reading from then on.
pub const INBOX_BATCHES_MAX: usize = 16;

// --- Who may do what ---

/// A token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Keys that tokens are checked with.
pub const TOKEN_KEYS_MAX: usize = 64;
/// Tokens that are remembered once they were checked.
pub const TOKENS_REMEMBERED: usize = 65_536;

/// Groups whose members are remembered.
pub const ROSTERS_MAX: usize = 65_536;
/// Members of all remembered groups together.
pub const ROSTER_MEMBERS_MAX: usize = 2_000_000;
/// Clients that are no members of a group, and how far they may read in it.
pub const FAREWELLS_REMEMBERED: usize = 16_384;
/// Entries that are read to find the members of a group that shows no ratchet tree.
pub const ROSTER_LOG_ENTRIES_MAX: u64 = 1_000_000;
/// Entries that are looked at to find the one that removed a client.
pub const FAREWELL_ENTRIES_MAX: u64 = 4096;
/// Bytes of GroupInfos that are kept while that entry is looked for.
pub const FAREWELL_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Clients and groups whose quotas are remembered, each.
pub const QUOTAS_REMEMBERED: usize = 65_536;
/// What a client is told to wait that holds too many streams open.
pub const QUOTA_STREAMS_RETRY_AFTER: Duration = Duration::from_secs(5);
/// What a client is told to wait whose group has too many submissions under way.
pub const QUOTA_IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_millis(250);

// --- The process ---

/// How long calls under way may take to end when the process stops.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(10);
/// Streams of one connection.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 10_000;
