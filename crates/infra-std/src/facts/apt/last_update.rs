//! The fact `apt.last_update`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When the package index was last brought up to date.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct LastUpdate {}

/// What `apt.update` and apt's own hooks touch when an update has ended well.
pub const STAMP: &str = "/var/lib/apt/periodic/update-success-stamp";
/// What apt's daily timer touches.
const DAILY_STAMP: &str = "/var/lib/apt/periodic/update-stamp";

impl Fact for LastUpdate {
    const NAME: &'static str = "apt.last_update";
    const DOC: &'static str = "How many seconds ago the package index was last brought up to date, by the host's own clock; `nil` where it never was, \
                               where the index is gone, and where a list of sources was changed since.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = Option<u64>;

    fn command(&self) -> Command {
        // The time of the folder of lists would not do: a failed update changes it, and one that finds nothing new does not.
        sh!(
            "newest=
for stamp in {} {}; do
  if [ -e \"$stamp\" ]; then
    if [ -z \"$newest\" ] || [ \"$stamp\" -nt \"$newest\" ]; then newest=$stamp; fi
  fi
done
set -- /var/lib/apt/lists/*_*
if [ -n \"$newest\" ] && [ -e \"$1\" ]; then
  for source in /etc/apt/sources.list /etc/apt/sources.list.d /etc/apt/sources.list.d/*; do
    if [ \"$source\" -nt \"$newest\" ]; then newest=; break; fi
  done
  if [ -n \"$newest\" ]; then echo \"$(date +%s) $(stat -c %Y -- \"$newest\")\"; fi
fi",
            STAMP,
            DAILY_STAMP
        )
        .into()
    }

    fn parse(&self, output: &Output) -> Result<Option<u64>, ParseError> {
        let text = output.expect_success()?;
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let numbers = text.split_once(' ').and_then(|(now, then)| Some((now.parse::<u64>().ok()?, then.parse::<u64>().ok()?)));
        let (now, then) = numbers.ok_or_else(|| ParseError::new(format!("expected two times in seconds, got `{text}`")))?;
        // A stamp from the future is one of a clock that was wrong: nothing is known then.
        Ok(now.checked_sub(then))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Tree("/var/lib/apt".to_owned()), Resource::Tree("/etc/apt".to_owned())])
    }

    fn examples() -> Vec<FactExample> {
        vec![
            FactExample::new(&Self {}, "1700003600 1700000000\n", Some(3600)),
            FactExample::new(&Self {}, "1700000000 1700003600\n", None),
            FactExample::new(&Self {}, "", None),
        ]
    }
}
