//! Login shells of every kind, what they print before anybody asks, and locales: commands run through `sh`, and facts read the same (faults.md, F11).

use infra_test::SshdOptions;

use crate::stage::Stage;

/// An sshd that hands what ssh asks for to this shell, as it does with a user's own.
fn with_shell(shell: &str, more: &[&str]) -> Stage {
    let mut options = SshdOptions::default().configuration(format!("ForceCommand {shell} -c \"$SSH_ORIGINAL_COMMAND\""));
    for line in more {
        options = options.configuration(*line);
    }
    Stage::with(options)
}

#[test]
fn all_login_shells_are_the_same() {
    let plain = Stage::new();
    let script = "x='a  b' && printf '%s|' \"$x\" 'it'\\''s' '$HOME' 'back\\slash' '!bang' && echo; exit 7";
    let read = |stage: &Stage, words: &[&str]| {
        let mut all = vec!["sshd-01"];
        all.extend(words);
        stage.infra(stage.sshd.ssh_config(), &all)
    };
    let kernel = read(&plain, &["fact", "server.kernel"]).expect(0).stdout;
    let users = read(&plain, &["fact", "server.users"]).expect(0).stdout;
    for shell in ["/bin/dash", "/bin/bash", "/usr/bin/mksh", "/usr/bin/ksh", "/usr/bin/tcsh", "/usr/bin/fish", "/bin/busybox sh"] {
        let stage = with_shell(&format!("exec {shell}"), &[]);
        let said = read(&stage, &["exec", "--", script]).expect(1);
        assert_eq!(said.stdout, "a  b|it's|$HOME|back\\slash|!bang|\n", "{shell}: {}", said.stderr);
        assert!(said.stderr.contains('7'), "{shell}: {}", said.stderr);
        assert_eq!(read(&stage, &["fact", "server.kernel"]).expect(0).stdout, kernel, "{shell}");
        assert_eq!(read(&stage, &["fact", "server.users"]).expect(0).stdout, users, "{shell}");
    }
}

#[test]
fn banners_noise_and_odd_locales_are_no_part_of_an_answer() {
    let stage = Stage::with(SshdOptions::default());
    let banner = stage.write("banner", "*** Authorised users only ***\nPermission denied (if you are not one).\n");
    let noise = "echo 'Last login: never'; echo 'mesg: ttyname failed' >&2; printf 'no newline'; export LC_ALL=tr_TR.UTF-8 LANG=de_DE LANGUAGE=de; umask 0; cd /tmp; sh";
    let noisy = with_shell(noise, &[&format!("Banner {}", banner.display())]);
    let words = ["sshd-01", "exec", "--", "echo out; echo err >&2; ls /nowhere"];
    let said = noisy.infra(noisy.sshd.ssh_config(), &words).expect(1);
    assert_eq!(said.stdout, "out\n");
    assert!(said.stderr.contains("err") && !said.stderr.contains("Last login") && !said.stderr.contains("Authorised"), "{}", said.stderr);
    for fact in ["server.kernel", "server.users", "server.groups", "server.os_release"] {
        let of = |stage: &Stage| stage.infra(stage.sshd.ssh_config(), &["sshd-01", "fact", fact]).expect(0).stdout;
        assert_eq!(of(&noisy), of(&stage), "{fact}");
    }
}

#[test]
fn a_shell_that_is_none_says_so() {
    let said = "This account is currently not available.";
    for (shell, words) in [("/usr/sbin/nologin", said), ("/bin/false", "see what `ssh"), ("/nonexistent/shell", "/nonexistent/shell")] {
        let stage = with_shell(&format!("exec {shell}"), &[]);
        let ran = stage.infra(stage.sshd.ssh_config(), &["sshd-01", "exec", "--", "true"]).expect(1);
        assert!(ran.stderr.contains("unreachable (shell)") && ran.stderr.contains(words), "{shell}: {}", ran.stderr);
    }
}

#[test]
fn a_host_with_the_tools_of_busybox_alone_is_a_host() {
    let plain = Stage::new();
    let tools = plain.path("tools");
    std::fs::create_dir(&tools).expect("a folder");
    crate::stage::tool("busybox", &["--install", "-s", crate::stage::text(&tools)]);
    let stage = with_shell(&format!("PATH={} exec {}/sh", tools.display(), tools.display()), &[]);
    let infra = |stage: &Stage, words: &[&str]| {
        let mut all = vec!["sshd-01"];
        all.extend(words);
        stage.infra(stage.sshd.ssh_config(), &all)
    };
    assert_eq!(infra(&stage, &["exec", "--", "command -v bash || echo none"]).expect(0).stdout, "none\n");
    for fact in ["server.kernel", "server.users", "server.groups", "server.hostname"] {
        assert_eq!(infra(&stage, &["fact", fact]).expect(0).stdout, infra(&plain, &["fact", fact]).expect(0).stdout, "{fact}");
    }
    let source = stage.write("source", "content\n");
    let (src, dest) = (format!("src={}", source.display()), format!("dest={}", stage.path("put").display()));
    let put = ["files.put", &src, &dest, "mode=640", "--yes", "--prove=strict"];
    infra(&stage, &put).expect(0);
    assert_eq!(std::fs::read_to_string(stage.path("put")).expect("the file"), "content\n");
    let line = format!("path={}", stage.path("put").display());
    infra(&stage, &["files.line", &line, "line=another", "--yes", "--prove=strict"]).expect(0);
    assert_eq!(std::fs::read_to_string(stage.path("put")).expect("the file"), "content\nanother\n");
}
