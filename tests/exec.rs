//! `exec` on many hosts behind a real sshd, as users of parallel-ssh and clush know it.

mod common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use infra_test::{Sshd, SshdOptions, process};

/// Ten hosts, `web-01` to `web-10`.
fn hosts() -> Sshd {
    let names = (1..=10).map(|number| format!("web-{number:02}"));
    Sshd::start(SshdOptions::default().aliases(names)).unwrap_or_else(|error| panic!("{error}"))
}

const ALL: &str = "web-[01-10]";

/// Shell text that is different on this host: `then` there, `otherwise` elsewhere.
fn on(sshd: &Sshd, name: &str, then: &str, otherwise: &str) -> String {
    let (_, address) = sshd.aliases().iter().find(|(alias, _)| alias == name).expect("an alias");
    format!("case $SSH_CONNECTION in *' {} '*) {then};; *) {otherwise};; esac", address.ip())
}

fn command(sshd: &Sshd, words: &[&str]) -> Command {
    let mut command = common::infra(sshd.folder());
    // Before the words: what stands behind `--` is the command's.
    command.arg("--data").arg(format!("ssh_config_file={}", sshd.ssh_config().display())).args(words);
    command.env("XDG_RUNTIME_DIR", sshd.folder().join("r"));
    command
}

fn ended(sshd: &Sshd, command: &mut Command) -> common::Ran {
    let ran = common::ran(command);
    common::nothing_left(sshd);
    ran
}

fn infra(sshd: &Sshd, words: &[&str]) -> common::Ran {
    ended(sshd, &mut command(sshd, words))
}

/// Runs a shell text in which `"$@"` is infra with these words.
fn infra_in(sshd: &Sshd, text: &str, words: &[&str]) -> common::Ran {
    let plain = command(sshd, words);
    let mut shell = Command::new("sh");
    shell.args(["-c", text, "sh"]).arg(plain.get_program()).args(plain.get_args()).current_dir(sshd.folder()).stdin(Stdio::null());
    shell.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    ended(sshd, &mut shell)
}

#[test]
fn lines_come_with_their_host_and_each_exit_code_is_told() {
    let sshd = hosts();
    let text = on(&sshd, "web-03", "echo odd; echo why >&2; exit 7", "echo even");
    let ran = infra(&sshd, &[ALL, "exec", "--", &text]).expect(1);
    let mut lines: Vec<_> = ran.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.len(), 10, "{}", ran.stdout);
    assert_eq!((lines[0], lines[2]), ("[web-01] even", "[web-03] odd"));
    for said in ["[web-03] why", "[web-03] exited with 7", "10 hosts: 9 ok, 1 failed", "failed: web-03"] {
        assert!(ran.stderr.contains(said), "«{said}» is missing:\n{}", ran.stderr);
    }
}

#[test]
fn equal_outputs_are_shown_once_and_the_odd_ones_by_their_difference() {
    let sshd = hosts();
    let text = on(&sshd, "web-03", "echo a; echo c; exit 7", "echo a; echo b");
    let text = on(&sshd, "web-07", "echo a; echo b; echo hm >&2", &text);
    let ran = infra(&sshd, &[ALL, "exec", "--gather", "--", &text]).expect(1);
    let rest = "web-[01-02], web-[04-06], web-[08-10] (8 hosts): exit code 0\na\nb\n";
    assert_eq!(
        ran.stdout,
        format!("-- {rest}-- web-03 (1 host): exit code 7\na\nc\n-- web-07 (1 host): exit code 0\na\nb\n-- standard error:\nhm\n")
    );
    let ran = infra(&sshd, &[ALL, "exec", "--gather", "--diff", "--", &text]).expect(1);
    for said in [
        &format!("-- {rest}"),
        "-- web-03 (1 host): exit code 7\n--- web-[01-02]",
        "+++ web-03\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n",
        "+++ standard error of web-07\n@@ -0,0 +1 @@\n+hm\n",
    ] {
        assert!(ran.stdout.contains(said), "«{said}» is missing:\n{}", ran.stdout);
    }
}

