//! Round trips, counted on the wire between infra and a real sshd, not by infra itself: what a run costs beyond connecting and opening the shell.

mod common;

use std::net::SocketAddrV4;
use std::time::Duration;

use infra_test::{Fleet, Relay};

/// One way. A round trip must take longer than what a command takes on a busy machine has to say about it: what comes sooner is no answer.
const ONE_WAY: Duration = Duration::from_millis(40);

/// A machine at the end of a long wire.
struct Bench {
    fleet: Fleet,
    server: SocketAddrV4,
}

impl Bench {
    fn start() -> Self {
        let fleet = Fleet::boot(&["far"]).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
        let server = SocketAddrV4::new(fleet.machine("far").address().parse().expect("an IPv4 address"), 22);
        std::fs::write(fleet.folder().join("page.j2"), "on {{ host.name }}\n").expect("a template");
        Self { fleet, server }
    }

    /// Runs a deploy over a wire of its own. Gives how many round trips were on the wire, connecting included, and the outcomes.
    fn run(&self, deploy: &str) -> (usize, Vec<String>) {
        let path = self.fleet.folder();
        let relay = Relay::start(self.server, ONE_WAY).expect("a relay");
        std::fs::write(path.join("deploy.lua"), format!("local here = \"/srv/there\"\n{deploy}")).expect("a deploy");
        let (wire, machine, config) = (relay.address(), self.server.ip(), self.fleet.ssh_config().display());
        let own = path.join("over_the_wire");
        let (ip, port) = (wire.ip(), wire.port());
        let far = format!("Host far\n  HostName {ip}\n  Port {port}\n  HostKeyAlias {machine}\nMatch all\n  Include {config}\n");
        std::fs::write(&own, far).expect("an ssh_config");
        let config = format!("ssh_config_file={}", own.display());
        let words = ["far", "deploy.lua", "--yes", "--json", "--data", &config];
        let document = common::run(path, &words).expect(0).json();
        let operations = document["hosts"]["far"]["operations"].as_array().expect("operations");
        let outcomes = operations.iter().map(|one| one["outcome"].as_str().expect("an outcome").to_owned()).collect();
        (relay.round_trips(), outcomes)
    }

    /// What a deploy cost beyond connecting and opening the shell, and how many of its operations changed something. The least of a few runs: on a busy
    /// machine an answer may come in two pieces that look like two.
    fn cost(&self, deploys: impl Fn(usize) -> String) -> (usize, usize) {
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
    let bench = Bench::start();
    bench.run(&converged(10));
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

    // A further privilege is one more shell, and one more request for its facts.
    let further = |_| {
        format!(
            "{}\nfiles.file {{ path = here .. \"/0/put\", _sudo = true }}\nfiles.directory {{ path = here .. \"/0\", _sudo = true }}",
            converged(2)
        )
    };
    let (trips, changed) = bench.cost(further);
    println!("with a further privilege: {trips} round trips");
    assert_eq!(changed, 0);
    assert!(trips <= 2 + 1, "a further privilege costs {trips} round trips");

    // What is larger than 1 MiB goes out by itself, before what comes behind it.
    std::fs::write(bench.fleet.folder().join("large"), vec![b'x'; 1_500_000]).expect("a large file");
    let uploading = |round: usize| {
        format!(
            r#"{}
            files.put {{ src = "large", dest = here .. "/large-{round}", mode = "600" }}
            files.put {{ src = "large", dest = here .. "/other-{round}" }}
            files.line {{ path = here .. "/0/put", line = "two" }}
            "#,
            converged(2)
        )
    };
    let (trips, changed) = bench.cost(uploading);
    println!("with 2 uploads of 1.5 MB: {trips} round trips");
    assert_eq!(changed, 2);
    assert!(trips <= 2 + 2 * 2, "two large uploads cost {trips} round trips");
}
