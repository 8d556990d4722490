//! Keys: an agent's, forwarded ones, encrypted ones, certificates; and the host's.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use infra_test::{HostKey, SshdOptions, process};

use crate::common::ran;
use crate::stage::{Stage, text, tool};

/// An agent of the test's own.
struct Agent {
    child: Child,
    socket: PathBuf,
}

impl Agent {
    fn start(folder: &Path) -> Self {
        let socket = folder.join("agent");
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("ssh-agent");
        process::wait_for(std::time::Duration::from_secs(10), || socket.exists().then_some(())).expect("its socket");
        Self { child, socket }
    }

    fn add(&self, key: &Path) {
        let mut command = Command::new("ssh-add");
        command.arg("-q").arg(key).env("SSH_AUTH_SOCK", &self.socket);
        process::run_well(&mut command, std::time::Duration::from_secs(10)).expect("it takes the key");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

#[test]
fn the_keys_of_an_agent_log_in_and_are_forwarded_where_that_is_asked_for() {
    let stage = Stage::new();
    let agent = Agent::start(stage.sshd.folder());
    let key = stage.path("moved-key");
    std::fs::rename(stage.sshd.user_key(), &key).expect("a file");
    agent.add(&key);
    std::fs::remove_file(&key).expect("a file");
    let config = stage.write("config", &(stage.stanza("web") + &stage.rest(None)));
    let infra = |more: &[&str]| {
        let mut command = stage.command(&config, &["web", "exec"]);
        ran(command.args(more).args(["--", "ssh-add -l 2>&1 || true"]).env("SSH_AUTH_SOCK", &agent.socket))
    };
    let said = infra(&[]).expect(0);
    assert!(said.stdout.contains("Could not open a connection to your authentication agent"), "{}", said.stdout);
    let said = infra(&["--data", "ssh_forward_agent=true"]).expect(0);
    assert!(said.stdout.contains("SHA256:"), "{}", said.stdout);
    // A master that is kept forwards too, also to the run that joins it.
    for _ in 0..2 {
        let said = infra(&["--data", "ssh_forward_agent=true", "--persist", "60s"]).expect(0);
        assert!(said.stdout.contains("SHA256:"), "{}", said.stdout);
    }
    let said = infra(&["--data", "ssh_allow_agent=false"]).expect(1);
    assert!(said.stderr.contains("unreachable (authenticate)"), "{}", said.stderr);
    let mut disconnect = crate::common::infra(stage.sshd.folder());
    ran(disconnect.env("XDG_RUNTIME_DIR", stage.path("r")).arg("disconnect")).expect(0);
    drop(agent);
    stage.nothing_left();
}

/// Gives the key of the sshd's user this passphrase.
fn encrypt(stage: &Stage, passphrase: &str) {
    tool("ssh-keygen", &["-q", "-p", "-P", "", "-N", passphrase, "-f", text(stage.sshd.user_key())]);
}

#[test]
fn an_encrypted_key_is_opened_by_its_passphrase() {
    let stage = Stage::with(SshdOptions::default().aliases(["h-1", "h-2"]));
    encrypt(&stage, "canary-passphrase");
    let config = stage.write("config", &(stage.stanza("h-*") + &stage.rest(None)));
    let key = format!("ssh_key={}", text(stage.sshd.user_key()));
    let infra = |more: &[&str]| {
        let mut words = vec!["h-[1-2]", "exec", "--data", &key];
        words.extend(more);
        words.extend(["--", "echo in"]);
        stage.infra(&config, &words)
    };
    let said = infra(&["--data", "ssh_key_password=canary-passphrase"]).expect(0);
    assert_eq!(said.stdout.matches("in\n").count(), 2, "{}", said.stdout);
    for wrong in [&["--data", "ssh_key_password=something-else"][..], &[]] {
        let said = infra(wrong).expect(1);
        assert!(said.stderr.contains("unreachable (authenticate)") && said.stderr.contains("ssh_key_password"), "{}", said.stderr);
        assert!(!said.stderr.contains("something-else"), "{}", said.stderr);
    }
}

#[test]
fn a_certificate_is_as_good_as_a_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let authority = folder.path().join("authority");
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text(&authority)]);
    let mut options = SshdOptions::default().configuration(format!("TrustedUserCAKeys {}.pub", authority.display()));
    options = options.configuration("AuthorizedKeysFile none");
    let stage = Stage::with(options);
    let key = stage.sshd.user_key();
    let config = stage.write("config", &(stage.stanza("web") + &stage.rest(Some(key))));
    stage.infra(&config, &["web", "exec", "--", "true"]).expect(1);
    tool(
        "ssh-keygen",
        &["-q", "-s", text(&authority), "-I", "test", "-n", stage.sshd.user(), "-V", "+1h", &format!("{}.pub", key.display())],
    );
    stage.infra(&config, &["web", "exec", "--", "true"]).expect(0);
    assert!(stage.sshd.log().contains("ED25519-CERT"), "{}", stage.sshd.log());
}