#[test]
fn several_commands_run_in_order_up_to_the_first_that_fails() {
    let sshd = hosts();
    let second = on(&sshd, "web-02", "exit 4", "echo two");
    let words = ["web-[01-02]", "exec", "--gather", "-c", "echo one", "-c", &second, "-c", "echo three"];
    let ran = infra(&sshd, &words).expect(1);
    assert_eq!(ran.stdout, "-- web-01 (1 host): exit code 0\none\ntwo\nthree\n-- web-02 (1 host): exit code 4\none\n");
    let ran = infra(&sshd, &[&words[..], &["--keep-going"]].concat()).expect(1);
    assert_eq!(ran.stdout, "-- web-01 (1 host): exit code 0\none\ntwo\nthree\n-- web-02 (1 host): exit code 4\none\nthree\n");
}

#[test]
fn a_program_is_uploaded_run_with_its_words_and_removed() {
    let sshd = hosts();
    let program = "#!/bin/sh\nprintf '[%s]' \"$@\"; echo; ls \"$0\"; pwd; echo \"$A\"; test -t 0 || cat\n";
    fs::write(sshd.folder().join("check.sh"), program).expect("a program");
    fs::create_dir(sshd.folder().join("place")).expect("a folder");
    let place = sshd.folder().join("place").canonicalize().expect("a folder").display().to_string();
    let options = ["--script", "check.sh", "--cwd", &place, "--env", "A=it's", "--gather"];
    let ran = infra(&sshd, &[&[ALL, "exec"][..], &options, &["--", "-v", "a  b", "$HOME"]].concat()).expect(0);
    let lines: Vec<_> = ran.stdout.lines().collect();
    // Each host has the program in a place of another name, so that they are not alike.
    assert_eq!(lines.iter().filter(|line| **line == "[-v][a  b][$HOME]").count(), 10, "{}", ran.stdout);
    assert_eq!(lines.iter().filter(|line| **line == "it's").count(), 10, "{}", ran.stdout);
    assert_eq!(lines.iter().filter(|line| **line == place).count(), 10, "{}", ran.stdout);
    let programs: Vec<_> = lines.iter().filter(|line| line.contains(".infra-")).collect();
    assert!(programs.len() == 10 && programs.iter().all(|path| !std::path::Path::new(path).exists()), "{programs:?}");
    let ran = infra(&sshd, &["web-01", "exec", "--script", "gone.sh"]).expect(2);
    assert!(ran.stderr.contains("the script gone.sh does not exist"), "{}", ran.stderr);
}

#[test]
fn every_host_reads_the_same_input_whatever_its_size() {
    let sshd = hosts();
    // What no shell would like.
    let make = "head -c 16777216 /dev/urandom > big; sha256sum < big";
    let digest = Command::new("sh").args(["-c", make]).current_dir(sshd.folder()).output().expect("a file");
    let digest = String::from_utf8(digest.stdout).expect("text");
    for (text, option) in [
        ("exec \"$@\" < big", "--stdin"),
        ("cat big | \"$@\"", "--stdin"),
        ("exec \"$@\"", "--stdin=big"),
        ("cat big | \"$@\"", "--stdin=/dev/stdin"),
    ] {
        let ran = infra_in(&sshd, text, &["web-[01-04]", "exec", "--gather", option, "-c", "sha256sum", "-c", "sha256sum"]).expect(0);
        assert_eq!(ran.stdout, format!("-- web-[01-04] (4 hosts): exit code 0\n{digest}{digest}"), "{text} {option}");
    }
    // What reads nothing of it ends all the same.
    infra(&sshd, &[ALL, "exec", "--stdin=big", "--", "true"]).expect(0);
    let ran = infra(&sshd, &[ALL, "exec", "--stdin=bgi", "--", "cat"]).expect(2);
    assert!(ran.stderr.contains("the input bgi does not exist"), "{}", ran.stderr);
}

