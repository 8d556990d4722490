//! Hosts over ssh, deploys on them, and what came of one.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use infra_test::{Sshd, SshdOptions};
use serde_json::Value;

use crate::common::{self, Ran};
use crate::timeline::Timeline;

/// Words of the deploys, all on one line. A command that waits gives up after half a minute with exit code 97.
const WORDS: &str = concat!(
    "local me = host.name; ",
    "local function come(what, more) return 'touch ' .. what .. '.' .. me .. (more or '') end; ",
    "local function wait_for(test) return 'n=0; until ' .. test .. '; do n=$((n+1)); [ $n -lt 1000 ] || exit 97; sleep 0.03; done' end; ",
    "local function await(file) return wait_for('[ -e ' .. file .. ' ]') end; ",
    "local function meet(what, count, more) ",
    "return come(what, more) .. '; ' .. wait_for('[ $(ls ' .. what .. '.* | wc -l) -ge ' .. count .. ' ]') end\n",
);

/// Some hosts, `a`, `b`, `c`, …, all of them this machine.
pub struct Stage {
    sshd: Sshd,
    hosts: String,
    deployed: AtomicUsize,
}

/// What came of a deploy. Its commands ran in a folder of its own.
pub struct Deployed {
    pub ran: Ran,
    pub document: Value,
    pub timeline: Timeline,
    pub folder: PathBuf,
}

impl Stage {
    pub fn new(count: u8) -> Self {
        let names: Vec<String> = (b'a'..b'a' + count).map(|letter| char::from(letter).to_string()).collect();
        let sshd = Sshd::start(SshdOptions::default().aliases(names.clone())).unwrap_or_else(|error| panic!("{error}"));
        Self { sshd, hosts: names.join(","), deployed: AtomicUsize::new(0) }
    }

    /// Deploys this, with the words above before its first line, on all hosts.
    pub fn deploy(&self, text: &str, words: &[&str]) -> Deployed {
        self.play(&self.hosts, &format!("{WORDS}{text}"), words)
    }

    /// Deploys exactly this on all hosts.
    pub fn deploy_bare(&self, text: &str, words: &[&str]) -> Deployed {
        self.play(&self.hosts, text, words)
    }

    /// Deploys on these hosts.
    pub fn deploy_on(&self, hosts: &str, text: &str, words: &[&str]) -> Deployed {
        self.play(hosts, &format!("{WORDS}{text}"), words)
    }

    fn play(&self, hosts: &str, text: &str, words: &[&str]) -> Deployed {
        let folder = self.sshd.folder().join(format!("deploy-{}", self.deployed.fetch_add(1, Ordering::SeqCst)));
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("deploy.lua"), text).expect("a deploy");
        let chdir = format!("_chdir={}", folder.display());
        let config = format!("ssh_config_file={}", self.sshd.ssh_config().display());
        let always = [hosts, "deploy.lua", "--yes", "--json", "--data", &chdir, "--data", &config];
        self.infra(folder, &[&always, words].concat())
    }

    /// Goes on from what came of a deploy.
    pub fn resume(&self, deployed: &Deployed, words: &[&str]) -> Deployed {
        self.infra(deployed.folder.clone(), &[&["resume", "--yes", "--json"], words].concat())
    }

    fn infra(&self, folder: PathBuf, words: &[&str]) -> Deployed {
        let mut command = common::infra(&folder);
        command.env("XDG_RUNTIME_DIR", self.sshd.folder().join("r")).env("XDG_STATE_HOME", folder.join("state")).args(words);
        let ran = common::ran(&mut command);
        Deployed { document: ran.json(), timeline: Timeline::read(&folder.join("state")), ran, folder }
    }

    /// The address of a host.
    pub fn address(&self, name: &str) -> String {
        let found = self.sshd.aliases().iter().find(|(alias, _)| alias == name);
        found.expect("a host of the stage").1.ip().to_string()
    }

    /// No process of infra's or of a command, and no socket, is left.
    #[track_caller]
    pub fn nothing_left(&self) {
        crate::common::nothing_left(&self.sshd);
    }
}

impl Deployed {
    /// The same, where the exit code must be this one.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.ran.code, Some(code), "exit code; stderr:\n{}", self.ran.stderr);
        let buckets: u64 = self.document["totals"]
            .as_object()
            .expect("totals")
            .iter()
            .filter(|(name, _)| *name != "hosts")
            .map(|(_, count)| count.as_u64().expect("a count"))
            .sum();
        assert_eq!(self.document["totals"]["hosts"], buckets, "each host stands in one place");
        assert_eq!(self.document["hosts"].as_object().expect("hosts").len() as u64, buckets);
        self
    }

    /// Where the hosts stand, in the order of their names: `a=changed b=failed`.
    pub fn states(&self) -> String {
        let hosts = self.document["hosts"].as_object().expect("hosts");
        let states: Vec<String> = hosts.iter().map(|(name, host)| format!("{name}={}", host["state"].as_str().expect("a state"))).collect();
        states.join(" ")
    }

    /// What the plan expects of an operation on a host: `change`, `none`, `depends`.
    pub fn outlook(&self, operation: &str, host: &str) -> &str {
        let operations = self.document["plan"]["operations"].as_array().expect("a plan");
        let planned = operations.iter().find(|one| one["title"] == operation).unwrap_or_else(|| panic!("{operation} is not planned"));
        planned["hosts"][host]["outlook"].as_str().expect("an outlook")
    }

    /// What came of an operation on a host, in the document's words.
    pub fn result(&self, operation: &str, host: &str) -> &Value {
        let operations = self.document["plan"]["operations"].as_array().expect("a plan");
        let id = &operations.iter().find(|one| one["title"] == operation).unwrap_or_else(|| panic!("{operation} is not planned"))["id"];
        let results = self.document["hosts"][host]["operations"].as_array().expect("results");
        results.iter().find(|one| one["id"] == *id).unwrap_or(&Value::Null)
    }

    /// The screen has each of these.
    #[track_caller]
    pub fn says(&self, wanted: &[&str]) {
        for text in wanted {
            assert!(self.ran.stderr.contains(text), "«{text}» is missing:\n{}", self.ran.stderr);
        }
    }

    /// Whether its commands made this file.
    pub fn made(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    /// Which of the hosts made the file of this name and theirs.
    pub fn made_by(&self, name: &str) -> String {
        let hosts = self.document["hosts"].as_object().expect("hosts");
        hosts.keys().filter(|host| self.made(&format!("{name}.{host}"))).map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}
