//! The experiment: 24 servers and 24 load generators on four real machines, all at the same time, and their results fetched.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use infra_test::{Fleet, Machine, process};
use serde_json::Value;

const MACHINES: [&str; 4] = ["lab-01", "lab-02", "lab-03", "lab-04"];
const EACH: usize = 12;

/// A copy of the deploy and its inventory, beside which the results are written.
fn copy(folder: &Path) {
    let top = common::repository();
    std::fs::create_dir_all(folder.join("deploys/experiment")).expect("a folder");
    std::fs::create_dir(folder.join("inventories")).expect("a folder");
    for file in ["deploys/experiment.lua", "deploys/experiment/server.py", "deploys/experiment/generator.py", "inventories/experiment.lua"]
    {
        std::fs::copy(top.join(file), folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

/// The lines of the journal of the only run there is.
fn journal(home: &Path) -> Vec<Value> {
    let runs = home.join(".local/state/infra/runs");
    let journals: Vec<_> = std::fs::read_dir(&runs).unwrap_or_else(|error| panic!("{}: {error}", runs.display())).flatten().collect();
    assert_eq!(journals.len(), 1, "{journals:?}");
    let text = std::fs::read_to_string(journals[0].path()).expect("a journal");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

/// What runs of the experiment on a machine.
fn processes(machine: &Machine) -> Vec<String> {
    let processes = machine.processes().into_iter().map(|process| process.command.clone());
    processes.filter(|command| command.starts_with("python3 /var/tmp/infra-experiment/")).collect()
}

/// The masters that reach the machines of a fleet.
fn masters(fleet: &Fleet) -> usize {
    let config = fleet.ssh_config();
    process::all().into_iter().filter(|process| process.command.starts_with("ssh -M ") && process.mentions(config.as_os_str())).count()
}

/// The rows of a fetched file, without the line of names.
fn rows(file: &Path) -> Vec<Vec<u64>> {
    let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().skip(1).map(|line| line.split(',').map(|number| number.parse().expect("a number")).collect()).collect()
}

/// When each of the processes was started and when it ended, by machine and operation, in seconds.
fn spans(journal: &[Value]) -> BTreeMap<(u64, u64), (f64, f64)> {
    let at = |event: &Value| (event["host"].as_u64().expect("a host"), event["op"].as_u64().expect("an operation"));
    let when = |event: &Value| event["at"].as_f64().expect("a time");
    let of = |name: &'static str| journal.iter().filter(move |event| event["event"] == name);
    let began = of("command-started").filter(|event| event["text"].as_str().is_some_and(|text| text.starts_with("exec python3 ")));
    let mut spans: BTreeMap<_, _> = began.map(|event| (at(event), (when(event), f64::NAN))).collect();
    for event in of("host-operation-ended") {
        if let Some(span) = spans.get_mut(&at(event)) {
            span.1 = when(event);
        }
    }
    spans
}

#[test]
fn forty_eight_processes_on_four_machines() {
    let fleet = Fleet::boot(&MACHINES).unwrap_or_else(|error| panic!("{error}; {}", error.hint().unwrap_or_default()));
    let home = tempfile::tempdir().expect("a folder");
    copy(home.path());
    let config = format!("ssh_config_file={}", fleet.ssh_config().display());
    let words = ["inventories/experiment.lua", "deploys/experiment.lua", "--yes", "-vvv", "--data", &config, "--data", "seconds=8"];
    let ran = std::thread::scope(|scope| {
        let infra = scope.spawn(|| process::run(common::infra(home.path()).args(words), Duration::from_secs(300)).expect("infra ends"));
        // As the machines see it: all 48 are there at the same time, over two connections to each machine.
        let together = process::wait_for(Duration::from_secs(120), || {
            let counts: Vec<usize> = fleet.machines().iter().map(|machine| processes(machine).len()).collect();
            let all = counts == [EACH; 4] && fleet.machines().iter().all(|machine| processes(machine).len() == EACH);
            all.then(|| masters(&fleet))
        });
        let ran = infra.join().expect("infra is run");
        assert_eq!(together, Some(8), "stdout:\n{}\nstderr:\n{}", ran.stdout, ran.stderr);
        ran
    });
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);

    // As infra has it: the last was started before the first ended; and the servers ended after the generators, wherever these were.
    let spans = spans(&journal(home.path()));
    assert_eq!(spans.len(), 4 * EACH);
    let last_start = spans.values().map(|span| span.0).fold(f64::MIN, f64::max);
    let end = |hosts: [u64; 2]| {
        let ends = spans.iter().filter(move |((host, _), _)| hosts.contains(host)).map(|(_, span)| span.1);
        ends.fold((f64::MAX, f64::MIN), |(first, last), end| (first.min(end), last.max(end)))
    };
    let ((first_server, _), (first_generator, last_generator)) = (end([0, 1]), end([2, 3]));
    println!("started within {:.2} s", last_start - spans.values().map(|span| span.0).fold(f64::MAX, f64::min));
    assert!(last_start < first_generator && last_start < first_server, "{spans:#?}");
    assert!(last_generator <= first_server, "{spans:#?}");

    // Each process has its lines, with its machine and its operation before them.
    let output = format!("{}{}", ran.stdout, ran.stderr);
    for (machine, name) in MACHINES.iter().enumerate() {
        let number = machine % 2 + 1;
        for i in 1..=EACH {
            let port = 9000 + i;
            let line = if machine < 2 {
                format!("[{name}] server {i} | listening on port {port} with seed {number}{i:03}\n")
            } else {
                format!("[{name}] generator {i} | connected to lab-0{number} port {port}\n")
            };
            assert_eq!(output.matches(&line).count(), 1, "{line}{output}");
        }
    }

    // The results lie in a folder for each machine: every generator was answered by its own server, and by nobody else.
    for (machine, name) in MACHINES.iter().enumerate() {
        let folder = home.path().join("deploys/results").join(name);
        assert_eq!(std::fs::read_dir(&folder).expect("a folder of results").count(), EACH, "{name}");
        let number = (machine % 2 + 1) as u64;
        for i in 1..=EACH as u64 {
            let seed = 1000 * number + i;
            let asked = rows(&home.path().join(format!("deploys/results/lab-0{}/generator-{i}.csv", number + 2)));
            assert!(!asked.is_empty());
            assert!(asked.iter().all(|row| row[2] == row[1] * seed), "{name} generator {i}");
            let served = rows(&home.path().join(format!("deploys/results/lab-0{number}/server-{i}.csv")));
            assert_eq!(served, [[9000 + i, seed, asked.len() as u64]], "{name} server {i}");
        }
    }

    // Nothing runs any more, here or there.
    for machine in fleet.machines() {
        assert_eq!(processes(machine), Vec::<String>::new(), "{}", machine.name());
    }
    assert_eq!(masters(&fleet), 0);

    // Two machines that would write one file here are refused before anything runs.
    std::fs::write(home.path().join("same.lua"), "files.get { src = '/etc/hostname', dest = 'names/one' }\n").expect("a deploy");
    let ran = common::run(home.path(), &["inventories/experiment.lua", "same.lua", "--yes", "--data", &config]).expect(2);
    assert!(ran.stderr.contains("error: same.lua:1: files.get: lab-01 and lab-02 would both write "), "{}", ran.stderr);
    assert!(ran.stderr.contains("hint: put the host's name into it"), "{}", ran.stderr);
    assert!(!home.path().join("names").exists());
    let left = fleet.leftovers();
    assert!(left.is_empty(), "{left:#?}");
}
