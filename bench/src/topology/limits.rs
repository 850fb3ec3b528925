//! The bounds of the topology benchmark.

use std::time::Duration;

/// Sites of one topology. All their processes run on this machine.
pub(crate) const SITES_MAX: usize = 15;

/// Largest weight of a site.
pub(crate) const MEMBERS_MAX: u32 = 1000;

/// Data shards of a cluster under test.
pub(crate) const DATA_SHARDS: u32 = 2;

/// What a turn is longer than two commits take.
pub(crate) const TURN_SLACK: Duration = Duration::from_millis(50);

/// Members of a group whose turns are measured: a round takes as many turns.
pub(crate) const TURN_MEMBERS_MAX: usize = 16;

/// Where members take turns, the load has this part of the rate: each commit waits for a round at most, in a group of its own.
pub(crate) const TURNS_RATE: f64 = 0.1;

/// Commits before the split, by which a client's storage is measured.
pub(crate) const STORAGE_COMMITS: u32 = 10;

/// Pause between two commits of one member in a split network.
pub(crate) const SPLIT_PAUSE: Duration = Duration::from_millis(100);

/// How long one attempt of a submission may take before the same bytes are sent again.
pub(crate) const ATTEMPT_DEADLINE: Duration = Duration::from_secs(10);

/// The same while links are cut or a leader is dead: what is lost should be noticed soon.
pub(crate) const PROBE_DEADLINE: Duration = Duration::from_secs(1);

/// The same for what is done before a load: groups are created, turns are set.
pub(crate) const SETUP_ATTEMPT: Duration = Duration::from_secs(3);

/// For so long it is tried.
pub(crate) const SETUP_PATIENCE: Duration = Duration::from_secs(30);

/// Pause before a submission is sent again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Time between two probes of one site.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(50);

/// For so long there are probes beside the faults themselves: they come slower than planned while there is no service.
pub(crate) const PROBES_BESIDE: Duration = Duration::from_secs(30);

/// A timer that fires at most so late is the runtime's resolution, and not load that was held up.
pub(crate) const TIMER_RESOLUTION: Duration = Duration::from_millis(2);

/// How long the last deliveries may take after the load has ended.
pub(crate) const DELIVERY_DEADLINE: Duration = Duration::from_secs(20);

/// How long a change of leaders, or service after a fault, may take.
pub(crate) const RECOVERY_DEADLINE: Duration = Duration::from_secs(60);

/// Latencies above this count as this.
pub(crate) const LATENCY_MAX: Duration = Duration::from_secs(120);

/// Groups that are set up at the same time.
pub(crate) const SET_UP_AT_ONCE: usize = 32;

/// Groups of one load.
pub(crate) const GROUPS_MAX: usize = 512;

/// Longest commit that is read back.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// An application message of a group without an order, in bytes before encryption.
pub(crate) const MESSAGE_BYTES: usize = 32;

/// Members of a DGroup that decrypt, at each site, in a group of at most `SMALL_DGROUP` members; in a larger one it is one. All of them run
/// on this machine, and more would show its processor, not the network.
pub(crate) const SESSIONS_AT_SITE: usize = 2;

/// See [`SESSIONS_AT_SITE`].
pub(crate) const SMALL_DGROUP: usize = 16;

/// Items of a DGroup have this part of the rate of commits ...
pub(crate) const ITEMS_RATE: f64 = 0.25;

/// ... or less, if taking them in would use up more than this part of one core.
pub(crate) const ITEMS_CORE: f64 = 0.25;

/// How long the members of a DGroup may take to come together.
pub(crate) const DGROUP_DEADLINE: Duration = Duration::from_secs(180);
