//! Tracing output: readable lines by default, one JSON object a line for collectors. Always on stderr; stdout belongs to results.
//!
//! Group ids, client ids and message bytes are in no line. What this project prints leaves them out; what it is linked with does not know
//! of them, and prints at its finer levels whatever passes through: HTTP/2 its frames, MLS its messages. So only [`TRUSTED`] crates are
//! shown below `warn`, however far the filter is opened.

use std::{
    env,
    io::{IsTerminal, stderr},
};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, fmt, layer::SubscriberExt, util::SubscriberInitExt,
};

/// Filter of log lines, such as `info` or `warn,ordering_service=debug`.
pub const FILTER_VARIABLE: &str = "CONCORDAT_LOG";
/// `json` or `text`; a flag on the command line has precedence.
pub const FORMAT_VARIABLE: &str = "CONCORDAT_LOG_FORMAT";

/// Crates whose lines are shown at every level: those of this project, and openraft, which knows entries only by types that show their
/// lengths. A new one belongs here when the test `secrecy` passes with it.
pub const TRUSTED: &[&str] = &[
    "concordat_proto",
    "group_log",
    "links",
    "mls_client",
    "mls_gateway",
    "openraft",
    "ordering_service",
    "service_kit",
];

/// How far all others are shown.
pub const OTHERS_LEVEL: Level = Level::WARN;

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
/// [`FILTER_VARIABLE`]. What neither of them can bring to light is said at [`TRUSTED`].
pub fn init(json: bool, default_filter: &str) -> Result<(), TelemetryError> {
    let filter = filter(env::var(FILTER_VARIABLE).ok(), default_filter)?;
    let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format(json, env::var(FORMAT_VARIABLE).ok())? {
        Format::Text => lines.boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines)
        .with(filter)
        .with(filter_fn(is_shown))
        .try_init()
        .map_err(|_| TelemetryError::Twice)
}

fn is_shown(line: &Metadata<'_>) -> bool {
    *line.level() <= OTHERS_LEVEL || is_trusted(line.target())
}

fn is_trusted(target: &str) -> bool {
    TRUSTED.contains(&target.split("::").next().unwrap_or(target))
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
    fn only_trusted_crates_are_shown_below_warnings() {
        assert!(is_trusted("mls_gateway::fanout::feed") && is_trusted("openraft") && is_trusted("links"));
        for other in ["h2::codec::framed_write", "openmls::group", "mls_gateway_extra", "rustls", "log", ""] {
            assert!(!is_trusted(other), "{other}");
        }
        assert!(
            Level::ERROR <= OTHERS_LEVEL && Level::INFO > OTHERS_LEVEL,
            "levels ascend with their detail"
        );
    }

    #[test]
    fn bad_values_are_named() {
        assert!(format(false, Some("xml".into())).unwrap_err().to_string().contains("xml"));
        assert!(filter(Some("a=b=c".into()), "info").unwrap_err().to_string().contains("a=b=c"));
        assert_eq!(filter(Some("  ".into()), "warn").unwrap().to_string(), "warn");
    }
}
