//! A disk that fails for one process: a small library, compiled on the spot and preloaded, answers its writes and syncs with errors.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::cluster::Node;

const SOURCE: &str = include_str!("shim/disk_faults.c");

/// What the disk does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFault {
    /// `fsync` and `fdatasync` fail with EIO.
    FsyncError,
    /// Writes fail with ENOSPC.
    Full,
}

impl DiskFault {
    fn trigger(self) -> &'static str {
        match self {
            Self::FsyncError => "fsync-error",
            Self::Full => "disk-full",
        }
    }
}

/// Why disks can not be made to fail on this machine.
#[derive(Debug, thiserror::Error)]
#[error("disk faults are not available here: {0}")]
pub struct Unavailable(String);

/// Switches the faults of one node's disk.
#[derive(Debug)]
pub struct DiskFaults {
    triggers: PathBuf,
}

impl DiskFaults {
    /// Prepares `node`, from its next start on. Needs a C compiler and a system that knows `LD_PRELOAD`; `dir` takes the library.
    pub fn prepare(node: &Node, dir: &Path) -> Result<Self, Unavailable> {
        let io = |error: io::Error| Unavailable(error.to_string());
        let library = compile(dir)?;
        let triggers = dir.join(format!("faults-{}", node.id()));
        fs::create_dir_all(&triggers).map_err(io)?;
        fs::create_dir_all(node.data_dir()).map_err(io)?;
        // The library compares with what the kernel says, which knows no symbolic links.
        // With the separator behind it: the node's log file beside the folder stays writable.
        let prefix = node.data_dir().canonicalize().map_err(io)?.join("");
        node.service().set_env("LD_PRELOAD", &library.to_string_lossy());
        node.service().set_env("CONCORDAT_FAULT_DIR", &triggers.to_string_lossy());
        node.service().set_env("CONCORDAT_FAULT_PREFIX", &prefix.to_string_lossy());
        Ok(Self { triggers })
    }

    /// The fault begins.
    pub fn begin(&self, fault: DiskFault) -> io::Result<()> {
        fs::write(self.triggers.join(fault.trigger()), b"")
    }

    /// The fault ends.
    pub fn end(&self, fault: DiskFault) -> io::Result<()> {
        fs::remove_file(self.triggers.join(fault.trigger()))
    }
}

fn compile(dir: &Path) -> Result<PathBuf, Unavailable> {
    if !cfg!(target_os = "linux") {
        return Err(Unavailable("they need Linux".into()));
    }
    let (source, library) = (dir.join("disk_faults.c"), dir.join("libdisk_faults.so"));
    fs::write(&source, SOURCE).map_err(|error| Unavailable(error.to_string()))?;
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .output();
    match compiled {
        Ok(output) if output.status.success() => Ok(library),
        Ok(output) => Err(Unavailable(String::from_utf8_lossy(&output.stderr).into_owned())),
        Err(error) => Err(Unavailable(format!("cannot run the C compiler `cc`: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_makes_writes_fail_only_below_its_prefix() {
        let dir = tempfile::tempdir().unwrap();
        let library = match compile(dir.path()) {
            Ok(library) => library,
            Err(unavailable) => return eprintln!("skipped: {unavailable}"),
        };
        let data = dir.path().canonicalize().unwrap().join("data");
        fs::create_dir(&data).unwrap();
        fs::write(dir.path().join("disk-full"), b"").unwrap();
        let write_to = |file: PathBuf| {
            let script = format!("echo hello > '{}'", file.display());
            Command::new("sh")
                .args(["-c", &script])
                .env("LD_PRELOAD", &library)
                .env("CONCORDAT_FAULT_DIR", dir.path())
                .env("CONCORDAT_FAULT_PREFIX", &data)
                .output()
                .unwrap()
        };
        assert!(write_to(dir.path().join("outside")).status.success());
        assert!(!write_to(data.join("inside")).status.success());
        fs::remove_file(dir.path().join("disk-full")).unwrap();
        assert!(write_to(data.join("inside")).status.success());
    }
}
