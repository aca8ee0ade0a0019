//! House rules, checked: sizes, `unsafe`, left-overs, machine paths. What breaks a rule today stands in
//! `tidy-allowed.txt`, which may only shrink: an entry that nothing needs any more fails too.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// Words that mark unfinished work. Put together here, so that this file does not contain them itself.
fn leftovers() -> Vec<String> {
    let halves =
        [("TO", "DO"), ("FIX", "ME"), ("unimpl", "emented!"), ("to", "do!("), ("#[ig", "nore"), ("X", "XX")];
    halves.iter().map(|(a, b)| format!("{a}{b}")).collect()
}

/// Folders that exist on the machines of developers and nowhere else.
fn machine_paths() -> Vec<String> {
    ["work", "farm", "home", "root", "tmp/wt", "tmp/bash_jobs"]
        .iter()
        .map(|folder| format!("/{folder}/"))
        .collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("bench/ is in the workspace").to_owned()
}

/// Files under version control, relative to the root.
fn tracked(root: &Path) -> Vec<String> {
    let output =
        Command::new("git").current_dir(root).args(["ls-files", "-co", "--exclude-standard"]).output();
    let output = output.expect("git is needed to list the files of the repository");
    assert!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("file names are UTF-8");
    text.lines().filter(|name| root.join(name).is_file()).map(str::to_owned).collect()
}

/// A violation: `rule file` is what the allow list names; the rest is for people.
struct Violation {
    key: String,
    detail: String,
}

fn violation(rule: &str, file: &str, detail: String) -> Violation {
    Violation { key: format!("{rule} {file}"), detail }
}

/// The functions of a formatted file that are too long: from the line with `fn` to the brace that closes it at the
/// same indentation.
fn long_functions(text: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut long = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indentation = &line[..line.len() - code.len()];
        let Some(name) = function_name(code) else { continue };
        // Of the lines no deeper than the function's own, the first that ends it: a brace, or the semicolon of a
        // declaration without a body.
        let mut outline = lines[start..].iter().enumerate().filter_map(|(distance, line)| {
            let code = line.strip_prefix(indentation).filter(|code| !code.starts_with(' '))?;
            let ends = code == "}" || code.ends_with(';') || distance == 0 && code.ends_with('}');
            ends.then_some(distance + 1)
        });
        match outline.next() {
            Some(length) if length > FUNCTION_LINES_MAX => long.push((name.to_owned(), length)),
            _ => {}
        }
    }
    long
}

/// The name of the function that begins on this line of code, if one does.
fn function_name(code: &str) -> Option<&str> {
    if code.starts_with("//") {
        return None;
    }
    let before = code.find("fn ")?;
    let qualifiers =
        ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe", "extern", "\"C\"", "default"];
    if !code[..before].split_whitespace().all(|word| qualifiers.contains(&word) || word.starts_with("pub(in"))
    {
        return None;
    }
    let rest = &code[before + 3..];
    rest.split(|c: char| !(c.is_alphanumeric() || c == '_')).next().filter(|name| !name.is_empty())
}

/// Whether `line` uses the keyword as code, not in a comment or a string.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or(line);
    let code: String = code.split('"').step_by(2).collect();
    code.split(|c: char| !(c.is_alphanumeric() || c == '_')).any(|word| word == "unsafe")
}

fn check(root: &Path, file: &str) -> Vec<Violation> {
    let Ok(text) = std::fs::read_to_string(root.join(file)) else { return Vec::new() };
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line)) {
        for path in machine_paths() {
            if line.contains(&path) && !is_public_path(line, &path) {
                found.push(violation("machine-path", file, format!("line {number}: {path}")));
            }
        }
        if !file.ends_with(".rs") {
            continue;
        }
        for word in leftovers() {
            if line.contains(&word) {
                found.push(violation("left-over", file, format!("line {number}: {word}")));
            }
        }
        if !file.starts_with("drivers/") && has_unsafe(line) {
            found.push(violation("unsafe", file, format!("line {number}")));
        }
    }
    if file.ends_with(".rs") {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            found.push(violation("file-length", file, format!("{lines} lines")));
        }
        for (name, length) in long_functions(&text) {
            found.push(violation("function-length", file, format!("{name}: {length} lines")));
        }
    }
    found
}

/// Addresses on the web may well contain such a word.
fn is_public_path(line: &str, path: &str) -> bool {
    line.find(path)
        .is_some_and(|at| line[..at].rsplit(char::is_whitespace).next().unwrap_or("").contains("://"))
}

#[test]
fn the_house_rules_hold() {
    let root = root();
    let allowed_text = include_str!("tidy-allowed.txt");
    let allowed: BTreeSet<&str> = allowed_text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    let files = tracked(&root);
    assert!(
        files.iter().any(|file| file == "bench/tests/tidy.rs"),
        "the list of files is not that of this project"
    );
    let found: Vec<Violation> = files.iter().flat_map(|file| check(&root, file)).collect();

    let mut complaints = String::new();
    for violation in found.iter().filter(|violation| !allowed.contains(violation.key.as_str())) {
        let _ = writeln!(complaints, "{}: {}", violation.key, violation.detail);
    }
    let needed: BTreeSet<&str> = found.iter().map(|violation| violation.key.as_str()).collect();
    for entry in allowed.difference(&needed) {
        let _ =
            writeln!(complaints, "{entry}: no longer needed, take it out of bench/tests/tidy-allowed.txt");
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn the_rules_can_be_broken() {
    let body = "        let x = 1;\n".repeat(FUNCTION_LINES_MAX);
    let long =
        format!("impl A {{\n    pub(crate) fn long(&self) {{\n{body}    }}\n\n    fn short() {{}}\n}}\n");
    let found = long_functions(&long);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0], ("long".to_owned(), FUNCTION_LINES_MAX + 2));
    let declared = format!(
        "trait T {{\n    fn declared(\n        &self,\n    ) -> usize;\n{}}}\n",
        "    // x\n".repeat(80)
    );
    assert!(long_functions(&declared).is_empty());

    assert!(has_unsafe("    unsafe { f() }"));
    assert!(has_unsafe(&format!("let s = {:?}; {} {{ f(s) }}", "x", "unsafe")));
    assert!(!has_unsafe("// unsafe"));
    assert!(!has_unsafe(&format!("say({:?});", "unsafe")));
    assert!(!has_unsafe("#![forbid(unsafe_code)]"));
    assert!(is_public_path(&format!("see https://example.org{}x", machine_paths()[0]), &machine_paths()[0]));
    assert!(!is_public_path(&format!("cd {}x", machine_paths()[0]), &machine_paths()[0]));
}
