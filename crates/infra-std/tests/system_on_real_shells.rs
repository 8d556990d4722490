//! Runs what facts and operations on the system print through real shells: that it is understood by each of them, that what is found is what
//! is there, and that clones of real repositories become what is wished and what was foretold.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use infra_core::Value;
use infra_core::change::{Action, Change, Effect};
use infra_core::command::Shell;
use infra_core::fact::{Fact, SharedFact};
use infra_core::facts::{DiffError, FactSource, Facts, LocalLookup, Lookup};
use infra_core::output::Output;
use infra_std::facts::{apt, deb, git, server, systemd};
use serde_json::json;
use tempfile::TempDir;

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];

/// A shell of this machine, in an environment of its own.
struct Host {
    shell: &'static [&'static str],
    path: String,
    home: TempDir,
}

impl Host {
    fn new(shell: &'static [&'static str]) -> Self {
        let home = TempDir::new().expect("a folder");
        let config = "[user]\nname = Test\nemail = test@example.com\n[init]\ndefaultBranch = main\n[protocol \"file\"]\nallow = always\n";
        std::fs::write(home.path().join(".gitconfig"), config).expect("a file");
        Self { shell, path: std::env::var("PATH").expect("a PATH"), home }
    }

    fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.home.path().display())
    }

    fn run(&self, script: &str) -> Output {
        let mut command = Command::new(self.shell[0]);
        command.args(&self.shell[1..]).arg("-c").arg(script).current_dir(self.home.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", &self.path).env("HOME", self.home.path()).env("LC_ALL", "C.UTF-8");
        let output = command.output().unwrap_or_else(|error| panic!("these tests need {}: {error}", self.shell[0]));
        Output { status: output.status.code().unwrap_or(255), stdout: output.stdout, stderr: output.stderr }
    }

    /// What a command of the test's own prints, without the newline at its end.
    fn sh(&self, script: &str) -> String {
        let output = self.run(script);
        assert_eq!(output.status, 0, "{script}: {}", String::from_utf8_lossy(&output.stderr));
        output.text().trim_end().to_owned()
    }

    fn ask<F: Fact>(&self, fact: &F) -> F::Value {
        let output = self.run(fact.command().script.as_str());
        let shown = || format!("{:?}: {}: {}", self.shell, F::NAME, String::from_utf8_lossy(&output.stderr));
        fact.parse(&output).unwrap_or_else(|error| panic!("{}: {error}", shown()))
    }

    fn diff(&self, operation: &str, args: Value) -> Result<Change, DiffError> {
        let registry = infra_std::registry();
        let definition = registry.operation(operation).expect("an operation of the library");
        let args = args.as_object().expect("a map").clone();
        definition.bind(args).expect("right arguments").diff(&Facts::new(self))
    }

    fn apply(&self, change: &Change) {
        for action in &change.actions {
            let Action::Run(command) = action else { panic!("a command, got {action:?}") };
            self.sh(command.script.as_str());
        }
    }

    /// Does what is wished, holds it against what was foretold, and sees that nothing is left to do.
    fn fulfil(&self, operation: &str, args: &Value) -> Change {
        let change = self.diff(operation, args.clone()).unwrap_or_else(|error| panic!("{args}: {error}"));
        self.apply(&change);
        let registry = infra_std::registry();
        for effect in &change.effects {
            let Effect::Answer { fact, question, answer, user: None } = effect else { continue };
            let question = question.as_object().expect("a map").clone();
            let fact = registry.fact(fact).expect("a fact of the library").bind(question).expect("a question");
            let Lookup::Known(found) = self.lookup(&fact) else { panic!("{fact:?} has no answer") };
            assert!(agrees(answer, &found), "{args}: {fact:?}: foretold {answer}, found {found}");
        }
        let again = self.diff(operation, args.clone()).unwrap_or_else(|error| panic!("{args}, again: {error}"));
        assert!(again.is_none(), "{args}, again: {:?}", infra_test::facts::steps_of(&again));
        change
    }
}

