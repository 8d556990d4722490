//! The command line as it is typed.

use std::path::PathBuf;

use clap::Parser;

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
  infra @local fact server.os_release
  infra web-[01-03] exec -- systemctl is-active nginx
  infra inventory.lua apt.packages packages=git packages=curl --sudo

Exit codes: 0 all is well; 1 some host is not, or the run was stopped or declined; 2 something was written wrongly and
nothing was executed; 130 interrupted.";

/// Deploys to hosts over your own ssh: plans first, then changes only what differs.
#[derive(Debug, Parser)]
#[command(name = "infra", version, about, after_help = EXAMPLES, max_term_width = 120)]
pub struct Arguments {
    /// An inventory file, hosts, or a connector such as @local.
    #[arg(value_name = "INVENTORY")]
    pub inventory: String,

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

    /// Start nothing new on any host as soon as one is not ok.
    #[arg(long)]
    pub fail_fast: bool,

    /// Only these hosts: names, groups, globs, ranges, `!` for not; comma-separated, repeatable.
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
