//! The fact `server.identity`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who runs the commands of an operation, and with what umask.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Identity {}

/// Who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoAsks {
    /// The user's name; the number where it has no name.
    pub user: String,
    /// The name of the user's primary group; the number where it has no name.
    pub group: String,
    /// The user's number; not known of a user that an earlier operation of a plan will create.
    pub uid: Option<u32>,
    /// The number of the user's primary group, known as `uid` is.
    pub gid: Option<u32>,
    /// The bits that new files do not get, 0 to 0o777.
    pub umask: u32,
    /// The home directory, as the environment of the commands has it.
    pub home: String,
}

impl WhoAsks {
    /// Whether it is the superuser, who may give files away and read all of them.
    pub fn is_root(&self) -> bool {
        self.uid == Some(0)
    }
}

impl Fact for Identity {
    const NAME: &'static str = "server.identity";
    const DOC: &'static str = "Who runs the commands (with `_sudo`, the user that sudo changes to), and what new files of theirs get: a table of \
                               `user`, `group`, `uid`, `gid`, `umask` (a number) and `home`.";
    type Value = WhoAsks;

    fn command(&self) -> Command {
        sh!("printf '%s\\n' \"$(id -un 2>/dev/null)\" \"$(id -gn 2>/dev/null)\" \"$(id -u)\" \"$(id -g)\" \"$(umask)\" \"$HOME\"").into()
    }

    fn parse(&self, output: &Output) -> Result<WhoAsks, ParseError> {
        let text = output.expect_success()?;
        let mut lines = text.splitn(6, '\n');
        let mut next = |what: &str| lines.next().ok_or_else(|| ParseError::new(format!("expected the {what} on a line of its own")));
        let (user, group) = (next("name of the user")?, next("name of the group")?);
        let number = |line: &str, radix| {
            u32::from_str_radix(line.trim(), radix).map_err(|_| ParseError::new(format!("expected a number, got `{}`", line.trim())))
        };
        let (uid, gid) = (number(next("number of the user")?, 10)?, number(next("number of the group")?, 10)?);
        let umask = number(next("umask")?, 8)?;
        let home = next("home directory")?.trim_end_matches('\n');
        let named = |name: &str, id: u32| if name.is_empty() { id.to_string() } else { name.to_owned() };
        Ok(WhoAsks { user: named(user, uid), group: named(group, gid), uid: Some(uid), gid: Some(gid), umask, home: home.to_owned() })
    }

    fn rests_on(&self) -> Resources {
        // Not on the users as such: one more of them does not change who is logged in.
        Resources::only([Resource::Session])
    }

    fn answer_rests_on(&self, who: &WhoAsks) -> Resources {
        Resources::only([Resource::SessionOf(who.user.clone())])
    }

    fn examples() -> Vec<FactExample> {
        let admin = WhoAsks {
            user: "admin".to_owned(),
            group: "staff".to_owned(),
            uid: Some(1000),
            gid: Some(50),
            umask: 0o022,
            home: "/home/admin".to_owned(),
        };
        let nameless = WhoAsks {
            user: "4711".to_owned(),
            group: "4711".to_owned(),
            uid: Some(4711),
            gid: Some(4711),
            umask: 0o077,
            home: String::new(),
        };
        vec![
            FactExample::new(&Self {}, "admin\nstaff\n1000\n50\n0022\n/home/admin\n", admin),
            FactExample::new(&Self {}, "\n\n4711\n4711\n077\n\n", nameless),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_short_is_no_answer() {
        for text in ["", "root\nroot\n0\n", "root\nroot\nx\n0\n022\n/root\n", "root\nroot\n0\n0\n099\n/root\n"] {
            assert!(Identity {}.parse(&Output::of(text)).is_err(), "{text:?}");
        }
    }
}