impl FactSource for Host {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        match fact.parse(&self.run(fact.command().script.as_str())) {
            Ok(answer) => Lookup::Known(Arc::new(answer)),
            Err(error) => Lookup::Failed(error.to_string()),
        }
    }

    fn local(&self, path: &str) -> LocalLookup {
        LocalLookup::Failed(format!("there is no local file {path}"))
    }
}

/// What is foretold may leave open what is not known.
fn agrees(foretold: &Value, found: &Value) -> bool {
    match (foretold, found) {
        (Value::Object(foretold), Value::Object(found)) => {
            foretold.iter().all(|(name, value)| value.is_null() || found.get(name) == Some(value))
        }
        _ => foretold == found,
    }
}

/// A repository with two commits on `main`, a branch `next` and an annotated tag `v1` on the first commit.
fn origin(host: &Host) -> String {
    host.sh(
        "git init -q 'the origin' && cd 'the origin' && echo one >file && git add file && git commit -qm one && git tag -a -m v1 v1 && \
         git branch next && echo two >file && git commit -qam two",
    );
    host.at("the origin")
}

#[test]
fn facts_about_the_system_are_those_of_this_machine() {
    for shell in SHELLS {
        let host = Host::new(shell);
        let identity = host.ask(&server::identity::Identity {});
        assert_eq!(identity.uid.map(|uid| uid.to_string()), Some(host.sh("id -u")), "{shell:?}");
        assert_eq!(identity.home, host.home.path().display().to_string());
        assert_eq!(host.ask(&server::hostname::Hostname {}), host.sh("uname -n"));
        let users = host.ask(&server::users::Users {});
        assert_eq!((users["root"].uid, users["root"].home.as_str()), (Some(0), "/root"));
        assert_eq!(host.ask(&server::groups::Groups {})["root"].gid, Some(0));
        assert!(host.ask(&server::os_release::OsRelease {}).contains_key("id"));
        let which = |command: &str| host.ask(&server::which::Which { command: command.to_owned() });
        assert_eq!(which("no such 'command'"), None);
        assert!(which("git").is_some_and(|path| path.ends_with("/git")));
        let nobody = server::password_hash::PasswordHash { user: "no-such-user".to_owned() };
        assert_eq!(host.ask(&nobody), None);
    }
}

#[test]
fn facts_about_packages_are_those_of_this_machine() {
    for shell in SHELLS {
        let host = Host::new(shell);
        let packages = host.ask(&deb::packages::Packages {});
        assert_eq!(packages["dpkg"], [host.sh("dpkg-query -W -f '${Version}' dpkg")], "{shell:?}");
        assert!(host.ask(&deb::architecture::Architecture {}).is_some());
        assert!(host.ask(&deb::provided::Provided {}).contains_key("awk"));
        host.ask(&deb::remains::Remains {});
        host.ask(&deb::held::Held {});
        let question = apt::candidates::Candidates { packages: vec!["dpkg".to_owned(), "no-such-package".to_owned()] };
        let candidates = host.ask(&question);
        assert_eq!(candidates["dpkg"].installed.as_ref(), packages["dpkg"].first());
        assert_eq!(candidates.len(), 1);
        host.ask(&apt::last_update::LastUpdate {});
    }
}

/// Programs that say what the test wants, before all others in the PATH.
fn with_fakes(host: &mut Host, fakes: &[(&str, &str)]) {
    let folder = host.at("fakes");
    std::fs::create_dir(&folder).expect("a folder");
    for (name, script) in fakes {
        let path = Path::new(&folder).join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
    }
    host.path = format!("{folder}:{}", host.path);
}

#[test]
fn units_are_found_under_the_names_that_were_asked() {
    let systemctl = r#"
case $* in
  *is-enabled*sshd.service) echo alias ;;
  *is-enabled*nginx.service) echo disabled; exit 1 ;;
  *is-enabled*) echo "Failed to get unit file state" >&2; exit 1 ;;
  *UnitFileState*) echo UnitFileState=enabled ;;
