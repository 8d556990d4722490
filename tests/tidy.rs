//! The house keeps its invariants: arrows between crates, forbidden calls, file lengths, names, lists.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_below(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if !["target", ".git", "site"].contains(&name) {
                    folders.push(path);
                }
            } else if path.to_string_lossy().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{} holds no {ending}", folder.display());
    found
}

fn crates() -> Vec<String> {
    let manifest: toml::Table = read(root().join("Cargo.toml")).parse().expect("the manifest");
    let members = manifest["workspace"]["members"].as_array().expect("members");
    members.iter().map(|member| member.as_str().expect("a path").trim_start_matches("crates/").to_owned()).collect()
}

/// The README's first command says `cargo run` alone; cargo refuses that where several packages have a binary and none is the default.
#[test]
fn cargo_run_is_infra() {
    let default = |name: &String| {
        let manifest: toml::Table = read(root().join("crates").join(name).join("Cargo.toml")).parse().expect("a manifest");
        manifest["package"].get("default-run").and_then(toml::Value::as_str).map(str::to_owned)
    };
    assert_eq!(crates().iter().filter_map(default).collect::<Vec<_>>(), ["infra"]);
    assert!(read(root().join("README.md")).contains("cargo run --release -- inventories/local.lua deploys/quickstart.lua --yes"));
}

/// The lines of a source that are code in the product: without comments, and without test modules, which stand last in a file.
fn product_lines(source: &str) -> impl Iterator<Item = (usize, &str)> {
    source
        .lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]" && !line.starts_with("#![cfg(test)]"))
        .map(|(at, line)| (at + 1, line.split("//").next().unwrap_or_default()))
}

