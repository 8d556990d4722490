//! What ssh is told: the user's configuration, and what must be as we need it.
//!
//! The keys of a host's data that begin with `ssh_` are those of pyinfra, with the same meaning; the book's page on ssh lists them.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use infra_core::Value;
use infra_core::command::quote;
use infra_core::connection::{ConnectError, ConnectStep};
use infra_core::host::Host;
use infra_core::secret::Secret;
use tokio::process::Command;
use tokio::time::Instant;

use super::failed;
use crate::settings::{Settings, duration};

/// The ssh client of this machine.
pub(crate) struct Client {
    version: (u32, u32),
}

/// What a host's data says about reaching it.
#[derive(Clone, Debug, Default, PartialEq)]
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
    strict_host_key_checking: Option<&'static str>,
    /// False: keys of an agent are not tried.
    allow_agent: Option<bool>,
    /// False: only keys that something names are tried.
    look_for_keys: Option<bool>,
    forward_agent: Option<bool>,
    /// What the host is told where it asks for a password.
    pub(crate) password: Option<Secret>,
    /// What opens the key.
    pub(crate) key_password: Option<Secret>,
    /// How long a connect may take, where the host has a time of its own.
    pub(crate) connect_deadline: Option<Duration>,
    /// How often it is tried again, and the bounds of the pause before that.
    pub(crate) retries: u32,
    pub(crate) retry_delays: Option<(f64, f64)>,
    /// How long the master is kept when nobody uses it any more.
    pub(crate) persist: Option<Duration>,
}

/// What ssh says that its configuration comes to for a host (`ssh -G`).
pub(crate) struct Resolved(String);

impl Resolved {
    /// The value of a keyword, in small letters as ssh prints it.
    pub(crate) fn value(&self, keyword: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.strip_prefix(keyword)?.strip_prefix(' '))
    }

    /// The hosts that the way leads through, in order.
    pub(crate) fn jumps(&self) -> Vec<&str> {
        self.value("proxyjump").filter(|jumps| *jumps != "none").map(|jumps| jumps.split(',').collect()).unwrap_or_default()
    }
}

