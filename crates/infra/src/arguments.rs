//! The command line as it is typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use infra_core::waves::Share;

const EXAMPLES: &str = "\
What comes after INVENTORY says what to do:
  DEPLOY.lua…             plan and run these deploys, in this order
  exec -- COMMAND…        run a command on every host: one word is shell text, several are an argument vector
  fact NAME [KEY=VALUE…]  read a fact of every host and print it as JSON
  MODULE.OP [KEY=VALUE…]  plan and run one operation; a list is the key repeated, or JSON
  hosts                   print the hosts that are selected, their groups and their data

INVENTORY is a Lua file, a host, a list of hosts, or a connector:
  inventory.lua   web-01.example.com   admin@web-01:2222,web-02   web-[01-20]   @local   @ssh/HOST

Examples:
  infra inventory.lua deploy.lua --dry
  infra inventory.lua deploy.lua --limit web_servers --exclude web-03
  infra inventory.lua deploy.lua --limit @failed,@unreached
  infra @local fact server.os_release
  infra web-[01-03] exec -- systemctl is-active nginx
  infra inventory.lua apt.packages packages=git packages=curl --sudo

Exit codes: 0 all is well; 1 some host is not, or the run was stopped or declined; 2 something was written wrongly and
nothing was executed; 130 interrupted.";

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

    /// What to do there: deploy files, exec, fact, MODULE.OP or hosts.
    #[arg(value_name = "WHAT", required = true)]
    pub what: Vec<String>,

    /// Show the plan and stop; nothing is changed.
    #[arg(long)]
    pub dry: bool,

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

    /// Log in as this user.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,

    /// Connect to this port.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub port: Option<u16>,

    /// Log in with this private key.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// Print one JSON document about the run on standard output.
    #[arg(long)]
    pub json: bool,
}

/// What needs no inventory. It wins over a host of that name; `@ssh/NAME` reaches the host.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List the earlier runs, the last first; `infra runs show` tells more of one.
    Runs(Runs),
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

/// A time in seconds, with or without a fraction.
fn seconds(text: &str) -> Result<f64, String> {
    let number: f64 = text.trim().parse().map_err(|_| "expected a number of seconds such as 300".to_owned())?;
    if (0.0..=31_536_000.0).contains(&number) { Ok(number) } else { Err("between nothing and a year of seconds".to_owned()) }
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
