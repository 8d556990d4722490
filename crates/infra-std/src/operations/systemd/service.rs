//! The operation `systemd.service`.

use std::collections::BTreeMap;

use infra_core::change::Change;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::Resources;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::facts::systemd::enabled::{Enabled, UnitEnabled};
use crate::facts::systemd::status::{Status, UnitStatus};
use crate::service_control::{Running, UnitWish, touched_by_operation, unit_name};

/// Brings a unit of systemd to a state.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Service {
    /// The name of the unit; one without a suffix such as `.timer` is a service. An alias will do.
    pub service: String,
    /// Whether it shall run, true where not given; "unchanged" leaves it as it is.
    #[serde(default)]
    pub running: Running,
    /// Restart it if it runs already; one that was just started is as good as restarted.
    #[serde(default)]
    pub restarted: bool,
    /// Make it read its configuration again if it runs already.
    #[serde(default)]
    pub reloaded: bool,
    /// A command of systemctl(1) that is given each time, such as `kill`.
    pub command: Option<String>,
    /// Whether it shall start at boot; left as it is where not given.
    pub enabled: Option<bool>,
    /// Make systemd read its unit files again first. It does so each time, so give a condition such as `unit.did_change`.
    #[serde(default)]
    pub daemon_reload: bool,
    /// A unit of the user's own systemd.
    #[serde(default)]
    pub user_mode: bool,
    /// A unit of this container, by the name that machinectl(1) has for it.
    pub machine: Option<String>,
    /// A unit of this user's systemd, on the host or in the container.
    pub user_name: Option<String>,
}

impl Operation for Service {
    const NAME: &'static str = "systemd.service";
    const DOC: &'static str = "Brings a unit of systemd to a state: running or not, starting at boot or not.\n\n\
        It changes nothing when the unit is in that state and neither `restarted`, `reloaded`, `daemon_reload` nor `command` is given. A unit that \
        is not found, or that is masked, is refused where it would have to be started. It cannot know whether a service that was started goes on \
        running.";

    fn check(&self) -> Result<(), Misuse> {
        check_service(&self.service, self.running, self.restarted, self.reloaded)
    }

    fn touches(&self) -> Resources {
        touched_by_operation()
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let wish = UnitWish {
            unit: unit_name(&self.service),
            running: self.running,
            restarted: self.restarted,
            reloaded: self.reloaded,
            command: self.command.as_deref(),
            enabled: self.enabled,
            daemon_reload: self.daemon_reload,
            user_mode: self.user_mode,
            machine: self.machine.clone(),
            user_name: self.user_name.clone(),
        };
        wish.diff(facts)
    }

    fn examples() -> Vec<Example> {
        let status = |unit: &str| Status { services: vec![unit.to_owned()], user_mode: false, machine: None, user_name: None };
        let enabled = |unit: &str| Enabled { services: vec![unit.to_owned()], user_mode: false, machine: None, user_name: None };
        let is = |unit: &str, status: UnitStatus| Some(BTreeMap::from([(unit.to_owned(), status)]));
        let at_boot = |unit: &str, state: &str| Some(BTreeMap::from([(unit.to_owned(), UnitEnabled::new(state))]));
        let (nginx, ssh) = ("nginx.service", "sshd.service");
        let runs = || UnitStatus::new("active", "running", "loaded");
        let dead = || UnitStatus::new("inactive", "dead", "loaded");
        vec![
            Example::new("Start a service, now and at boot", json!({ "service": "nginx", "enabled": true }))
                .fact(&status(nginx), is(nginx, dead()))
                .fact(&enabled(nginx), at_boot(nginx, "disabled"))
                .steps(["systemctl --no-ask-password start -- nginx.service", "systemctl --no-ask-password enable -- nginx.service"]),
            Example::new("It runs already", json!({ "service": "nginx", "enabled": true }))
                .fact(&status(nginx), is(nginx, runs()))
                .fact(&enabled(nginx), at_boot(nginx, "enabled"))
                .nothing("already running, starts at boot"),
            Example::new("An alias", json!({ "service": "sshd" })).fact(&status(ssh), is(ssh, runs())).nothing("already running"),
            Example::new("Reload it after its configuration changed", json!({ "service": "nginx", "reloaded": true }))
                .fact(&status(nginx), is(nginx, runs()))
                .steps(["systemctl --no-ask-password reload -- nginx.service"]),
            Example::new("Starting it makes a restart needless", json!({ "service": "nginx", "restarted": true }))
                .fact(&status(nginx), is(nginx, dead()))
                .steps(["systemctl --no-ask-password start -- nginx.service"]),
            Example::new("Read a new unit file first", json!({ "service": "app", "daemon_reload": true, "restarted": true }))
                .fact(&status("app.service"), is("app.service", UnitStatus::new("inactive", "dead", "not-found")))
                .steps(["systemctl --no-ask-password daemon-reload", "systemctl --no-ask-password start -- app.service"]),
            Example::new("Stop it, and keep it from starting at boot", json!({ "service": "nginx", "running": false, "enabled": false }))
                .fact(&status(nginx), is(nginx, runs()))
                .fact(&enabled(nginx), at_boot(nginx, "enabled"))
                .steps(["systemctl --no-ask-password stop -- nginx.service", "systemctl --no-ask-password disable -- nginx.service"]),
            Example::new("What is not there needs no stopping", json!({ "service": "nginx", "running": false, "enabled": false }))
                .fact(&status(nginx), is(nginx, UnitStatus::new("inactive", "dead", "not-found")))
                .fact(&enabled(nginx), at_boot(nginx, "not-found"))
                .nothing("not running, does not start at boot"),
            Example::new("A unit that is not there", json!({ "service": "nginx" }))
                .fact(&status(nginx), is(nginx, UnitStatus::new("inactive", "dead", "not-found")))
                .refused("there is no unit nginx.service"),
            Example::new("A unit that is masked", json!({ "service": "nginx" }))
                .fact(&status(nginx), is(nginx, UnitStatus::new("inactive", "dead", "masked")))
                .refused("nginx.service is masked"),
            Example::new("A host without systemd", json!({ "service": "nginx" }))
                .fact(&status(nginx), None)
                .refused("systemd does not run on this host"),
        ]
    }
}

