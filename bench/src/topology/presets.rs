//! The topologies that come with the benchmark. Anybody can write another file of the kind.

/// Name and text of every preset.
pub(crate) const ALL: &[(&str, &str)] = &[
    ("one-rack", include_str!("../../topologies/one-rack.toml")),
    ("metro", include_str!("../../topologies/metro.toml")),
    ("region", include_str!("../../topologies/region.toml")),
    ("continent", include_str!("../../topologies/continent.toml")),
    ("planet", include_str!("../../topologies/planet.toml")),
    ("planet-5", include_str!("../../topologies/planet-5.toml")),
    ("planet-7", include_str!("../../topologies/planet-7.toml")),
    ("mesh", include_str!("../../topologies/mesh.toml")),
];

/// Those of a full run.
pub(crate) const FULL: &[&str] =
    &["one-rack", "metro", "region", "continent", "planet", "planet-5", "planet-7", "mesh"];

/// Those of a quick run.
pub(crate) const QUICK: &[&str] = &["metro", "continent"];