esac"#;
    for shell in SHELLS {
        let mut host = Host::new(shell);
        with_fakes(&mut host, &[("systemctl", systemctl)]);
        let services = ["sshd.service", "nginx.service", "gone.service"].map(str::to_owned).to_vec();
        let question = systemd::enabled::Enabled { services, user_mode: false, machine: None, user_name: None };
        let units = host.ask(&question).expect("a fake systemd is there");
        let states: BTreeMap<&str, &str> = units.iter().map(|(name, unit)| (name.as_str(), unit.state.as_str())).collect();
        let wanted = [("sshd.service", "enabled"), ("nginx.service", "disabled"), ("gone.service", "not-found")];
        assert_eq!(states, wanted.into(), "{shell:?}");
    }
}

#[test]
fn an_update_waits_for_the_lock_and_for_nothing_else() {
    let busy = "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) >count\nif [ $n -lt 2 ]; then echo 'E: Could not get lock \
                /var/lib/apt/lists/lock' >&2; exit 100; fi\necho 'Reading package lists...'";
    let broken = "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) >count; echo 'E: Failed to fetch' >&2; exit 100";
    let forever = "n=$(cat count 2>/dev/null || echo 0); echo $((n + 1)) >count; echo 'E: Could not get lock x' >&2; exit 100";
    for shell in SHELLS {
        for (apt_get, status, calls, touched) in [(busy, 0, "3", true), (broken, 100, "1", false), (forever, 100, "121", false)] {
            let mut host = Host::new(shell);
            let stamp = host.at("stamp");
            let touch = format!("echo \"$@\" >{stamp}");
            with_fakes(&mut host, &[("apt-get", apt_get), ("sleep", ":"), ("mkdir", ":"), ("touch", &touch)]);
            // The standalone busybox has a `sleep`, a `mkdir` and a `touch` of its own, which it prefers to those of the PATH.
            let fakes = "sleep() { :; }; mkdir() { :; }; ";
            let script = format!("{fakes} touch() {{ {touch}; }}; {}", infra_std::packaging::UPDATE);
            let output = host.run(&script);
            assert_eq!(output.status, status, "{shell:?}: {}", String::from_utf8_lossy(&output.stderr));
            assert_eq!((host.sh("cat count").as_str(), Path::new(&stamp).exists()), (calls, touched), "{shell:?}: {apt_get}");
        }
    }
}

#[test]
fn clones_become_what_is_wished() {
    for shell in SHELLS {
        let host = Host::new(shell);
        let (src, dest) = (origin(&host), host.at("deep/the clone"));
        let wish = |more: Value| {
            let mut args = json!({ "src": src, "dest": dest });
            args.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
            args
        };
        let head = || host.sh("git -C 'deep/the clone' describe --all --always --exact-match HEAD; cat 'deep/the clone/file'");
        let branch = || host.ask(&git::branch::Branch { repo: dest.clone() });

        assert!(!host.fulfil("git.repo", &wish(json!({}))).is_none());
        assert_eq!((branch().as_deref(), host.sh("cat 'deep/the clone/file'").as_str()), (Some("main"), "two"));

        // A tag on what is checked out is not taken for the branch.
        host.sh("git -C 'deep/the clone' tag here");
        assert_eq!(branch().as_deref(), Some("main"));

        host.sh("cd 'the origin' && echo three >file && git commit -qam three");
        let pulled = host.fulfil("git.repo", &wish(json!({ "branch": "main" })));
        assert_eq!((pulled.actions.len(), host.sh("cat 'deep/the clone/file'").as_str()), (2, "three"));

        host.fulfil("git.repo", &wish(json!({ "branch": "v1" })));
        assert_eq!((branch(), host.sh("cat 'deep/the clone/file'").as_str()), (None, "one"), "{}", head());
        host.fulfil("git.repo", &wish(json!({ "branch": "next" })));
        assert_eq!(branch().as_deref(), Some("next"));
        host.fulfil("git.repo", &wish(json!({ "branch": "main", "pull": false })));
        assert_eq!(branch().as_deref(), Some("main"));
        let second = host.sh("git -C 'the origin' rev-parse HEAD~1");
        host.fulfil("git.repo", &wish(json!({ "branch": second })));
        assert_eq!((branch(), host.sh("cat 'deep/the clone/file'").as_str()), (None, "two"));
        host.fulfil("git.repo", &wish(json!({ "branch": "main" })));

        // Commits on top of the remote's are no reason to do anything, and neither is a file that git does not know.
        host.sh("cd 'deep/the clone' && echo own >own && git add own && git commit -qm own && echo x >unknown");
        let change = host.diff("git.repo", wish(json!({}))).expect("nothing");
        assert!(change.is_none() && change.reason.contains("ahead"), "{}", change.reason);

        // The remote went on: a rebase puts the own commit on top. Work that was not committed is not lost.
        host.sh("cd 'the origin' && echo four >file && git commit -qam four && echo mine >>'../deep/the clone/own'");
        match host.diff("git.repo", wish(json!({ "rebase": true }))) {
            Err(DiffError::Refused { message, hint: Some(_) }) => assert!(message.contains("never committed: own"), "{message}"),
            other => panic!("a refusal, got {other:?}"),
        }
        host.sh("git -C 'deep/the clone' checkout -q own");
        host.fulfil("git.repo", &wish(json!({ "rebase": true })));
        assert_eq!(host.sh("cat 'deep/the clone/file' 'deep/the clone/own'"), "four\nown");
    }
}

