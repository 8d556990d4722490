//! From what was typed to what is meant: one pure step.

use std::path::{Path, PathBuf};
use std::time::Duration;

use infra_core::diagnostic::Diagnostic;
use infra_core::global_arguments::is_hidden;
use infra_core::privilege::Tool;
use infra_core::waves::Share;
use infra_core::{Map, Value};
use infra_engine::Proving;

use crate::arguments::{Arguments, LEASE, Options};
use crate::copying::Words;
use crate::exec::{Exec, ExecOptions};

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Run deploy files.
    Deploy(Vec<PathBuf>),
    /// Run a command.
    Exec(Box<Exec>),
    /// Read a fact: its name and the words of its question.
    Fact(String, Vec<String>),
    /// Run one operation: its name and the words of its arguments.
    Operation(String, Vec<String>),
    /// Copy a local file or directory to the hosts.
    Copy(Words),
    /// Fetch a file or a directory from each host.
    Fetch(Words),
    /// List the hosts.
    Hosts,
}

/// Where the hosts come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// A Lua inventory.
    File(PathBuf),
    /// Hosts named on the command line.
    Names(String),
}

/// How a machine is kept to one run at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    /// How long a host waits for another run to end there.
    pub wait: Duration,
    /// Whether a host on which no lock can be kept fails.
    pub required: bool,
    /// How long a lock holds after the last sign of life of its run.
    pub lease: Duration,
}

/// What is meant.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The inventory as it was typed.
    pub inventory: String,
    /// Where the hosts come from.
    pub source: Source,
    /// What is to be done.
    pub task: Task,
    /// Stop after the plan.
    pub dry: bool,
    /// Where the plan is written to; a run that does so stops after the plan.
    pub plan: Option<PathBuf>,
    /// Show what changes in text files.
    pub diff: bool,
    /// Prepare again after the run, and what counts then.
    pub prove: Option<Proving>,
    /// Whether the exit code tells of changes.
    pub detailed_exit_code: bool,
    /// Do not ask before execution.
    pub yes: bool,
    /// 0 to 3.
    pub verbosity: u8,
    /// At most this many hosts at work at once.
    pub parallel: Option<usize>,
    /// Host by host.
    pub serial: bool,
    /// No host waits for the others.
    pub no_wait: bool,
    /// Stop at the first host that is not ok.
    pub fail_fast: bool,
    /// Stop when more than so many hosts in a hundred are not ok.
    pub fail_percent: Option<f64>,
    /// How many hosts of a wave may be not ok.
    pub max_fail: Share,
    /// How machines are kept to one run at a time.
    pub lock: Option<Lock>,
    /// Patterns of `--limit`, one list for all of them.
    pub limit: Vec<String>,
    /// Patterns of `--exclude`.
    pub exclude: Vec<String>,
    /// Data that is laid over all hosts'.
    pub overrides: Map,
    /// The programs whose passwords are asked for before the run.
    pub passwords: Vec<Tool>,
    /// Print one JSON document.
    pub json: bool,
}

/// What is meant by hosts alone, with which nothing is done but to know them.
///
/// # Errors
/// A misuse [`Diagnostic`] that names the word which is wrong and what to write.
pub fn of_hosts(inventory: &str, options: Options) -> Result<Settings, Diagnostic> {
    Settings::resolve(Arguments {
        verb: None,
        inventory: Some(inventory.to_owned()),
        what: vec!["hosts".to_owned()],
        options,
        exec: ExecOptions::default(),
    })
}

/// The verbs that stand where a deploy file could.
const VERBS: &[&str] = &["copy", "exec", "fact", "fetch", "hosts"];

