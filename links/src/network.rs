//! All links between a set of sites, and the thread that drives them.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, TcpListener as StdListener},
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    connection::{Route, round_trip},
    direction::{Cut, Direction},
    limits::{ACCEPT_BACKOFF, CONNECTIONS_MAX, DELAY_MAX, SITES_MAX},
    quality::Quality,
};

/// Higher than everybody else's, so that a busy machine does not make the links longer than they are.
const NICENESS: i32 = -15;

/// What was asked of the links cannot be done.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No site has that name.
    #[error("there is no site `{name}`; the sites are {}", .sites.join(", "))]
    UnknownSite {
        /// As asked for.
        name: String,
        /// Those that there are.
        sites: Vec<String>,
    },
    /// There is no link from a site to itself.
    #[error("site `{0}` is not linked to itself: its processes reach one another directly")]
    SameSite(String),
    /// The sites cannot be used.
    #[error("expected 1 to {SITES_MAX} sites with different names, got {0}")]
    Sites(String),
    /// A delay or jitter that nobody can have meant.
    #[error("a link's delay and jitter are at most {DELAY_MAX:?} each, got {0:?}")]
    TooLong(Duration),
    /// The operating system does not play along.
    #[error("cannot open a link: {0}")]
    Io(#[from] io::Error),
}

