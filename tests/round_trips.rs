//! Round trips, counted on the wire between infra and a real sshd, not by infra itself: what a run costs beyond connecting and opening the shell.

mod common;

use std::net::SocketAddrV4;
use std::time::Duration;

use infra_test::{Relay, Sshd, SshdOptions};

/// One way. A round trip must take longer than what a command takes on a busy machine has to say about it: what comes sooner is no answer.
const ONE_WAY: Duration = Duration::from_millis(40);

struct Bench {
    sshd: Sshd,
    server: Option<SocketAddrV4>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let sshd = Sshd::start(SshdOptions::default().aliases(["far"])).unwrap_or_else(|error| panic!("{error}"));
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("page.j2"), "on {{ host.name }}\n").expect("a template");
        Self { sshd, server: None, folder }
    }

    /// Runs a deploy over a wire of its own. Gives how many round trips were on the wire, connecting included, and the outcomes.
    fn run(&mut self, deploy: &str) -> (usize, Vec<String>) {
        let path = self.folder.path();
        let server = *self.server.get_or_insert(self.sshd.aliases()[0].1);
        let relay = Relay::start(server, ONE_WAY).expect("a relay");
        self.sshd.known_as(vec![("far".to_owned(), relay.address())]).expect("an ssh_config");
        std::fs::write(path.join("deploy.lua"), format!("local here = \"{}/there\"\n{deploy}", path.display())).expect("a deploy");
        let config = format!("ssh_config_file={}", self.sshd.ssh_config().display());
        let ran = common::run(path, &["far", "deploy.lua", "--yes", "--json", "--data", &config]).expect(0);
        let document = ran.json();
        let operations = document["hosts"]["far"]["operations"].as_array().expect("operations");
        let outcomes = operations.iter().map(|one| one["outcome"].as_str().expect("an outcome").to_owned()).collect();
        (relay.round_trips(), outcomes)
    }

    /// What a deploy cost beyond connecting and opening the shell, and how many of its operations changed something. The least of a few runs: on a busy
    /// machine an answer may come in two pieces that look like two.
    fn cost(&mut self, deploys: impl Fn(usize) -> String) -> (usize, usize) {
        let connecting = (0..2).map(|_| self.run("").0).min().expect("some runs");
        let runs: Vec<_> = (0..2).map(|round| self.run(&deploys(round))).collect();
        let changed = |outcomes: &[String]| outcomes.iter().filter(|outcome| *outcome == "changed").count();
        assert!(runs.iter().all(|(_, outcomes)| changed(outcomes) == changed(&runs[0].1)), "{runs:?}");
        (runs.iter().map(|(trips, _)| trips).min().expect("some runs").saturating_sub(connecting), changed(&runs[0].1))
    }
}

/// So many times ten operations of eight kinds, which have nothing to do once they were done.
fn converged(times: usize) -> String {
    let ten = r#"
        files.directory { path = here .. "/N", mode = "755" }
        files.file { path = here .. "/N/file", mode = "640" }
        files.put { dest = here .. "/N/put", content = "one\ntwo\n" }
        files.template { src = "page.j2", dest = here .. "/N/page" }
        files.line { path = here .. "/N/put", line = "two" }
        files.line { path = here .. "/N/page", line = "on far" }
        files.directory { path = here .. "/N/below" }
        files.link { path = here .. "/N/link", target = "put" }
        server.group { group = "root" }
        apt.packages { packages = "coreutils" }
    "#;
    let all: String = (0..times).map(|at| ten.replace('N', &at.to_string())).collect();
    format!("files.directory {{ path = here }}\n{all}")
}

#[test]
fn a_run_costs_what_its_changes_cost() {
    let mut bench = Bench::start();
    let (_, outcomes) = bench.run(&converged(10));
    println!("made: {outcomes:?}");
    for times in [2, 10] {
        let (trips, changed) = bench.cost(|_| converged(times));
        println!("{} operations with nothing to do: {trips} round trips", times * 10 + 1);
        assert_eq!(changed, 0);
        assert!(trips <= 2, "{} operations with nothing to do cost {trips} round trips", times * 10 + 1);
    }
    // Five that change something, one of them in what another one made, between others that have nothing to do.
    let changing = |round: usize| {
        format!(
            r#"{}
            files.directory {{ path = here .. "/new-{round}" }}
            files.put {{ dest = here .. "/new-{round}/file", content = "first\n" }}
            files.line {{ path = here .. "/new-{round}/file", line = "second" }}
            files.line {{ path = here .. "/0/put", line = "two" }}
            files.link {{ path = here .. "/new-{round}/link", target = "file" }}
            files.file {{ path = here .. "/new-{round}/file", mode = "600" }}
            files.line {{ path = here .. "/new-{round}/file", line = "first" }}
            "#,
            converged(2)
        )
    };
    let (trips, changed) = bench.cost(changing);
    println!("with 5 that change something: {trips} round trips");
    assert_eq!(changed, 5);
    assert!(trips <= 2 + 5, "five changes cost {trips} round trips");
}
