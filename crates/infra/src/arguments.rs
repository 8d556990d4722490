//! The command line as it is typed.

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use infra_core::waves::Share;
use infra_engine::Proving;

use crate::exec::ExecOptions;

const EXAMPLES: &str = "\
What comes after INVENTORY says what to do:
  DEPLOY.lua…             plan and run these deploys, in this order
  exec -- COMMAND…        run a command on every host: one word is shell text, several are an argument vector
  fact NAME [KEY=VALUE…]  read a fact of every host and print it as JSON
  MODULE.OP [KEY=VALUE…]  plan and run one operation; a list is the key repeated, or JSON
  copy SRC DEST           copy a local file, a directory, or with SRC/ what it holds
  fetch SRC DEST          fetch a file or a directory of each host into DEST/HOST/
  hosts                   print the hosts that are selected, their groups and their data

INVENTORY is a Lua file, a host, a list of hosts, or a connector:
  inventory.lua   web-01.example.com   admin@web-01:2222,web-02   web-[01-20]   @local   @ssh/HOST
  @docker/NAME    @podman/NAME         a container that runs, or an image of which one is started
  @chroot/PATH                         the system in a folder of this machine

Examples:
  infra inventory.lua deploy.lua --dry
  infra inventory.lua deploy.lua --limit web_servers --exclude web-03
  infra inventory.lua deploy.lua --limit @failed,@unreached
  infra resume
  infra inventory.lua deploy.lua --plan plan.json
  infra apply plan.json
  infra @local fact server.os_release
  infra web-[01-03] exec -- systemctl is-active nginx
  infra web-[01-03] copy site/ /srv/site --dry
  infra inventory.lua fetch /var/log/nginx logs --sudo
  infra web-[01-20] exec --gather --diff -- cat /etc/resolv.conf
  infra inventory.lua exec --script check.sh --timeout 60 --out-dir results -- --verbose
  infra db-01,db-02 exec --stdin=schema.sql -- psql app
  infra inventory.lua apt.packages packages=git packages=curl --sudo

Exit codes:
  0    all is well
  1    some host is not, or the run was stopped, declined or not proved
  2    something was written wrongly, and nothing was executed
  3    there were changes (--detailed-exitcode)
  130  interrupted";

/// Deploys to hosts over your own ssh: plans first, then changes only what differs.
#[derive(Debug, Parser)]
#[command(name = "infra", version, about, after_help = EXAMPLES, max_term_width = 120)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, disable_help_subcommand = true)]
pub struct Arguments {
    /// A verb that needs no inventory.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// An inventory file, hosts, or a connector such as @local.
    #[arg(value_name = "INVENTORY", required = true)]
    pub inventory: Option<String>,

    /// What to do there: deploy files, exec, fact, copy, fetch, MODULE.OP or hosts.
    #[arg(value_name = "WHAT", required = true)]
    pub what: Vec<String>,

    /// How it is done.
    #[command(flatten)]
    pub options: Options,

    /// How `exec` is done.
    #[command(flatten)]
    pub exec: ExecOptions,
}

/// The options that every run takes, also one that goes on from an earlier one.
#[derive(Debug, Default, Args)]
pub struct Options {
    /// Show the plan and stop; nothing is changed.
    #[arg(long)]
    pub dry: bool,

    /// Write the plan into FILE and stop: `infra show FILE` prints it, `infra apply FILE` does it.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,

    /// Show what changes in text files as unified diffs, in the plan and in the run.
    #[arg(long)]
    pub diff: bool,

    /// After the run prepare again, and fail where an operation would still change something. Those that are not idempotent by nature are only listed;
    /// --prove=strict counts them too.
    #[arg(long, value_name = "strict", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = proving)]
    pub prove: Option<Proving>,

    /// Exit with 3 where all is well and there were changes, or with --dry where the plan holds some.
    #[arg(long)]
    pub detailed_exitcode: bool,

    /// Execute without asking.
    #[arg(long, short = 'y')]
    pub yes: bool,

