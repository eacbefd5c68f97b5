//! The table of dependencies that the crates of this workspace may have on each other, and its comparison with reality.
//!
//! The table is the architecture: pure codecs at the bottom, the shard above them, effects above that. Only
//! dependencies that ship count; tests may use what they like.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::project;

/// Each crate, and those of ours that it may depend on.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ws-proto", &[]),
    ("eio-proto", &[]),
    ("sio-proto", &[]),
    ("engine-core", &["eio-proto", "sio-proto", "ws-proto"]),
    ("hub", &[]),
    ("auth", &["hub"]),
    ("bus", &["hub", "store-redis"]),
    ("engine", &["eio-proto", "engine-core", "sio-proto", "ws-proto"]),
    ("store-redis", &["hub"]),
    ("adapter", &["sio-proto", "store-redis"]),
    ("store-sqlite", &["hub"]),
    ("tools", &["hub"]),
    ("queues", &["hub", "tools"]),
    ("sio-client", &["eio-proto", "sio-proto", "ws-proto"]),
    ("fanfare-sdk", &["hub"]),
    ("testkit", &["eio-proto", "engine-core", "hub", "sio-proto", "ws-proto"]),
    (
        "fanfare",
        &[
            "adapter",
            "auth",
            "bus",
            "engine",
            "fanfare-sdk",
            "hub",
            "queues",
            "store-redis",
            "store-sqlite",
            "tools",
        ],
    ),
    // An implementation of its own, so that it notices the codecs' mistakes.
    ("loadgen", &[]),
    ("xtask", &[]),
];

/// One line for each dependency that is not allowed, and each crate that the table does not know or knows in vain.
pub(crate) fn check() -> anyhow::Result<Vec<String>> {
    Ok(compare(&project::metadata()?, ALLOWED))
}

fn compare(metadata: &Value, allowed: &[(&str, &[&str])]) -> Vec<String> {
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    let mut faults = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some((_, may)) = allowed.iter().find(|(known, _)| *known == name) else {
            faults.push(format!("{name} is not in the table of xtask/src/layers.rs"));
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            let is_shipped = dependency["kind"].as_str() != Some("dev");
            if is_shipped && ours.contains(on) && !may.contains(&on) {
                faults.push(format!("{name} must not depend on {on}"));
            }
        }
    }
    for (name, may) in allowed {
        for name in may.iter().chain([name]).filter(|name| !ours.contains(*name)) {
            faults.push(format!("the table of xtask/src/layers.rs names {name}, which is no crate"));
        }
    }
    faults.dedup();
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn crates_depend_only_downwards() {
        assert_eq!(check().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn an_upward_dependency_and_an_unknown_crate_are_found() {
        let dependency = |name, kind: Option<&str>| json!({"name": name, "kind": kind});
        let metadata = json!({"packages": [
            {"name": "low", "dependencies": [dependency("high", None), dependency("serde", None)]},
            {"name": "high", "dependencies": [dependency("low", None)]},
            {"name": "mid", "dependencies": [dependency("high", Some("dev")), dependency("high", Some("build"))]},
            {"name": "new", "dependencies": []},
        ]});
        let table: &[(&str, &[&str])] = &[("low", &[]), ("high", &["low"]), ("mid", &[]), ("gone", &[])];
        let faults = compare(&metadata, table);
        let expected = [
            "low must not depend on high",
            "mid must not depend on high",
            "new is not in the table of xtask/src/layers.rs",
            "the table of xtask/src/layers.rs names gone, which is no crate",
        ];
        assert_eq!(faults, expected);
    }
}
