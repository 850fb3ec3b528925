//! Where the built binaries are.

use std::{env, path::PathBuf};

/// A binary is not where the build puts it.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot find the binary `{name}` (looked in {}); build it first: make build",
    looked.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
)]
pub struct BinaryError {
    name: String,
    looked: Vec<PathBuf>,
}

/// Finds a binary of this workspace: in `CONCORDAT_BIN_DIR` if that is set, else beside the running program (tests run one folder
/// below the binaries).
pub fn find_binary(name: &str) -> Result<PathBuf, BinaryError> {
    let mut looked = Vec::new();
    if let Some(dir) = env::var_os("CONCORDAT_BIN_DIR") {
        looked.push(PathBuf::from(dir));
    } else if let Ok(this) = env::current_exe() {
        looked.extend(this.ancestors().skip(1).take(2).map(PathBuf::from));
    }
    looked
        .iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
        .ok_or(BinaryError { name: name.to_owned(), looked })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_binary_is_named_with_the_remedy() {
        let error = find_binary("no-such-binary").unwrap_err().to_string();
        assert!(error.contains("no-such-binary") && error.contains("make build"), "{error}");
    }
}
