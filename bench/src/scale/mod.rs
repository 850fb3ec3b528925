//! `bench scale`: what more of something costs.

pub(crate) const HELP: &str = "Not built yet.";

/// `bench scale`.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) common: crate::args::Common,
}

/// Runs.
pub(crate) async fn run(_options: Options) -> anyhow::Result<()> {
    anyhow::bail!("not built yet")
}
