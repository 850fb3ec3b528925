//! What the command leaves on disk.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use service_kit::tls::Role;

use crate::{Authority, CertsError, Issued, Lifetime, TokenSigner};

const CA: &str = "ca";
const DOMAIN: &str = "domain";
const TOKEN_KEY: &str = "tokens.key";
const TOKEN_PUBLIC: &str = "tokens.pem";

/// What a new folder holds.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The trust domain.
    pub domain: String,
    /// Ordering nodes, numbered from 1.
    pub nodes: u64,
    /// Gateways, numbered from 1.
    pub gateways: u64,
    /// Hosts (DNS names and IP addresses) at which all of them are reached.
    pub hosts: Vec<String>,
    /// How long the certificates are valid, in days.
    pub days: u32,
}

/// A folder with a CA, certificates and a key for tokens.
pub struct Folder {
    dir: PathBuf,
    authority: Authority,
    tokens: TokenSigner,
}

impl Folder {
    /// Makes everything.
    ///
    /// # Errors
    /// There is a CA already, or a file cannot be written.
    pub fn create(dir: &Path, plan: &Plan) -> Result<Self, CertsError> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        if dir.join("ca.pem").exists() {
            return Err(CertsError::Exists(dir.join("ca.pem")));
        }
        let lifetime = Lifetime::days(plan.days);
        let authority = Authority::new(&plan.domain, lifetime)?;
        let folder = Self { dir: dir.to_owned(), authority, tokens: TokenSigner::new()? };
        let ca = Issued {
            certificate: folder.authority.certificate().to_owned(),
            key: folder.authority.key().to_owned(),
        };
        folder.store(CA, &ca)?;
        write(&dir.join(DOMAIN), &format!("{}\n", plan.domain), 0o644)?;
        write(&dir.join(TOKEN_KEY), &folder.tokens.key(), 0o600)?;
        write(&dir.join(TOKEN_PUBLIC), &folder.tokens.public_key(), 0o644)?;
        for id in 1..=plan.nodes {
            folder.issue(&Role::Node(Some(id)), &plan.hosts, lifetime)?;
        }
        for id in 1..=plan.gateways {
            folder.issue(&Role::Gateway(id.to_string()), &plan.hosts, lifetime)?;
        }
        folder.issue(&Role::Operator("1".into()), &[], lifetime)?;
        Ok(folder)
    }

    /// Opens what [`Folder::create`] made.
    ///
    /// # Errors
    /// A file is missing or not what it has to be.
    pub fn open(dir: &Path) -> Result<Self, CertsError> {
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read_to_string(&path).map_err(at(&path))
        };
        let ca = Issued { certificate: read("ca.pem")?, key: read("ca.key")? };
        let authority = Authority::load(read(DOMAIN)?.trim(), ca)?;
        Ok(Self { dir: dir.to_owned(), authority, tokens: TokenSigner::load(&read(TOKEN_KEY)?)? })
    }

    /// Issues one more certificate, or a new one in place of an old one. Returns where it is, without the ending.
    ///
    /// # Errors
    /// A host is none, or a file cannot be written.
    pub fn issue(&self, role: &Role, hosts: &[String], lifetime: Lifetime) -> Result<PathBuf, CertsError> {
        let name = role.to_path().replace('/', "-");
        self.store(&name, &self.authority.issue(role, hosts, lifetime)?)?;
        Ok(self.dir.join(name))
    }

    /// Signs tokens.
    pub fn tokens(&self) -> &TokenSigner {
        &self.tokens
    }

    fn store(&self, name: &str, issued: &Issued) -> Result<(), CertsError> {
        write(&self.dir.join(format!("{name}.key")), &issued.key, 0o600)?;
        write(&self.dir.join(format!("{name}.pem")), &issued.certificate, 0o644)
    }
}

/// Replaces a file as a whole: a process that reads it meanwhile sees the old one or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // Left over from a run that was interrupted; it may have another mode.
    let _ = fs::remove_file(&new);
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new).map_err(at(&new))?;
    file.write_all(text.as_bytes()).map_err(at(&new))?;
    file.sync_all().map_err(at(&new))?;
    fs::rename(&new, path).map_err(at(path))
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> CertsError {
    let path = path.to_owned();
    move |source| CertsError::File { path: path.clone(), source }
}
