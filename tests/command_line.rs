//! Sessions of the command line, kept as snapshots: see `tests/command_line/`.

mod common;

#[test]
fn sessions() {
    let cases = trycmd::TestCases::new();
    cases.case("../../tests/command_line/*.trycmd");
    cases.register_bin("infra", std::path::Path::new(env!("CARGO_BIN_EXE_infra")));
    cases.run();
}

/// Results that nobody has are no success.
#[test]
fn results_that_cannot_be_written_are_a_failure() {
    let folder = tempfile::tempdir().expect("a folder");
    for words in [
        &["@local", "fact", "server.hostname"][..],
        &["@local", "exec", "--json", "--", "true"],
        &["@local", "exec", "--", "echo hi"],
        &["@local", "hosts"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
        let ran = common::infra(folder.path()).args(words).stdout(full).output().expect("it ends");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(1), "{words:?}\n{said}");
        assert!(said.contains("the results could not be written: No space left on device"), "{words:?}\n{said}");
    }
}