#[test]
fn the_arrows_between_crates_are_a_star() {
    let ours: BTreeSet<String> = crates().into_iter().collect();
    assert_eq!(ours.len(), 8, "eight crates: {ours:?}");
    let mut wrong = Vec::new();
    for name in &ours {
        let manifest: toml::Table = read(root().join("crates").join(name).join("Cargo.toml")).parse().expect("a manifest");
        for section in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { continue };
            for dependency in table.keys().filter(|dependency| ours.contains(*dependency)) {
                let allowed = match (name.as_str(), section, dependency.as_str()) {
                    (_, "dev-dependencies", "infra-test") => name != "infra-core",
                    ("infra", "dependencies", other) => other != "infra-test",
                    ("infra-core", ..) => false,
                    (_, "dependencies", "infra-core") => true,
                    _ => false,
                };
                if !allowed {
                    wrong.push(format!("{name} [{section}] → {dependency}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "arrows that the star does not have: {wrong:#?}");
}

#[test]
fn versions_stand_in_the_root_manifest_alone() {
    for name in crates() {
        let manifest: toml::Table = read(root().join("crates").join(&name).join("Cargo.toml")).parse().expect("a manifest");
        for section in ["dependencies", "dev-dependencies"] {
            for (dependency, value) in manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten() {
                let inherited = value.get("workspace").and_then(toml::Value::as_bool) == Some(true);
                assert!(inherited, "{name}: {dependency} must take its version from the workspace");
            }
        }
    }
}

#[test]
fn every_dependency_is_used_by_who_has_it() {
    let mut unused = Vec::new();
    for name in crates() {
        let folder = root().join("crates").join(&name);
        let manifest: toml::Table = read(folder.join("Cargo.toml")).parse().expect("a manifest");
        let mut tests: Vec<PathBuf> = files_below(&folder, ".rs");
        if name == "infra" {
            tests.extend(files_below(&root().join("tests"), ".rs"));
        }
        let product = files_below(&folder.join("src"), ".rs");
        for (section, files) in [("dependencies", product), ("dev-dependencies", tests)] {
            let text: String = files.iter().map(read).collect();
            let words: BTreeSet<&str> = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
            let table = manifest.get(section).and_then(toml::Value::as_table).into_iter().flatten();
            unused.extend(table.filter(|(it, _)| !words.contains(it.replace('-', "_").as_str())).map(|(it, _)| format!("{name}: {it}")));
        }
    }
    let workspace: toml::Table = read(root().join("Cargo.toml")).parse().expect("the manifest");
    let manifests: String = crates().iter().map(|name| read(root().join("crates").join(name).join("Cargo.toml"))).collect();
    let named = |it: &str| manifests.lines().any(|line| line.split(['.', ' ', '=']).next() == Some(it));
    let all = workspace["workspace"]["dependencies"].as_table().expect("dependencies");
    unused.extend(all.keys().filter(|it| !named(it)).map(|it| format!("the workspace: {it}")));
    assert!(unused.is_empty(), "dependencies that nobody uses: {unused:?}");
}

#[test]
fn every_dependency_says_why_it_is_here() {
    let manifest: toml::Table = read(root().join("Cargo.toml")).parse().expect("the manifest");
    let why = read(root().join("docs/dependencies.md"));
    let words: BTreeSet<&str> = why.split(|c: char| !(c.is_alphanumeric() || c == '-' || c == '_')).collect();
    let all = manifest["workspace"]["dependencies"].as_table().expect("dependencies");
    let silent: Vec<&String> = all.keys().filter(|name| !name.starts_with("infra") && !words.contains(name.as_str())).collect();
    assert!(silent.is_empty(), "docs/dependencies.md says nothing of {silent:?}");
}

#[test]
fn core_and_std_do_no_io_and_only_the_binary_prints() {
    let mut wrong = Vec::new();
    for name in crates() {
        let pure = ["infra-core", "infra-std"].contains(&name.as_str());
        let mut forbidden: Vec<&str> = Vec::new();
        if pure {
            forbidden.extend([
                "std::fs",
                "std::process",
                "std::env",
                "std::net",
                "std::thread",
                "Instant::now",
                "SystemTime::now",
                "tokio",
            ]);
        }
        if name != "infra" && name != "infra-test" {
            forbidden.extend(["println!", "print!(", "eprintln!", "eprint!(", "io::stdout()", "io::stderr()", "process::exit", "env::var"]);
        }
        for file in files_below(&root().join("crates").join(&name).join("src"), ".rs") {
            if file.ends_with("tests.rs") || file.parent().is_some_and(|folder| folder.ends_with("tests")) {
                continue;
            }
            let source = read(&file);
            for (line, code) in product_lines(&source) {
                wrong
                    .extend(forbidden.iter().filter(|call| code.contains(**call)).map(|call| format!("{}:{line}: {call}", file.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "calls that do not belong there: {wrong:#?}");
}

#[test]
fn no_file_is_too_long() {
    let mut long = Vec::new();
    for (folder, ending) in [("crates", ".rs"), ("tests", ".rs"), ("benches", "")] {
        for file in files_below(&root().join(folder), ending) {
            let lines = read(&file).lines().count();
            if lines > 800 {
                long.push(format!("{}: {lines} lines", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "redraw these before adding more: {long:#?}");
}

#[test]
fn a_path_is_a_name() {
    let source = root().join("crates/infra-std/src");
    let mut wrong = Vec::new();
    for (folder, what) in [("facts", "impl Fact for"), ("operations", "impl Operation for")] {
        for file in files_below(&source.join(folder), ".rs") {
            let relative = file.strip_prefix(source.join(folder)).expect("below");
            if relative.file_name().is_some_and(|name| name == "mod.rs") {
                continue;
            }
            let name = relative.with_extension("").to_string_lossy().replace('/', ".");
            let text = read(&file);
            let right = text.matches(what).count() == 1 && text.contains(&format!("NAME: &'static str = \"{name}\""));
            if !right {
                wrong.push(format!("{} must hold one `{what} …` with the name {name}", relative.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_has_its_line() {
    let text = read(root().join("crates/README.md"));
    let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("- `")?.split('`').next()).collect();
    assert_eq!(listed, crates().iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_undone() {
    let mut left = Vec::new();
    for folder in ["crates", "tests"] {
        for file in files_below(&root().join(folder), ".rs") {
            if file.ends_with("tests/tidy.rs") {
                continue;
            }
            for (at, line) in read(&file).lines().enumerate() {
                let marks = ["todo!(", "unimplemented!(", "#[ignore", "dbg!(", "FIXME", "XXX"];
                left.extend(marks.iter().filter(|mark| line.contains(**mark)).map(|mark| format!("{}:{}: {mark}", file.display(), at + 1)));
            }
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}