/// Checks what every operation on services checks.
///
/// # Errors
/// [`Misuse`] for a name that is none, and for a stopped service that shall be restarted.
pub(crate) fn check_service(service: &str, running: Running, restarted: bool, reloaded: bool) -> Result<(), Misuse> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if service.is_empty() || service.starts_with('-') || !service.chars().all(is_name) {
        return Err(Misuse::new(format!("`{service}` is no name of a service")).hint("write one service by its name, such as \"nginx\""));
    }
    if running == Running::Wished(false) && (restarted || reloaded) {
        let word = if restarted { "restarted" } else { "reloaded" };
        return Err(Misuse::new(format!("`running = false` and `{word} = true` cannot both be")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully, steps_of};

    use super::*;

    fn status() -> Status {
        Status { services: vec!["app.service".to_owned()], user_mode: false, machine: None, user_name: None }
    }

    fn wish(args: serde_json::Value) -> Service {
        serde_json::from_value(args).expect("arguments")
    }

    fn verbs(args: serde_json::Value, found: UnitStatus) -> Vec<String> {
        let table = MadeUp::new().fact(&status(), Some(BTreeMap::from([("app.service".to_owned(), found)])));
        let (change, rounds) = diff_fully(&*erase(wish(args)), &table).expect("a change");
        assert_eq!(rounds, 1);
        steps_of(&change).iter().map(|step| step.split(' ').nth(2).expect("a verb").to_owned()).collect()
    }

    #[test]
    fn each_state_and_wish_has_its_verbs() {
        let none: [&str; 0] = [];
        let runs = || UnitStatus::new("active", "exited", "loaded");
        let failed = || UnitStatus::new("failed", "failed", "loaded");
        assert_eq!(verbs(json!({ "service": "app" }), runs()), none);
        assert_eq!(verbs(json!({ "service": "app" }), failed()), ["start"]);
        assert_eq!(verbs(json!({ "service": "app" }), UnitStatus::new("activating", "auto-restart", "loaded")), ["start"]);
        assert_eq!(verbs(json!({ "service": "app", "running": false }), failed()), none);
        assert_eq!(verbs(json!({ "service": "app", "restarted": true, "reloaded": true }), runs()), ["restart"]);
        assert_eq!(verbs(json!({ "service": "app", "running": "unchanged", "restarted": true }), failed()), none);
        assert_eq!(verbs(json!({ "service": "app", "running": "unchanged", "restarted": true }), runs()), ["restart"]);
        assert_eq!(verbs(json!({ "service": "app", "running": "unchanged", "command": "kill" }), failed()), ["kill"]);
        assert_eq!(verbs(json!({ "service": "app", "daemon_reload": true }), runs()), ["daemon-reload"]);
    }

    #[test]
    fn what_was_done_once_is_not_done_again() {
        let table = MadeUp::new()
            .fact(&status(), Some(BTreeMap::from([("app.service".to_owned(), UnitStatus::new("inactive", "dead", "loaded"))])));
        let operation = erase(wish(json!({ "service": "app" })));
        let (change, _) = diff_fully(&*operation, &table).expect("a change");
        let foretold = change.effects.iter().fold(MadeUp::new(), |table, effect| match effect {
            infra_core::change::Effect::Answer { fact, question, answer, user: None } => table.json(fact, question, answer),
            other => panic!("an answer, got {other:?}"),
        });
        assert!(diff_fully(&*operation, &foretold).expect("nothing").0.is_none());
    }

    #[test]
    fn what_cannot_be_meant_is_misuse() {
        assert!(wish(json!({ "service": "nginx php-fpm" })).check().is_err());
        assert!(wish(json!({ "service": "nginx", "running": false, "restarted": true })).check().is_err());
        assert!(wish(json!({ "service": "nginx@a.service" })).check().is_ok());
        assert!(serde_json::from_value::<Service>(json!({ "service": "nginx", "running": "maybe" })).is_err());
    }
}