#[test]
fn a_clone_is_made_at_a_tag_at_a_commit_and_with_submodules() {
    for shell in SHELLS {
        let host = Host::new(shell);
        let src = origin(&host);
        host.sh("git init -q outer && cd outer && git submodule -q add \"$HOME/the origin\" 'inner one' && git commit -qm outer");
        let first = host.sh("git -C 'the origin' rev-parse HEAD~1");
        host.sh("mkdir at-tag");
        host.fulfil("git.repo", &json!({ "src": src, "dest": host.at("at-tag"), "branch": "v1" }));
        host.fulfil("git.repo", &json!({ "src": src, "dest": host.at("at-commit"), "branch": first, "pull": false }));
        let shallow = format!("file://{src}");
        host.fulfil("git.repo", &json!({ "src": shallow, "dest": host.at("shallow"), "branch": "next", "depth": 1 }));
        assert_eq!(host.sh("cat at-tag/file at-commit/file shallow/file"), "one\none\none");
        // A shallow clone knows one branch alone, and still goes to another.
        host.fulfil("git.repo", &json!({ "src": shallow, "dest": host.at("shallow"), "branch": "main" }));
        assert_eq!(host.sh("cat shallow/file"), "two");

        let outer = json!({ "src": host.at("outer"), "dest": host.at("outer-clone"), "update_submodules": true });
        host.fulfil("git.repo", &outer);
        assert_eq!(host.sh("cat 'outer-clone/inner one/file'"), "two");
        host.sh("git -C 'outer-clone/inner one' checkout -q HEAD~1");
        let question = git::submodules::Submodules { repo: host.at("outer-clone"), recursive: false };
        assert_eq!(host.ask(&question), ["inner one"]);
        host.fulfil("git.repo", &outer);
    }
}

#[test]
fn what_is_no_repository_is_left_alone() {
    for shell in SHELLS {
        let host = Host::new(shell);
        let src = origin(&host);
        host.sh("mkdir full && echo x >full/x && echo x >file");
        for dest in ["full", "file"] {
            match host.diff("git.repo", json!({ "src": src, "dest": host.at(dest) })) {
                Err(DiffError::Refused { message, .. }) => assert!(message.contains("is no repository"), "{message}"),
                other => panic!("a refusal, got {other:?}"),
            }
        }
        match host.diff("git.repo", json!({ "src": host.at("gone"), "dest": host.at("new") })) {
            Err(DiffError::Fact { message, .. }) => assert!(message.contains("cannot be read"), "{message}"),
            other => panic!("a fact error, got {other:?}"),
        }
        let question = git::commit::Commit { repo: host.at("full"), reference: "HEAD".to_owned() };
        assert_eq!(host.ask(&question), None);
    }
}

