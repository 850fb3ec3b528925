//! What the figures were taken on.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde::Serialize;

use crate::{limits::DISK_SAMPLES, wake};

/// The machine.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_bytes: u64,
    pub(crate) kernel: String,
    pub(crate) operating_system: String,
    /// Of the folder that holds the servers' data.
    pub(crate) file_system: String,
    pub(crate) disk: Disk,
    /// From waking a thread to its running on another core, in microseconds: median. None if there is one core.
    pub(crate) wake_p50_us: Option<f64>,
}

/// What a sync costs on the disk that holds the data, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Disk {
    /// fdatasync after 1 KiB was added to the end of a file: median.
    pub(crate) append_p50_us: f64,
    /// The same, 99th percentile.
    pub(crate) append_p99_us: f64,
    /// fdatasync after 1 KiB was written over what was there: median.
    pub(crate) overwrite_p50_us: f64,
}

impl Disk {
    /// [`Disk::append_p50_us`] as a duration.
    pub(crate) fn append_p50(&self) -> Duration {
        Duration::from_secs_f64(self.append_p50_us / 1e6)
    }
}

impl Machine {
    /// Looks at the machine and measures the disk below `data`.
    pub(crate) fn look(data: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
        let file_system = file_system(data)?;
        if ["tmpfs", "ramfs"].contains(&file_system.as_str()) {
            let path = data.display();
            bail!("{path} is in memory ({file_system}): choose a folder on a disk with --data-dir");
        }
        Ok(Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: memory_bytes().unwrap_or(0),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            operating_system: operating_system(),
            file_system,
            disk: Disk::measure(data)?,
            wake_p50_us: wake::p50_us()?,
        })
    }
}

impl Disk {
    /// Syncs [`DISK_SAMPLES`] times in each way.
    pub(crate) fn measure(data: &Path) -> anyhow::Result<Self> {
        let path = data.join("disk-probe");
        let file = OpenOptions::new().create(true).truncate(true).write(true).open(&path);
        let file = file.with_context(|| format!("creating {}", path.display()))?;
        let append = sorted(sync_times(&file, |i| i as u64 * 1024)?);
        let overwrite = sorted(sync_times(&file, |i| (i % 64) as u64 * 1024)?);
        fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        let at = |times: &[f64], q: f64| times[((times.len() - 1) as f64 * q) as usize];
        Ok(Self {
            append_p50_us: at(&append, 0.5),
            append_p99_us: at(&append, 0.99),
            overwrite_p50_us: at(&overwrite, 0.5),
        })
    }
}

fn sync_times(file: &File, offset: impl Fn(usize) -> u64) -> anyhow::Result<Vec<f64>> {
    let bytes = [7; 1024];
    (0..DISK_SAMPLES)
        .map(|i| {
            file.write_all_at(&bytes, offset(i))?;
            let begin = Instant::now();
            file.sync_data()?;
            Ok(begin.elapsed().as_secs_f64() * 1e6)
        })
        .collect()
}

fn sorted(mut times: Vec<f64>) -> Vec<f64> {
    times.sort_by(f64::total_cmp);
    times
}

fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_bytes() -> Option<u64> {
    let kib: u64 = field("/proc/meminfo", "MemTotal")?.strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.map_or_else(|| "unknown".into(), |name| name.trim_matches('"').to_owned())
}

/// The type of the file system that holds `path`: of the mount point with the longest name that leads to it.
fn file_system(path: &Path) -> anyhow::Result<String> {
    let path = path.canonicalize().with_context(|| format!("looking at {}", path.display()))?;
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let found = mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(mount, _)| path.starts_with(mount))
        .max_by_key(|(mount, _)| mount.len());
    Ok(found.map_or("unknown", |(_, kind)| kind).to_owned())
}
