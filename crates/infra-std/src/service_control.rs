//! What operations on services share: from what is found and what is wished to the commands of systemctl(1).

use std::collections::BTreeMap;

use infra_core::change::{Action, Change};
use infra_core::command::{Command, Shell};
use infra_core::facts::{DiffError, Facts};
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::facts::systemd::enabled::{Enabled, UnitEnabled};
use crate::facts::systemd::status::{Status, UnitStatus};

/// Whether a service shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "`running` takes true, false or \"unchanged\"")]
pub enum Running {
    /// It shall run, or not.
    Wished(bool),
    /// It is left as it is.
    Left(Unchanged),
}

/// The word that leaves a service as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unchanged {
    /// The word itself.
    Unchanged,
}

impl Default for Running {
    fn default() -> Self {
        Self::Wished(true)
    }
}

/// The words that begin a command of systemctl(1), never one that asks for a password.
pub fn systemctl(user_mode: bool, machine: Option<&str>, user_name: Option<&str>) -> Shell {
    let mut words = vec!["systemctl".to_owned(), "--no-ask-password".to_owned()];
    if user_mode || user_name.is_some() {
        words.push("--user".to_owned());
    }
    match (user_name, machine) {
        (Some(user), machine) => words.push(format!("--machine={user}@{}", machine.unwrap_or(".host"))),
        (None, Some(machine)) => words.push(format!("--machine={machine}")),
        (None, None) => {}
    }
    Shell::argv(words)
}

/// The whole name of a unit: one without a suffix of systemd.unit(5) is a service.
pub fn unit_name(name: &str) -> String {
    const SUFFIXES: [&str; 11] = ["service", "socket", "target", "timer", "mount", "automount", "swap", "path", "slice", "scope", "device"];
    let whole = name.rsplit_once('.').is_some_and(|(_, suffix)| SUFFIXES.contains(&suffix));
    if whole { name.to_owned() } else { format!("{name}.service") }
}

/// What starting, stopping or reloading a service may touch: itself, its sockets, and the files of a service at work.
pub fn touched_by_services() -> Resources {
    // Built by hand, for a service at work changes files below /var, but not what packages are installed.
    let trees = ["/run", "/tmp", "/var"].map(|tree| Resource::Tree(tree.to_owned()));
    Resources::Only(trees.into_iter().chain([Resource::Services, Resource::Network]).collect())
}

/// What changing the start at boot may touch.
fn touched_by_enabling() -> Resources {
    let init = ["/etc/systemd", "/etc/init.d"].map(|tree| Resource::Tree(tree.to_owned()));
    Resources::only(init)
}

/// What an operation on a service may touch.
pub fn touched_by_operation() -> Resources {
    touched_by_services().and(touched_by_enabling())
}

/// What is wished of one unit.
#[derive(Clone, Debug)]
pub struct UnitWish<'a> {
    /// Its whole name.
    pub unit: String,
    /// Whether it shall run.
    pub running: Running,
    /// Restart it if it runs already.
    pub restarted: bool,
    /// Reload it if it runs already.
    pub reloaded: bool,
    /// A command of systemctl(1) that is always given.
    pub command: Option<&'a str>,
    /// Whether it shall start at boot.
    pub enabled: Option<bool>,
    /// Whether systemd shall read its files again first.
    pub daemon_reload: bool,
    /// The user's own systemd.
    pub user_mode: bool,
    /// The systemd of a container.
    pub machine: Option<String>,
    /// The systemd of a user.
    pub user_name: Option<String>,
}

