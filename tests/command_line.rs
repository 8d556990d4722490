//! Sessions of the command line, kept as snapshots: see `tests/command_line/`.

mod common;

#[test]
fn sessions() {
    let cases = trycmd::TestCases::new();
    cases.case("../../tests/command_line/*.trycmd");
    cases.register_bin("infra", std::path::Path::new(env!("CARGO_BIN_EXE_infra")));
    cases.run();
}

/// Results that are lost must not look like success; a reader that has read enough loses nothing.
#[test]
fn lost_results_are_no_success() {
    let folder = tempfile::tempdir().expect("a folder");
    for words in [
        &["hosts"][..],
        &["hosts", "--json"],
        &["fact", "server.kernel"],
        &["fact", "server.kernel", "--json"],
        &["exec", "true", "--json"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let mut command = common::infra(folder.path());
        let ended = command.arg("@local").args(words).stdout(full).stderr(std::process::Stdio::null()).status().expect("infra ends");
        assert_eq!(ended.code(), Some(1), "{words:?}");

        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = common::infra(folder.path());
        let ended = command.arg("@local").args(words).stdout(writer).stderr(std::process::Stdio::null()).status().expect("infra ends");
        assert_eq!(ended.code(), Some(0), "{words:?}");
    }
}
