//! What `deploy/` has to offer: files for containers, Kubernetes and systemd name only what the binary has, and it is
//! packed as they say. Those for proxies are in `proxies.rs`.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::fanfare::{DataDir, command};
use crate::installed::{python_of, succeed};

/// A file below `deploy/`.
pub(crate) fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

/// Its text.
pub(crate) fn text_of(name: &str) -> String {
    let path = path_of(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A setting's default, as the manual has it.
pub(crate) fn default_of(section: &str, key: &str) -> Duration {
    let manual = succeed(&mut command(&["config", "default"]));
    let from = manual.find(&format!("\n[{section}]\n")).expect("a section");
    let prefix = format!("{key} = \"");
    let line = manual[from..].lines().find_map(|line| line.trim_start_matches("# ").strip_prefix(&*prefix));
    humantime::parse_duration(line.expect("a key").trim_end_matches('"')).expect("a duration")
}

/// Whether a path is one that the server answers.
pub(crate) fn is_served(path: &str) -> bool {
    hub::routes::ROUTES.iter().any(|route| route.paths().any(|served| served == path))
}

/// Checks that the binary takes these variables, and knows each of them.
fn check_variables(variables: &[(String, String)]) {
    assert!(!variables.is_empty());
    let known = include_str!("../../src/config.rs");
    for (name, _) in variables {
        // Of names without the two lines only these are looked at; others would be passed over in silence.
        assert!(name.contains("__") || known.contains(&format!("(\"{name}\", \"")), "{name} is no setting");
    }
    let output = succeed(command(&["config", "check"]).envs(variables.iter().cloned()));
    assert!(output.starts_with("settings are good"), "{output}");
}

/// The lines of a Dockerfile, those that go on over several as one, without comments.
fn instructions(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty());
    let mut instructions = vec![String::new()];
    for line in lines {
        let (part, goes_on) = line.strip_suffix('\\').map_or((line, false), |part| (part, true));
        if let Some(last) = instructions.last_mut() {
            last.push_str(part.trim_end());
        }
        if !goes_on {
            instructions.push(String::new());
        }
    }
    instructions.retain(|instruction| !instruction.is_empty());
    instructions
}

#[test]
fn the_container_is_built_from_what_is_there_and_runs_as_nobody_special() {
    let instructions = instructions(&text_of("docker/Dockerfile"));
    let of = |name: &str| -> Vec<&str> {
        let prefix = format!("{name} ");
        instructions.iter().filter_map(|it| it.strip_prefix(&*prefix)).map(str::trim).collect()
    };
    let toolchain = include_str!("../../../../rust-toolchain.toml");
    let version = toolchain.split('"').nth(1).expect("a version");
    let images = of("FROM");
    assert_eq!(images.len(), 2, "one to build, one to run");
    assert!(images[0].starts_with(&format!("rust:{version}-")), "{images:?}");
    // What was linked in one must run in the other.
    assert!(images.iter().all(|image| image.contains("bookworm")), "{images:?}");
    assert!(of("ENV")[0].contains(version), "{:?}", of("ENV"));

    let build = of("RUN").into_iter().find(|run| run.contains("cargo build")).expect("a build");
    assert!(build.contains("--locked -p fanfare") && build.contains("target/release/fanfare"), "{build}");
    for kept in text_of("docker/Dockerfile.dockerignore").lines().filter_map(|line| line.strip_prefix('!')) {
        assert!(path_of("..").join(kept).exists(), "{kept} is not there");
    }

    let user = of("USER");
    assert_eq!(user.len(), 1);
    assert!(user[0].split(':').all(|id| id.parse::<u32>().is_ok_and(|id| id > 0)), "{user:?}");
    let variables: Vec<(String, String)> = of("ENV")[1]
        .split_whitespace()
        .map(|pair| pair.split_once('=').expect("a value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    check_variables(&variables);
    let value = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let port = value("FANFARE_API__PORT").expect("a port");
    assert_eq!(of("EXPOSE"), [port]);
    assert_eq!(of("VOLUME"), [value("FANFARE_DATA_DIR").expect("a folder")]);
    assert_eq!(of("STOPSIGNAL"), ["SIGTERM"]);

    let health = of("HEALTHCHECK")[0];
    let url = health.split('"').find(|word| word.starts_with("http://")).expect("an address");
    let path = url.strip_prefix(&format!("http://127.0.0.1:{port}")).expect("its own address");
    assert!(is_served(path), "{path}");
    let words = |text: &str| serde_json::from_str::<Vec<String>>(text).expect("a list");
    let entry = words(of("ENTRYPOINT")[0]);
    assert!(of("COPY").iter().any(|copy| copy.ends_with(&*entry[0])), "{entry:?} was not copied");
    let arguments = words(of("CMD")[0]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(["--help"]).collect();
    succeed(&mut command(&arguments));
}

#[test]
fn the_service_is_told_what_the_binary_knows() {
    let variables: Vec<(String, String)> = text_of("systemd/fanfare.env")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_once('=').expect("a value"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    check_variables(&variables);
    let unit = text_of("systemd/fanfare.service");
    let of = |name: &str| {
        let prefix = format!("{name}=");
        unit.lines().find_map(|line| line.strip_prefix(&*prefix)).unwrap_or_else(|| panic!("no {name}"))
    };
    let (name, value) = of("Environment").split_once('=').expect("a value");
    check_variables(&[(name.to_owned(), value.to_owned())]);
    assert_eq!(value, format!("/var/lib/{}", of("StateDirectory")), "the folder that it may write to");
    for name in ["ExecStart", "ExecStartPre"] {
        let words: Vec<&str> = of(name).split(' ').skip(1).chain(["--help"]).collect();
        succeed(&mut command(&words));
    }
    let patience = humantime::parse_duration(of("TimeoutStopSec")).expect("a duration");
    assert!(patience > default_of("server", "drain_time_max"));
}

#[test]
#[ignore = "needs systemd"]
fn systemd_takes_the_service() {
    let folder = DataDir::new();
    std::fs::create_dir_all(folder.path()).expect("a folder");
    let unit = folder.path().join("fanfare.service");
    // As it is where it is installed.
    let text = text_of("systemd/fanfare.service")
        .replace("/usr/local/bin/fanfare", env!("CARGO_BIN_EXE_fanfare"))
        .replace(
            "/etc/fanfare/fanfare.env",
            path_of("systemd/fanfare.env").canonicalize().expect("a file").to_str().expect("text"),
        );
    std::fs::write(&unit, text).expect("a unit");
    let output = Command::new("systemd-analyze").arg("verify").arg(&unit).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // What it does not understand it ignores, and says so.
    assert!(!said.contains("fanfare.service"), "{said}");
}

#[test]
#[ignore = "installs PyYAML with pip"]
fn kubernetes_is_told_what_the_binary_knows() {
    let folder = python_of("deploy");
    for file in std::fs::read_dir(path_of("kubernetes")).expect("manifests") {
        let path = file.expect("a file").path();
        let mut python = Command::new(folder.join(".venv/bin/python"));
        python.current_dir(&folder).arg("manifests.py").arg(&path);
        let documents: Vec<Value> = serde_json::from_str(&succeed(&mut python)).expect("documents");
        check_manifests(&documents);
    }
}

fn check_manifests(documents: &[Value]) {
    let of_kind = |kind: &str| documents.iter().find(|document| document["kind"] == kind);
    let workload = of_kind("StatefulSet").or_else(|| of_kind("Deployment")).expect("something to run");
    let spec = &workload["spec"];
    let labels = &spec["template"]["metadata"]["labels"];
    assert_eq!(&spec["selector"]["matchLabels"], labels);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];

    let variables: Vec<(String, String)> = container["env"]
        .as_array()
        .expect("variables")
        .iter()
        .map(|variable| {
            let name = variable["name"].as_str().expect("a name");
            // What the platform puts there: an address of Redis, an address of its own, a secret as long as it must be.
            let given = match name {
                "REDIS_URL" => "redis://redis:6379/0",
                "FANFARE_CLUSTER__HOST" => "10.1.2.3",
                _ => "0123456789abcdef0123456789abcdef",
            };
            assert!(
                variable["value"].is_string() != variable["valueFrom"].is_object(),
                "{name}: one of both"
            );
            (name.to_owned(), variable["value"].as_str().unwrap_or(given).to_owned())
        })
        .collect();
    check_variables(&variables);
    let value = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());

    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        let asked = &container[probe]["httpGet"];
        assert!(is_served(asked["path"].as_str().expect("a path")), "{probe}: {asked}");
        assert_eq!(asked["port"], container["ports"][0]["name"], "{probe}");
    }
    let port = container["ports"][0]["containerPort"].to_string();
    assert_eq!(value("FANFARE_API__PORT"), Some(&*port));
    let arguments = container["args"].as_array().expect("arguments");
    let arguments: Vec<&str> = arguments.iter().filter_map(Value::as_str).chain(["--help"]).collect();
    succeed(&mut command(&arguments));

    let lead = container["lifecycle"]["preStop"]["exec"]["command"][1].as_str().expect("seconds");
    let lead = Duration::from_secs(lead.parse().expect("a number"));
    let drain = value("FANFARE_SERVER__DRAIN_TIME_MAX").expect("a duration");
    let drain = humantime::parse_duration(drain).expect("a duration");
    let patience = Duration::from_secs(pod["terminationGracePeriodSeconds"].as_u64().expect("seconds"));
    assert!(patience > lead + drain, "{patience:?}");

    let volumes = container["volumeMounts"].as_array().into_iter().flatten();
    let mounted: Vec<&str> = volumes.filter_map(|volume| volume["mountPath"].as_str()).collect();
    if let Some(folder) = value("FANFARE_DATA_DIR") {
        assert!(mounted.contains(&folder), "{folder} is not among {mounted:?}");
    }
    if let Some(nodes) = value("FANFARE_CLUSTER__PORT") {
        assert_eq!(container["ports"][1]["containerPort"].to_string(), nodes);
        let policy = &of_kind("NetworkPolicy").expect("nobody else gets there")["spec"];
        assert_eq!(&policy["podSelector"]["matchLabels"], labels);
        let [clients, others] = [0, 1].map(|nth| &policy["ingress"][nth]);
        assert_eq!(clients["ports"][0]["port"], container["ports"][0]["name"]);
        assert_eq!(others["ports"][0]["port"], container["ports"][1]["name"]);
        assert_eq!(&others["from"][0]["podSelector"]["matchLabels"], labels);
    }
    let service = of_kind("Service").expect("a service");
    assert_eq!(&service["spec"]["selector"], labels);
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    if let Some(budget) = of_kind("PodDisruptionBudget") {
        assert_eq!(&budget["spec"]["selector"]["matchLabels"], labels);
    }
    if let Some(scaler) = of_kind("HorizontalPodAutoscaler") {
        assert_eq!(scaler["spec"]["scaleTargetRef"]["name"], workload["metadata"]["name"]);
        assert_eq!(scaler["spec"]["scaleTargetRef"]["kind"], workload["kind"]);
    }
}
