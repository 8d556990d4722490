//! Ways to a host: what the configuration says, jump hosts, proxies, addresses as they are spelt.

use infra_test::{Sshd, SshdOptions};

use crate::stage::Stage;

#[test]
fn a_configuration_with_hosts_matches_and_includes_is_ssh_s_own() {
    let stage = Stage::new();
    let included = stage.write(
        "part",
        &format!("{}\nMatch originalhost db-* exec \"test %n = db-02\"\n  User nobody-at-all\n", stage.stanza("web-* db-*")),
    );
    let config = stage.write("config", &format!("Include {}\n{}", included.display(), stage.rest(Some(stage.sshd.user_key()))));
    let ran = stage.infra(&config, &["web-01,db-01", "exec", "--", "echo here"]).expect(0);
    assert!(ran.stdout.contains("[web-01] here") && ran.stdout.contains("[db-01] here"), "{}", ran.stdout);
    // A stanza of `Match` that a command of the user's decides over.
    let ran = stage.infra(&config, &["db-02", "exec", "--", "true"]).expect(1);
    assert!(ran.stderr.contains("did not let nobody-at-all in"), "{}", ran.stderr);
}

/// A configuration in which `target` lies behind these jump hosts, in order.
fn behind(stage: &Stage, jumps: &[(&str, &Sshd)], names: &str) -> std::path::PathBuf {
    let mut text = format!("{}  ProxyJump {}\n", stage.stanza(names), jumps.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(","));
    let mut known = std::fs::read_to_string(stage.sshd.known_hosts()).expect("known hosts");
    for (name, sshd) in jumps {
        let address = sshd.aliases()[0].1;
        text +=
            &format!("Host {name}\n  HostName {}\n  Port {}\n  IdentityFile {}\n", address.ip(), address.port(), sshd.user_key().display());
        known += &std::fs::read_to_string(sshd.known_hosts()).expect("known hosts");
    }
    std::fs::write(stage.sshd.known_hosts(), known).expect("known hosts");
    stage.write("config", &format!("{text}{}", stage.rest(Some(stage.sshd.user_key()))))
}

fn sshd(options: SshdOptions) -> Sshd {
    Sshd::start(options).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn a_host_behind_one_jump_host_or_two_is_reached() {
    let stage = Stage::new();
    let [first, second] = [sshd(SshdOptions::default()), sshd(SshdOptions::default())];
    let config = behind(&stage, &[("jump-1", &first)], "target");
    let ran = stage.infra(&config, &["target", "exec", "--", "echo over one"]).expect(0);
    assert_eq!((ran.stdout.as_str(), first.logins(), stage.sshd.logins()), ("over one\n", 1, 1));
    let config = behind(&stage, &[("jump-1", &first), ("jump-2", &second)], "target");
    let ran = stage.infra(&config, &["target", "exec", "--", "echo over two"]).expect(0);
    assert_eq!((ran.stdout.as_str(), first.logins(), second.logins(), stage.sshd.logins()), ("over two\n", 2, 1, 2));
    // What a jump host does not let through is said in its words.
    std::fs::rename(second.user_key(), second.folder().join("put-away")).expect("a file");
    let ran = stage.infra(&config, &["target", "exec", "--", "true"]).expect(1);
    assert!(ran.stderr.contains("unreachable (banner)") && ran.stderr.contains("Permission denied (publickey)"), "{}", ran.stderr);
}

#[test]
fn a_jump_host_has_no_crowd_at_its_door() {
    let names: Vec<String> = (1..=20).map(|number| format!("h-{number:02}")).collect();
    let stage = Stage::with(SshdOptions::default().aliases(["h-01"]).configuration("MaxStartups 100"));
    // From the ninth stranger on all are turned away, and behind a jump host nobody knocks again.
    let jump = sshd(SshdOptions::default().configuration("MaxStartups 9:100:9"));
    let config = behind(&stage, &[("jump-1", &jump)], &names.join(" "));
    let ran = stage.infra(&config, &["h-[01-20]", "exec", "--json", "--", "true"]).expect(0);
    assert_eq!(ran.json()["hosts"].as_object().expect("hosts").len(), 20);
    assert_eq!(jump.logins(), 20);
    assert!(!jump.log().contains("drop connection"), "{}", jump.log());
}

#[test]
fn a_proxy_command_is_the_way_where_there_is_one() {
    let stage = Stage::new();
    let jump = sshd(SshdOptions::default());
    let proxy = format!("ssh -F {} -W %h:%p sshd-01", jump.ssh_config().display());
    let config =
        stage.write("config", &format!("{}  ProxyCommand {proxy}\n{}", stage.stanza("target"), stage.rest(Some(stage.sshd.user_key()))));
    let ran = stage.infra(&config, &["target", "exec", "--", "echo through"]).expect(0);
    assert_eq!((ran.stdout.as_str(), jump.logins()), ("through\n", 1));
    let config = stage.write("config", &format!("{}  ProxyCommand echo no way >&2; exit 1\n{}", stage.stanza("target"), stage.rest(None)));
    let ran = stage.infra(&config, &["target", "exec", "--", "true"]).expect(1);
    assert!(ran.stderr.contains("unreachable (banner)"), "{}", ran.stderr);
}

#[test]
fn hosts_are_reached_as_they_are_spelt() {
    let port = std::net::TcpListener::bind("[::1]:0").expect("IPv6 on the loopback").local_addr().expect("an address").port();
    let stage = Stage::with(SshdOptions::default().configuration(format!("ListenAddress [::1]:{port}")));
    let key = std::fs::read_to_string(stage.path("host_key.pub")).expect("a key");
    let own = stage.address();
    stage.write("known_hosts", &format!("[::1]:{port} {key}[{}]:{} {key}", own.ip(), own.port()));
    let config = stage.write("config", &stage.rest(Some(stage.sshd.user_key())));
    let user = stage.sshd.user();
    for name in [
        format!("[::1]:{port}"),
        format!("{user}@[::1]:{port}"),
        format!("{user}@{}:{}", own.ip(), own.port()),
        format!("@ssh/{user}@[::1]:{port}"),
    ] {
        let ran = stage.infra(&config, &[&name, "exec", "--", "echo ${SSH_CONNECTION%% *}"]).expect(0);
        let from = if name.contains("::1") { "::1" } else { "127." };
        assert!(ran.stdout.starts_with(from), "{}", ran.stdout);
    }
    let ran = stage.infra(&config, &["::1", "exec", "--port", &port.to_string(), "--user", user, "--", "echo here"]).expect(0);
    assert_eq!(ran.stdout, "here\n");
}
