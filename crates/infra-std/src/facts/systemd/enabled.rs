//! The fact `systemd.enabled`.

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

/// Whether units start at boot.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Enabled {
    /// The names of the units; one without a suffix is a service.
    pub services: Vec<String>,
    /// Ask the user's own systemd.
    #[serde(default)]
    pub user_mode: bool,
    /// Ask the systemd of this container, by the name that machinectl(1) has for it.
    pub machine: Option<String>,
    /// Ask the systemd of this user of the host or of the container.
    pub user_name: Option<String>,
}

/// What `systemctl is-enabled` says of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitEnabled {
    /// Whether it starts at boot, or nothing needs to be done or can be done for that.
    pub enabled: bool,
    /// The word of systemctl(1): `enabled`, `disabled`, `static`, `masked`, `not-found`, …
    pub state: String,
}

impl UnitEnabled {
    /// A unit in this state.
    pub fn new(state: &str) -> Self {
        let state = if state.is_empty() { "not-found" } else { state };
        Self { enabled: matches!(state, "enabled" | "static" | "alias" | "indirect" | "generated"), state: state.to_owned() }
    }
}

impl Fact for Enabled {
    const NAME: &'static str = "systemd.enabled";
    const DOC: &'static str = "Whether units start at boot: a table from each name as it was asked, an alias too, to `enabled` and `state`, the latter in the \
                               words of `systemctl is-enabled` and `not-found` where there is no such unit. A `static` unit, which others start, counts \
                               as enabled. `nil` where there is no systemd.";
    type Value = Option<BTreeMap<String, UnitEnabled>>;

    fn command(&self) -> Command {
        let systemctl = systemctl(self.user_mode, self.machine.as_deref(), self.user_name.as_deref());
        // One call for each unit: for one that is not there, many versions print no line at all.
        sh!(
            "if command -v systemctl >/dev/null 2>&1; then
  echo systemd
  for unit in {}; do
    state=$({} is-enabled -- \"$unit\" 2>/dev/null) || :
    if [ \"$state\" = alias ]; then state=$({} show --property=UnitFileState -- \"$unit\" 2>/dev/null) || :; state=${state#UnitFileState=}; fi
    printf '%s\\n' \"${state%%[!a-z-]*}\"
  done
fi",
            self.services,
            systemctl,
            systemctl
        )
        .into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let mut lines = text.lines();
        if lines.next().is_none() {
            return Ok(None);
        }
        let states: Vec<&str> = lines.collect();
        if states.len() != self.services.len() {
            return Err(ParseError::new(format!("expected the state of {} units, got {}", self.services.len(), states.len())));
        }
        Ok(Some(self.services.iter().cloned().zip(states.into_iter().map(UnitEnabled::new)).collect()))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Services])
    }

    fn examples() -> Vec<FactExample> {
        let services = ["sshd", "nginx", "dbus"];
        let ask = Self { services: services.map(str::to_owned).to_vec(), user_mode: false, machine: None, user_name: None };
        let states = ["enabled", "not-found", "static"].map(UnitEnabled::new);
        let answer = services.map(str::to_owned).into_iter().zip(states).collect();
        vec![FactExample::new(&ask, "systemd\nenabled\n\nstatic\n", Some(answer)), FactExample::new(&ask, "", None)]
    }
}