impl Settings {
    /// Finds out what is meant.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] that names the word which is wrong and what to write.
    pub fn resolve(arguments: Arguments) -> Result<Self, Diagnostic> {
        let Arguments { inventory, what, options: arguments, exec, .. } = arguments;
        let overrides = overrides(&arguments)?;
        let inventory = inventory.unwrap_or_default();
        let source = source(&inventory)?;
        let task = task(what, exec)?;
        if arguments.dry && matches!(task, Task::Exec(_)) {
            return Err(Diagnostic::misuse("exec has no --dry: what a command would do cannot be known")
                .hint("leave --dry away, or write the change as an operation"));
        }
        let gather = matches!(&task, Task::Exec(exec) if exec.gather);
        if gather && arguments.json {
            return Err(Diagnostic::misuse("--gather and --json exclude each other: the document has the output of each host")
                .hint("leave --gather away, and compare what stands in the document"));
        }
        if arguments.diff && !gather && matches!(task, Task::Exec(_)) {
            return Err(Diagnostic::misuse("exec has no --diff without --gather")
                .hint("exec --gather --diff shows how the odd ones differ from the most"));
        }
        let of_plans = [
            ("--plan", arguments.plan.is_some()),
            ("--diff", arguments.diff && !gather),
            ("--prove", arguments.prove.is_some()),
            ("--detailed-exitcode", arguments.detailed_exitcode),
        ];
        let kind = match task {
            Task::Deploy(_) | Task::Operation(..) | Task::Copy(_) | Task::Fetch(_) => None,
            Task::Exec(_) => Some("exec"),
            Task::Fact(..) => Some("fact"),
            Task::Hosts => Some("hosts"),
        };
        if let (Some(kind), Some((flag, _))) = (kind, of_plans.into_iter().find(|(_, given)| *given)) {
            return Err(Diagnostic::misuse(format!("{kind} has no {flag}: it plans nothing"))
                .hint(format!("{flag} goes with a deploy file or an operation")));
        }
        let executes = [("--yes", arguments.yes), ("--prove", arguments.prove.is_some())];
        if let (Some(file), Some((flag, _))) = (&arguments.plan, executes.into_iter().find(|(_, given)| *given)) {
            return Err(Diagnostic::misuse(format!("--plan and {flag} exclude each other: a run that writes its plan stops there"))
                .hint(format!("infra apply {} {flag}", file.display())));
        }
        if arguments.dry && arguments.prove.is_some() {
            return Err(Diagnostic::misuse("--dry and --prove exclude each other: a dry run leaves nothing that could be proved")
                .hint("leave --prove away; a --dry run after the run tells the same as --prove"));
        }
        // Like cp(1): who says what goes where is not asked whether it shall; with what is removed it is another matter.
        let says_enough = matches!(&task, Task::Copy(words) | Task::Fetch(words) if !words.removes());
        let passwords =
            [(arguments.ask_doas_password, Tool::Doas), (arguments.ask_sudo_password, Tool::Sudo), (arguments.ask_su_password, Tool::Su)];
        Ok(Self {
            passwords: passwords.into_iter().filter(|(asked, _)| *asked).map(|(_, tool)| tool).collect(),
            inventory,
            source,
            task,
            dry: arguments.dry || arguments.plan.is_some(),
            plan: arguments.plan,
            diff: arguments.diff,
            prove: arguments.prove,
            detailed_exit_code: arguments.detailed_exitcode,
            yes: arguments.yes || says_enough,
            verbosity: arguments.verbose.min(3),
            parallel: arguments.parallel.map(|n| n as usize),
            serial: arguments.serial,
            no_wait: arguments.no_wait,
            fail_fast: arguments.fail_fast,
            fail_percent: arguments.fail_percent,
            max_fail: arguments.max_fail.unwrap_or(Share::NONE),
            lock: (!arguments.no_lock).then(|| Lock {
                wait: Duration::from_secs_f64(arguments.lock_wait.unwrap_or_default()),
                required: arguments.lock.is_some(),
                lease: Duration::from_secs(arguments.lock_lease.unwrap_or(LEASE).into()),
            }),
            limit: arguments.limit,
            exclude: arguments.exclude,
            overrides,
            json: arguments.json,
        })
    }
}

