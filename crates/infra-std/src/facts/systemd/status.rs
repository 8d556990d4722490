//! The fact `systemd.status`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::service_control::systemctl;

/// Whether units run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The names of the units; one without a suffix is a service. None of them means all that systemd has loaded.
    #[serde(default)]
    pub services: Vec<String>,
    /// Ask the user's own systemd.
    #[serde(default)]
    pub user_mode: bool,
    /// Ask the systemd of this container, by the name that machinectl(1) has for it.
    pub machine: Option<String>,
    /// Ask the systemd of this user of the host or of the container.
    pub user_name: Option<String>,
}

/// What systemd says of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitStatus {
    /// Whether it runs: its state is `active` or `reloading`.
    pub running: bool,
    /// Its state: `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// Its state in the words of its own kind: `running`, `exited`, `listening`, `dead`, …
    pub sub: String,
    /// Whether it was found: `loaded`, `not-found`, `masked`, …
    pub load: String,
}

impl UnitStatus {
    /// A unit in these states.
    pub fn new(active: &str, sub: &str, load: &str) -> Self {
        let running = matches!(active, "active" | "reloading" | "refreshing");
        Self { running, active: active.to_owned(), sub: sub.to_owned(), load: load.to_owned() }
    }
}

impl Fact for Status {
    const NAME: &'static str = "systemd.status";
    const DOC: &'static str = "Whether units run: a table from each name as it was asked, an alias too, to `running`, `active`, `sub` and `load`, the last \
                               three in the words of systemctl(1). `nil` where systemd does not run.";
    type Value = Option<BTreeMap<String, UnitStatus>>;

    fn command(&self) -> Command {
        let all = ["*".to_owned()];
        let units: &[String] = if self.services.is_empty() { &all } else { &self.services };
        let systemctl = systemctl(self.user_mode, self.machine.as_deref(), self.user_name.as_deref());
        sh!(
            "if command -v systemctl >/dev/null 2>&1 && [ -d /run/systemd/system ]; then {} show --property=Id,LoadState,ActiveState,SubState -- {}; fi",
            systemctl,
            units
        )
        .into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let mut units = BTreeMap::new();
        let blocks: Vec<&str> = text.split("\n\n").filter(|block| !block.trim().is_empty()).collect();
        if !self.services.is_empty() && blocks.len() != self.services.len() {
            let (asked, got) = (self.services.len(), blocks.len());
            return Err(ParseError::new(format!(
                "expected the state of {asked} units, got {got}: a name may be a pattern or no unit name"
            )));
        }
        for (at, block) in blocks.iter().enumerate() {
            let value = |key: &str| block.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap_or_default();
            let status = UnitStatus::new(value("ActiveState"), value("SubState"), value("LoadState"));
            if status.active.is_empty() {
                return Err(ParseError::new(format!("expected ActiveState=… of a unit, got `{}`", block.trim())));
            }
            let name = self.services.get(at).map_or(value("Id"), String::as_str);
            units.insert(name.to_owned(), status);
        }
        Ok(Some(units))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Services])
    }

    fn examples() -> Vec<FactExample> {
        let ask = |services: &[&str]| Self {
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            user_mode: false,
            machine: None,
            user_name: None,
        };
        let printed = "Id=ssh.service\nLoadState=loaded\nActiveState=active\nSubState=running\n\nId=nginx.service\nLoadState=not-found\n\
                       ActiveState=inactive\nSubState=dead\n";
        let named = |ssh: &str, nginx: &str| {
            Some(BTreeMap::from([
                (ssh.to_owned(), UnitStatus::new("active", "running", "loaded")),
                (nginx.to_owned(), UnitStatus::new("inactive", "dead", "not-found")),
            ]))
        };
        vec![
            FactExample::new(&ask(&["sshd", "nginx"]), printed, named("sshd", "nginx")),
            FactExample::new(&ask(&[]), printed, named("ssh.service", "nginx.service")),
            FactExample::new(&ask(&["nginx"]), "", None),
        ]
    }
}
