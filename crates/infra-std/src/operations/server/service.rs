//! The operation `server.service`.

use std::collections::BTreeMap;

use infra_core::change::Change;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::Resources;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::facts::systemd::status::{Status, UnitStatus};
use crate::operations::systemd::service::check_service;
use crate::service_control::{Running, UnitWish, touched_by_operation, unit_name};

/// Brings a service to a state, whatever starts services on the host.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Service {
    /// The name of the service.
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
    /// A command that is given to the service each time, such as `try-restart`.
    pub command: Option<String>,
    /// Whether it shall start at boot; left as it is where not given.
    pub enabled: Option<bool>,
}

impl Operation for Service {
    const NAME: &'static str = "server.service";
    const DOC: &'static str = "Brings a service to a state: running or not, starting at boot or not.\n\n\
        It changes nothing when the service is in that state and neither `restarted`, `reloaded` nor `command` is given. So far it knows systemd \
        alone; on a host that is run by something else it is refused.";

    fn check(&self) -> Result<(), Misuse> {
        check_service(&self.service, self.running, self.restarted, self.reloaded)
    }

    fn touches(&self) -> Resources {
        touched_by_operation()
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let unit = unit_name(&self.service);
        let wish = UnitWish {
            unit: unit.clone(),
            running: self.running,
            restarted: self.restarted,
            reloaded: self.reloaded,
            command: self.command.as_deref(),
            enabled: self.enabled,
            daemon_reload: false,
            user_mode: false,
            machine: None,
            user_name: None,
        };
        // Both are asked before either is judged, so that one round answers them.
        let change = wish.diff(facts);
        let status = facts.get(&Status { services: vec![unit], user_mode: false, machine: None, user_name: None })?;
        if status.is_none() {
            return Err(DiffError::refused_with_hint(
                format!("{} cannot be controlled: this host is not run by systemd, the one init system that is known so far", self.service),
                "server.shell with the command of its own init system does it in the meantime",
            ));
        }
        change
    }

    fn examples() -> Vec<Example> {
        let status = Status { services: vec!["nginx.service".to_owned()], user_mode: false, machine: None, user_name: None };
        let is = |active: &str, sub: &str| Some(BTreeMap::from([("nginx.service".to_owned(), UnitStatus::new(active, sub, "loaded"))]));
        vec![
            Example::new("Start a service", json!({ "service": "nginx" }))
                .fact(&status, is("inactive", "dead"))
                .steps(["systemctl --no-ask-password start -- nginx.service"]),
            Example::new("It runs already", json!({ "service": "nginx" }))
                .fact(&status, is("active", "running"))
                .nothing("already running"),
            Example::new("Stop it", json!({ "service": "nginx", "running": false }))
                .fact(&status, is("active", "running"))
                .steps(["systemctl --no-ask-password stop -- nginx.service"]),
            Example::new("A host that something else runs", json!({ "service": "nginx" }))
                .fact(&status, None)
                .refused("this host is not run by systemd"),
        ]
    }
}