fn source(text: &str) -> Result<Source, Diagnostic> {
    if text.starts_with('@') {
        return Ok(Source::Names(text.to_owned()));
    }
    let path = Path::new(text);
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    match extension {
        "lua" => Ok(Source::File(path.to_owned())),
        "json" | "ini" | "yml" | "yaml" => Err(Diagnostic::misuse(format!("{text}: Ansible inventories cannot be read yet"))
            .hint("write the inventory in Lua; it may read JSON with json.decode(read_file(…))")),
        // In a list of hosts, a connector's name may hold a slash.
        _ if text.split(',').any(|one| one.contains('/') && !one.trim_start().starts_with('@')) => {
            Err(Diagnostic::misuse(format!("{text} is no inventory that can be read")).hint("an inventory file ends in .lua"))
        }
        _ => Ok(Source::Names(text.to_owned())),
    }
}

fn task(what: Vec<String>, exec: ExecOptions) -> Result<Task, Diagnostic> {
    let mut words = what.into_iter();
    let first = words.next().unwrap_or_default();
    let rest: Vec<String> = words.collect();
    let no_more = |task: Task| match rest.first() {
        Some(word) => Err(Diagnostic::misuse(format!("`{first}` takes nothing more, got `{word}`"))),
        None => Ok(task),
    };
    if let Some(option) = exec.given().filter(|_| first != "exec") {
        return Err(
            Diagnostic::misuse(format!("{option} goes with exec, not with `{first}`")).hint("`infra --help` lists the options of exec")
        );
    }
    match first.as_str() {
        "hosts" => no_more(Task::Hosts),
        "copy" => Words::take("copy", rest).map(Task::Copy),
        "fetch" => Words::take("fetch", rest).map(Task::Fetch),
        "exec" => Ok(Task::Exec(Box::new(exec.resolve(rest)?))),
        "fact" => match rest.split_first() {
            Some((name, question)) => Ok(Task::Fact(name.clone(), question.to_vec())),
            None => Err(Diagnostic::misuse("fact needs the name of a fact").hint("infra INVENTORY fact server.os_release")),
        },
        name if name.ends_with(".lua") => {
            let stray = rest.iter().find(|word| !word.ends_with(".lua"));
            if let Some(word) = stray {
                return Err(Diagnostic::misuse(format!("`{word}` is no deploy file"))
                    .hint("deploy files end in .lua; give values to a deploy with --data KEY=VALUE"));
            }
            Ok(Task::Deploy(std::iter::once(first).chain(rest).map(PathBuf::from).collect()))
        }
        name if name.contains('.') => Ok(Task::Operation(first, rest)),
        name => {
            let hint = infra_core::diagnostic::did_you_mean(name, VERBS.iter().copied()).unwrap_or_else(|| {
                "after the inventory comes a deploy file (deploy.lua), an operation (apt.packages), or one of copy, exec, fact, fetch, hosts".to_owned()
            });
            Err(Diagnostic::misuse(format!("`{name}` is nothing that infra can do")).hint(hint))
        }
    }
}

fn overrides(arguments: &Options) -> Result<Map, Diagnostic> {
    let mut data = Map::new();
    for word in &arguments.data {
        let Some((key, text)) = word.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(Diagnostic::misuse(format!("--data {word} is no KEY=VALUE")).hint("--data version=1.2"));
        };
        if is_hidden(key) {
            return Err(Diagnostic::misuse(format!(
                "--data {key}=… stands on the command line, which every user of this machine can read"
            ))
            .hint(format!("have it asked for with --ask-{}", key.trim_start_matches('_').replace('_', "-"))));
        }
        data.insert(key.to_owned(), data_value(text).map_err(|why| Diagnostic::misuse(format!("--data {word}: {why}")))?);
    }
    if arguments.sudo {
        data.insert("_sudo".to_owned(), Value::Bool(true));
    }
    if let Some(user) = &arguments.user {
        if user.is_empty() {
            return Err(Diagnostic::misuse("--user is empty").hint("leave it away to log in as ssh would"));
        }
        data.insert("ssh_user".to_owned(), Value::String(user.clone()));
    }
    if let Some(port) = arguments.port {
        data.insert("ssh_port".to_owned(), Value::from(port));
    }
    if let Some(time) = &arguments.persist {
        data.insert("ssh_persist".to_owned(), Value::String(time.clone()));
    }
    if let Some(key) = &arguments.key {
        data.insert("ssh_key".to_owned(), Value::String(key.to_string_lossy().into_owned()));
    }
    Ok(data)
}