#[test]
fn unknown_host_keys_are_taken_or_refused_as_the_data_says_and_changed_ones_never() {
    let stage = Stage::with(SshdOptions::default().host_key(HostKey::Unknown));
    let own = stage.path("own_known_hosts");
    let file = format!("ssh_known_hosts_file={}", own.display());
    let config = stage.write("config", &(stage.stanza("web") + &stage.rest(Some(stage.sshd.user_key()))));
    let infra = |checking: &str| {
        let checking = format!("ssh_strict_host_key_checking={checking}");
        stage.infra(&config, &["web", "exec", "--data", &file, "--data", &checking, "--", "echo in"])
    };
    let fingerprint = tool("ssh-keygen", &["-lf", text(&stage.path("host_key.pub"))]);
    let fingerprint = fingerprint.split_whitespace().nth(1).expect("a fingerprint");
    for checking in ["yes", "true", "ask"] {
        let said = infra(checking).expect(1);
        for words in ["unreachable (host key)", "is not known", fingerprint, text(&own)] {
            assert!(said.stderr.contains(words), "{checking}: {words}\n{}", said.stderr);
        }
    }
    infra("accept-new").expect(0);
    assert!(std::fs::read_to_string(&own).expect("it was noted").contains("ssh-ed25519"));
    infra("yes").expect(0);
    // Another one in its place.
    tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text(&stage.path("other"))]);
    let other = std::fs::read_to_string(stage.path("other.pub")).expect("a key");
    let before = format!("# mine\n[{}]:{} {other}", stage.address().ip(), stage.address().port());
    std::fs::write(&own, &before).expect("a file");
    for checking in ["accept-new", "yes"] {
        let said = infra(checking).expect(1);
        for words in ["is not the known one", &format!("{}:2", own.display()), fingerprint, "ssh-keygen -f", "-R"] {
            assert!(said.stderr.contains(words), "{checking}: {words}\n{}", said.stderr);
        }
    }
    assert_eq!(std::fs::read_to_string(&own).expect("a file"), before);
}

#[test]
fn a_host_s_certificate_is_as_good_as_a_known_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let [authority, key] = ["authority", "key"].map(|name| folder.path().join(name));
    for made in [&authority, &key] {
        tool("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", text(made)]);
    }
    tool("ssh-keygen", &["-q", "-s", text(&authority), "-h", "-I", "host", "-n", "web", "-V", "+1h", &format!("{}.pub", key.display())]);
    let options = SshdOptions::default().host_key(HostKey::Unknown).configuration(format!("HostKey {}", key.display()));
    let stage = Stage::with(options.configuration(format!("HostCertificate {}-cert.pub", key.display())));
    let config = stage.write("config", &(stage.stanza("web") + "  HostKeyAlias web\n" + &stage.rest(Some(stage.sshd.user_key()))));
    let known = stage.path("own_known_hosts");
    let file = format!("ssh_known_hosts_file={}", known.display());
    let public = std::fs::read_to_string(folder.path().join("authority.pub")).expect("a key");
    for (host, code) in [("*.example.com", 1), ("web", 0)] {
        std::fs::write(&known, format!("@cert-authority {host} {public}")).expect("a file");
        let said = stage.infra(&config, &["web", "exec", "--data", &file, "--", "true"]).expect(code);
        assert_eq!(
            said.stderr.contains("the key of web is not known; it is ssh-ed25519-cert-v01@openssh.com SHA256:"),
            code == 1,
            "{}",
            said.stderr
        );
    }
    // One that is for another name.
    let other = config.with_file_name("other");
    std::fs::write(&other, std::fs::read_to_string(&config).expect("a file").replace("HostKeyAlias web", "HostKeyAlias db"))
        .expect("a file");
    std::fs::write(&known, format!("@cert-authority db {public}")).expect("a file");
    let said = stage.infra(&other, &["web", "exec", "--data", &file, "--", "true"]).expect(1);
    assert!(said.stderr.contains("the certificate of db is not valid: name is not a listed principal"), "{}", said.stderr);
}
