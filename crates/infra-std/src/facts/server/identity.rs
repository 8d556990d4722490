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
        sh!("id 2>/dev/null; umask; printf '%s\\n' \"$HOME\"").into()
    }

    fn parse(&self, output: &Output) -> Result<WhoAsks, ParseError> {
        let text = output.expect_success()?;
        let mut lines = text.splitn(3, '\n');
        let mut next = |what: &str| lines.next().ok_or_else(|| ParseError::new(format!("expected the {what} on a line of its own")));
        let who = next("user and the group")?;
        let of = |real: &str, effective: &str| member(who, effective).or_else(|| member(who, real));
        let (Some((uid, user)), Some((gid, group))) = (of("uid=", " euid="), of(" gid=", " egid=")) else {
            return Err(ParseError::new(format!("expected `uid=NUMBER(NAME) gid=NUMBER(NAME)` of id(1), got `{who}`")));
        };
        let umask = next("umask")?.trim();
        let umask = u32::from_str_radix(umask, 8).map_err(|_| ParseError::new(format!("expected octal digits, got `{umask}`")))?;
        let home = next("home directory")?.trim_end_matches('\n').to_owned();
        Ok(WhoAsks { user, group, uid: Some(uid), gid: Some(gid), umask, home })
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
            FactExample::new(&Self {}, "uid=1000(admin) gid=50(staff) groups=50(staff),27(sudo)\n0022\n/home/admin\n", admin),
            FactExample::new(&Self {}, "uid=4711 gid=4711 groups=4711\n077\n\n", nameless),
        ]
    }
}

/// What follows `key` in the line of id(1) (POSIX, *id*): a number, and the name in parentheses; the number where it has none.
fn member(line: &str, key: &str) -> Option<(u32, String)> {
    let text = if key.starts_with(' ') { line.split_once(key)?.1 } else { line.strip_prefix(key)? };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let name = match rest.strip_prefix('(') {
        // Names of directory services may have spaces and parentheses in them.
        Some(rest) => {
            let ends = [") gid=", ") euid=", ") egid=", ") groups=", ") context="].iter().filter_map(|end| rest.find(end)).min();
            ends.map_or_else(|| rest.strip_suffix(')'), |end| Some(&rest[..end]))?.to_owned()
        }
        None => number.to_owned(),
    };
    Some((number.parse().ok()?, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_id_is_read_whatever_the_names() {
        for (line, uid, gid) in [
            ("uid=0(root) gid=0(root) groups=0(root)", (0, "root"), (0, "root")),
            ("uid=0(root) gid=0(root)", (0, "root"), (0, "root")),
            ("uid=7(A D\\a (b)) gid=8(domain users) groups=8(domain users),9(x)", (7, "A D\\a (b)"), (8, "domain users")),
            ("uid=1(a) gid=2 euid=0(root) groups=2", (0, "root"), (2, "2")),
            ("uid=1(a) gid=2(b) egid=3(c) groups=2(b) context=u:r:t", (1, "a"), (3, "c")),
        ] {
            let who = Identity {}.parse(&Output::of(format!("{line}\n022\n/\n"))).expect(line);
            let told = ((who.uid.unwrap(), who.user.as_str()), (who.gid.unwrap(), who.group.as_str()));
            assert_eq!(told, (uid, gid), "{line}");
        }
    }

    #[test]
    fn what_is_cut_short_is_no_answer() {
        let whole = "uid=0(root) gid=0(root) groups=0(root)\n022\n/root\n";
        assert!(Identity {}.parse(&Output::of(whole)).is_ok());
        for text in [
            "",
            "uid=0(root) gid=0(root)\n",
            "uid=x gid=0\n022\n/\n",
            "uid=0\n022\n/\n",
            "uid=0( gid=\n022\n/\n",
            "uid=0(\n022\n/\n",
            "uid=0(a) gid=0(é\n022\n/\n",
            &whole.replace("022", "099"),
        ] {
            assert!(Identity {}.parse(&Output::of(text)).is_err(), "{text:?}");
        }
    }
}