impl Client {
    /// Whether it can be told to ask by a program whatever there is else (`SSH_ASKPASS_REQUIRE`).
    pub(crate) fn is_forced_to_ask(&self) -> bool {
        self.version >= (8, 4)
    }

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
        let truth = |key: &str| match host.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(truth)) => Ok(Some(*truth)),
            Some(other) => Err(format!("`{key}` must be true or false, not {other}")),
        };
        // The values of these are not shown, whatever they are.
        let secret = |key: &str| match host.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() || text.contains(['\0', '\n']) => Err(format!("`{key}` is empty or not one line")),
            Some(Value::String(text)) => Ok(Some(Secret::new(text.as_str()))),
            Some(_) => Err(format!("`{key}` must be text")),
        };
        let seconds = |key: &str| match host.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value
                .as_f64()
                .filter(|seconds| seconds.is_finite() && (0.0..=86_400.0).contains(seconds))
                .map(Some)
                .ok_or_else(|| format!("`{key}` must be a number of seconds, not {value}")),
        };
        let retries = match host.get("ssh_connect_retries") {
            None | Some(Value::Null) => 0,
            Some(value) => value
                .as_u64()
                .and_then(|count| u32::try_from(count).ok())
                .filter(|count| *count <= 1000)
                .ok_or_else(|| format!("`ssh_connect_retries` must be a whole number up to 1000, not {value}"))?,
        };
        let least = seconds("ssh_connect_retry_min_delay")?.unwrap_or(0.1);
        let most = seconds("ssh_connect_retry_max_delay")?.unwrap_or(least.max(0.5));
        if most < least {
            return Err(format!("`ssh_connect_retry_max_delay` ({most}) is less than `ssh_connect_retry_min_delay` ({least})"));
        }
        let connect_deadline = match seconds("ssh_connect_timeout")? {
            Some(0.0) => return Err("`ssh_connect_timeout` must be more than 0".to_owned()),
            given => given.map(Duration::from_secs_f64),
        };
        let persist = match host.get("ssh_persist") {
            None | Some(Value::Null | Value::Bool(false)) => None,
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Some(duration(&text).map_err(|why| format!("`ssh_persist`: {why}"))?).filter(|time| !time.is_zero())
            }
        };
        if host.get("ssh_paramiko_connect_kwargs").is_some_and(|value| !value.is_null()) {
            return Err("`ssh_paramiko_connect_kwargs` means nothing to OpenSSH; write what it is for as options of ssh_config(5) into a file, and name \
                        that with `ssh_config_file`"
                .to_owned());
        }
        match host.get("ssh_file_transfer_protocol") {
            None | Some(Value::Null) => {}
            // Files go through the shell of the connection: a host needs neither.
            Some(Value::String(protocol)) if protocol == "sftp" || protocol == "scp" => {}
            Some(other) => return Err(format!("`ssh_file_transfer_protocol` must be \"sftp\" or \"scp\", not {other}")),
        }
        let options = Self {
            address: host.address.clone(),
            hostname: text("ssh_hostname")?,
            port,
            user: text("ssh_user")?,
            key: text("ssh_key")?,
            config_file: text("ssh_config_file")?,
            known_hosts_file: text("ssh_known_hosts_file")?,
            key_alias: None,
            strict_host_key_checking: strictness(host.get("ssh_strict_host_key_checking"))?,
            allow_agent: truth("ssh_allow_agent")?,
            look_for_keys: truth("ssh_look_for_keys")?,
            forward_agent: truth("ssh_forward_agent")?,
            password: secret("ssh_password")?,
            key_password: secret("ssh_key_password")?,
            connect_deadline,
            retries,
            retry_delays: (retries > 0).then_some((least, most)),
            persist,
        };
        if options.key_password.is_some() && options.key.is_none() {
            return Err("`ssh_key_password` opens the key that `ssh_key` names, and there is no `ssh_key`".to_owned());
        }
        for name in [Some(&options.address), options.hostname.as_ref()].into_iter().flatten() {
            if name.is_empty() || name.starts_with('-') || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
                return Err(format!("{name:?} is no name of a host"));
            }
        }
        Ok(options)
    }

    /// Asks ssh what its configuration comes to for this host.
    ///
    /// # Errors
    /// When ssh does not accept its configuration, or says nothing in time.
    pub(crate) async fn resolve(&self, client: &Client, deadline: Instant) -> Result<Resolved, ConnectError> {
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
        Ok(Resolved(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Whether the address is another one than the name says.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.hostname.is_some()
    }

    /// The same, with the name under which the host's key is known, where the address is another one.
    pub(crate) fn with_key_alias(mut self, resolved: &Resolved) -> Self {
        if self.is_elsewhere() && resolved.value("hostkeyalias").is_none() {
            let name = resolved.value("hostname").unwrap_or(&self.address);
            self.key_alias = Some(match resolved.value("port") {
                Some(port) if port != "22" => format!("[{name}]:{port}"),
                _ => name.to_owned(),
            });
        }
        self
    }

    /// Tells connections apart: the same text for as long as neither the host's data nor the user's configuration lead elsewhere, or to it as
    /// somebody else. No secret is part of it.
    pub(crate) fn digest(&self, client: &Client, resolved: &Resolved) -> String {
        let mut text = self.arguments(client, None).join("\0");
        text.push_str(&format!("\0\0{}\0\0{}", self.address, resolved.0));
        let mut digest = infra_core::digest::sha256(text.as_bytes());
        digest.truncate(16);
        digest
    }

    /// The host as a person would spell it.
    pub(crate) fn spelling(&self) -> String {
        let user = self.user.as_ref().map_or_else(String::new, |user| format!("{user}@"));
        match self.port {
            Some(port) if self.address.contains(':') => format!("{user}[{}]:{port}", self.address),
            Some(port) => format!("{user}{}:{port}", self.address),
            None => format!("{user}{}", self.address),
        }
    }

    /// The file that ssh reads instead of the user's and the machine's configuration.
    pub(crate) fn config_file(&self) -> Option<PathBuf> {
        self.config_file.as_deref().map(|file| PathBuf::from(at_home(file)))
    }

    /// Whether the data has a passphrase for the key at this path.
    pub(crate) fn opens(&self, path: &str) -> bool {
        self.key_password.is_some() && self.key_path().as_deref() == Some(path)
    }

    /// The key, as ssh speaks of it.
    pub(crate) fn key_path(&self) -> Option<String> {
        self.key.as_deref().map(at_home)
    }

    /// What a master needs beside [`arguments`](Self::arguments) to ask its questions, or to ask none. `person` says whether there is somebody to answer
    /// whatever it is.
    pub(crate) fn questions(&self, asks: bool, person: bool) -> Vec<String> {
        let mut options = vec![format!("BatchMode={}", if asks { "no" } else { "yes" })];
        if asks && self.password.is_some() {
            // The one password we have is for the question that asks for nothing but it. It is tried once.
            options.push("PreferredAuthentications=gssapi-with-mic,hostbased,publickey,password,keyboard-interactive".to_owned());
            options.push("NumberOfPasswordPrompts=1".to_owned());
        } else if asks && !person {
            // Nobody has an answer to these; ssh says so itself.
            options.extend(
                ["PasswordAuthentication=no", "ChallengeResponseAuthentication=no", "NumberOfPasswordPrompts=1"].map(str::to_owned),
            );
        }
        options.into_iter().flat_map(|option| ["-o".to_owned(), option]).collect()
    }

    /// How long a master lives when nobody uses it: not at all, or as the host's data says.
    pub(crate) fn persistence(&self, kept: bool) -> String {
        let time = self.persist.filter(|_| kept).map_or_else(|| "no".to_owned(), |time| whole_seconds(time).to_string());
        format!("ControlPersist={time}")
    }

    /// What the host's data says, as arguments of ssh. `settings` adds what a master needs.
    pub(crate) fn arguments(&self, client: &Client, settings: Option<&Settings>) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |text: String| arguments.extend(["-o".to_owned(), text]);
        if let Some(settings) = settings {
            for fixed in [
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
            option(format!("ConnectTimeout={}", whole_seconds(self.connect_deadline.unwrap_or(settings.connect_deadline))));
            option(format!("ServerAliveInterval={}", whole_seconds(settings.keepalive)));
            option(format!("ServerAliveCountMax={}", settings.keepalive_tries.max(1)));
        }
        for (name, value) in self.own() {
            option(format!("{name}={value}"));
        }
        if let Some(file) = &self.config_file {
            arguments.extend(["-F".to_owned(), at_home(file)]);
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
        } else if self.look_for_keys == Some(false) {
            // Where any is named, ssh looks for none of its own; those that its configuration names are tried all the same.
            own.push(("IdentityFile", "none".to_owned()));
        }
        if self.allow_agent == Some(false) {
            own.push(("IdentityAgent", "none".to_owned()));
        }
        if let Some(forward) = self.forward_agent {
            own.push(("ForwardAgent", if forward { "yes" } else { "no" }.to_owned()));
        }
        if let Some(strictness) = self.strict_host_key_checking {
            own.push(("StrictHostKeyChecking", strictness.to_owned()));
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
                "IdentityFile" if self.key.is_some() => words.extend(["-i".to_owned(), quote(self.key.as_deref().unwrap_or_default())]),
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

/// The value of `ssh_strict_host_key_checking`, as ssh_config(5) has it.
fn strictness(value: Option<&Value>) -> Result<Option<&'static str>, String> {
    const ALL: [&str; 5] = ["yes", "accept-new", "ask", "no", "off"];
    let given = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Bool(true)) => "yes",
        Some(Value::Bool(false)) => "no",
        Some(value) => value.as_str().unwrap_or_default(),
    };
    let found = ALL.into_iter().find(|one| *one == given).map(Some);
    found.ok_or_else(|| {
        let value = value.map(ToString::to_string).unwrap_or_default();
        format!("`ssh_strict_host_key_checking` must be one of {}, not {value}", ALL.join(", "))
    })
}

/// A path with `~/` at its beginning, as ssh takes it where it does: from the user database.
fn at_home(path: &str) -> String {
    let Some(rest) = path.strip_prefix("~/") else { return path.to_owned() };
    match nix::unistd::User::from_uid(nix::unistd::geteuid()) {
        Ok(Some(user)) => user.dir.join(rest).to_string_lossy().into_owned(),
        _ => path.to_owned(),
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
        Host { data, ..Host::new(HostId(0), "web", Connector::Ssh, "web") }
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
    fn each_key_of_the_data_has_its_option() {
        for (key, value, wanted) in [
            ("ssh_allow_agent", Value::from(false), &["IdentityAgent=none"][..]),
            ("ssh_allow_agent", true.into(), &[]),
            ("ssh_look_for_keys", false.into(), &["IdentityFile=none"]),
            ("ssh_forward_agent", true.into(), &["ForwardAgent=yes"]),
            ("ssh_forward_agent", false.into(), &["ForwardAgent=no"]),
            ("ssh_known_hosts_file", "/k h".into(), &["UserKnownHostsFile=\"/k h\""]),
            ("ssh_strict_host_key_checking", "accept-new".into(), &["StrictHostKeyChecking=accept-new"]),
            ("ssh_strict_host_key_checking", true.into(), &["StrictHostKeyChecking=yes"]),
            ("ssh_file_transfer_protocol", "scp".into(), &[]),
            ("ssh_password", "hunter2-and-more".into(), &[]),
        ] {
            let options = Options::of(&host(data(&[(key, value)]))).unwrap();
            let arguments = options.arguments(&Client { version: (9, 2) }, None);
            let given: Vec<&str> = arguments.iter().map(String::as_str).filter(|text| *text != "-o").collect();
            assert_eq!(given, wanted, "{key}");
            assert!(!format!("{options:?} {}", options.by_hand()).contains("hunter2"));
        }
        let settings = Settings::new("/run/x");
        let of = |key: &str, value: Value| Options::of(&host(data(&[(key, value)]))).unwrap();
        let master = |options: &Options| options.arguments(&Client { version: (9, 2) }, Some(&settings));
        assert!(master(&of("ssh_connect_timeout", 7.into())).contains(&"ConnectTimeout=7".to_owned()));
        for (value, wanted) in [(Value::from("10m"), "600"), (90.into(), "90"), (false.into(), "no"), (0.into(), "no")] {
            assert_eq!(of("ssh_persist", value).persistence(true), format!("ControlPersist={wanted}"));
        }
        assert_eq!(of("ssh_persist", "10m".into()).persistence(false), "ControlPersist=no");
        assert_eq!(of("ssh_connect_retries", 3.into()).retry_delays, Some((0.1, 0.5)));
        let wrong = Options::of(&host(data(&[("ssh_paramiko_connect_kwargs", Value::Object(infra_core::Map::new()))]))).unwrap_err();
        assert!(wrong.contains("ssh_config_file"), "{wrong}");
    }

    #[test]
    fn ssh_asks_only_what_somebody_may_answer() {
        let plain = Options::of(&host(data(&[]))).unwrap();
        assert_eq!(plain.questions(false, false), ["-o", "BatchMode=yes"]);
        assert_eq!(plain.questions(true, true), ["-o", "BatchMode=no"]);
        let key = Options::of(&host(data(&[("ssh_key", "k".into()), ("ssh_key_password", "secret-enough".into())]))).unwrap();
        assert!(key.questions(true, false).contains(&"PasswordAuthentication=no".to_owned()));
        let password = Options::of(&host(data(&[("ssh_password", "secret-enough".into())]))).unwrap();
        assert!(password.questions(true, true).contains(&"NumberOfPasswordPrompts=1".to_owned()));
    }

    #[test]
    fn what_ssh_says_of_its_configuration_is_read() {
        let resolved = Resolved("host web\nhostname 10.0.0.1\nport 2222\nproxyjump a@one:22,two\n".to_owned());
        assert_eq!((resolved.value("hostname"), resolved.value("host")), (Some("10.0.0.1"), Some("web")));
        assert_eq!(resolved.jumps(), ["a@one:22", "two"]);
        assert!(Resolved("proxyjump none\n".to_owned()).jumps().is_empty());
        let client = Client { version: (9, 2) };
        let of = |pairs: &[(&str, Value)]| Options::of(&host(data(pairs))).unwrap();
        let same = of(&[]).digest(&client, &resolved);
        assert_eq!(same.len(), 16);
        assert_eq!(same, of(&[("ssh_persist", "1m".into()), ("ssh_password", "secret-enough".into())]).digest(&client, &resolved));
        assert_ne!(same, of(&[("ssh_user", "admin".into())]).digest(&client, &resolved));
        assert_ne!(same, of(&[]).digest(&client, &Resolved("hostname 10.0.0.2\n".to_owned())));
    }

    #[test]
    fn values_of_a_wrong_type_are_named() {
        for (key, value, wanted) in [
            ("ssh_port", Value::from(0), "`ssh_port` must be a number from 1 to 65535, not 0"),
            ("ssh_port", "ssh".into(), "`ssh_port` must be a number from 1 to 65535, not \"ssh\""),
            ("ssh_user", 7.into(), "`ssh_user` must be text, not 7"),
            ("ssh_hostname", "-oProxyCommand=x".into(), "\"-oProxyCommand=x\" is no name of a host"),
            ("ssh_key", "".into(), "`ssh_key` is empty or not one line"),
            ("ssh_password", 123_456.into(), "`ssh_password` must be text"),
            ("ssh_key_password", "x".into(), "`ssh_key_password` opens the key that `ssh_key` names, and there is no `ssh_key`"),
            ("ssh_forward_agent", "yes".into(), "`ssh_forward_agent` must be true or false, not \"yes\""),
            ("ssh_connect_timeout", 0.into(), "`ssh_connect_timeout` must be more than 0"),
            ("ssh_connect_timeout", "5".into(), "`ssh_connect_timeout` must be a number of seconds, not \"5\""),
            ("ssh_connect_retries", (-1).into(), "`ssh_connect_retries` must be a whole number up to 1000, not -1"),
            ("ssh_persist", "10 minutes".into(), "`ssh_persist`: `10 minutes` is no time such as 90s, 10m or 1h30m"),
            (
                "ssh_strict_host_key_checking",
                "maybe".into(),
                "`ssh_strict_host_key_checking` must be one of yes, accept-new, ask, no, off, not \"maybe\"",
            ),
            ("ssh_file_transfer_protocol", "ftp".into(), "`ssh_file_transfer_protocol` must be \"sftp\" or \"scp\", not \"ftp\""),
        ] {
            assert_eq!(Options::of(&host(data(&[(key, value)]))).unwrap_err(), wanted);
        }
        assert_eq!(Options::of(&host(data(&[("ssh_port", "22".into())]))).unwrap().port, Some(22));
    }
}
