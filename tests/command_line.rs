//! Sessions of the command line, kept as snapshots: see `tests/command_line/`.

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

#[test]
fn sessions() {
    // The journal of the runs goes there, and with it.
    let home = tempfile::tempdir().expect("a folder");
    let home_path = home.path().to_str().expect("a path in UTF-8");
    let folder = std::fs::read_dir(common::repository().join("tests/command_line")).expect("the sessions");
    // One after the other and not at once, as all of them change this machine, which has one lock.
    for session in folder.flatten().filter(|file| file.path().extension().is_some_and(|extension| extension == "trycmd")) {
        let cases = trycmd::TestCases::new();
        cases.env("HOME", home_path).env("XDG_STATE_HOME", format!("{home_path}/state")).env("INFRA_LOCK_FOLDER", home_path);
        cases.case(session.path());
        cases.register_bin("infra", std::path::Path::new(env!("CARGO_BIN_EXE_infra")));
        cases.run();
    }
}

/// Sessions in which the last run matters: each has a journal of its own.
#[test]
fn sessions_alone() {
    let home = tempfile::tempdir().expect("a folder");
    let home_path = home.path().to_str().expect("a path in UTF-8");
    let cases = trycmd::TestCases::new();
    cases.env("HOME", home_path).env("XDG_STATE_HOME", format!("{home_path}/state"));
    cases.case("../../tests/command_line/alone/resume.trycmd");
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

/// A script that never ends holds nothing up: not its interrupt, and not the end of infra.
#[test]
fn an_endless_script_is_interrupted_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("endless.lua"), "print('begun')\nwhile true do end\n").expect("a deploy");
    let mut command = common::infra(folder.path());
    command.args(["@local", "endless.lua"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("infra starts");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.expect("a line").contains("begun")), "the script has begun");
    let interrupted = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("a kill").success());
    let rest: Vec<String> = lines.map(|line| line.expect("a line")).collect();
    assert_eq!(child.wait().expect("infra ends").code(), Some(130), "{rest:?}");
    assert!(interrupted.elapsed() < Duration::from_secs(10), "the script's own limit is 30 s");
    assert!(rest.iter().any(|line| line.contains("1 not reached")), "{rest:?}");
}

/// What a command of the controller prints is bounded, and one that prints without end is ended.
#[test]
fn a_local_command_without_end_is_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("endless.lua"), "local_command { 'yes' }\n").expect("a deploy");
    let ran = common::run(folder.path(), &["@local", "endless.lua", "--yes"]).expect(2);
    assert!(ran.stderr.contains("it printed more than 16 MiB"), "{}", ran.stderr);
}
