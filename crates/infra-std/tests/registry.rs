//! Judges every entry of the standard library.

use std::collections::BTreeSet;
use std::path::Path;

use infra_core::output::Output;
use infra_core::registry::Registry;
use infra_test::examples::{check_fact, check_operation, check_operation_against};
use proptest::prelude::*;

fn registry() -> Registry {
    infra_std::registry()
}

/// The names that the files of a folder stand for, each checked to hold the definition of that name.
fn names_of_files(folder: &str) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
    let mut names = BTreeSet::new();
    let entries = |path: &Path| -> Vec<std::path::PathBuf> {
        std::fs::read_dir(path).expect("the folder is there").map(|entry| entry.expect("readable").path()).collect()
    };
    let stem = |path: &Path| path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned();
    for module in entries(&root).into_iter().filter(|path| path.is_dir()) {
        for file in entries(&module).into_iter().filter(|file| stem(file) != "mod") {
            let name = format!("{}.{}", stem(&module), stem(&file));
            let text = std::fs::read_to_string(&file).expect("readable");
            assert!(text.contains(&format!("const NAME: &'static str = \"{name}\";")), "{} does not define {name}", file.display());
            names.insert(name);
        }
    }
    names
}

#[test]
fn the_lists_are_complete_and_in_order() {
    let facts: Vec<String> = infra_std::facts().into_iter().map(|fact| fact.name).collect();
    let operations: Vec<String> = infra_std::operations().into_iter().map(|operation| operation.name).collect();
    for (folder, listed) in [("facts", facts), ("operations", operations)] {
        let files: Vec<String> = names_of_files(folder).into_iter().collect();
        assert!(!files.is_empty());
        assert_eq!(listed, files, "the list of {folder} in registry.rs and the files differ, or the list is out of order");
    }
}

#[test]
fn every_operation_holds_what_it_says() {
    let registry = registry();
    for operation in registry.operations() {
        check_operation(operation);
        check_operation_against(operation, &registry);
    }
}

#[test]
fn every_fact_holds_what_it_says() {
    registry().facts().for_each(check_fact);
}

/// Lines such as commands print: numbers, words, separators, and now and then anything at all.
fn outputs() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => "[a-z0-9:=_./ \t-]{0,20}".prop_map(String::into_bytes),
        2 => "[0-9-]{0,22}".prop_map(String::into_bytes),
        3 => Just(b"\n".to_vec()),
        1 => Just(vec![0]),
        1 => proptest::collection::vec(any::<u8>(), 0..12),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn no_output_makes_a_fact_panic(stdout in outputs(), stderr in outputs(), status in prop_oneof![Just(0), 0..=255i32]) {
        let output = Output { status, stdout, stderr };
        for fact in infra_std::facts() {
            for example in &fact.examples {
                let question = example.question.as_object().expect("a map").clone();
                let _ = fact.bind(question).expect("the examples bind").parse(&output);
            }
        }
    }

    #[test]
    fn a_damaged_output_makes_no_fact_panic(at in 0usize..4096, byte in any::<u8>(), cut in any::<bool>()) {
        for fact in infra_std::facts() {
            for example in &fact.examples {
                let mut output = example.output.clone();
                if output.stdout.is_empty() {
                    continue;
                }
                let at = at % output.stdout.len();
                if cut { output.stdout.truncate(at) } else { output.stdout[at] = byte }
                let question = example.question.as_object().expect("a map").clone();
                let _ = fact.bind(question).expect("the examples bind").parse(&output);
            }
        }
    }
}
