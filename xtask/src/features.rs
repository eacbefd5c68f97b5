//! Owns the promise of `docs/FEATURES.md`: each test that it names is there. Does not run tests.
//!
//! A test is named as `file::function`, the file from `crates/` or from the root.

use crate::tidy::File;

/// The document.
const FEATURES: &str = "docs/FEATURES.md";

/// Folders that a name may leave out, the likeliest first.
const FOLDERS: [&str; 2] = ["crates/", ""];

/// One line for each row of a table that names no test, or one that does not exist.
pub(crate) fn check(files: &[File]) -> Vec<String> {
    let Some(document) = files.iter().find(|file| file.path == FEATURES) else { return Vec::new() };
    let mut faults = Vec::new();
    let rows = document.text.lines().enumerate().filter(|(_, line)| line.starts_with("| "));
    for (at, line) in rows.filter(|(_, line)| *line != "| feature | test |") {
        let last_cell = line.trim_end_matches([' ', '|']).rsplit("| ").next().unwrap_or_default();
        let complaint = match last_cell.trim_matches('`').rsplit_once("::") {
            Some((path, test)) if exists(path, test, files) => continue,
            Some((path, test)) => format!("{path} has no test {test}"),
            None => "this feature names no test".to_owned(),
        };
        faults.push(format!("{FEATURES}:{}: {complaint}", at + 1));
    }
    faults
}

fn exists(path: &str, test: &str, files: &[File]) -> bool {
    let mut candidates = FOLDERS.iter().filter_map(|folder| {
        let path = format!("{folder}{path}");
        files.iter().find(|file| file.path == path)
    });
    candidates.next().is_some_and(|file| declares(file, test))
}

/// Whether a file has the test, and has it run.
fn declares(file: &File, test: &str) -> bool {
    let count = |needle: &str| file.text.matches(needle).count();
    match file.path.rsplit('.').next() {
        Some("rs") => {
            let mut lines = file.text.lines().map(str::trim);
            let head = [format!("fn {test}("), format!("async fn {test}(")];
            // Attributes and comments may stand between the one that makes it a test and its name.
            let mut is_test = false;
            lines.any(|line| {
                let is_head = head.iter().any(|head| line.starts_with(head.as_str()));
                let is_found = is_head && is_test;
                is_test = (is_test && (line.starts_with("#[") || line.starts_with("//")))
                    || line.starts_with("#[test]")
                    || line.starts_with("#[tokio::test");
                is_found
            })
        }
        Some("mjs") => {
            count(&format!("async function {test}()")) == 1 && count(&format!("\n  {test},\n")) == 1
        }
        Some("py") => {
            let listed = count(&format!("\n        {test},\n")) == 1;
            count(&format!("def {test}(")) == 1 && (listed || test.starts_with("test_"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn features_name_tests_that_are_there_and_run() {
        let sources = [
            file("crates/a/tests/x.rs", "#[test]\n#[ignore = \"y\"]\nfn one() {\n}\nfn helper() {}\n"),
            file("crates/a/tests/y.rs", "    #[tokio::test]\n    // Why.\n    async fn two(n in 0..9) {}\n"),
            file("b/z.mjs", "async function three() {}\nasync function four() {}\nrun({\n  three,\n});\n"),
        ];
        let check_row = |row: &str| {
            let mut files = vec![file(FEATURES, &format!("| feature | test |\n|---|---|\n{row}\n"))];
            files.extend(sources.iter().map(|source| file(&source.path, &source.text)));
            check(&files).len()
        };
        for good in ["a/tests/x.rs::one", "a/tests/y.rs::two", "b/z.mjs::three"] {
            assert_eq!(check_row(&format!("| `a`, b | `{good}` |")), 0, "{good}");
        }
        for bad in ["a/tests/x.rs::helper", "a/tests/x.rs::on", "b/z.mjs::four", "a/none.rs::one"] {
            assert_eq!(check_row(&format!("| f | `{bad}` |")), 1, "{bad}");
        }
        assert_eq!(check_row("| f | |"), 1);
    }
}