#[test]
fn outputs_go_into_files_to_the_last_byte() {
    let sshd = hosts();
    let folder = sshd.folder().join("results");
    fs::create_dir(&folder).expect("a folder");
    // Of an earlier run.
    fs::write(folder.join("web-02.out"), "old").expect("a file");
    let text = on(&sshd, "web-02", "exit 3", "printf 'a\\0\\377\\r\\nb'; echo w >&2");
    fs::write(
        sshd.folder().join("inventory.lua"),
        "all_of = { 'web-01', 'web-02', '@local', { 'gone', ssh_hostname = '127.255.255.254', ssh_port = 1 } }",
    )
    .expect("an inventory");
    let ran = infra(&sshd, &["inventory.lua", "exec", "--out-dir", "results", "--", &text]).expect(1);
    assert!(ran.stdout.is_empty(), "{}", ran.stdout);
    let read = |name: &str| fs::read(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for host in ["web-01", "@local"] {
        assert_eq!(read(&format!("{host}.out")), b"a\0\xff\r\nb");
        assert_eq!((read(&format!("{host}.err")), read(&format!("{host}.exit"))), (b"w\n".to_vec(), b"0\n".to_vec()));
    }
    assert_eq!((read("web-02.out"), read("web-02.exit")), (Vec::new(), b"3\n".to_vec()));
    assert_eq!(read("gone.exit"), b"unreachable\n");
    assert!(!folder.join("gone.out").exists());
    // A folder that cannot be is said before anything runs, and a disk that is full is no success.
    let ran = infra(&sshd, &["web-01", "exec", "--out-dir", "inventory.lua/x", "--", "true"]).expect(2);
    assert!(ran.stderr.contains("--out-dir inventory.lua/x: the folder cannot be made"), "{}", ran.stderr);
    let ran = infra(&sshd, &["web-01", "exec", "--out-dir", "inventory.lua", "--", "true"]).expect(2);
    assert!(ran.stderr.contains("--out-dir inventory.lua: it is there and is no folder"), "{}", ran.stderr);
    std::os::unix::fs::symlink("/dev/full", folder.join("web-03.exit")).expect("a link");
    let ran = infra_in(
        &sshd,
        "ulimit -f 1; trap '' XFSZ; exec \"$@\"",
        &["web-03", "exec", "--out-dir", "results", "--", "head -c 100000 /dev/zero"],
    );
    let ran = ran.expect(1);
    assert!(ran.stderr.contains("error: the outputs cannot be written to "), "{}", ran.stderr);
}

#[test]
fn the_document_has_the_output_of_each_host() {
    let sshd = hosts();
    let ran = infra(&sshd, &[ALL, "exec", "--json", "--", &on(&sshd, "web-10", "echo x >&2; exit 2", "echo y")]).expect(1);
    let document = ran.json();
    let result = |host: &str| document["hosts"][host]["operations"][0].clone();
    assert_eq!((result("web-01")["stdout"].as_str(), result("web-01")["exit_code"].as_i64()), (Some("y\n"), Some(0)));
    assert_eq!((result("web-10")["stderr"].as_str(), result("web-10")["exit_code"].as_i64()), (Some("x\n"), Some(2)));
}

#[test]
fn what_hangs_is_killed_with_all_that_it_started_and_what_asks_finds_nobody() {
    let sshd = hosts();
    let pids = sshd.folder().join("pids");
    fs::create_dir(&pids).expect("a folder");
    let hang = format!("echo working; sleep 987 & echo $! > {}/$$; exec sleep 986", pids.display());
    let started = Instant::now();
    let ran = infra(&sshd, &[ALL, "exec", "--timeout", "1.5", "--gather", "--", &hang]).expect(1);
    assert!(started.elapsed() < Duration::from_secs(60));
    // What a shell says of it (`Terminated`) is no output of the command.
    assert_eq!(ran.stdout, format!("-- {ALL} (10 hosts): timed out\nworking\n"));
    assert!(ran.stderr.contains("timed out after 1.5 s"), "{}", ran.stderr);
    let sleeping: Vec<String> =
        fs::read_dir(&pids).expect("pids").map(|entry| fs::read_to_string(entry.expect("one").path()).expect("a pid")).collect();
    assert_eq!(sleeping.len(), 10);
    // What is killed may not have been reaped yet; then it has no words any more.
    let words = |pid: &String| fs::read(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
    assert!(sleeping.iter().all(|pid| !words(pid).starts_with(b"sleep\x00987")), "{sleeping:?}");
    // A question is not waited for: there is nobody to answer it.
    let ran = infra(&sshd, &[ALL, "exec", "--gather", "--", "printf 'Continue? '; read -r answer; echo \"$?:$answer\""]).expect(0);
    assert_eq!(ran.stdout, format!("-- {ALL} (10 hosts): exit code 0\nContinue? 1:\n"));
    // What a command left behind holds its outputs open, and does not hold it up.
    let go = sshd.folder().join("go");
    let leave = format!("echo begun; (while ! test -e {}; do sleep 0.1; done; echo late) & exit 0", go.display());
    let ran = process::run(&mut command(&sshd, &[ALL, "exec", "--gather", "--", &leave]), Duration::from_secs(120)).expect("infra ends");
    fs::write(go, "").expect("a file");
    assert_eq!((ran.code, ran.stdout), (Some(0), format!("-- {ALL} (10 hosts): exit code 0\nbegun\n")), "{}", ran.stderr);
    common::nothing_left(&sshd);
}

/// The most memory a run of infra took, in KiB, besides what came of it.
fn most_memory(sshd: &Sshd, redirected: &str, words: &[&str]) -> (u64, common::Ran) {
    let text = format!(
        "\"$@\" {redirected} & pid=$!; most=0; while kill -0 $pid 2>/dev/null; do \
        now=$(sed -n 's/^VmHWM:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$pid/status 2>/dev/null); [ -n \"$now\" ] && most=$now; sleep 0.05; done; \
        wait $pid; code=$?; echo $most > most; exit $code"
    );
    let ran = infra_in(sshd, &text, words);
    let most = fs::read_to_string(sshd.folder().join("most")).expect("a number");
    (most.trim().parse().expect("a number"), ran)
}

#[test]
fn what_has_no_end_of_line_takes_no_memory() {
    let sshd = hosts();
    // Of two hosts at once, with NULs and without an end of line; and as many lines on the other output.
    for (options, redirected) in
        [(&[][..], ">/dev/null"), (&["--gather"], ">gathered"), (&["--json"], ">document"), (&["--out-dir", "results"], ">/dev/null")]
    {
        let words = [&["web-[01-02]", "exec"][..], options, &["--", "head -c 134217728 /dev/zero; yes | head -c 200000 >&2"]].concat();
        let (most, ran) = most_memory(&sshd, &format!("2>/dev/null {redirected}"), &words);
        ran.expect(0);
        assert!(most > 1024 && most < 96 * 1024, "{options:?} took {most} KiB");
    }
    let words = ["web-[01-02]", "exec", "--gather", "--stdin=hole", "--", "wc -c"];
    let file = fs::File::create(sshd.folder().join("hole")).expect("a file");
    file.set_len(268_435_456).expect("a file with nothing in it");
    let (most, ran) = most_memory(&sshd, "2>/dev/null", &words);
    assert_eq!(ran.expect(0).stdout, "-- web-[01-02] (2 hosts): exit code 0\n268435456\n");
    assert!(most > 1024 && most < 96 * 1024, "the input took {most} KiB");
    let size = |name: &str| fs::metadata(sshd.folder().join("results").join(name)).expect("a file").len();
    assert_eq!((size("web-01.out"), size("web-02.out"), size("web-02.err")), (134_217_728, 134_217_728, 200_000));
    let gathered = fs::read(sshd.folder().join("gathered")).expect("a file");
    assert!(String::from_utf8_lossy(&gathered).starts_with("-- web-[01-02] (2 hosts): exit code 0\n"));
}

#[test]
fn the_bytes_of_one_host_arrive_as_they_are() {
    let sshd = hosts();
    let make = "head -c 3000000 /dev/urandom > bytes; printf 'no end' >> bytes; sha256sum < bytes";
    let digest = Command::new("sh").args(["-c", make]).current_dir(sshd.folder()).output().expect("a file");
    let cat = format!("cat {}/bytes", sshd.folder().display());
    let ran = infra_in(&sshd, "\"$@\" > got && sha256sum < got", &["web-01", "exec", "--", &cat]).expect(0);
    assert_eq!(ran.stdout.as_bytes(), digest.stdout);
    // On the screen nothing of it moves the cursor.
    let ran = infra(&sshd, &["web-[01-02]", "exec", "--", "printf '\\033[2J\\033]0;title\\007\\r\\377\\000x\\n' >&2"]).expect(0);
    assert!(!ran.stderr.contains('\x1b') && !ran.stderr.contains('\x07'), "{:?}", ran.stderr);
    assert!(ran.stderr.contains("[web-01] \\u{1b}[2J\\u{1b}]0;title\\u{7}\\r\u{fffd}\\u{0}x"), "{:?}", ran.stderr);
}
