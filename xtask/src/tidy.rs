//! `cargo xtask tidy`: the rules of the style guide that a machine can check, each with the reason in its message.
//!
//! Looks at text only, line by line: it needs no compiler, and a rule that would need one belongs to clippy.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;

use crate::features;

/// Crates that take time, randomness and threads from nobody.
const PURE: &[&str] = &["auth", "engine-core", "eio-proto", "hub", "sio-proto", "ws-proto"];

/// What a pure crate must not say outside of tests, and what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("Instant::now", "take `now` as an argument"),
    ("SystemTime::now", "take the time as an argument"),
    ("std::thread", "threads belong to the caller"),
    ("tokio", "no runtime below the effects line"),
    ("Mutex", "state has one owner"),
    ("RwLock", "state has one owner"),
    ("rand::", "take random bytes as an argument"),
    ("getrandom", "take random bytes as an argument"),
];

/// A file that is longer holds more than one noun.
const LINES_MAX: usize = 1000;

/// Folders that are not ours, or not written by hand.
const SKIPPED: &[&str] = &[".git", ".venv", "__pycache__", "artifacts", "corpus", "node_modules", "target"];

/// Names in documents that are not ours, one on each line.
const WORDS: &str = "docs/words.txt";

/// Endings of files that are read as text.
const TEXT: &[&str] =
    &["css", "html", "js", "json", "md", "mjs", "py", "rs", "sh", "toml", "ts", "txt", "yaml", "yml"];

/// One file of the project.
pub(crate) struct File {
    /// Relative to the project's root, with `/`.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

/// One line for each fault, sorted.
///
/// # Errors
/// The environment's: a folder or file that cannot be read.
pub(crate) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut files = Vec::new();
    let mut paths = BTreeSet::new();
    read_tree(root, "", &mut files, &mut paths)?;
    let words = known_words(&files);
    let mut faults = Vec::new();
    for file in &files {
        match file.path.rsplit('.').next() {
            Some("rs") => check_source(file, &mut faults),
            Some("toml") if file.path.ends_with("Cargo.toml") => check_manifest(file, &mut faults),
            Some("md") => {
                check_names(file, &paths, &mut faults);
                check_words(file, &paths, &words, &mut faults);
            }
            _ => {}
        }
        check_machine_paths(file, &mut faults);
    }
    faults.extend(features::check(&files));
    faults.sort();
    Ok(faults)
}

fn read_tree(
    root: &Path,
    folder: &str,
    files: &mut Vec<File>,
    paths: &mut BTreeSet<String>,
) -> anyhow::Result<()> {
    let here = root.join(folder);
    for entry in std::fs::read_dir(&here).with_context(|| format!("cannot list {}", here.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                paths.insert(path.clone());
                read_tree(root, &path, files, paths)?;
            }
            continue;
        }
        paths.insert(path.clone());
        let is_text = name.rsplit_once('.').is_some_and(|(_, ending)| TEXT.contains(&ending));
        if is_text {
            let text =
                std::fs::read_to_string(entry.path()).with_context(|| format!("cannot read {path}"))?;
            files.push(File { path, text });
        }
    }
    Ok(())
}

fn check_source(file: &File, faults: &mut Vec<String>) {
    let File { path, text } = file;
    if !text.starts_with("//!") {
        faults.push(format!("{path}:1: opens without //!; say what the file owns and what it does not know"));
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        faults.push(format!("{path}:{lines}: more than {LINES_MAX} lines; a file is about one noun"));
    }
    let crate_name = path.strip_prefix("crates/").and_then(|p| p.split_once("/src/")).map(|(name, _)| name);
    if crate_name.is_some_and(|name| PURE.contains(&name))
        && !path.ends_with("/tests.rs")
        && !path.contains("/tests/")
    {
        for (number, line) in shipped_lines(text) {
            let code = line.split("//").next().unwrap_or_default();
            for (word, instead) in IMPURE.iter().filter(|(word, _)| has_word(code, word)) {
                faults.push(format!("{path}:{number}: {word} in a pure crate; {instead}"));
            }
        }
    }
}

/// The lines, numbered from 1, without the items behind `#[cfg(test)]`: each up to its closing brace in the same column.
fn shipped_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut skipping: Option<usize> = None;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let indent = line.len() - line.trim_start().len();
        match skipping {
            None if line.trim_start().starts_with("#[cfg(test)]") => {
                skipping = Some(indent);
                None
            }
            None => Some((at + 1, line)),
            Some(outer) => {
                let is_end =
                    indent == outer && (line.trim_end().ends_with(';') || line.trim_start().starts_with('}'));
                if is_end {
                    skipping = None;
                }
                None
            }
        }
    })
}

/// Whether `word` stands in `code` and is not the end of a longer identifier.
fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

