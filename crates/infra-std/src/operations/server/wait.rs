//! The operation `server.wait`.

use infra_core::change::{Action, Change};
use infra_core::command::{Command, Shell};
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Idempotence, Misuse, Operation};
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::facts::server::which::Which;

/// Seconds that one attempt at an answer over HTTP may take.
const HTTP_ATTEMPT: u32 = 10;
/// Seconds that one attempt at a connection may take.
const CONNECT_ATTEMPT: u32 = 5;

/// Waits for something.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Wait {
    /// A TCP port: until something listens on it on this machine or, with `host`, until a connection to it is taken.
    pub port: Option<u16>,
    /// With `port`: the name or address that is connected to, as this machine sees it.
    pub host: Option<String>,
    /// A URL: until it answers with one of the statuses in `status`, and with the text in `match` where that is given. Redirects are followed.
    pub http: Option<String>,
    /// With `http`: the statuses that are waited for, a number or a list of them; any from 200 to 299 where not given.
    #[serde(default)]
    pub status: Vec<u16>,
    /// With `http`: a text that the answer must hold, on one line and as it is written, no pattern.
    #[serde(rename = "match")]
    pub text: Option<String>,
    /// A path on the host: until something is there.
    #[schemars(extend("x-host-path" = true))]
    pub file: Option<String>,
    /// A text for `sh`: until it exits with 0. It must change nothing.
    pub command: Option<String>,
    /// Seconds between two attempts; 1 where not given.
    pub interval: Option<f64>,
    /// Seconds after which it gives up and fails; 60 where not given. A last attempt may end a few seconds later.
    pub timeout: Option<f64>,
    /// Where the waiting is done: on the host itself where not given. From `controller`, the machine that infra runs on, `port` and `http` may be
    /// waited for: `port` at `host`, or where that is not given at the address that infra connects to for this host; `http` at the URL as it is written.
    pub from: Option<Side>,
}

/// Where the waiting is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// On the host itself.
    Host,
    /// On the machine that infra runs on.
    Controller,
}

/// What is waited for, with what an attempt needs.
enum Goal<'w> {
    Listens {
        port: u16,
    },
    Connects {
        port: u16,
        host: &'w str,
    },
    /// A connection from the controller to the host, at the address that infra connects to.
    Reaches {
        port: u16,
    },
    Answers {
        url: &'w str,
    },
    Exists {
        path: &'w str,
    },
    Succeeds {
        command: &'w str,
    },
}

