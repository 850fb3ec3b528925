//! The processes of other systems, and what any process costs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context;
use serde::Serialize;

use crate::limits::LOG_TAIL_LINES;

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a process that writes everything it says into `log`.
    pub(crate) fn start(binary: &Path, args: &[String], log: PathBuf) -> anyhow::Result<Self> {
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let child = Command::new(binary)
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        Ok(Self { child, log })
    }

    /// Its id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The end of what it said.
    pub(crate) fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Errors mean that it is gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the first line of `binary args` says.
pub(crate) fn version(binary: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output =
        Command::new(binary).args(args).output().with_context(|| format!("running {}", binary.display()))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

/// Processor time that processes have used, in user and kernel mode together.
pub(crate) fn cpu_time(ids: &[u32]) -> Duration {
    ids.iter().filter_map(|id| cpu_of(*id)).sum()
}

/// See proc_pid_stat(5): times are in ticks of 10 ms on Linux, whatever the kernel's own clock.
fn cpu_of(id: u32) -> Option<Duration> {
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may contain anything; what follows is separated by single spaces.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = |at: usize| fields.get(at)?.parse::<u32>().ok();
    Some(TICK * (ticks(11)? + ticks(12)?))
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Memory {
    /// Pages in memory.
    pub(crate) resident: u64,
    /// Of them, those that are backed by no file: what the process allocated.
    pub(crate) anonymous: u64,
}

/// What a process has in memory now.
pub(crate) fn memory(id: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{id}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let bytes = |name: &str| -> anyhow::Result<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|rest| rest.trim_start_matches(':').trim().strip_suffix(" kB"));
        let kib: u64 = kib.with_context(|| format!("{path} has no {name}"))?.trim().parse()?;
        Ok(kib * 1024)
    };
    Ok(Memory { resident: bytes("VmRSS")?, anonymous: bytes("RssAnon")? })
}

/// Bytes of all files below a folder.
pub(crate) fn disk_usage(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_usage(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_time() {
        let id = std::process::id();
        let memory = memory(id).unwrap();
        assert!(memory.resident >= memory.anonymous && memory.anonymous > 0);
        assert!(cpu_of(id).is_some());
        assert!(cpu_of(u32::MAX).is_none());
    }
}
