//! Owns the installations of stock clients that tests run: copies of the test folders, filled by npm and pip, each with a
//! copy of `tests/vocabularies` beside what it needs.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The folder of the JavaScript tests, with what they need.
pub(crate) fn javascript() -> PathBuf {
    javascript_of("js")
}

/// Another folder of tests in JavaScript, with what they need.
pub(crate) fn javascript_of(name: &str) -> PathBuf {
    install(name, |folder| {
        vec![command("npm", folder, &["ci", "--no-audit", "--no-fund", "--loglevel=error"])]
    })
}

/// The folder of the Python tests, with what they need in a `.venv`.
pub(crate) fn python() -> PathBuf {
    python_of("python")
}

/// Another folder of tests in Python, with what they need in a `.venv`.
pub(crate) fn python_of(name: &str) -> PathBuf {
    install(name, |folder| {
        let pip = folder.join(".venv/bin/pip");
        vec![
            command("python3", folder, &["-m", "venv", ".venv"]),
            command(pip.to_str().expect("text"), folder, &["install", "--quiet", "-r", "requirements.txt"]),
        ]
    })
}

/// Runs a command and asserts that it succeeds; answers what it printed.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{stdout}\n{stderr}");
    stdout
}

fn install(name: &str, commands: impl Fn(&Path) -> Vec<Command>) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    // One at a time: tests run side by side, in one process or in several.
    let turn = File::create(folder.join("lock")).expect("a lock");
    turn.lock().expect("our turn");
    // What was installed last time is good for as long as the list of it is the same.
    let list = |folder: &Path| {
        ["package-lock.json", "requirements.txt"].map(|file| std::fs::read_to_string(folder.join(file)).ok())
    };
    let is_current = folder.join("installed").exists() && list(&folder) == list(&source);
    copy_files(&source, &folder);
    copy_files(&source.with_file_name("vocabularies"), &folder.join("vocabularies"));
    if !is_current {
        let _ = std::fs::remove_file(folder.join("installed"));
        for mut command in commands(&folder) {
            install_patiently(&mut command);
        }
        std::fs::write(folder.join("installed"), "").expect("a mark");
    }
    folder
}

/// Registries are far away: what fails is tried again, twice.
fn install_patiently(command: &mut Command) {
    for pause in [5, 30] {
        if command.output().is_ok_and(|output| output.status.success()) {
            return;
        }
        std::thread::sleep(Duration::from_secs(pause));
    }
    succeed(command);
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for file in std::fs::read_dir(from).expect("tests").map(|file| file.expect("a file").path()) {
        let (true, Some(name)) = (file.is_file(), file.file_name()) else { continue };
        let (copy, text) = (to.join(name), std::fs::read(&file).expect("a file"));
        // Not written over without need: another test may be reading it.
        if std::fs::read(&copy).ok().as_ref() != Some(&text) {
            std::fs::write(copy, text).expect("a copy");
        }
    }
}

fn command(program: &str, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(folder);
    command
}