impl Wait {
    fn goal(&self) -> Result<Goal<'_>, Misuse> {
        let given = [self.port.is_some(), self.http.is_some(), self.file.is_some(), self.command.is_some()];
        let goal = match (self.port, &self.host, &self.http, &self.file, &self.command) {
            _ if given.iter().filter(|given| **given).count() != 1 => None,
            (Some(port), None, ..) if self.asks_here() => Some(Goal::Reaches { port }),
            (Some(port), None, ..) => Some(Goal::Listens { port }),
            (Some(port), Some(host), ..) => Some(Goal::Connects { port, host }),
            (_, _, Some(url), ..) => Some(Goal::Answers { url }),
            (_, _, _, Some(path), _) => Some(Goal::Exists { path }),
            (.., Some(command)) => Some(Goal::Succeeds { command }),
            _ => None,
        };
        goal.ok_or_else(|| {
            Misuse::new("exactly one of `port`, `http`, `file` and `command` is needed")
                .hint("write port = 8080, or http = \"http://localhost:8080/health\"")
        })
    }

    /// Whether the waiting is done on the controller.
    fn asks_here(&self) -> bool {
        self.from == Some(Side::Controller)
    }

    fn timeout(&self) -> f64 {
        self.timeout.unwrap_or(60.0)
    }

    /// The statuses as a pattern of `case`.
    fn statuses(&self) -> Shell {
        if self.status.is_empty() {
            return sh!("2[0-9][0-9]");
        }
        Shell::join("|", self.status.iter().map(|status| sh!("{}", *status)))
    }

    /// What is waited for, in words.
    fn what(&self, goal: &Goal<'_>) -> String {
        match goal {
            Goal::Listens { port } => format!("something listens on port {port}"),
            Goal::Connects { port, host } => format!("{host} takes connections on port {port}"),
            Goal::Reaches { port } => format!("the host takes connections on port {port}"),
            Goal::Answers { url } => {
                let statuses: Vec<String> = self.status.iter().map(u16::to_string).collect();
                let status = if statuses.is_empty() { String::new() } else { format!(" with {}", statuses.join(" or ")) };
                let text = self.text.as_ref().map(|text| format!(" holding `{text}`")).unwrap_or_default();
                format!("{url} answers{status}{text}")
            }
            Goal::Exists { path } => format!("{path} is there"),
            Goal::Succeeds { command } => format!("`{}` succeeds", command.trim()),
        }
    }

    /// The body of a function that makes one attempt, and says in `why` what was wrong with it where there is more to say.
    fn attempt(&self, goal: &Goal<'_>, facts: &Facts<'_>) -> Result<Shell, DiffError> {
        match goal {
            Goal::Connects { .. } | Goal::Answers { .. } if self.asks_here() => Ok(self.attempt_from_controller(goal)),
            Goal::Listens { port } => Ok(listens(*port)),
            Goal::Connects { port, host } => connects(*port, host, facts),
            Goal::Reaches { .. } => Ok(self.attempt_from_controller(goal)),
            Goal::Answers { url } => self.answers(url, facts),
            Goal::Exists { path } => Ok(sh!("[ -e {} ]", *path)),
            Goal::Succeeds { command } => Ok(sh!(
                "{ answer=$(timeout $((end - $(now) + 1)) sh -c {} 2>&1 </dev/null); } 2>/dev/null && return\n\
                 case $? in\n\
                 124|143) why='it did not end in time' ;;\n\
                 *) why=\"it exited with $?${answer:+: $(printf '%s\\n' \"$answer\" | tail -n 1)}\" ;;\n\
                 esac\n\
                 return 1",
                *command
            )),
        }
    }

    /// The same on the machine that infra runs on. No facts are read of it, so the tool is chosen there.
    fn attempt_from_controller(&self, goal: &Goal<'_>) -> Shell {
        let (ways, missing) = match goal {
            Goal::Answers { url } => {
                let wget = |tool| self.by_wget(url, tool);
                let ways = [("curl", self.by_curl(url)), ("wget", wget(sh!("wget"))), ("busybox", wget(sh!("busybox wget")))];
                (ways, "neither curl nor wget is on the machine that infra runs on, so it cannot ask over HTTP")
            }
            _ => {
                let (port, host) = match goal {
                    Goal::Connects { port, host } => (*port, sh!("{}", *host)),
                    Goal::Reaches { port } => (*port, sh!("\"$INFRA_ADDRESS\"")),
                    _ => (0, Shell::default()),
                };
                let nc = |tool| by_netcat(port, &host, &tool);
                let ways = [("bash", by_bash(port, &host)), ("nc", nc(sh!("nc"))), ("busybox", nc(sh!("busybox nc")))];
                (ways, "neither bash nor nc is on the machine that infra runs on, so it cannot try a connection")
            }
        };
        let ways = ways.into_iter().map(|(tool, way)| sh!("if command -v {} >/dev/null; then\n{}\nel", tool, way));
        let ways = Shell::join("", ways);
        sh!("{}se\necho {} >&2; exit 1\nfi", ways, missing)
    }

    fn answers(&self, url: &str, facts: &Facts<'_>) -> Result<Shell, DiffError> {
        let [curl, wget, busybox] = ["curl", "wget", "busybox"].map(which);
        match facts.get((&curl, &wget, &busybox))? {
            (Some(_), ..) => Ok(self.by_curl(url)),
            (None, Some(_), _) => Ok(self.by_wget(url, sh!("wget"))),
            (None, None, Some(_)) => Ok(self.by_wget(url, sh!("busybox wget"))),
            (None, None, None) => Err(DiffError::refused_with_hint(
                "neither curl nor wget is on the host, so it cannot ask over HTTP",
                "install curl before, or wait for a `port` or a `command`",
            )),
        }
    }

    /// Judges the status of an answer.
    fn judge(&self) -> Shell {
        sh!("case $status in\n{}) ;;\n*) why=\"it answered $status\"; return 1 ;;\nesac", self.statuses())
    }

    fn by_curl(&self, url: &str) -> Shell {
        let asked = sh!(
            "if ! answer=$(curl -q -gsSL -m {} -w '\\n%{http_code}' {} 2>&1); then\n\
             why=$(printf '%s\\n' \"$answer\" | sed -n 's/^curl: ([0-9]*) //p' | tail -n 1); return 1\n\
             fi\n\
             status=${answer##*\"$line\"}",
            HTTP_ATTEMPT,
            url
        );
        let held = self.text.as_ref().map(|text| {
            sh!("case ${answer%\"$line\"*} in\n*{}*) ;;\n*) why=\"it answered $status without the text\"; return 1 ;;\nesac", text.as_str())
        });
        let line = sh!("line=$(printf '\\n.'); line=${line%.}");
        Shell::join("\n", [line, asked, self.judge()].into_iter().chain(held))
    }

    fn by_wget(&self, url: &str, wget: Shell) -> Shell {
        let body = match &self.text {
            Some(text) => sh!("{ grep -Fq -e {} && echo held; cat >/dev/null; }", text.as_str()),
            None => sh!("cat >/dev/null"),
        };
        let asked = sh!(
            "answer=$({ timeout {} {} -q -S -O - {} | {}; } 2>&1)\n\
             status=$(printf '%s\\n' \"$answer\" | sed -n 's|^ *HTTP/[0-9.]* \\([0-9][0-9][0-9]\\).*|\\1|p' | tail -n 1)\n\
             if [ -z \"$status\" ]; then\n\
             why=$(printf '%s\\n' \"$answer\" | tail -n 1)\n\
             why=${why:-there was no answer}; return 1\n\
             fi",
            HTTP_ATTEMPT,
            wget,
            url,
            body
        );
        let held = self.text.as_ref().map(|_| {
            sh!("printf '%s\\n' \"$answer\" | grep -qx held || {\n\
                 why=\"it answered $status without the text\"; return 1\n\
                 }")
        });
        Shell::join("\n", [asked, self.judge()].into_iter().chain(held))
    }
}

