//! What ssh is told: the user's configuration, and what must be as we need it.

use std::process::Stdio;
use std::time::Duration;

use infra_core::Value;
use infra_core::command::quote;
use infra_core::connection::{ConnectError, ConnectStep};
use infra_core::host::Host;
use tokio::process::Command;
use tokio::time::Instant;

use super::failed;
use crate::settings::Settings;

/// The ssh client of this machine.
pub(crate) struct Client {
    version: (u32, u32),
}

/// What a host's data says about reaching it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The name that ssh is given.
    pub(crate) address: String,
    hostname: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    key: Option<String>,
    config_file: Option<String>,
    known_hosts_file: Option<String>,
    /// The name under which the host's key is known, where that is not what ssh would look for.
    key_alias: Option<String>,
}

impl Client {
    /// Asks the client for its version.
    pub(crate) async fn find() -> Result<Self, ConnectError> {
        let output = Command::new("ssh").arg("-V").stdin(Stdio::null()).output().await.map_err(|error| {
            let hint = "install the OpenSSH client (Debian: openssh-client)".to_owned();
            failed(ConnectStep::Settings, format!("ssh cannot be started: {error}"), Some(hint))
        })?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // Something else than OpenSSH, or a version of its own numbering, is given what all of them know.
        Ok(Self { version: version(&text).unwrap_or((8, 0)) })
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let rest = text.split("OpenSSH_").nth(1).or_else(|| text.split("OpenSSH_for_Windows_").nth(1))?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

impl Options {
    /// The name or address that is connected to, as far as the host's data says it.
    pub(crate) fn name(&self) -> &str {
        let address = self.hostname.as_ref().unwrap_or(&self.address);
        address.rsplit_once('@').map_or(address, |(_, name)| name)
    }

    /// From a host's data.
    ///
    /// # Errors
    /// When a value is not of its type, as a sentence fragment.
    pub(crate) fn of(host: &Host) -> Result<Self, String> {
        let text = |key: &str| match host.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() || text.contains(['\0', '\n']) => Err(format!("`{key}` is empty or not one line")),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(format!("`{key}` must be text, not {other}")),
        };
        let port = match host.get("ssh_port") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let number = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                let port = number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port > 0);
                Some(port.ok_or_else(|| format!("`ssh_port` must be a number from 1 to 65535, not {value}"))?)
            }
        };
        let options = Self {
            address: host.address.clone(),
            hostname: text("ssh_hostname")?,
            port,
            user: text("ssh_user")?,
            key: text("ssh_key")?,
            config_file: text("ssh_config_file")?,
            known_hosts_file: text("ssh_known_hosts_file")?,
            key_alias: None,
        };
        for name in [Some(&options.address), options.hostname.as_ref()].into_iter().flatten() {
            if name.is_empty() || name.starts_with('-') || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(format!("{name:?} is no name of a host"));
            }
        }
        Ok(options)
    }

    /// Asks ssh what its configuration says, where that decides under which name the host's key is known.
    pub(crate) async fn complete(mut self, client: &Client, deadline: Instant) -> Result<Self, ConnectError> {
        if self.hostname.is_none() {
            return Ok(self);
        }
        // The stanza of the host and the name of its key stay those of the name in the inventory: only the address is another one.
        let without = Self { hostname: None, ..self.clone() };
        let mut command = Command::new("ssh");
        command.arg("-G").args(without.arguments(client, None)).arg("--").arg(&self.address);
        let asked = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let late = || failed(ConnectStep::Settings, "ssh did not read its configuration in time", None);
        let output = tokio::time::timeout_at(deadline, asked).await.map_err(|_| late())?;
        let output = output.map_err(|error| failed(ConnectStep::Settings, format!("ssh cannot be started: {error}"), None))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(failed(ConnectStep::Settings, format!("ssh does not accept its configuration: {said}"), None));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::to_owned);
        if value("hostkeyalias").is_none() {
            let name = value("hostname").unwrap_or_else(|| self.address.clone());
            self.key_alias = Some(match value("port") {
                Some(port) if port != "22" => format!("[{name}]:{port}"),
                _ => name,
            });
        }
        Ok(self)
    }

    /// What the host's data says, as arguments of ssh. `settings` adds what a master needs.
    pub(crate) fn arguments(&self, client: &Client, settings: Option<&Settings>) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |text: String| arguments.extend(["-o".to_owned(), text]);
        if let Some(settings) = settings {
            for fixed in [
                "BatchMode=yes",
                "ControlPersist=no",
                "ClearAllForwardings=yes",
                "ForwardX11=no",
                "Tunnel=no",
                "PermitLocalCommand=no",
                "RemoteCommand=none",
                "RequestTTY=no",
                "EscapeChar=none",
                // The steps of connecting are read off the log.
                "LogLevel=DEBUG1",
            ] {
                option(fixed.to_owned());
            }
            // Older clients stop at options that they do not know.
            if client.version >= (8, 7) {
                for fixed in ["SessionType=default", "ForkAfterAuthentication=no", "StdinNull=no"] {
                    option(fixed.to_owned());
                }
            }
            option(format!("ConnectTimeout={}", whole_seconds(settings.connect_deadline)));
            option(format!("ServerAliveInterval={}", whole_seconds(settings.keepalive)));
            option(format!("ServerAliveCountMax={}", settings.keepalive_tries.max(1)));
        }
        for (name, value) in self.own() {
            option(format!("{name}={value}"));
        }
        if let Some(file) = &self.config_file {
            arguments.extend(["-F".to_owned(), file.clone()]);
        }
        arguments
    }

    /// The options of the host's data.
    fn own(&self) -> Vec<(&'static str, String)> {
        let plain = |value: &Option<String>| value.clone();
        let port = self.port.map(|port| port.to_string());
        let key = self.key.as_deref().map(path);
        let mut own: Vec<(&'static str, String)> = [
            ("HostName", self.hostname.as_ref().map(|name| name.replace('%', "%%"))),
            ("HostKeyAlias", plain(&self.key_alias)),
            ("Port", port),
            ("User", self.user.as_deref().map(word)),
            ("IdentityFile", key),
            ("UserKnownHostsFile", self.known_hosts_file.as_deref().map(path)),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .collect();
        if self.key.is_some() {
            own.push(("IdentitiesOnly", "yes".to_owned()));
        }
        own
    }

    /// The command with which a person reaches the host as we do.
    pub(crate) fn by_hand(&self) -> String {
        let mut words = vec!["ssh".to_owned()];
        if let Some(file) = &self.config_file {
            words.extend(["-F".to_owned(), quote(file)]);
        }
        for (name, value) in self.own() {
            // Shorter where ssh has a shorter word for it.
            match name {
                "Port" => words.extend(["-p".to_owned(), value]),
                "User" => words.extend(["-l".to_owned(), quote(&value)]),
                "IdentityFile" => words.extend(["-i".to_owned(), quote(self.key.as_deref().unwrap_or_default())]),
                "IdentitiesOnly" => {}
                name => words.extend(["-o".to_owned(), quote(&format!("{name}={value}"))]),
            }
        }
        words.push(quote(&self.address));
        words.join(" ")
    }

    /// The file of known hosts that the host's data names.
    pub(crate) fn known_hosts_file(&self) -> Option<&str> {
        self.known_hosts_file.as_deref()
    }
}

fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().max(1)
}

/// A value of ssh_config(5) that is one word.
fn word(value: &str) -> String {
    if value.contains(|c: char| c.is_whitespace() || c == '"' || c == '\\' || c == '\'' || c == '#') {
        format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        value.to_owned()
    }
}

/// A path for ssh_config(5), in which a percent sign means nothing else.
fn path(value: &str) -> String {
    word(&value.replace('%', "%%"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use infra_core::host::{Connector, HostId};

    fn host(data: Value) -> Host {
        let Value::Object(data) = data else { panic!("an object") };
        let (name, address) = ("web".to_owned(), "web".to_owned());
        Host { id: HostId(0), name, connector: Connector::Ssh, address, groups: Vec::new(), data }
    }

    fn data(pairs: &[(&str, Value)]) -> Value {
        Value::Object(pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(version("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19"), Some((9, 2)));
        assert_eq!(version("OpenSSH_10.0p2"), Some((10, 0)));
        assert_eq!(version("dropbear"), None);
    }

    #[test]
    fn old_clients_are_not_told_what_they_do_not_know() {
        let settings = Settings::new("/run/x");
        let options = Options::of(&host(data(&[]))).unwrap();
        let knows = |version| options.arguments(&Client { version }, Some(&settings)).iter().any(|text| text.starts_with("SessionType"));
        assert!(!knows((8, 0)) && !knows((8, 6)) && knows((8, 7)) && knows((10, 0)));
    }

    #[test]
    fn the_data_of_a_host_becomes_options() {
        let options = Options::of(&host(data(&[
            ("ssh_hostname", "10.0.0.7".into()),
            ("ssh_port", 2222.into()),
            ("ssh_user", "admin".into()),
            ("ssh_key", "/keys/100% mine".into()),
            ("ssh_config_file", "/my config".into()),
        ])))
        .unwrap();
        let arguments = options.arguments(&Client { version: (9, 2) }, None);
        let wanted =
            ["HostName=10.0.0.7", "Port=2222", "User=admin", "IdentityFile=\"/keys/100%% mine\"", "IdentitiesOnly=yes", "-F", "/my config"];
        let given: Vec<&str> = arguments.iter().map(String::as_str).filter(|text| *text != "-o").collect();
        assert_eq!(given, wanted);
        assert_eq!(options.by_hand(), "ssh -F '/my config' -o 'HostName=10.0.0.7' -p 2222 -l admin -i '/keys/100% mine' web");
    }

    #[test]
    fn values_of_a_wrong_type_are_named() {
        for (key, value, wanted) in [
            ("ssh_port", Value::from(0), "`ssh_port` must be a number from 1 to 65535, not 0"),
            ("ssh_port", "ssh".into(), "`ssh_port` must be a number from 1 to 65535, not \"ssh\""),
            ("ssh_user", 7.into(), "`ssh_user` must be text, not 7"),
            ("ssh_hostname", "-oProxyCommand=x".into(), "\"-oProxyCommand=x\" is no name of a host"),
            ("ssh_key", "".into(), "`ssh_key` is empty or not one line"),
        ] {
            assert_eq!(Options::of(&host(data(&[(key, value)]))).unwrap_err(), wanted);
        }
        assert_eq!(Options::of(&host(data(&[("ssh_port", "22".into())]))).unwrap().port, Some(22));
    }
}
