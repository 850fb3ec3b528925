//! Where things are: everything beside the build, so that nothing is left behind elsewhere.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// The folder that cargo builds into, which holds the folder of this binary.
fn target_dir() -> anyhow::Result<PathBuf> {
    let this = env::current_exe().context("finding this binary")?;
    let target = this.parent().and_then(Path::parent).context("this binary is in no folder")?;
    Ok(target.to_owned())
}

/// Where results go.
pub(crate) fn results(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    Ok(match given {
        Some(dir) => dir.to_owned(),
        None => target_dir()?.join("bench"),
    })
}

/// Where servers keep their data.
pub(crate) fn data(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    Ok(match given {
        Some(dir) => dir.to_owned(),
        None => target_dir()?.join("bench-data"),
    })
}

/// The binary of another system: the one given, else what bench/peers/fetch.sh brought, else what PATH has.
pub(crate) fn peer(name: &str, given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(path) = given {
        if !path.is_file() {
            bail!("{} is no file: name the {name} binary", path.display());
        }
        return Ok(path.to_owned());
    }
    let fetched = target_dir()?.join("bench-peers").join(name);
    let in_path = env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(fetched.clone())
        .chain(env::split_paths(&in_path).map(|dir| dir.join(name)))
        .find(|path| path.is_file());
    found.with_context(|| {
        format!(
            "there is no {name}, neither {} nor in PATH: run bench/peers/fetch.sh, or leave it out with --systems",
            fetched.display()
        )
    })
}