fn which(command: &str) -> Which {
    Which { command: command.to_owned() }
}

/// The kernel's own table of sockets (proc(5), `/proc/net/tcp`: state 0A is listening, addresses and ports are hexadecimal) needs no tool.
fn listens(port: u16) -> Shell {
    let row = format!("^ *[0-9]+: [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ");
    let column = format!("[:.]{port}[[:space:]]");
    sh!(
        "if [ -r /proc/net/tcp ]; then\n\
         grep -Eqs {} /proc/net/tcp /proc/net/tcp6\n\
         elif command -v ss >/dev/null; then\n\
         ss -ltn | grep -Eq {}\n\
         elif command -v netstat >/dev/null; then\n\
         netstat -an | grep -i listen | grep -Eq {}\n\
         else\n\
         echo 'there is neither /proc/net/tcp nor ss nor netstat, so listeners cannot be seen' >&2; exit 1\n\
         fi",
        row,
        column,
        column
    )
}

fn connects(port: u16, host: &str, facts: &Facts<'_>) -> Result<Shell, DiffError> {
    let [bash, nc, busybox] = ["bash", "nc", "busybox"].map(which);
    let host = sh!("{}", host);
    match facts.get((&bash, &nc, &busybox))? {
        (Some(_), ..) => Ok(by_bash(port, &host)),
        (None, Some(_), _) => Ok(by_netcat(port, &host, &sh!("nc"))),
        (None, None, Some(_)) => Ok(by_netcat(port, &host, &sh!("busybox nc"))),
        (None, None, None) => Err(DiffError::refused_with_hint(
            "neither bash nor nc is on the host, so it cannot try a connection",
            "install netcat before, leave `host` out to wait for a listener on the host itself, or wait for a `command`",
        )),
    }
}

