//! The fact `server.known_host`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::Resources;
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether ssh(1) knows a host key of another host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct KnownHost {
    /// The name or address of the other host.
    pub host: String,
    /// The port of its ssh server; 22 where not given.
    pub port: Option<u16>,
}

/// What is known of another host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquaintance {
    /// Whether any of its keys is known, to the user or to the whole system.
    pub known: bool,
    /// The file in which the keys that the user knows stand, also where it is not there yet.
    pub file: String,
}

impl KnownHost {
    /// How known_hosts(5) spells host and port.
    fn spelt(&self) -> String {
        match self.port {
            None | Some(22) => self.host.clone(),
            Some(port) => format!("[{}]:{port}", self.host),
        }
    }
}

impl Fact for KnownHost {
    const NAME: &'static str = "server.known_host";
    const DOC: &'static str = "Whether the one who asks knows an ssh host key of another host: a table of `known` (true or false; also of hosts whose names \
                               are hashed, and of those that the whole system knows) and `file` (the path of the user's own known hosts); `nil` where \
                               there is no ssh-keygen(1).";
    type Value = Option<Acquaintance>;

    fn command(&self) -> Command {
        // ssh takes the home directory from passwd(5) and not from the environment, in which sudo may leave another one.
        sh!(
            "if command -v ssh-keygen >/dev/null 2>&1; then
  home=$(getent passwd \"$(id -u)\" 2>/dev/null | cut -d: -f6)
  home=${home:-$HOME}
  printf '%s\\n' \"$home/.ssh/known_hosts\"
  for file in \"$home/.ssh/known_hosts\" \"$home/.ssh/known_hosts2\" /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2; do
    if test -f \"$file\" && ssh-keygen -F {} -f \"$file\" 2>/dev/null | grep -q .; then echo known; break; fi
  done
fi",
            self.spelt()
        )
        .into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let mut lines = text.lines();
        let Some(file) = lines.next() else { return Ok(None) };
        if !file.starts_with('/') {
            return Err(ParseError::new(format!("expected the path of a file of known hosts, got `{file}`")));
        }
        match lines.next() {
            None => Ok(Some(Acquaintance { known: false, file: file.to_owned() })),
            Some("known") => Ok(Some(Acquaintance { known: true, file: file.to_owned() })),
            Some(line) => Err(ParseError::new(format!("expected `known` or nothing, got `{line}`"))),
        }
    }

    fn rests_on(&self) -> Resources {
        // In which home directory the keys are is for the host to say.
        Resources::everything()
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { host: "git.example.com".to_owned(), port: None };
        let odd_port = Self { port: Some(2222), ..question.clone() };
        let file = "/home/deploy/.ssh/known_hosts".to_owned();
        vec![
            FactExample::new(&question, &format!("{file}\nknown\n"), Some(Acquaintance { known: true, file: file.clone() })),
            FactExample::new(&odd_port, &format!("{file}\n"), Some(Acquaintance { known: false, file })),
            FactExample::new(&question, "", None),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_its_own_is_part_of_the_name() {
        for (port, wanted) in [(None, "h"), (Some(22), "h"), (Some(2222), "[h]:2222")] {
            assert_eq!(KnownHost { host: "h".to_owned(), port }.spelt(), wanted);
        }
    }
}