fn check_manifest(file: &File, faults: &mut Vec<String>) {
    let File { path, text } = file;
    let mut is_listing = false;
    let mut has_reason = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            is_listing = line.ends_with("dependencies]");
            // A table of its own names its dependency in the heading: `[dependencies.serde]`.
            if line.contains("dependencies.") && !has_reason {
                faults.push(format!("{path}:{}: {line} without a reason in a comment", at + 1));
            }
        } else if is_listing && !line.starts_with('#') && line.contains('=') {
            // Our own crates have their reason in the table of layers.
            let is_ours = line.contains("path =") || line.contains("workspace = true");
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            // A line that begins like this continues a list of features.
            let is_entry = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
            if is_entry && !is_ours && !has_reason && !line.contains('#') {
                faults.push(format!("{path}:{}: {name} without a reason in a comment above it", at + 1));
            }
        }
        has_reason = line.starts_with('#');
    }
}

fn check_machine_paths(file: &File, faults: &mut Vec<String>) {
    for (at, line) in file.text.lines().enumerate() {
        for folder in ["work", "home", "root", "Users"] {
            let needle = format!("/{folder}/");
            let is_machine_path = line.match_indices(&needle).any(|(at, _)| {
                // In the middle of a path or an address it is another folder of that name.
                line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && !"._-~}>/".contains(c))
            });
            if is_machine_path {
                faults.push(format!("{}:{}: {needle} is a path of one machine", file.path, at + 1));
            }
        }
    }
}

/// Checks the README and the documents: files that they name in backticks or link to must exist.
fn check_names(file: &File, paths: &BTreeSet<String>, faults: &mut Vec<String>) {
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    if !(name == "README.md" || is_account(&file.path)) {
        return;
    }
    for (at, line) in prose(&file.text) {
        let quoted = quoted(line).filter(|name| is_file_name(name, paths));
        let linked = line.split("](").skip(1).filter_map(|rest| rest.split([')', '#', ' ']).next());
        let linked = linked.filter(|link| !link.is_empty() && !link.contains(':'));
        for name in quoted.chain(linked) {
            let name = name.trim_end_matches('/').trim_start_matches("./");
            if !exists(name, folder, paths) {
                faults.push(format!("{}:{at}: {name} does not exist", file.path));
            }
        }
    }
}

/// Whether a file tells how the project is made, and so must say true names.
fn is_account(path: &str) -> bool {
    path.starts_with("docs/") || path == "CONTRIBUTING.md"
}

/// The lines of a document, numbered from 1, without blocks of code.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_code = false;
    text.lines().enumerate().filter_map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        (!is_code && !is_fence).then_some((at + 1, line))
    })
}

/// What stands in backticks on a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Every word that the sources say outside of comments, and those that documents may say all the same.
fn known_words(files: &[File]) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let mut words = BTreeSet::new();
    for File { path, text } in files {
        let comment = match path.rsplit('.').next() {
            Some("rs" | "js" | "mjs") => "//",
            Some("toml" | "sh" | "py") => "#",
            _ if path == WORDS => "#",
            _ => continue,
        };
        for line in text.lines() {
            // An attribute begins like a comment of the others, and ours do not stand behind code.
            let code = if comment == "#" && line.trim_start().starts_with("#[") {
                line
            } else {
                line.split(comment).next().unwrap_or_default()
            };
            for word in code.split(|c| !is_part(c)) {
                words.insert(word);
                // What is a name in a manifest may be a subtraction in a source.
                words.extend(word.split('-'));
            }
        }
    }
    words
}

/// Checks that names of types, functions and settings in the documents are those of the sources.
fn check_words(file: &File, paths: &BTreeSet<String>, words: &BTreeSet<&str>, faults: &mut Vec<String>) {
    if !is_account(&file.path) {
        return;
    }
    for (at, line) in prose(&file.text) {
        for name in quoted(line).filter(|name| !is_file_name(name, paths)) {
            let name = name.strip_suffix("()").unwrap_or(name);
            for part in name.split("::") {
                // With a dot, a slash or a space it is an expression, a path or a sentence.
                let is_word = part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
                    && part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
                if is_word && !words.contains(part) {
                    faults.push(format!(
                        "{}:{at}: the sources have no {part}; a name of somebody else's goes into {WORDS}",
                        file.path
                    ));
                }
            }
        }
    }
}

/// Whether a quoted text means a file of ours: a Rust file, or a path that starts in a folder of the project.
fn is_file_name(text: &str, paths: &BTreeSet<String>) -> bool {
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c));
    let first = text.split('/').next().unwrap_or_default();
    let is_ours = text.contains('/') && !first.is_empty() && paths.contains(first);
    is_plain && (is_ours || text.ends_with(".rs"))
}