/// Tries a connection with bash; `host` is a word of the shell.
fn by_bash(port: u16, host: &Shell) -> Shell {
    let connect = "exec 3<>\"/dev/tcp/$0/$1\"";
    sh!("timeout {} bash -c {} {} {} </dev/null >/dev/null 2>&1", CONNECT_ATTEMPT, connect, *host, port)
}

/// Tries a connection with a netcat. A small one has no -z. It gives up connecting by itself, so what is still there when the time is over has connected.
fn by_netcat(port: u16, host: &Shell, tool: &Shell) -> Shell {
    let over = CONNECT_ATTEMPT + 3;
    let quiet = sh!("</dev/null >/dev/null 2>&1");
    sh!(
        "timeout {} {} -z -w {} {} {} {} && return\n\
         timeout {} {} -w {} {} {} {}\n\
         case $? in 0|124|143) ;; *) return 1 ;; esac",
        over,
        *tool,
        CONNECT_ATTEMPT,
        *host,
        port,
        quiet,
        over,
        *tool,
        CONNECT_ATTEMPT,
        *host,
        port,
        quiet
    )
}

/// Whether it can be a name or an address of a machine, and nothing that a tool takes for an option.
fn is_host(host: &str) -> bool {
    !host.is_empty() && !host.starts_with('-') && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte))
}

impl Operation for Wait {
    const NAME: &'static str = "server.wait";
    const DOC: &'static str = "Waits until a port is open, a URL answers, a file is there or a command succeeds; fails when that takes longer than \
        `timeout`.\n\n\
        It changes nothing, so the plan counts it as no change. It is not known beforehand how long it takes, and it waits at every run: where all is \
        as wished it costs one round trip. A port is looked up in the kernel's own table of listeners; `host` needs bash or nc, `http` needs curl or \
        wget, and a host without them is refused before anything is done. With `from = \"controller\"` the waiting is done on the machine that infra runs \
        on, which a firewall, or a jump host that stands between, may keep from the port. wget shows no text of an answer that is an error, so `match` with such a \
        `status` needs curl.";
    // It does its work at every run.
    const IDEMPOTENCE: Idempotence = Idempotence::NotIdempotent;