/// Data has no schema, so only what cannot be meant otherwise is read as more than text: `1.10` and `007` stay text.
fn data_value(text: &str) -> Result<Value, serde_json::Error> {
    if text.starts_with(['[', '{', '"']) {
        return serde_json::from_str(text);
    }
    Ok(match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match text.parse::<i64>() {
            Ok(number) if number.to_string() == text => Value::from(number),
            _ => Value::String(text.to_owned()),
        },
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::arguments::{RunsVerb, Verb};
    use crate::exec::{Input, What};

    fn resolve(words: &[&str]) -> Result<Settings, String> {
        let arguments =
            Arguments::try_parse_from(std::iter::once("infra").chain(words.iter().copied())).map_err(|error| error.to_string())?;
        Settings::resolve(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_typed_is_what_is_meant() {
        let task = |words: &[&str]| resolve(words).map(|settings| settings.task);
        let text = str::to_owned;
        assert_eq!(task(&["@local", "a.lua", "b.lua", "--dry"]), Ok(Task::Deploy(vec!["a.lua".into(), "b.lua".into()])));
        let exec = |words: &[&str]| {
            let what = What::Words(words.iter().map(|word| text(word)).collect());
            Ok(Task::Exec(Box::new(Exec { what, ..Exec::default() })))
        };
        assert_eq!(task(&["@local", "exec", "--", "echo", "a   b"]), exec(&["echo", "a   b"]));
        assert_eq!(task(&["@local", "exec", "--", "ls", "-l", "--dry"]), exec(&["ls", "-l", "--dry"]));
        assert_eq!(task(&["@local", "fact", "files.file", "path=/a"]), Ok(Task::Fact(text("files.file"), vec![text("path=/a")])));
        assert_eq!(task(&["@local", "files.put", "a=b"]), Ok(Task::Operation(text("files.put"), vec![text("a=b")])));
        assert_eq!(task(&["@local", "hosts"]), Ok(Task::Hosts));
    }

    #[test]
    fn what_exec_runs_is_typed() {
        let exec = |words: &[&str]| match resolve(&[&["web", "exec"], words].concat()).expect("right words").task {
            Task::Exec(exec) => *exec,
            other => panic!("{other:?}"),
        };
        let text = str::to_owned;
        let several = exec(&["-c", "a b", "-c", "c", "--keep-going", "--timeout", "2.5", "--cwd", "/srv", "--env", "A=b=c"]);
        assert_eq!(several.what, What::Commands(vec![text("a b"), text("c")]));
        let globals = several.globals;
        assert_eq!((globals.timeout, globals.chdir.as_deref(), globals.ignores_errors()), (Some(2.5), Some("/srv"), false));
        assert_eq!((globals.continue_on_error, globals.env.expect("one")["A"].as_str()), (Some(true), "b=c"));
        let script = exec(&["--script", "x.sh", "--", "-v", "y"]);
        assert_eq!(script.what, What::Script("x.sh".into(), vec![text("-v"), text("y")]));
        assert_eq!(exec(&["--stdin", "--", "cat"]).stdin, Some(Input::Own));
        assert_eq!(exec(&["--stdin=f", "--", "cat"]).stdin, Some(Input::File("f".into())));
        for (words, wanted) in [
            (&["exec", "-c", "a", "--", "b"][..], "there are commands behind -c and one behind `--`"),
            (&["exec", "-c", " "], "a command of -c is empty"),
            (&["exec", "-c", "a", "--script", "x"], "--script and -c exclude each other"),
            (&["exec", "-c", "a", "--keep-going"], "--keep-going has no meaning here: there is one command"),
            (
                &["exec", "--script", "x", "--stdin"],
                "--script and --stdin exclude each other: the program is sent where the input would be",
            ),
            (&["exec", "--env", "A", "--", "b"], "--env A is no NAME=VALUE"),
            (&["exec", "--env", "A-B=c", "--", "b"], "--env A-B=c: `A-B` cannot be the name of an environment variable"),
            (&["exec", "--diff", "--", "a"], "exec has no --diff without --gather"),
            (
                &["exec", "--gather", "--json", "--", "a"],
                "--gather and --json exclude each other: the document has the output of each host",
            ),
            (&["a.lua", "--gather"], "--gather goes with exec, not with `a.lua`"),
            (&["hosts", "--timeout", "3"], "--timeout goes with exec, not with `hosts`"),
        ] {
            assert_eq!(resolve(&[&["web"], words].concat()).map(|_| ()), Err(wanted.to_owned()));
        }
        assert!(resolve(&["web", "exec", "--timeout", "0", "--", "a"]).is_err());
    }

    #[test]
    fn a_list_of_hosts_may_hold_connectors() {
        let source = |list: &str| resolve(&[list, "hosts"]).map(|settings| settings.source);
        for list in ["web-01,@ssh/ops,@local", "[::1]:22,web[01,03]", "@ssh/ops"] {
            assert_eq!(source(list), Ok(Source::Names(list.to_owned())));
        }
        assert_eq!(source("web-01,dir/hosts"), Err("web-01,dir/hosts is no inventory that can be read".to_owned()));
    }

    #[test]
    fn strategies_are_typed() {
        let settings = resolve(&["@local", "a.lua", "--serial", "--max-fail", "25%", "--fail-percent", "12.5"]).expect("right words");
        assert_eq!((settings.serial, settings.no_wait), (true, false));
        assert_eq!((settings.max_fail, settings.fail_percent), (Share::Percent(2500), Some(12.5)));
        let settings = resolve(&["@local", "a.lua", "--no-wait", "--max-fail=2", "--fail-percent=10%"]).expect("right words");
        assert_eq!((settings.no_wait, settings.max_fail, settings.fail_percent), (true, Share::Count(2), Some(10.0)));
        for wrong in
            [&["--serial", "--no-wait"][..], &["--max-fail", "some"], &["--max-fail=101%"], &["--fail-percent=101"], &["--fail-percent=x"]]
        {
            assert!(resolve(&[&["@local", "a.lua"], wrong].concat()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn locks_are_typed() {
        let lock = |words: &[&str]| resolve(&[&["@local", "a.lua"], words].concat()).map(|settings| settings.lock);
        let usual = Lock { wait: Duration::ZERO, required: false, lease: Duration::from_secs(60) };
        assert_eq!(lock(&[]), Ok(Some(usual)));
        assert_eq!(lock(&["--no-lock"]), Ok(None));
        let wait = Duration::from_millis(2500);
        assert_eq!(lock(&["--lock-wait", "2.5", "--lock", "required"]), Ok(Some(Lock { wait, required: true, ..usual })));
        assert_eq!(lock(&["--lock-lease=5"]), Ok(Some(Lock { lease: Duration::from_secs(5), ..usual })));
        for wrong in [
            &["--no-lock", "--lock", "required"][..],
            &["--no-lock", "--lock-wait=1"],
            &["--lock=none"],
            &["--lock-wait=-1"],
            &["--lock-wait=x"],
        ] {
            assert!(lock(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn copying_is_not_asked_about_unless_it_removes() {
        let yes = |words: &[&str]| resolve(words).map(|settings| settings.yes);
        assert_eq!(yes(&["@local", "copy", "a", "b"]), Ok(true));
        assert_eq!(yes(&["@local", "copy", "a", "b", "delete=false"]), Ok(true));
        assert_eq!(yes(&["@local", "copy", "a", "b", "delete=true"]), Ok(false));
        assert_eq!(yes(&["@local", "fetch", "a", "b"]), Ok(true));
        assert_eq!(yes(&["@local", "copy", "a"]), Err("copy needs SRC and DEST".to_owned()));
    }

    #[test]
    fn proofs_are_typed() {
        let prove = |words: &[&str]| resolve(&[&["@local", "a.lua"], words].concat()).map(|settings| settings.prove);
        assert_eq!(prove(&[]), Ok(None));
        assert_eq!(prove(&["--prove"]), Ok(Some(Proving::Idempotent)));
        assert_eq!(prove(&["--prove=strict"]), Ok(Some(Proving::Strict)));
        assert!(prove(&["--prove=loose"]).is_err_and(|error| error.contains("expected --prove or --prove=strict")));
        // What follows it is a word of its own.
        assert_eq!(resolve(&["--prove", "@local", "a.lua"]).map(|settings| settings.prove), Ok(Some(Proving::Idempotent)));
    }

    #[test]
    fn verbs_win_over_hosts_of_their_name() {
        let parse = |words: &[&str]| Arguments::try_parse_from(std::iter::once("infra").chain(words.iter().copied()));
        let runs = |words: &[&str]| match parse(words).expect("right words").verb {
            Some(Verb::Runs(runs)) => runs,
            other => panic!("{words:?} is another verb: {other:?}"),
        };
        assert!(runs(&["runs"]).what.is_none() && runs(&["runs", "--json"]).json);
        let Some(RunsVerb::Show { run, json, .. }) = runs(&["runs", "show", "R", "--json"]).what else { panic!("show") };
        assert_eq!((run.as_deref(), json), (Some("R"), true));
        assert!(matches!(runs(&["runs", "show"]).what, Some(RunsVerb::Show { run: None, .. })));
        // Behind an inventory it is a word like any other.
        assert!(parse(&["@ssh/runs", "hosts"]).expect("right words").verb.is_none());
        let error = resolve(&["web", "runs"]).expect_err("no such task");
        assert_eq!(error, "`runs` is nothing that infra can do");
        assert!(parse(&["runs", "a.lua"]).is_err() && parse(&["web"]).is_err() && parse(&[]).is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (words, wanted) in [
            (&["@local", "exce", "x"][..], "`exce` is nothing that infra can do"),
            (&["@local", "a.lua", "x=1"], "`x=1` is no deploy file"),
            (&["@local", "exec"], "exec needs a command"),
            (&["@local", "exec", "--", " "], "exec needs a command"),
            (&["@local", "fact"], "fact needs the name of a fact"),
            (&["@local", "hosts", "x"], "`hosts` takes nothing more, got `x`"),
            (&["@local", "exec", "--dry", "--", "true"], "exec has no --dry: what a command would do cannot be known"),
            (
                &["@local", "a.lua", "--dry", "--prove"],
                "--dry and --prove exclude each other: a dry run leaves nothing that could be proved",
            ),
            (&["@local", "exec", "--plan", "p.json", "--", "true"], "exec has no --plan: it plans nothing"),
            (
                &["@local", "a.lua", "--plan", "p.json", "--yes"],
                "--plan and --yes exclude each other: a run that writes its plan stops there",
            ),
            (&["@local", "exec", "--prove", "--", "true"], "exec has no --prove: it plans nothing"),
            (&["@local", "fact", "server.which", "--diff"], "fact has no --diff: it plans nothing"),
            (&["@local", "hosts", "--detailed-exitcode"], "hosts has no --detailed-exitcode: it plans nothing"),
            (&["hosts.yml", "a.lua"], "hosts.yml: Ansible inventories cannot be read yet"),
            (&["dir/hosts", "a.lua"], "dir/hosts is no inventory that can be read"),
            (&["@local", "a.lua", "--data", "x"], "--data x is no KEY=VALUE"),
        ] {
            assert_eq!(resolve(words).map(|_| ()), Err(wanted.to_owned()));
        }
    }

    #[test]
    fn data_is_read_with_care() {
        let words = [
            "@local",
            "hosts",
            "--data",
            "a=1",
            "--data",
            "b=1.10",
            "--data",
            "c=[1,\"x\"]",
            "--data",
            "d=true",
            "--data",
            "e=007",
            "--user",
            "u",
        ];
        let settings = resolve(&words).expect("right words");
        assert_eq!(
            Value::Object(settings.overrides),
            json!({ "a": 1, "b": "1.10", "c": [1, "x"], "d": true, "e": "007", "ssh_user": "u" })
        );
    }
}
