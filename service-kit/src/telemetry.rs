//! Tracing output: readable lines by default, one JSON object a line for collectors. Always on stderr; stdout belongs to results.

use std::{
    env,
    io::{IsTerminal, stderr},
};

use tracing_subscriber::{EnvFilter, fmt};

/// Filter of log lines, such as `info` or `warn,ordering_service=debug`.
pub const FILTER_VARIABLE: &str = "CONCORDAT_LOG";
/// `json` or `text`; a flag on the command line has precedence.
pub const FORMAT_VARIABLE: &str = "CONCORDAT_LOG_FORMAT";

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people; with colours on a terminal.
    Text,
    /// For collectors: one JSON object a line.
    Json,
}

/// Why tracing could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{FILTER_VARIABLE}=`{value}` is not a log filter: {source}; expected something like `info`")]
    Filter {
        /// As given.
        value: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The format is not one.
    #[error("{FORMAT_VARIABLE}=`{0}` is not a log format; expected `text` or `json`")]
    Format(String),
    /// Tracing was set up already.
    #[error("tracing is set up already")]
    Twice,
}

/// Sets up tracing for this process: `json` (the flag) or the environment chooses JSON; `default_filter` applies without
/// [`FILTER_VARIABLE`].
pub fn init(json: bool, default_filter: &str) -> Result<(), TelemetryError> {
    let filter = filter(env::var(FILTER_VARIABLE).ok(), default_filter)?;
    let builder = fmt().with_env_filter(filter).with_writer(stderr).with_ansi(stderr().is_terminal());
    match format(json, env::var(FORMAT_VARIABLE).ok())? {
        Format::Text => builder.try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(|_| TelemetryError::Twice)
}

fn filter(value: Option<String>, default: &str) -> Result<EnvFilter, TelemetryError> {
    let value = value.filter(|v| !v.trim().is_empty()).unwrap_or_else(|| default.to_owned());
    EnvFilter::builder().parse(&value).map_err(|source| TelemetryError::Filter { value, source })
}

fn format(json: bool, value: Option<String>) -> Result<Format, TelemetryError> {
    match value.as_deref().unwrap_or("") {
        _ if json => Ok(Format::Json),
        "" | "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        other => Err(TelemetryError::Format(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_has_precedence_over_the_environment() {
        assert_eq!(format(true, Some("text".into())).unwrap(), Format::Json);
        assert_eq!(format(false, Some("json".into())).unwrap(), Format::Json);
        assert_eq!(format(false, None).unwrap(), Format::Text);
    }

    #[test]
    fn bad_values_are_named() {
        assert!(format(false, Some("xml".into())).unwrap_err().to_string().contains("xml"));
        assert!(filter(Some("a=b=c".into()), "info").unwrap_err().to_string().contains("a=b=c"));
        assert_eq!(filter(Some("  ".into()), "warn").unwrap().to_string(), "warn");
    }
}