    fn check(&self) -> Result<(), Misuse> {
        let goal = self.goal()?;
        if self.asks_here() && matches!(goal, Goal::Exists { .. } | Goal::Succeeds { .. }) {
            let name = if self.file.is_some() { "file" } else { "command" };
            let hint = match name {
                "file" => "leave `from` out to wait for a file of the host; for one of this machine, run the operation on @local",
                _ => {
                    "leave `from` out to run it on the host; on this machine `local_command` runs it when the plan is made, @local when it is executed"
                }
            };
            return Err(Misuse::new(format!("`from = \"controller\"` is for `port` and `http`, not for `{name}`")).hint(hint));
        }
        if self.host.is_some() && self.port.is_none() {
            return Err(Misuse::new("`host` is given without `port`").hint("write port = 5432 beside it"));
        }
        if (self.text.is_some() || !self.status.is_empty()) && self.http.is_none() {
            return Err(Misuse::new("`status` and `match` are given without `http`").hint("write http = \"http://localhost/health\""));
        }
        if let Some(status) = self.status.iter().find(|status| !(100..600).contains(*status)) {
            return Err(Misuse::new(format!("`status` takes statuses of HTTP, 100 to 599, got {status}")));
        }
        if self.text.as_ref().is_some_and(|text| text.is_empty() || text.contains(['\n', '\r', '\0'])) {
            return Err(Misuse::new("`match` takes a text of one line that is not empty"));
        }
        for (name, seconds) in [("interval", self.interval), ("timeout", self.timeout)] {
            if let Some(seconds) = seconds.filter(|seconds| !(*seconds > 0.0 && *seconds <= 1e6)) {
                return Err(Misuse::new(format!("`{name}` takes seconds above 0, got {seconds}")));
            }
        }
        match goal {
            Goal::Listens { port: 0 } | Goal::Connects { port: 0, .. } | Goal::Reaches { port: 0 } => {
                Err(Misuse::new("`port` takes 1 to 65535, got 0"))
            }
            Goal::Connects { host, .. } if !is_host(host) => Err(Misuse::new(format!("`host` takes a name or an address, got `{host}`"))),
            Goal::Answers { url } if !(url.starts_with("http://") || url.starts_with("https://")) => {
                Err(Misuse::new(format!("`http` takes a URL that starts with http:// or https://, got `{url}`"))
                    .hint("write http = \"http://localhost:8080/health\""))
            }
            Goal::Answers { url } if url.chars().any(|c| c.is_whitespace() || c.is_control()) => {
                Err(Misuse::new(format!("the URL `{url}` holds white space")).hint("a space in a URL is written %20"))
            }
            Goal::Exists { path: "" } => Err(Misuse::new("`file` is empty")),
            Goal::Succeeds { command } if command.trim().is_empty() => Err(Misuse::new("`command` is empty")),
            _ => Ok(()),
        }
    }

    /// What is waited for comes to be while it waits.
    fn touches(&self) -> Resources {
        match &self.file {
            Some(path) => Resources::path(path),
            None => Resources::only([Resource::Network]),
        }
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let goal = self.goal().map_err(|wrong| DiffError::refused(wrong.message))?;
        let attempt = self.attempt(&goal, facts)?;
        let what = self.what(&goal);
        let seconds = self.timeout().ceil();
        let interval = self.interval.unwrap_or(1.0);
        // Whole seconds are all that POSIX promises of sleep(1).
        let sleep = if interval.fract() == 0.0 {
            sh!("sleep {}", interval.to_string())
        } else {
            sh!("sleep {} 2>/dev/null || sleep {}", interval.to_string(), interval.ceil().to_string())
        };
        let given_up = format!("gave up waiting after {seconds} s: not yet that {what}");
        // The time since boot does not jump when a clock is set.
        let script = sh!(
            "now() { if read -r up rest </proc/uptime; then echo \"${up%%.*}\"; else date +%s; fi; } 2>/dev/null\n\
             attempt() {\n{}\n}\n\
             why= end=$(($(now) + {}))\n\
             until attempt; do\n\
             [ \"$(now)\" -lt \"$end\" ] || { printf '%s%s\\n' {} \"${why:+ ($why)}\" >&2; exit 1; }\n\
             {}\n\
             done",
            attempt,
            seconds.to_string(),
            given_up,
            sleep
        );
        if self.asks_here() {
            let change = Change::idle(format!("waits on this machine until {what}, for up to {seconds} s"));
            return Ok(change.then(Action::Controller(Command::new(script))));
        }
        Ok(Change::idle(format!("waits until {what}, for up to {seconds} s")).run(script))
    }