    /// Say more: -v reasons, -vv commands, -vvv their output.
    #[arg(long, short = 'v', action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// At most N hosts at work at once in execute [default: all].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub parallel: Option<u32>,

    /// Host by host: all operations of a host, then the next host.
    #[arg(long, conflicts_with = "no_wait")]
    pub serial: bool,

    /// No host waits for the others between operations.
    #[arg(long)]
    pub no_wait: bool,

    /// Start nothing new on any host as soon as one is not ok.
    #[arg(long)]
    pub fail_fast: bool,

    /// Start nothing new on any host as soon as more than P percent of the selected hosts are not ok.
    #[arg(long, value_name = "P", value_parser = percent)]
    pub fail_percent: Option<f64>,

    /// How many hosts of a wave may fail before no further wave starts, a number or a share, where the wave does not say so itself [default: 0].
    #[arg(long, value_name = "N|P%", value_parser = Share::parse)]
    pub max_fail: Option<Share>,

    /// Seconds that a host waits for another run to end there before it fails [default: 0].
    #[arg(long, value_name = "S", conflicts_with = "no_lock", value_parser = seconds)]
    pub lock_wait: Option<f64>,

    /// `required`: fail a host on which no lock can be kept, instead of going on without one.
    #[arg(long, value_name = "MODE", value_parser = ["required"])]
    pub lock: Option<String>,

    /// Let another run change the same machines at the same time.
    #[arg(long, conflicts_with = "lock")]
    pub no_lock: bool,

    /// Seconds that a lock holds after the last sign of life of its run [default: 60].
    #[arg(long, value_name = "S", hide = true, value_parser = clap::value_parser!(u32).range(2..=86400))]
    pub lock_lease: Option<u32>,

    /// Only these hosts: names, groups, globs, ranges, `!` for not; comma-separated, repeatable. @failed and @unreached are the hosts that the last run left so,
    /// @RUN:failed those of an earlier one.
    #[arg(long, value_name = "HOSTS")]
    pub limit: Vec<String>,

    /// Not these hosts; written as for --limit.
    #[arg(long, value_name = "HOSTS")]
    pub exclude: Vec<String>,

    /// Data for every host, over all that the inventory says; whole numbers, true, false and JSON are read as such.
    #[arg(long, value_name = "KEY=VALUE")]
    pub data: Vec<String>,

    /// Run operations and facts under sudo, where they do not say otherwise.
    #[arg(long)]
    pub sudo: bool,

    /// Ask for the password of sudo before the run, once for all hosts. Without it, it is asked for when a host wants one.
    #[arg(long)]
    pub ask_sudo_password: bool,

    /// The same for su.
    #[arg(long)]
    pub ask_su_password: bool,

    /// The same for doas.
    #[arg(long)]
    pub ask_doas_password: bool,

    /// Log in as this user.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Connect to this port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Log in with this private key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Keep the ssh connections for this long after they were last used (90s, 10m, 1h30m), for the next run to join; `infra disconnect` ends them.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub persist: Option<String>,

    /// Print one JSON document about the run on standard output.
    #[arg(long)]
    pub json: bool,
}

/// What needs no inventory. It wins over a host of that name; `@ssh/NAME` reaches the host.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the earlier runs, the last first; `infra runs show` tells more of one.
    Runs(Runs),
    /// Go on from an earlier run: prepare again, and do what is left.
    #[command(long_about = ABOUT_RESUME)]
    Resume(Resume),
    /// End the connections that runs with --persist have kept: all of them, or those to the hosts of an inventory.
    Disconnect(Disconnect),
    /// Print a saved plan; nothing is connected to.
    Show(Show),
    /// Do what a saved plan says, where all that it rests on still holds.
    #[command(long_about = ABOUT_APPLY)]
    Apply(Apply),
}

/// Whose connections are ended.
#[derive(Debug, Args)]
pub struct Disconnect {
    /// An inventory file or hosts, given as for the run that kept the connections [default: all that were kept].
    #[arg(value_name = "INVENTORY")]
    pub inventory: Option<String>,

