//! The fact `server.users`.

use std::collections::BTreeMap;

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, Scope};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::groups::{parse_groups, read_accounts, split_accounts};

/// The users of the host.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Users {}

/// A user, as passwd(5) and group(5) have it. The password is not part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The number; not known of a user that an earlier operation of a plan will create.
    pub uid: Option<u32>,
    /// The number of the primary group, known as `uid` is.
    pub gid: Option<u32>,
    /// The name of the primary group; its number where it has none.
    pub group: String,
    /// The names of the groups that list the user as a member, in order.
    pub groups: Vec<String>,
    /// What is said of the user: the field also called gecos.
    pub comment: String,
    /// The home directory.
    pub home: String,
    /// The login shell.
    pub shell: String,
}

impl Fact for Users {
    const NAME: &'static str = "server.users";
    const DOC: &'static str = "The users of the host: a table from each name to `uid`, `gid`, `group` (the name of the primary group), `groups` (the \
                               names of those that list the user as a member, in order), `comment`, `home` and `shell`.";
    const SCOPE: Scope = Scope::Everyone;
    type Value = BTreeMap<String, User>;

    fn command(&self) -> Command {
        read_accounts().into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let (passwd, group) = split_accounts(&text)?;
        let groups = parse_groups(group)?;
        let mut users = BTreeMap::new();
        for line in passwd.lines().filter(|line| line.contains(':') && !line.starts_with(['+', '-', '#'])) {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, uid, gid, comment, home, shell, ..] = fields.as_slice() else {
                return Err(ParseError::new(format!("expected seven fields of passwd(5), got `{line}`")));
            };
            let number =
                |text: &str| text.parse::<u32>().map_err(|_| ParseError::new(format!("expected a number in `{line}`, got `{text}`")));
            let gid = number(gid)?;
            let primary = groups.iter().find(|(_, group)| group.gid == Some(gid)).map_or_else(|| gid.to_string(), |(name, _)| name.clone());
            let member_of = groups.iter().filter(|(_, group)| group.members.iter().any(|member| member == name));
            let user = User {
                uid: Some(number(uid)?),
                gid: Some(gid),
                group: primary,
                groups: member_of.map(|(group, _)| group.clone()).collect(),
                comment: (*comment).to_owned(),
                home: (*home).to_owned(),
                shell: (*shell).to_owned(),
            };
            users.entry((*name).to_owned()).or_insert(user);
        }
        Ok(users)
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Users])
    }

    fn examples() -> Vec<FactExample> {
        let printed = "root:x:0:0:root:/root:/bin/bash\ndeploy:x:1000:1000:Deploy,,,:/home/deploy:/bin/sh\nnogroup:x:7:77::/:/bin/false\n-\n\
                       root:x:0:\nwww-data:x:33:deploy\ndeploy:x:1000:\nadm:x:4:syslog,deploy\n";
        let user = |id: u32, group: &str, comment: &str, home: &str, shell: &str| User {
            uid: Some(id),
            gid: Some(id),
            group: group.to_owned(),
            groups: Vec::new(),
            comment: comment.to_owned(),
            home: home.to_owned(),
            shell: shell.to_owned(),
        };
        let deploy =
            User { groups: vec!["adm".to_owned(), "www-data".to_owned()], ..user(1000, "deploy", "Deploy,,,", "/home/deploy", "/bin/sh") };
        let nogroup = User { gid: Some(77), ..user(7, "77", "", "/", "/bin/false") };
        let answer = BTreeMap::from([
            ("root".to_owned(), user(0, "root", "root", "/root", "/bin/bash")),
            ("deploy".to_owned(), deploy),
            ("nogroup".to_owned(), nogroup),
        ]);
        vec![FactExample::new(&Self {}, printed, answer)]
    }
}
