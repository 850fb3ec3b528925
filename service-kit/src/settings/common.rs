//! What every service can be told, whichever it is.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Serialize, de::DeserializeOwned};

use super::{SettingsError, check_address, layered, printed};

/// Declares the settings of a service: its own, then those that every service has. All are optional, so that clap can fill them from
/// flags and the environment, and serde from a file. The crate needs clap and serde.
#[macro_export]
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident { $($own:tt)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $($own)*
            /// Reach an address of another process in another way than it is known by, such as through a forwarded port. Repeat for
            /// each; separate them by commas in the environment.
            #[arg(long, env = "CONCORDAT_RESOLVE", value_delimiter = ',', value_name = "ADDRESS=INSTEAD")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub resolve: Option<Vec<$crate::resolve::Route>>,
            /// This process's certificate (PEM), with its intermediates. Its SAN URI spiffe://DOMAIN/concordat/ROLE/NAME says who it is.
            #[arg(long, env = "CONCORDAT_TLS_CERT", value_name = "FILE")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tls_cert: Option<std::path::PathBuf>,
            /// The certificate's key (PEM).
            #[arg(long, env = "CONCORDAT_TLS_KEY", value_name = "FILE")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tls_key: Option<std::path::PathBuf>,
            /// The CAs whose certificates are taken (PEM).
            #[arg(long, env = "CONCORDAT_TLS_CA", value_name = "FILE")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tls_ca: Option<std::path::PathBuf>,
            /// How often to look whether certificates and keys have changed, in seconds [default: 30].
            #[arg(long, env = "CONCORDAT_TLS_RELOAD_SECONDS", value_name = "SECONDS")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tls_reload_seconds: Option<u64>,
            /// After how long connections are made anew, so that certificates are shown again, in seconds [default: 3600].
            #[arg(long, env = "CONCORDAT_TLS_CONNECTION_SECONDS", value_name = "SECONDS")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub tls_connection_seconds: Option<u64>,
            /// Serve without TLS and believe what callers say about who they are. Loopback only.
            #[arg(long, env = "CONCORDAT_INSECURE_DEV", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub insecure_dev: Option<bool>,
            /// One JSON object per log line. CONCORDAT_LOG sets the filter.
            #[arg(long, env = "CONCORDAT_LOG_JSON", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub log_json: Option<bool>,
        }

        impl $name {
            /// What holds for the settings that every service has where nothing is set, and nothing for the others.
            fn common_defaults() -> Self {
                Self {
                    tls_reload_seconds: Some($crate::limits::TLS_RELOAD_INTERVAL_SECONDS),
                    tls_connection_seconds: Some($crate::limits::CONNECTION_AGE_SECONDS),
                    insecure_dev: Some(false),
                    log_json: Some(false),
                    ..Self::default()
                }
            }

            /// Certificates.
            ///
            /// # Errors
            /// A value that makes no sense; its key is named.
            pub fn tls(&self) -> Result<$crate::tls::TlsArgs, $crate::settings::SettingsError> {
                let every = self.tls_reload_seconds.unwrap_or($crate::limits::TLS_RELOAD_INTERVAL_SECONDS);
                let age = self.tls_connection_seconds.unwrap_or($crate::limits::CONNECTION_AGE_SECONDS);
                Ok($crate::tls::TlsArgs {
                    tls_cert: self.tls_cert.clone(),
                    tls_key: self.tls_key.clone(),
                    tls_ca: self.tls_ca.clone(),
                    tls_reload_seconds: $crate::settings::positive("tls_reload_seconds", every)?,
                    tls_connection_seconds: Some($crate::settings::positive("tls_connection_seconds", age)?),
                    insecure_dev: self.insecure_dev.unwrap_or_default(),
                })
            }
        }
    };
}

/// The command line of a service: its settings, and where more of them are. Every setting can also be given in the environment, as its
/// help names it, or in a file: flags stand over the environment, and that over the file.
#[derive(Debug, Args)]
pub struct Given<S: Args> {
    /// A TOML file with settings; its keys are the flags' names with `_` for `-`.
    #[arg(long, env = "CONCORDAT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the settings that are in force, as such a file, and exit.
    #[arg(long)]
    pub print_config: bool,
    /// What is set by flags and the environment.
    #[command(flatten)]
    pub settings: S,
}

impl<S: Args + Serialize + DeserializeOwned> Given<S> {
    /// The settings that are in force. Nothing if they were only to be printed: then that is done, and `check` has judged them.
    ///
    /// # Errors
    /// A file that can not be read, an unknown key, or a value that makes no sense.
    pub fn in_force<C>(
        self,
        defaults: &S,
        check: impl FnOnce(S) -> Result<C, SettingsError>,
    ) -> Result<Option<S>, SettingsError> {
        let settings = layered(defaults, self.config.as_deref().map(Path::new), &self.settings)?;
        if !self.print_config {
            return Ok(Some(settings));
        }
        print!("{}", printed(&settings)?);
        check(settings)?;
        Ok(None)
    }
}

/// What must be set is.
///
/// # Errors
/// It is not; `key` and what was expected are named.
pub fn need<T>(key: &'static str, expected: &str, value: Option<T>) -> Result<T, SettingsError> {
    value.ok_or_else(|| SettingsError::value(key, expected, "nothing"))
}

/// host:port that must be set.
///
/// # Errors
/// There is none, or it is something else; `key` is named.
pub fn address(key: &'static str, value: Option<String>) -> Result<String, SettingsError> {
    let value = need(key, "host:port", value)?;
    check_address(key, &value)?;
    Ok(value)
}

/// A number that must not be 0.
///
/// # Errors
/// It is 0; `key` is named.
pub fn positive(key: &'static str, value: u64) -> Result<u64, SettingsError> {
    match value {
        0 => Err(SettingsError::value(key, "at least 1", 0)),
        value => Ok(value),
    }
}
