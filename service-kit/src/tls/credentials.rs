//! A certificate, its key and the CA, read from files, and read again when these change.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::watch, time::interval};
use tokio_util::task::AbortOnDropHandle;

use super::{
    config::{Configs, build},
    error::TlsError,
    identity::{PeerIdentity, Role},
    metrics,
};
use crate::{clock::SharedClock, limits::CONNECTION_AGE_SECONDS};

/// Where credentials are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate and, after it, its intermediates.
    pub certificate: PathBuf,
    /// The certificate's key.
    pub key: PathBuf,
    /// The CAs whose certificates are taken: several while one replaces another.
    pub ca: PathBuf,
}

/// What the files held.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
    pub(super) ca: Vec<u8>,
}

/// Credentials in use. Clones share them, and so see the newest.
#[derive(Clone)]
pub struct Credentials {
    current: watch::Receiver<Arc<Configs>>,
    clock: SharedClock,
    connection_age: Duration,
    _reload: Arc<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.current.borrow().identity)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads the files, and from now on looks every `every` whether they have changed. What replaces them must hold by itself and
    /// stand for the same identity; otherwise the old credentials stay, and log and metric say so. Needs a tokio runtime.
    ///
    /// `usage` is the metrics' label: `internal` or `public`.
    ///
    /// # Errors
    /// The files are not usable now.
    pub fn load(
        usage: &'static str,
        files: Files,
        clock: SharedClock,
        every: Duration,
    ) -> Result<Self, TlsError> {
        let contents = files.read()?;
        let configs = build(&files, &contents, clock.now_ms())?;
        metrics::begin(usage);
        metrics::expiry(usage, configs.expires_at);
        let (publish, current) = watch::channel(Arc::new(configs));
        let reloader = Reloader { usage, files, clock: Arc::clone(&clock), seen: contents, publish };
        let task = AbortOnDropHandle::new(tokio::spawn(reloader.run(every)));
        let connection_age = Duration::from_secs(CONNECTION_AGE_SECONDS);
        Ok(Self { current, clock, connection_age, _reload: Arc::new(task) })
    }

    /// The same, for connections that are to be made anew after `age`.
    #[must_use]
    pub fn with_connection_age(self, age: Duration) -> Self {
        Self { connection_age: age, ..self }
    }

    pub(super) fn connection_age(&self) -> Duration {
        self.connection_age
    }

    /// How long it is until `expires_at`, in seconds since 1970. Nothing if that is over.
    pub(super) fn left(&self, expires_at: u64) -> Duration {
        Duration::from_millis(expires_at.saturating_mul(1000).saturating_sub(self.clock.now_ms()))
    }

    /// Whom the certificate stands for, if it names somebody.
    pub fn identity(&self) -> Option<PeerIdentity> {
        self.current.borrow().identity.clone()
    }

    /// Fails unless the certificate stands for a role that `fits`; `expected` says which.
    ///
    /// # Errors
    /// It stands for somebody else, or for nobody.
    pub fn require(
        &self,
        path: &Path,
        expected: &str,
        fits: impl Fn(&Role) -> bool,
    ) -> Result<PeerIdentity, TlsError> {
        let identity = self.identity();
        let got = identity.as_ref().map_or_else(|| "nobody".to_owned(), |i| i.role.to_string());
        identity.filter(|i| fits(&i.role)).ok_or_else(|| TlsError::WrongIdentity {
            path: path.to_owned(),
            expected: expected.to_owned(),
            got,
        })
    }

    /// Completes when other credentials are in use than at the time of this call.
    pub fn renewal(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut current = self.current.clone();
        current.mark_unchanged();
        async move {
            // Fails only when nobody looks for new ones any more, and then there are none.
            let _ = current.changed().await;
        }
    }

    pub(super) fn now(&self) -> Arc<Configs> {
        Arc::clone(&self.current.borrow())
    }
}

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        let read = |what, path: &PathBuf| {
            std::fs::read(path).map_err(|source| TlsError::Read { what, path: path.clone(), source })
        };
        Ok(Contents {
            certificate: read("certificate", &self.certificate)?,
            key: read("key", &self.key)?,
            ca: read("CA file", &self.ca)?,
        })
    }
}

struct Reloader {
    usage: &'static str,
    files: Files,
    clock: SharedClock,
    /// What was looked at last, good or bad.
    seen: Contents,
    publish: watch::Sender<Arc<Configs>>,
}

impl Reloader {
    async fn run(mut self, every: Duration) {
        let mut ticks = interval(every);
        ticks.tick().await;
        loop {
            ticks.tick().await;
            match self.reload() {
                Ok(false) => {}
                Ok(true) => {
                    metrics::reload(self.usage, "published");
                    tracing::info!(usage = self.usage, "new TLS credentials are in use");
                }
                Err(error) => {
                    metrics::reload(self.usage, "refused");
                    tracing::error!(usage = self.usage, %error, "the old TLS credentials stay in use");
                }
            }
        }
    }

    /// Whether something new was published.
    fn reload(&mut self) -> Result<bool, TlsError> {
        let contents = self.files.read()?;
        if contents == self.seen {
            return Ok(false);
        }
        // Said once for each change, not at every look.
        let built = build(&self.files, &contents, self.clock.now_ms());
        self.seen = contents;
        let configs = built?;
        let before = self.publish.borrow().identity.clone();
        let who =
            |identity: &Option<PeerIdentity>| identity.as_ref().map(|i| (i.domain.clone(), i.role.clone()));
        if who(&before) != who(&configs.identity) {
            let shown = |identity: &Option<PeerIdentity>| {
                identity.as_ref().map_or_else(|| "nobody".into(), PeerIdentity::to_string)
            };
            return Err(TlsError::WrongIdentity {
                path: self.files.certificate.clone(),
                expected: shown(&before),
                got: shown(&configs.identity),
            });
        }
        metrics::expiry(self.usage, configs.expires_at);
        self.publish.send_replace(Arc::new(configs));
        Ok(true)
    }
}