    /// Only these hosts.
    #[arg(long, value_name = "HOSTS", requires = "inventory")]
    pub limit: Vec<String>,

    /// Not these hosts.
    #[arg(long, value_name = "HOSTS", requires = "inventory")]
    pub exclude: Vec<String>,

    /// The data that the run was given.
    #[arg(long, value_name = "KEY=VALUE", requires = "inventory")]
    pub data: Vec<String>,

    /// The user that the run was given.
    #[arg(long, value_name = "USER", requires = "inventory")]
    pub user: Option<String>,

    /// The port that the run was given.
    #[arg(long, value_name = "PORT", requires = "inventory", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// The private key that the run was given.
    #[arg(long, value_name = "FILE", requires = "inventory")]
    pub key: Option<PathBuf>,
}

const ABOUT_APPLY: &str = "\
Do what a saved plan says, where all that it rests on still holds

The plan carries its Lua, its templates and its small files as they were. On every host the facts that it rests on are read again, in one request, and a host \
on which one of them has changed is refused (stale), with what changed. Elsewhere each operation does what it was planned to do, or fails as stale. The \
inventory, the deploy, its data and as whom it logs in were decided with the plan; --limit and --exclude choose among its hosts, and options that say how the \
run goes may be given anew.";

/// Which saved plan is printed, and how.
#[derive(Debug, Args)]
pub struct Show {
    /// The file that --plan wrote.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Show what changes in text files as unified diffs.
    #[arg(long)]
    pub diff: bool,

    /// Say more: -v reasons and steps.
    #[arg(long, short = 'v', action = clap::ArgAction::Count)]
    pub verbose: u8,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub json: bool,
}

/// Which saved plan is applied, and how.
#[derive(Debug, Args)]
pub struct Apply {
    /// The file that --plan wrote.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Apply it although some of its operations are open until their turn comes: what those do was not in the plan.
    #[arg(long)]
    pub allow_depends: bool,

    /// How it is done.
    #[command(flatten)]
    pub options: Options,
}

const ABOUT_RESUME: &str = "\
Go on from an earlier run: prepare again, and do what is left

The deploy is taken again with its inventory, its files and its options, in its folder, on the hosts that were not done. What is done and can be \
seen on a host is no change; what is done and cannot be seen (server.shell, call, _run_once) is not run again, and named before the question. What an \
earlier run changed counts for what is left: a reload that is owed is done. What failed runs again, and so does what was cut off in the middle. An \
operation that is not what it was, or that no earlier run had, is planned afresh and named.

Options that are given here win over those of the run; --limit and --exclude choose among the hosts that are left.";

/// Which run is gone on from, and how.
#[derive(Debug, Args)]
pub struct Resume {
    /// The run's name, as `infra runs` lists it [default: the last one].
    #[arg(value_name = "RUN")]
    pub run: Option<String>,

    /// How it is done.
    #[command(flatten)]
    pub options: Options,
}

/// What is asked of the journal.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Runs {
    /// What is to be told.
    #[command(subcommand)]
    pub what: Option<RunsVerb>,

    /// Print one JSON document on standard output.
    #[arg(long)]
    pub json: bool,
}

/// What is to be told of earlier runs.
#[derive(Debug, Subcommand)]
pub enum RunsVerb {
    /// Show one run: where each host stands, the failures, and what was in flight when it was cut off.
    Show {
        /// The run's name, as the list has it [default: the last one].
        #[arg(value_name = "RUN")]
        run: Option<String>,

        /// Print one JSON document on standard output.
        #[arg(long)]
        json: bool,

        /// Say more: -v gives every host its own row.
        #[arg(long, short = 'v', action = clap::ArgAction::Count)]
        verbose: u8,
    },
}

/// What `infra apply` refuses, since it was decided with the plan: its help does not show it.
const DECIDED: &[&str] = &["dry", "plan", "data", "sudo", "user", "port", "key"];

