//! The fact `server.groups`.

use std::collections::BTreeMap;

use infra_core::command::{Command, Shell};
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The groups of the host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Groups {}

/// A group, as group(5) has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The number; not known of a group that an earlier operation of a plan will create.
    pub gid: Option<u32>,
    /// The names of the users that it lists; not of those whose primary group it is.
    pub members: Vec<String>,
}

impl Fact for Groups {
    const NAME: &'static str = "server.groups";
    const DOC: &'static str = "The groups of the host: a table from each name to `gid` and `members`, the list of the users that it lists; those whose \
                               primary group it is are not among them.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeMap<String, Group>;

    fn command(&self) -> Command {
        read_accounts().into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        parse_groups(split_accounts(&output.expect_success()?)?.1)
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Users])
    }

    fn examples() -> Vec<FactExample> {
        let adm = Group { gid: Some(4), members: vec!["syslog".to_owned(), "deploy".to_owned()] };
        let root = Group { gid: Some(0), members: Vec::new() };
        let answer = BTreeMap::from([("adm".to_owned(), adm), ("root".to_owned(), root)]);
        vec![FactExample::new(&Self {}, "root:x:0:0:root:/root:/bin/bash\n-\nroot:x:0:\nadm:x:4:syslog,deploy\n", answer)]
    }
}

/// Prints passwd(5), a line with `-`, and group(5). Facts about users and groups ask for the same, so that it is read once for all of them.
pub(super) fn read_accounts() -> Shell {
    sh!("getent passwd 2>/dev/null || cat /etc/passwd; echo -; getent group 2>/dev/null || cat /etc/group")
}

/// The users and the groups in what [`read_accounts`] printed.
pub(super) fn split_accounts(text: &str) -> Result<(&str, &str), ParseError> {
    text.split_once("\n-\n").ok_or_else(|| ParseError::new("expected users, a line with `-`, then groups"))
}

/// Reads group(5).
pub(super) fn parse_groups(text: &str) -> Result<BTreeMap<String, Group>, ParseError> {
    let mut groups = BTreeMap::new();
    for line in text.lines().filter(|line| line.contains(':') && !line.starts_with(['+', '-', '#'])) {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members, ..] = fields.as_slice() else {
            return Err(ParseError::new(format!("expected four fields of group(5), got `{line}`")));
        };
        let gid = gid.parse().map_err(|_| ParseError::new(format!("expected a number in `{line}`, got `{gid}`")))?;
        let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
        groups.entry((*name).to_owned()).or_insert(Group { gid: Some(gid), members });
    }
    Ok(groups)
}