fn exists(name: &str, folder: &str, paths: &BTreeSet<String>) -> bool {
    let mut from = if folder.is_empty() { vec![] } else { folder.split('/').collect::<Vec<_>>() };
    for part in name.split('/') {
        if part == ".." {
            from.pop();
        } else {
            from.push(part);
        }
    }
    let ending = format!("/{name}");
    paths.contains(name) || paths.contains(&from.join("/")) || paths.iter().any(|p| p.ends_with(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    fn source_faults(path: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_source(&file(path, text), &mut faults);
        faults
    }

    #[test]
    fn files_open_with_their_purpose_and_stay_short() {
        assert_eq!(source_faults("a.rs", "//! Owns a.\n").len(), 0);
        assert_eq!(source_faults("a.rs", "fn a() {}\n").len(), 1);
        assert_eq!(source_faults("a.rs", &"//! x\n".repeat(LINES_MAX + 1)).len(), 1);
    }

    #[test]
    fn pure_crates_have_no_clock_outside_of_tests() {
        let text = "//! x\nfn a() { Instant::now(); }\n// tokio\n#[cfg(test)]\nmod tests {\n    use tokio;\n}\nuse std::thread;\n";
        let faults = source_faults("crates/engine-core/src/a.rs", text);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains(":2:") && faults[1].contains(":8:"), "{faults:?}");
        assert_eq!(source_faults("crates/engine/src/a.rs", text).len(), 0);
        assert_eq!(source_faults("crates/engine-core/tests/a.rs", text).len(), 0);
    }

    #[test]
    fn words_are_not_parts_of_others() {
        assert!(has_word("use rand::Rng", "rand::"));
        assert!(!has_word("operand::Left", "rand::"));
    }

    #[test]
    fn dependencies_need_a_reason() {
        let check = |text| {
            let mut faults = Vec::new();
            check_manifest(&file("Cargo.toml", text), &mut faults);
            faults.len()
        };
        assert_eq!(check("[dependencies]\n# Because.\nserde = \"1\"\nours.workspace = true\n"), 0);
        assert_eq!(check("[dependencies]\nserde = \"1\" # because\n"), 0);
        assert_eq!(check("[dependencies]\n# Because.\nserde = \"1\"\ntokio = \"1\"\n"), 1);
        assert_eq!(check("[package]\nname = \"x\"\n"), 0);
        assert_eq!(
            check("[dependencies]\n# Because.\na = { version = \"1\", features = [\n    \"x\",\n] }\n"),
            0
        );
        assert_eq!(check("[dev-dependencies]\nserde = \"1\"\n"), 1);
        assert_eq!(check("[dependencies.serde]\nversion = \"1\"\n"), 1);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let check = |line: &str| {
            let mut faults = Vec::new();
            check_machine_paths(&file("a.md", line), &mut faults);
            faults.len()
        };
        let folder = "home";
        assert_eq!(check(&format!("see /{folder}/somebody")), 1);
        assert_eq!(check(&format!("https://example.org/{folder}/page")), 0);
        assert_eq!(check(&format!("api/{folder}/page")), 0);
    }

    #[test]
    fn documents_name_files_that_exist() {
        let paths: BTreeSet<String> =
            ["docs", "docs/a.md", "docs/adr", "docs/adr/0001.md", "xtask", "xtask/src/main.rs"]
                .map(String::from)
                .into();
        let check = |text| {
            let mut faults = Vec::new();
            check_names(&file("docs/a.md", text), &paths, &mut faults);
            faults.len()
        };
        assert_eq!(
            check(
                "`main.rs`, `xtask/src/main.rs`, `adr/0001.md`, [x](adr/0001.md#top), [y](../xtask/src/main.rs)"
            ),
            0
        );
        assert_eq!(check("`gone.rs`"), 1);
        assert_eq!(check("`xtask/src/gone.rs`"), 1);
        assert_eq!(check("[x](adr/0002.md)"), 1);
        assert_eq!(check("[x](https://example.org/gone.rs) and `application/json` and `room/gone`"), 0);
        assert_eq!(check("```\n`gone.rs`\n```"), 0);
    }

    #[test]
    fn documents_say_names_that_the_sources_have() {
        let files = [
            file(
                "a.rs",
                "//! gone_from_code\nfn poll_output() {} // Gone\n#[derive(Clone)]\nstruct Shard { outbox_bytes_max: usize }\n",
            ),
            file("b/Cargo.toml", "engine-core = 1 # absent\n"),
            file(WORDS, "writev # a system call\n"),
        ];
        let words = known_words(&files);
        let check = |path: &str, text: &str| {
            let mut faults = Vec::new();
            check_words(&file(path, text), &BTreeSet::new(), &words, &mut faults);
            faults.len()
        };
        let known = "`Shard::poll_output()`, `outbox_bytes_max`, `engine-core`, `writev`, `Clone`";
        assert_eq!(check("docs/a.md", known), 0);
        assert_eq!(check("docs/adr/a.md", "`Gone` and `gone_from_code` and `absent` and `Shard::gone`"), 4);
        assert_eq!(check("docs/a.md", "`a b`, `x.gone`, `/gone`, `{gone}`, `42`\n```\n`gone`\n```"), 0);
        assert_eq!(check("CHANGELOG.md", "`Gone`"), 0, "it tells of what was");
    }

    #[test]
    fn this_project_is_read_without_error() {
        let root = crate::project::root().unwrap();
        let faults = check(&root).unwrap();
        let watched = ["xtask/", "crates/loadgen/", "docs/FEATURES.md"];
        let ours: Vec<_> =
            faults.iter().filter(|fault| watched.iter().any(|path| fault.starts_with(path))).collect();
        assert!(ours.is_empty(), "{ours:#?}");
    }
}
