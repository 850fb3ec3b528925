//! Where the processes of one measurement keep their data: gone with it, but kept with their logs if it fails.

use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;

/// Measures in a new folder in `data`.
///
/// # Errors
/// Those of `measure`, with the place of the folder, which is then kept.
pub(crate) async fn within<T>(
    data: &Path,
    prefix: &str,
    measure: impl AsyncFnOnce(&Path) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    std::fs::create_dir_all(data).with_context(|| format!("creating {}", data.display()))?;
    let dir = tempfile::Builder::new().prefix(prefix).tempdir_in(data)?;
    let measured = measure(dir.path()).await;
    measured.map_err(|error| kept(dir, error))
}

fn kept(dir: TempDir, error: anyhow::Error) -> anyhow::Error {
    let dir = dir.keep();
    error.context(format!("the data and logs of the processes are kept in {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_outlives_only_a_measurement_that_fails() {
        let data = tempfile::tempdir().unwrap();
        let left = || std::fs::read_dir(data.path()).unwrap().count();
        let ran = within(data.path(), "a-", async |dir| Ok(std::fs::write(dir.join("log"), "line")?)).await;
        ran.unwrap();
        assert_eq!(left(), 0);
        let failed = within::<()>(data.path(), "b-", async |dir| {
            std::fs::write(dir.join("log"), "line")?;
            anyhow::bail!("no leader")
        });
        let error = failed.await.unwrap_err();
        let told = format!("{error:#}");
        assert!(told.contains("kept in") && told.ends_with("no leader"), "{told}");
        assert_eq!(left(), 1, "{told}");
    }
}