impl UnitWish<'_> {
    /// The commands, and what will be true after them.
    ///
    /// # Errors
    /// As [`Operation::diff`](infra_core::operation::Operation::diff).
    pub fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let ask_status = Status {
            services: vec![self.unit.clone()],
            user_mode: self.user_mode,
            machine: self.machine.clone(),
            user_name: self.user_name.clone(),
        };
        let ask_enabled = Enabled {
            services: vec![self.unit.clone()],
            user_mode: self.user_mode,
            machine: self.machine.clone(),
            user_name: self.user_name.clone(),
        };
        // Not asked where it is not wished: an earlier operation that touches the one must not make the other unknown.
        let (status, enabled) = match self.enabled {
            Some(_) => facts.get((&ask_status, &ask_enabled))?,
            None => (facts.get(&ask_status)?, None),
        };
        let status = status.and_then(|mut units| units.remove(&self.unit));
        let verb = self.verb(status.as_ref())?;
        let enabled = enabled.and_then(|mut units| units.remove(&self.unit));
        let enabling = self.enabling(enabled.as_ref())?;

        let systemctl = systemctl(self.user_mode, self.machine.as_deref(), self.user_name.as_deref());
        let mut done: Vec<&str> = Vec::new();
        let mut change = Change::default();
        let mut touches = Resources::none();
        if self.daemon_reload {
            done.push("read unit files again");
            change = change.run(sh!("{} daemon-reload", systemctl));
            touches = touches.and(Resources::only([Resource::Services]));
        }
        for verb in verb.into_iter().chain(self.command) {
            done.push(verb);
            let command = Command::new(sh!("{} {} -- {}", systemctl, verb, self.unit)).leaving_processes();
            change = change.then(Action::Run(command));
            touches = touches.and(touched_by_services());
        }
        if let Some(verb) = enabling {
            done.push(verb);
            change = change.run(sh!("{} {} -- {}", systemctl, verb, self.unit));
            touches = touches.and(touched_by_enabling());
        }
        if change.is_none() {
            return Ok(Change::none(self.as_wished(status.as_ref())));
        }
        change.reason = done.join(", ");
        change.touches = Some(touches);
        if self.command.is_none()
            && let Some(status) = status
        {
            let after = match verb {
                Some("stop") => UnitStatus::new("inactive", "dead", &status.load),
                Some("start") => UnitStatus::new("active", "running", "loaded"),
                _ => status,
            };
            change = change.answer(&ask_status, &Some(BTreeMap::from([(self.unit.clone(), after)])));
        }
        if let (Some(wished), Some(found), None) = (self.enabled, enabled, self.command) {
            let after = match enabling {
                Some(_) => Some(UnitEnabled::new(if wished { "enabled" } else { "disabled" })),
                // The units' files are read again, and may say something else then.
                None if self.daemon_reload => None,
                None => Some(found),
            };
            if let Some(after) = after {
                change = change.answer(&ask_enabled, &Some(BTreeMap::from([(self.unit.clone(), after)])));
            }
        }
        Ok(change)
    }

    fn verb(&self, status: Option<&UnitStatus>) -> Result<Option<&'static str>, DiffError> {
        let runs = status.is_some_and(|status| status.running);
        match self.running {
            Running::Wished(true) if !runs => {
                self.can_run(status)?;
                Ok(Some("start"))
            }
            Running::Wished(false) => Ok(runs.then_some("stop")),
            _ if self.restarted && runs => Ok(Some("restart")),
            _ if self.reloaded && runs => Ok(Some("reload")),
            _ => Ok(None),
        }
    }

    fn can_run(&self, status: Option<&UnitStatus>) -> Result<(), DiffError> {
        let unit = &self.unit;
        let Some(status) = status else {
            return Err(DiffError::refused_with_hint(
                format!("{unit} cannot be started: systemd does not run on this host"),
                "running = \"unchanged\" with enabled = true sets what starts at boot and nothing else",
            ));
        };
        match status.load.as_str() {
            // The files are read again first, so the unit may be there by then.
            _ if self.daemon_reload => Ok(()),
            "not-found" => Err(self.not_found()),
            "masked" => Err(self.masked()),
            _ => Ok(()),
        }
    }

    fn enabling(&self, found: Option<&UnitEnabled>) -> Result<Option<&'static str>, DiffError> {
        let Some(wished) = self.enabled else { return Ok(None) };
        let unit = &self.unit;
        let Some(found) = found else {
            return Err(DiffError::refused(format!("whether {unit} starts at boot cannot be set: there is no systemd on this host")));
        };
        match (wished, found.state.as_str()) {
            (true, "not-found") if !self.daemon_reload => Err(self.not_found()),
            (true, "masked" | "masked-runtime") => Err(self.masked()),
            (true, _) => Ok((!found.enabled).then_some("enable")),
            (false, "enabled" | "enabled-runtime" | "linked" | "linked-runtime" | "alias") => Ok(Some("disable")),
            (false, _) => Ok(None),
        }
    }

    fn not_found(&self) -> DiffError {
        DiffError::refused_with_hint(
            format!("there is no unit {} on this host", self.unit),
            "is its package installed, and its unit file in place? Where the file was just written, daemon_reload makes systemd read it",
        )
    }

    fn masked(&self) -> DiffError {
        let hint = format!("`systemctl unmask {}` makes it usable again", self.unit);
        DiffError::refused_with_hint(format!("{} is masked", self.unit), hint)
    }

    fn as_wished(&self, status: Option<&UnitStatus>) -> String {
        let state = match self.running {
            Running::Wished(true) => "already running",
            Running::Wished(false) => "not running",
            Running::Left(_) if (self.restarted || self.reloaded) && !status.is_some_and(|status| status.running) => "not running",
            Running::Left(_) => "as wished",
        };
        match self.enabled {
            None => state.to_owned(),
            Some(true) => format!("{state}, starts at boot"),
            Some(false) => format!("{state}, does not start at boot"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_have_whole_names() {
        for (name, whole) in [
            ("nginx", "nginx.service"),
            ("nginx.service", "nginx.service"),
            ("apt-daily.timer", "apt-daily.timer"),
            ("php8.2-fpm", "php8.2-fpm.service"),
            ("getty@tty1", "getty@tty1.service"),
        ] {
            assert_eq!(unit_name(name), whole);
        }
    }

    #[test]
    fn systemctl_speaks_to_the_right_one() {
        for (user_mode, machine, user_name, words) in [
            (false, None, None, "systemctl --no-ask-password"),
            (true, None, None, "systemctl --no-ask-password --user"),
            (false, Some("box"), None, "systemctl --no-ask-password --machine=box"),
            (true, None, Some("bob"), "systemctl --no-ask-password --user --machine=bob@.host"),
            (false, Some("box"), Some("bob"), "systemctl --no-ask-password --user --machine=bob@box"),
        ] {
            let systemctl = systemctl(user_mode, machine, user_name).to_string();
            assert_eq!(systemctl.replace('\'', ""), words);
        }
    }
}
