//! The operation `apt.update`.

use infra_core::change::Change;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Idempotence, Operation};
use infra_core::resources::Resources;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::facts::apt::last_update::LastUpdate;
use crate::packaging::{UPDATE, apt_update, touched_by_update};

/// Brings the package index up to date.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Update {
    /// How old the index may be, in seconds, and still be taken as up to date. Where it is not given, the index is read each time.
    pub cache_time: Option<u64>,
}

impl Operation for Update {
    const NAME: &'static str = "apt.update";
    const DOC: &'static str = "Brings the package index of apt up to date, as `apt-get update` does.\n\n\
        With `cache_time` it changes nothing when that was done well within this time and no list of sources was changed since; without, it is done \
        and counts as a change each time. It fails when any of the sources cannot be read, and waits up to ten minutes for another apt.";
    const IDEMPOTENCE: Idempotence = Idempotence::NotIdempotent;

    fn touches(&self) -> Resources {
        touched_by_update()
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let mut reason = "update".to_owned();
        if let Some(cache_time) = self.cache_time {
            reason = match facts.get(&LastUpdate {})? {
                Some(age) if age <= cache_time => return Ok(Change::none(format!("up to date as of {age} s ago"))),
                Some(age) => format!("last updated {age} s ago"),
                None => "not up to date".to_owned(),
            };
        }
        Ok(Change::new(reason).run(apt_update()).answer(&LastUpdate {}, &Some(0)))
    }

    fn examples() -> Vec<Example> {
        vec![
            Example::new("Each time", json!({})).steps([UPDATE]),
            Example::new("Once a day", json!({ "cache_time": 86400 })).fact(&LastUpdate {}, Some(90_000)).steps([UPDATE]),
            Example::new("It was done a minute ago", json!({ "cache_time": 86400 })).fact(&LastUpdate {}, Some(60)).nothing("60 s ago"),
            Example::new("It was never done", json!({ "cache_time": 86400 })).fact(&LastUpdate {}, None).steps([UPDATE]),
        ]
    }
}
