//! How a service is configured: defaults < TOML file < environment < flags.
//!
//! A service has one struct of settings, all of them optional: clap fills it from flags and the environment, serde from the file.
//! Names are the same everywhere: `data_dir` in the file is `--data-dir` and `CONCORDAT_DATA_DIR`.

mod common;

pub use common::{Given, address, need, positive};

use std::{
    fmt,
    path::{Path, PathBuf},
};

use figment::{
    Figment,
    providers::{Format, Serialized, Toml},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::limits::SETTINGS_FILE_BYTES;

/// Why settings are not usable.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file can not be read.
    #[error("cannot read the settings in {path}: {source}")]
    File {
        /// As given.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// The file is too large to be one.
    #[error("{path} has {got} bytes; settings have at most {SETTINGS_FILE_BYTES}")]
    TooLarge {
        /// As given.
        path: PathBuf,
        /// Its size.
        got: u64,
    },
    /// A key that is unknown, or a value of the wrong type.
    #[error("{0}")]
    Key(String),
    /// A value that makes no sense.
    #[error(
        "{key} must be {expected}, got {got}; set it with --{}, {}, or in the file",
        flag(key),
        variable(key)
    )]
    Value {
        /// The key in the file.
        key: &'static str,
        /// What would be right.
        expected: String,
        /// What came.
        got: String,
    },
    /// Settings could not be printed.
    #[error("cannot print the settings: {0}")]
    Print(#[from] toml::ser::Error),
}

fn flag(key: &str) -> String {
    key.replace('_', "-")
}

fn variable(key: &str) -> String {
    format!("CONCORDAT_{}", key.to_uppercase())
}

impl SettingsError {
    /// The value of `key` makes no sense.
    pub fn value(key: &'static str, expected: impl Into<String>, got: impl fmt::Display) -> Self {
        Self::Value { key, expected: expected.into(), got: got.to_string() }
    }
}

/// Lays `given` (flags and environment) over the TOML file, and that over the defaults. What is absent must serialize to nothing.
///
/// # Errors
/// A file that can not be read, an unknown key, or a value of the wrong type; each is named.
pub fn layered<S: Serialize + DeserializeOwned>(
    defaults: &S,
    file: Option<&Path>,
    given: &S,
) -> Result<S, SettingsError> {
    let mut figment = Figment::from(Serialized::defaults(defaults));
    if let Some(path) = file {
        figment = figment.merge(Toml::string(&read(path)?));
    }
    let layered = figment.merge(Serialized::defaults(given)).extract();
    layered.map_err(|errors| {
        let said: Vec<String> = errors.into_iter().map(|error| said(&error)).collect();
        let file = file.map_or_else(String::new, |path| format!("{}: ", path.display()));
        SettingsError::Key(format!("{file}{}", said.join("; ")))
    })
}

fn read(path: &Path) -> Result<String, SettingsError> {
    let failed = |source| SettingsError::File { path: path.to_owned(), source };
    let got = std::fs::metadata(path).map_err(failed)?.len();
    if got > SETTINGS_FILE_BYTES {
        return Err(SettingsError::TooLarge { path: path.to_owned(), got });
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn said(error: &figment::Error) -> String {
    match error.path.is_empty() {
        true => error.kind.to_string(),
        false => format!("{}: {}", error.path.join("."), error.kind),
    }
}

/// Settings as a file: what `--print-config` shows.
///
/// # Errors
/// They can not be written as TOML.
pub fn printed<S: Serialize>(settings: &S) -> Result<String, SettingsError> {
    Ok(toml::to_string(settings)?)
}

/// Checks that `value` is host:port.
///
/// # Errors
/// It is not; `key` is named.
pub fn check_address(key: &'static str, value: &str) -> Result<(), SettingsError> {
    match value.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(()),
        _ => Err(SettingsError::value(key, "host:port", format_args!("{value:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Some3 {
        #[serde(skip_serializing_if = "Option::is_none")]
        listen: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        keep_entries: Option<u64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        log_json: Option<bool>,
    }

    fn defaults() -> Some3 {
        Some3 { listen: Some("127.0.0.1:1".into()), keep_entries: Some(1), log_json: Some(false) }
    }

    fn with_file(text: &str, given: &Some3) -> Result<Some3, SettingsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        layered(&defaults(), Some(file.path()), given)
    }

    #[test]
    fn flags_stand_over_the_file_and_the_file_over_defaults() {
        let given = Some3 { keep_entries: Some(3), ..Some3::default() };
        let settings = with_file("keep_entries = 2\nlisten = 'h:2'", &given).unwrap();
        let expected = Some3 { listen: Some("h:2".into()), keep_entries: Some(3), log_json: Some(false) };
        assert_eq!(settings, expected);
        assert_eq!(layered(&defaults(), None, &Some3::default()).unwrap(), defaults());
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_named_with_the_file() {
        let error = with_file("keep_entrys = 2", &Some3::default()).unwrap_err().to_string();
        assert!(error.contains("keep_entrys") && error.contains("tmp"), "{error}");
        let error = with_file("keep_entries = 'many'", &Some3::default()).unwrap_err().to_string();
        assert!(error.contains("keep_entries") && error.contains("many"), "{error}");
        let error = with_file("keep_entries = ", &Some3::default()).unwrap_err().to_string();
        assert!(error.contains("line 1") || error.contains("TOML"), "{error}");
        let missing = layered(&defaults(), Some(Path::new("/no/such/file")), &Some3::default());
        assert!(matches!(missing, Err(SettingsError::File { .. })));
    }

    #[test]
    fn what_is_printed_is_a_file_with_the_same_meaning() {
        let printed = printed(&defaults()).unwrap();
        assert_eq!(with_file(&printed, &Some3::default()).unwrap(), defaults());
    }

    #[test]
    fn a_value_that_makes_no_sense_is_named_with_all_its_names() {
        let error = check_address("peer_listen", "nowhere").unwrap_err().to_string();
        for name in ["--peer-listen", "CONCORDAT_PEER_LISTEN", "nowhere"] {
            assert!(error.contains(name), "{error}");
        }
        assert!(check_address("listen", "[::1]:0").is_ok());
    }
}