    fn examples() -> Vec<Example> {
        let found = |example: Example, tools: [(&str, Option<&str>); 3]| {
            tools.into_iter().fold(example, |example, (tool, path)| example.fact(&which(tool), path.map(str::to_owned)))
        };
        let health = json!({ "http": "http://localhost:8080/health" });
        vec![
            Example::new("Wait for a file", json!({ "file": "/run/app/ready", "timeout": 30 })).steps([
                "now() { if read -r up rest </proc/uptime; then echo \"${up%%.*}\"; else date +%s; fi; } 2>/dev/null\n\
                 attempt() {\n[ -e /run/app/ready ]\n}\n\
                 why= end=$(($(now) + 30))\n\
                 until attempt; do\n\
                 [ \"$(now)\" -lt \"$end\" ] || { printf '%s%s\\n' 'gave up waiting after 30 s: not yet that /run/app/ready is there' \
                 \"${why:+ ($why)}\" >&2; exit 1; }\n\
                 sleep 1\n\
                 done",
            ]),
            Example::new("Wait for a connection to another machine", json!({ "port": 5432, "host": "db-01", "interval": 0.5 }))
                .fact(&which("bash"), Some("/usr/bin/bash".to_owned()))
                .fact(&which("nc"), None)
                .fact(&which("busybox"), None)
                .steps([
                    "now() { if read -r up rest </proc/uptime; then echo \"${up%%.*}\"; else date +%s; fi; } 2>/dev/null\n\
                     attempt() {\ntimeout 5 bash -c 'exec 3<>\"/dev/tcp/$0/$1\"' db-01 5432 </dev/null >/dev/null 2>&1\n}\n\
                     why= end=$(($(now) + 60))\n\
                     until attempt; do\n\
                     [ \"$(now)\" -lt \"$end\" ] || { printf '%s%s\\n' 'gave up waiting after 60 s: not yet that db-01 takes connections on port \
                     5432' \"${why:+ ($why)}\" >&2; exit 1; }\n\
                     sleep 0.5 2>/dev/null || sleep 1\n\
                     done",
                ]),
            found(
                Example::new("A host that cannot ask over HTTP", health).refused("neither curl nor wget"),
                [("curl", None), ("wget", None), ("busybox", None)],
            ),
            found(
                Example::new("A host that cannot connect", json!({ "port": 22, "host": "::1" })).refused("neither bash nor nc"),
                [("bash", None), ("nc", None), ("busybox", None)],
            ),
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::registry::OperationDefinition;
    use infra_test::facts::{MadeUp, diff_fully};
    use serde_json::Value;

    use super::*;

    fn bind(args: Value) -> Result<infra_core::operation::SharedOperation, String> {
        let args = args.as_object().expect("a map").clone();
        OperationDefinition::of::<Wait>().bind(args).map_err(|error| error.message)
    }

    #[test]
    fn what_does_not_fit_is_misuse() {
        for (args, message) in [
            (json!({}), "exactly one of `port`, `http`, `file` and `command` is needed"),
            (json!({ "port": 80, "file": "/x" }), "exactly one of `port`, `http`, `file` and `command` is needed"),
            (json!({ "port": 0 }), "`port` takes 1 to 65535, got 0"),
            (json!({ "port": "http" }), "`port` takes a whole number, got the string \"http\""),
            (json!({ "port": 80, "host": "-x" }), "`host` takes a name or an address, got `-x`"),
            (json!({ "port": 80, "host": "a/b" }), "`host` takes a name or an address, got `a/b`"),
            (json!({ "file": "/x", "host": "db" }), "`host` is given without `port`"),
            (json!({ "file": "" }), "`file` is empty"),
            (json!({ "command": " " }), "`command` is empty"),
            (json!({ "port": 80, "status": 200 }), "`status` and `match` are given without `http`"),
            (json!({ "http": "localhost" }), "`http` takes a URL that starts with http:// or https://, got `localhost`"),
            (json!({ "http": "http://a b" }), "the URL `http://a b` holds white space"),
            (json!({ "http": "http://a", "status": 20 }), "`status` takes statuses of HTTP, 100 to 599, got 20"),
            (json!({ "http": "http://a", "match": "a\nb" }), "`match` takes a text of one line that is not empty"),
            (json!({ "port": 80, "timeout": 0 }), "`timeout` takes seconds above 0, got 0"),
            (json!({ "port": 80, "interval": -1 }), "`interval` takes seconds above 0, got -1"),
            (json!({ "file": "/x", "from": "controller" }), "`from = \"controller\"` is for `port` and `http`, not for `file`"),
            (json!({ "command": "true", "from": "controller" }), "`from = \"controller\"` is for `port` and `http`, not for `command`"),
            (json!({ "port": 0, "from": "controller" }), "`port` takes 1 to 65535, got 0"),
            (json!({ "port": 80, "from": "here" }), "`from` takes one of \"host\", \"controller\", got the string \"here\""),
        ] {
            assert_eq!(bind(args.clone()).map(|_| ()), Err(message.to_owned()), "{args}");
        }
        assert!(bind(json!({ "port": 80, "from": "host" })).is_ok());
    }

    #[test]
    fn from_the_controller_nothing_is_asked_of_the_host() {
        for (args, reason, part) in [
            (
                json!({ "port": 80, "from": "controller" }),
                "waits on this machine until the host takes connections on port 80, for up to 60 s",
                "bash -c 'exec 3<>\"/dev/tcp/$0/$1\"' \"$INFRA_ADDRESS\" 80",
            ),
            (
                json!({ "port": 80, "host": "db", "from": "controller" }),
                "waits on this machine until db takes connections on port 80, for up to 60 s",
                "nc -z -w 5 db 80",
            ),
            (
                json!({ "http": "http://a/b", "from": "controller" }),
                "waits on this machine until http://a/b answers, for up to 60 s",
                "curl -q",
            ),
        ] {
            let operation = bind(args).expect("right arguments");
            let (change, rounds) = diff_fully(&*operation, &MadeUp::new()).expect("a change");
            assert_eq!((change.reason.as_str(), change.changes, rounds), (reason, false, 0));
            let [Action::Controller(command)] = &change.actions[..] else { panic!("{change:?}") };
            assert!(command.script.as_str().contains(part), "{}", command.script);
        }
    }

    #[test]
    fn it_says_what_it_waits_for_and_changes_nothing() {
        let tools = ["curl", "wget", "busybox", "bash", "nc"];
        let table = tools.into_iter().fold(MadeUp::new(), |table, tool| table.fact(&which(tool), Some(format!("/bin/{tool}"))));
        for (args, reason) in [
            (json!({ "port": 80 }), "waits until something listens on port 80, for up to 60 s"),
            (json!({ "port": 80, "host": "db" }), "waits until db takes connections on port 80, for up to 60 s"),
            (json!({ "http": "http://a/b", "timeout": 1.5 }), "waits until http://a/b answers, for up to 2 s"),
            (
                json!({ "http": "http://a", "status": [200, 204], "match": "ok" }),
                "waits until http://a answers with 200 or 204 holding `ok`, for up to 60 s",
            ),
            (json!({ "file": "/x" }), "waits until /x is there, for up to 60 s"),
            (json!({ "command": "pg_isready\n" }), "waits until `pg_isready` succeeds, for up to 60 s"),
        ] {
            let operation = bind(args).expect("right arguments");
            let (change, rounds) = diff_fully(&*operation, &table).expect("a change");
            assert_eq!((change.reason.as_str(), change.changes, change.actions.len()), (reason, false, 1));
            assert!(rounds <= 1 && change.effects.is_empty());
        }
    }

    #[test]
    fn a_tool_that_is_to_be_installed_before_is_waited_for() {
        let table = MadeUp::new().unknown(&which("curl"), "Install curl").fact(&which("wget"), None).fact(&which("busybox"), None);
        let operation = bind(json!({ "http": "http://localhost" })).expect("right arguments");
        let error = diff_fully(&*operation, &table).expect_err("not known");
        assert_eq!(error.to_string(), "depends on «Install curl»");
        let packages = OperationDefinition::of::<crate::operations::apt::packages::Packages>();
        let install = packages.bind(json!({ "packages": ["curl"] }).as_object().expect("a map").clone()).expect("right arguments");
        assert!(install.touches().overlaps(&infra_core::fact::Fact::rests_on(&which("curl"))));
    }
}