#[test]
fn a_script_for_a_shell_is_understood_by_all() {
    for shell in SHELLS {
        let host = Host::new(shell);
        for fact in infra_std::facts() {
            for example in &fact.examples {
                let fact = fact.bind(example.question.as_object().expect("a map").clone()).expect("the examples bind");
                let check = Shell::argv(shell.iter().copied().chain(["-n", "-c", fact.command().script.as_str()]));
                let output = host.run(check.as_str());
                assert_eq!(output.status, 0, "{shell:?}: {fact:?}: {}", String::from_utf8_lossy(&output.stderr));
            }
        }
    }
}

/// The host's own home is that of the test; its `ssh` runs what it is told here, when it knows the key of the host or need not know it.
#[test]
fn the_key_of_an_unknown_host_is_learned_once() {
    let ssh = r#"
case $*-$(ssh-keygen -F '[git.example.com]:2222' -f "$HOME/.ssh/known_hosts" 2>/dev/null) in
  *accept-new*|*found*) ;;
  *) echo 'Host key verification failed.' >&2; exit 255 ;;
esac
for told; do :; done
eval "$told""#;
    let keyscan = "echo '# a comment'; echo \"$*\" >>scans; echo \"[git.example.com]:2222 $(cut -d' ' -f1,2 <host.pub)\"";
    for shell in SHELLS {
        let mut host = Host::new(shell);
        let src = origin(&host).replace(' ', "%20");
        host.sh("ssh-keygen -q -t ed25519 -N '' -f host && mkdir .ssh && printf 'other ssh-ed25519 AAAA' >.ssh/known_hosts");
        let keyscan = keyscan.replace("scans", &host.at("scans")).replace("host.pub", &host.at("host.pub"));
        with_fakes(&mut host, &[("getent", "echo \"x:x:0:0::$HOME:/bin/sh\""), ("ssh", ssh), ("ssh-keyscan", &keyscan)]);
        let wish = json!({ "src": format!("ssh://git@git.example.com:2222{src}"), "dest": host.at("clone"), "ssh_keyscan": true });
        let change = host.fulfil("git.repo", &wish);
        assert_eq!((change.actions.len(), host.sh("cat clone/file").as_str()), (2, "two"), "{shell:?}");
        let known = host.sh("cat .ssh/known_hosts");
        assert!(known.starts_with("other ssh-ed25519 AAAA\n[git.example.com]:2222 ssh-ed25519 "), "{known}");
        assert_eq!(host.sh("cat scans"), "-T 10 -p 2222 -- git.example.com");

        // Names that are hashed are known as well.
        host.sh("ssh-keygen -q -H -f .ssh/known_hosts 2>/dev/null && rm .ssh/known_hosts.old");
        assert!(!host.sh("cat .ssh/known_hosts").contains("git.example.com"));
        assert!(host.diff("git.repo", wish.clone()).expect("nothing").is_none());

        // A clone that is there learns the key, and the plan says that this is all.
        host.sh("rm -r .ssh");
        let change = host.fulfil("git.repo", &wish);
        assert_eq!((change.reason.as_str(), change.actions.len()), ("host key of git.example.com", 1));
        assert_eq!(host.sh("stat -c %a .ssh .ssh/known_hosts"), "700\n600");

        // Where no key is given, nothing is written and the reason is told.
        host.sh("rm -r .ssh; printf '#!/bin/sh\n' >fakes/ssh-keyscan");
        let change = host.diff("git.repo", wish.clone()).expect("a change");
        let Action::Run(command) = &change.actions[0] else { panic!("a command") };
        let output = host.run(command.script.as_str());
        assert_ne!(output.status, 0);
        assert_eq!(String::from_utf8_lossy(&output.stderr), "ssh-keyscan got no host key from git.example.com\n");
        assert!(!Path::new(&host.at(".ssh")).exists());
    }
}
