//! One service as an operating system process.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    http,
    limits::{LOG_TAIL_LINES, READY_DEADLINE},
    scrape::Metrics,
    wait::{Timeout, eventually},
};

/// A signal that a test sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Ask the process to end in order.
    Term,
    /// Freeze the process where it is.
    Stop,
    /// Let a frozen process go on.
    Cont,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Self::Term => "TERM",
            Self::Stop => "STOP",
            Self::Cont => "CONT",
        }
    }
}

/// A process did not do what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It could not be started or signalled.
    #[error("{name}: {source}")]
    Io {
        /// The service.
        name: String,
        /// The cause.
        source: io::Error,
    },
    /// It ended although it should run.
    #[error("{name} ended with {status} instead of becoming ready; the end of its log:\n{log}")]
    Ended {
        /// The service.
        name: String,
        /// Its exit status.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// It took too long.
    #[error("{name}: {timeout} ({last}); the end of its log:\n{log}")]
    Slow {
        /// The service.
        name: String,
        /// What was waited for.
        timeout: Timeout,
        /// What it answered last.
        last: String,
        /// The end of its log.
        log: String,
    },
    /// It is not running, or it is running already.
    #[error("{name} is {state}")]
    State {
        /// The service.
        name: String,
        /// What it is doing.
        state: &'static str,
    },
}

/// How to start a service.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Name in messages and of the log file.
    pub(crate) name: String,
    pub(crate) binary: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) log: PathBuf,
    /// host:port of its admin HTTP server.
    pub(crate) admin: String,
}

/// One service process that can be killed and started again with the same data. It is killed when this is dropped.
#[derive(Debug)]
pub struct Service {
    spec: Mutex<Spec>,
    child: Mutex<Option<Child>>,
}

impl Service {
    pub(crate) fn new(spec: Spec) -> Self {
        Self { spec: Mutex::new(spec), child: Mutex::new(None) }
    }

    /// Name in messages.
    pub fn name(&self) -> String {
        self.spec.lock().name.clone()
    }

    /// The file that holds everything it ever printed.
    pub fn log_path(&self) -> PathBuf {
        self.spec.lock().log.clone()
    }

    /// host:port of its admin HTTP server.
    pub fn admin_address(&self) -> String {
        self.spec.lock().admin.clone()
    }

    /// Sets an environment variable from the next start on.
    pub fn set_env(&self, key: &str, value: &str) {
        self.spec.lock().env.insert(key.to_owned(), value.to_owned());
    }

    /// Removes an environment variable from the next start on.
    pub fn remove_env(&self, key: &str) {
        self.spec.lock().env.remove(key);
    }

    /// Adds arguments from the next start on.
    pub fn add_args(&self, args: impl IntoIterator<Item = String>) {
        self.spec.lock().args.extend(args);
    }

    /// Starts the process. Does not wait until it is ready.
    pub fn start(&self) -> Result<(), ServiceError> {
        let mut child = self.child.lock();
        if let Some(running) = child.as_mut()
            && matches!(running.try_wait(), Ok(None))
        {
            return Err(ServiceError::State { name: self.name(), state: "running already" });
        }
        let spec = self.spec.lock();
        let spawned = open_log(&spec.log).and_then(|log| {
            Command::new(&spec.binary)
                .args(&spec.args)
                .envs(&spec.env)
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
        });
        *child = Some(spawned.map_err(|source| ServiceError::Io { name: spec.name.clone(), source })?);
        Ok(())
    }

    /// SIGKILL, and returns when the process is gone.
    pub async fn kill(&self) -> Result<(), ServiceError> {
        let mut child = self.child.lock().take().ok_or_else(|| self.state("not running"))?;
        let name = self.name();
        // Waiting blocks, but only for the moment that the kernel needs.
        tokio::task::spawn_blocking(move || child.kill().and_then(|()| child.wait()))
            .await
            .map_err(io::Error::other)
            .and_then(|waited| waited)
            .map_err(|source| ServiceError::Io { name, source })?;
        Ok(())
    }

    /// Sends a signal.
    pub async fn signal(&self, signal: Signal) -> Result<(), ServiceError> {
        let id = self.child.lock().as_ref().map(Child::id).ok_or_else(|| self.state("not running"))?;
        // The shell's own `kill`: this crate sends signals without unsafe code and without another dependency.
        let status = tokio::process::Command::new("sh")
            .args(["-c", &format!("kill -{} {id}", signal.name())])
            .status()
            .await
            .map_err(|source| ServiceError::Io { name: self.name(), source })?;
        if status.success() { Ok(()) } else { Err(self.state("gone already")) }
    }

    /// Waits until the process ends by itself.
    pub async fn ended(&self, deadline: Duration) -> Result<ExitStatus, ServiceError> {
        let ended = eventually("the process to end", deadline, async || self.exit_status()).await;
        ended.map_err(|timeout| self.slow(timeout, "still running".into()))
    }

    /// SIGTERM, and waits until the process has ended.
    pub async fn stop(&self, deadline: Duration) -> Result<ExitStatus, ServiceError> {
        self.signal(Signal::Term).await?;
        self.ended(deadline).await
    }

    /// The process's id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.lock().as_ref().map(Child::id)
    }

    /// Whether the process runs (or is frozen).
    pub fn is_running(&self) -> bool {
        self.child.lock().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The exit status, once the process has ended by itself.
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.child.lock().as_mut().and_then(|child| child.try_wait().ok().flatten())
    }

    /// Waits until `/livez` answers.
    pub async fn wait_live(&self) -> Result<(), ServiceError> {
        self.wait_for("/livez").await
    }

    /// Waits until `/readyz` says yes.
    pub async fn wait_ready(&self) -> Result<(), ServiceError> {
        self.wait_for("/readyz").await
    }

    /// Whether `/readyz` says yes now.
    pub async fn is_ready(&self) -> bool {
        matches!(http::get(&self.admin_address(), "/readyz").await, Ok((200, _)))
    }

    /// Reads `/metrics`.
    pub async fn metrics(&self) -> io::Result<Metrics> {
        Metrics::of(&self.admin_address()).await
    }

    /// Reads `/metrics` as it comes.
    pub async fn metrics_text(&self) -> io::Result<String> {
        http::get(&self.admin_address(), "/metrics").await.map(|(_, text)| text)
    }

    /// The end of what the process printed.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
    }

    async fn wait_for(&self, path: &str) -> Result<(), ServiceError> {
        let address = self.admin_address();
        let last = Mutex::new(String::new());
        let outcome = eventually(path, READY_DEADLINE, async || {
            if let Some(status) = self.exit_status() {
                return Some(Err(status));
            }
            match http::get(&address, path).await {
                Ok((200, _)) => return Some(Ok(())),
                Ok((code, text)) => *last.lock() = format!("last answer {code}: {}", text.trim()),
                Err(error) => *last.lock() = error.to_string(),
            }
            None
        });
        match outcome.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => Err(ServiceError::Ended { name: self.name(), status, log: self.log_tail() }),
            Err(timeout) => Err(self.slow(timeout, last.into_inner())),
        }
    }

    fn slow(&self, timeout: Timeout, last: String) -> ServiceError {
        ServiceError::Slow { name: self.name(), timeout, last, log: self.log_tail() }
    }

    fn state(&self, state: &'static str) -> ServiceError {
        ServiceError::State { name: self.name(), state }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.get_mut().take() {
            // SIGKILL also ends a frozen process. Errors mean that it is gone.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn open_log(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