impl Arguments {
    /// Reads the command line; help, the version and what is not understood end the program here.
    pub fn typed() -> Self {
        let hide = |hidden: &'static [&'static str]| {
            move |verb: clap::Command| verb.mut_args(|arg| if hidden.contains(&arg.get_id().as_str()) { arg.hide(true) } else { arg })
        };
        let command = Self::command().mut_subcommand("apply", hide(DECIDED)).mut_subcommand("resume", hide(&["plan"]));
        Self::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
    }
}

/// A time in seconds, with or without a fraction.
fn seconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim().parse().map_err(|_| "expected a number of seconds such as 300".to_owned())?;
    if (0.0..=31_536_000.0).contains(&number) { Ok(number) } else { Err("between nothing and a year of seconds".to_owned()) }
}

/// How long a lock holds without a sign of life, in seconds, where nothing else is said.
pub const LEASE: u32 = 60;

impl Options {
    /// These, with what they leave open taken from an earlier run's. What is said about this run alone is not taken: whether it asks, looks only, and
    /// how it shows what it does; and neither are the hosts, since those that are left are known.
    pub fn or(self, earlier: Self) -> Self {
        let strategy = self.serial || self.no_wait;
        let lease = f64::from(self.lock_lease.or(earlier.lock_lease).unwrap_or(LEASE));
        let locks = self.lock.is_some() || self.lock_wait.is_some();
        Self {
            dry: self.dry,
            plan: self.plan,
            diff: self.diff,
            prove: self.prove,
            detailed_exitcode: self.detailed_exitcode,
            yes: self.yes,
            verbose: self.verbose,
            parallel: self.parallel.or(earlier.parallel),
            serial: if strategy { self.serial } else { earlier.serial },
            no_wait: if strategy { self.no_wait } else { earlier.no_wait },
            fail_fast: self.fail_fast || earlier.fail_fast,
            fail_percent: self.fail_percent.or(earlier.fail_percent),
            max_fail: self.max_fail.or(earlier.max_fail),
            // A run that was killed leaves its locks behind until their lease has run out: who goes on from it waits for that.
            lock_wait: self.lock_wait.or(if self.no_lock { None } else { earlier.lock_wait.or(Some(lease + 5.0)) }),
            lock: self.lock.or(if self.no_lock { None } else { earlier.lock }),
            no_lock: self.no_lock || (earlier.no_lock && !locks),
            lock_lease: self.lock_lease.or(earlier.lock_lease),
            limit: self.limit,
            exclude: self.exclude,
            // The later one wins.
            data: [earlier.data, self.data].concat(),
            sudo: self.sudo || earlier.sudo,
            ask_sudo_password: self.ask_sudo_password || earlier.ask_sudo_password,
            ask_su_password: self.ask_su_password || earlier.ask_su_password,
            ask_doas_password: self.ask_doas_password || earlier.ask_doas_password,
            user: self.user.or(earlier.user),
            port: self.port.or(earlier.port),
            key: self.key.or(earlier.key),
            persist: self.persist.or(earlier.persist),
            json: self.json,
        }
    }
}

/// A time, as ssh spells it.
fn time(text: &str) -> Result<String, String> {
    infra_connect::settings::duration(text).map(|_| text.to_owned())
}

/// What counts for `--prove`.
fn proving(text: &str) -> Result<Proving, String> {
    match text {
        "" => Ok(Proving::Idempotent),
        "strict" => Ok(Proving::Strict),
        _ => Err("expected --prove or --prove=strict".to_owned()),
    }
}

/// A percentage, with or without its sign.
fn percent(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim_end_matches('%').trim().parse().map_err(|_| "expected a percentage such as 20".to_owned())?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("a percentage is between 0 and 100".to_owned()) }
}

impl Runs {
    /// Whether a JSON document is asked for.
    pub fn json(&self) -> bool {
        self.json || matches!(self.what, Some(RunsVerb::Show { json: true, .. }))
    }
}
