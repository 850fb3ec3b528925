//! Certificates of a cluster's processes and of those who call it, from a CA of the cluster's own.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use concordat_certs::{Authority, CertsError, Issued, Lifetime};
use futures::future::{BoxFuture, FutureExt, join_all};
use parking_lot::Mutex;
use service_kit::{
    clock::SystemClock,
    net::tcp_network,
    tls::{Credentials, Files, Role, TlsError, TlsNetwork},
};

use super::Dialer;
use crate::limits::CERTIFICATE_LOOK_INTERVAL;

const DOMAIN: &str = "testbed.concordat";
/// Nothing of a test goes on for so long.
const LIFETIME_DAYS: u32 = 1;

/// There are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// One cannot be made.
    #[error(transparent)]
    Make(#[from] CertsError),
    /// One cannot be used.
    #[error(transparent)]
    Use(#[from] TlsError),
    /// One cannot be written.
    #[error("cannot write certificates: {0}")]
    Write(#[from] io::Error),
}

/// The certificates of a secured cluster. They can be replaced while everything runs.
pub struct Certificates {
    dir: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// The CA that issues.
    authority: Authority,
    /// What everybody trusts (PEM).
    bundle: String,
    /// What was issued, by the name of its files.
    issued: BTreeMap<String, (Role, Vec<String>)>,
    callers: BTreeMap<String, (Credentials, Dialer)>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Certificates {
    /// A new CA, whose certificates go to `dir`.
    pub(super) fn create(dir: PathBuf) -> Result<Arc<Self>, CertificatesError> {
        fs::create_dir_all(&dir)?;
        let authority = Authority::new(DOMAIN, Lifetime::days(LIFETIME_DAYS))?;
        let bundle = authority.certificate().to_owned();
        let state = State { authority, bundle, issued: BTreeMap::new(), callers: BTreeMap::new() };
        Ok(Arc::new(Self { dir, state: Mutex::new(state) }))
    }

    /// Issues a certificate for `role`, reached at `host`, and returns the arguments that name it to a process.
    pub(super) fn arguments(&self, role: Role, host: &str) -> Result<Vec<String>, CertificatesError> {
        let files = self.issue(role, vec![host.to_owned()])?;
        let every = CERTIFICATE_LOOK_INTERVAL.as_secs().to_string();
        let path = |file: &Path| file.display().to_string();
        Ok([
            ("--tls-cert", path(&files.certificate)),
            ("--tls-key", path(&files.key)),
            ("--tls-ca", path(&files.ca)),
            ("--tls-reload-seconds", every),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect())
    }

    /// Issues a certificate to somebody who calls in a process of its own.
    pub fn files(&self, role: Role) -> Result<Files, CertificatesError> {
        self.issue(role, Vec::new())
    }

    /// Whoever has this role, calling. Needs a tokio runtime.
    pub(super) fn dialer(&self, role: &Role) -> Result<Dialer, CertificatesError> {
        let name = name(role);
        if let Some((_, dialer)) = self.state.lock().callers.get(&name) {
            return Ok(dialer.clone());
        }
        let files = self.issue(role.clone(), Vec::new())?;
        let credentials =
            Credentials::load("caller", files, SystemClock::shared(), CERTIFICATE_LOOK_INTERVAL)?;
        let dialer = Dialer::over(TlsNetwork::public_client(tcp_network(), credentials.clone()));
        self.state.lock().callers.insert(name, (credentials, dialer.clone()));
        Ok(dialer)
    }

    /// Makes a new CA, which issues from now on. Both are trusted. Returns when those who call know; processes see it by themselves.
    pub async fn begin_new_authority(&self) -> Result<(), CertificatesError> {
        let known = {
            let mut state = self.state.lock();
            state.authority = Authority::new(DOMAIN, Lifetime::days(LIFETIME_DAYS))?;
            state.bundle = format!("{}{}", state.bundle, state.authority.certificate());
            self.publish(&state)?
        };
        known.await;
        Ok(())
    }

    /// Replaces all certificates by new ones. Returns when those who call have them; processes see it by themselves.
    pub async fn renew(&self, lifetime: Lifetime) -> Result<(), CertificatesError> {
        let known = {
            let state = self.state.lock();
            let known = state.renewals();
            for (name, (role, hosts)) in &state.issued {
                let issued = state.authority.issue(role, hosts, lifetime)?;
                self.write(name, &issued)?;
            }
            known
        };
        known.await;
        Ok(())
    }

    /// From now on only the CA that issues is trusted. Returns when those who call know; processes see it by themselves.
    pub async fn end_old_authorities(&self) -> Result<(), CertificatesError> {
        let known = {
            let mut state = self.state.lock();
            state.bundle = state.authority.certificate().to_owned();
            self.publish(&state)?
        };
        known.await;
        Ok(())
    }

    fn issue(&self, role: Role, hosts: Vec<String>) -> Result<Files, CertificatesError> {
        let mut state = self.state.lock();
        let name = name(&role);
        let issued = state.authority.issue(&role, &hosts, Lifetime::days(LIFETIME_DAYS))?;
        self.write(&name, &issued)?;
        state.issued.insert(name.clone(), (role, hosts));
        replace(&self.bundle(), &state.bundle)?;
        Ok(self.places(&name))
    }

    /// The key first: who reads in between finds a pair that does not fit, and looks again.
    fn write(&self, name: &str, issued: &Issued) -> io::Result<()> {
        let files = self.places(name);
        replace(&files.key, &issued.key)?;
        replace(&files.certificate, &issued.certificate)
    }

    /// What completes when those who call trust whom the state says.
    fn publish(&self, state: &State) -> io::Result<BoxFuture<'static, ()>> {
        let known = state.renewals();
        replace(&self.bundle(), &state.bundle)?;
        Ok(known)
    }

    fn bundle(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    fn places(&self, name: &str) -> Files {
        let path = |ending: &str| self.dir.join(format!("{name}.{ending}"));
        Files { certificate: path("pem"), key: path("key"), ca: self.bundle() }
    }
}

impl State {
    /// Completes when everybody who calls uses other credentials than now.
    fn renewals(&self) -> BoxFuture<'static, ()> {
        let renewals = self.callers.values().map(|(credentials, _)| credentials.renewal());
        join_all(renewals).map(drop).boxed()
    }
}

fn name(role: &Role) -> String {
    role.to_path().replace('/', "-")
}

/// As a whole: who reads meanwhile sees the old file or the new one.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}