/// All links between a set of sites. They end when this is dropped.
#[derive(Debug)]
pub struct Links {
    sites: Vec<String>,
    /// From, to: all pairs of different sites.
    directions: BTreeMap<(usize, usize), Arc<Direction>>,
    /// The local address of every route that is open.
    open: Mutex<BTreeMap<(usize, usize, String), String>>,
    runtime: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Links {
    /// Links between all `sites`, without delay and whole. The same seed draws the same jitter.
    pub fn start(sites: impl IntoIterator<Item = impl Into<String>>, seed: u64) -> Result<Self, LinkError> {
        let sites: Vec<String> = sites.into_iter().map(Into::into).collect();
        let distinct: std::collections::BTreeSet<_> = sites.iter().collect();
        if sites.is_empty() || sites.len() > SITES_MAX || distinct.len() < sites.len() {
            return Err(LinkError::Sites(format!("{sites:?}")));
        }
        let pairs = (0..sites.len()).flat_map(|from| (0..sites.len()).map(move |to| (from, to)));
        let directions = pairs
            .filter(|(from, to)| from != to)
            .zip(0..)
            .map(|(pair, number)| (pair, Arc::new(Direction::new(seed, number))))
            .collect();
        let stop = CancellationToken::new();
        let (runtime, thread) = drive(stop.clone())?;
        Ok(Self { sites, directions, open: Mutex::default(), runtime, stop, thread: Some(thread) })
    }

    /// The names of the sites.
    pub fn sites(&self) -> &[String] {
        &self.sites
    }

    /// A local address (host:port) over which a process at site `from` reaches `target` (host:port) at site `to`. The same for the
    /// same question.
    pub fn open(&self, from: &str, to: &str, target: &str) -> Result<String, LinkError> {
        let (from_site, to_site) = (self.site(from)?, self.site(to)?);
        let (there, back) = (self.direction(from, to)?, self.direction(to, from)?);
        let mut open = self.open.lock();
        let key = (from_site, to_site, target.to_owned());
        if let Some(address) = open.get(&key) {
            return Ok(address.clone());
        }
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?.to_string();
        let route = Route { there: Arc::clone(there), back: Arc::clone(back), target: target.to_owned() };
        self.runtime.spawn(accept(listener, route, self.stop.clone()));
        open.insert(key, address.clone());
        Ok(address)
    }

    /// Changes what the direction `from` → `to` is like, from the next piece of data on.
    pub fn set(&self, from: &str, to: &str, quality: Quality) -> Result<(), LinkError> {
        if let Some(long) = [quality.delay, quality.jitter].into_iter().find(|d| *d > DELAY_MAX) {
            return Err(LinkError::TooLong(long));
        }
        self.direction(from, to)?.set_quality(quality);
        Ok(())
    }

    /// The same for both directions between two sites.
    pub fn set_both(&self, a: &str, b: &str, quality: Quality) -> Result<(), LinkError> {
        self.set(a, b, quality)?;
        self.set(b, a, quality)
    }

    /// Cuts the direction `from` → `to`. The other direction stays as it is.
    pub fn cut(&self, from: &str, to: &str, cut: Cut) -> Result<(), LinkError> {
        self.direction(from, to)?.cut(cut);
        Ok(())
    }

    /// Cuts both directions between two sites.
    pub fn cut_both(&self, a: &str, b: &str, cut: Cut) -> Result<(), LinkError> {
        self.cut(a, b, cut)?;
        self.cut(b, a, cut)
    }

    /// Cuts a site off from all others, in both directions. What lies between those stays as it is.
    pub fn isolate(&self, site: &str, cut: Cut) -> Result<(), LinkError> {
        self.site(site)?;
        self.sites.iter().filter(|other| *other != site).try_for_each(|other| self.cut_both(site, other, cut))
    }

    /// Opens the direction `from` → `to` again.
    pub fn heal(&self, from: &str, to: &str) -> Result<(), LinkError> {
        self.direction(from, to)?.heal();
        Ok(())
    }

    /// Opens both directions between two sites again.
    pub fn heal_both(&self, a: &str, b: &str) -> Result<(), LinkError> {
        self.heal(a, b)?;
        self.heal(b, a)
    }

    /// Opens everything again.
    pub fn heal_all(&self) {
        self.directions.values().for_each(|direction| direction.heal());
    }

    /// Cuts the network into `parts`: links within a part are open, all others are cut. Sites that no part names are alone.
    pub fn split(&self, parts: &[&[&str]], cut: Cut) -> Result<(), LinkError> {
        // A site alone is a part of its own.
        let mut part: Vec<usize> = (0..self.sites.len()).map(|site| parts.len() + site).collect();
        for (number, names) in parts.iter().enumerate() {
            for name in *names {
                part[self.site(name)?] = number;
            }
        }
        for ((from, to), direction) in &self.directions {
            if part[*from] == part[*to] {
                direction.heal();
            } else if !direction.is_cut() {
                direction.cut(cut);
            }
        }
        Ok(())
    }

    /// Whether the direction `from` → `to` is cut.
    pub fn is_cut(&self, from: &str, to: &str) -> Result<bool, LinkError> {
        Ok(self.direction(from, to)?.is_cut())
    }

    /// Bytes that have arrived in the direction `from` → `to`, without headers.
    pub fn bytes(&self, from: &str, to: &str) -> Result<u64, LinkError> {
        Ok(self.direction(from, to)?.arrived())
    }

    /// Bytes that have arrived over all links.
    pub fn all_bytes(&self) -> u64 {
        self.directions.values().map(|direction| direction.arrived()).sum()
    }

    /// The configured delay there and back. Nothing within a site.
    pub fn round_trip(&self, a: &str, b: &str) -> Result<Duration, LinkError> {
        if self.site(a)? == self.site(b)? {
            return Ok(Duration::ZERO);
        }
        Ok(round_trip(self.direction(a, b)?, self.direction(b, a)?))
    }

    fn site(&self, name: &str) -> Result<usize, LinkError> {
        self.sites
            .iter()
            .position(|site| site == name)
            .ok_or_else(|| LinkError::UnknownSite { name: name.to_owned(), sites: self.sites.clone() })
    }

    fn direction(&self, from: &str, to: &str) -> Result<&Arc<Direction>, LinkError> {
        let pair = (self.site(from)?, self.site(to)?);
        self.directions.get(&pair).ok_or_else(|| LinkError::SameSite(from.to_owned()))
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported when it happened.
            let _ = thread.join();
        }
    }
}

/// Starts the thread that drives all links. It has a runtime of its own, so that nobody else's work delays it.
fn drive(stop: CancellationToken) -> io::Result<(Handle, JoinHandle<()>)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Look at the sockets and timers often, also when there is much to carry.
        .event_interval(8)
        .build()?;
    let handle = runtime.handle().clone();
    let (started, start) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("links".into()).spawn(move || {
        // Concerns this thread alone. Without the privilege the links are as exact as the machine is idle.
        if let Err(error) = rustix::process::nice(NICENESS) {
            tracing::debug!(%error, "the links run with ordinary priority");
        }
        let _ = started.send(());
        runtime.block_on(stop.cancelled());
        runtime.shutdown_background();
    })?;
    let _ = start.recv();
    Ok((handle, thread))
}

async fn accept(listener: StdListener, route: Route, stop: CancellationToken) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a link cannot be served"),
    };
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((caller, _)) => {
                // Fails only on a connection that is dead already.
                let _ = caller.set_nodelay(true);
                let route = route.clone();
                connections.spawn(async move {
                    route.serve(caller).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a link cannot accept connections; raise the limit of open files");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}
