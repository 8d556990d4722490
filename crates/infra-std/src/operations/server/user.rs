//! The operation `server.user`.

use std::collections::{BTreeMap, BTreeSet};

use infra_core::change::{Action, Change};
use infra_core::command::{Command, Shell};
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::node::{DirectoryNode, Node};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resource, Resources, normal_path, parent_of};
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::accounts::{check_field, check_name, missing_tool, yes};
use crate::authorized_keys::{KeysFound, KeysWish, check_keys, keys_touched};
use crate::facts::files::directory::Directory;
use crate::facts::files::file::File;
use crate::facts::files::text::Text;
use crate::facts::server::groups::{Group, Groups};
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::facts::server::password_hash::PasswordHash;
use crate::facts::server::users::{User as FoundUser, Users};
use crate::facts::server::which::Which;
use crate::file_status::{Found, Status};
use crate::packaging::listed;

/// Creates, changes or removes a user.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct User {
    /// The name of the user.
    pub user: String,
    /// Whether it shall be there. One that is removed leaves its home directory behind.
    #[serde(default = "yes")]
    pub present: bool,
    /// The home directory; `/home/NAME` for a new user where not given. Another one is not filled from the old one.
    pub home: Option<String>,
    /// The login shell; left to the host where not given.
    pub shell: Option<String>,
    /// The primary group, by name or number; for a new user one of the user's own name where not given.
    pub group: Option<String>,
    /// The groups that list the user as a member: exactly these, or with `append` at least these.
    pub groups: Option<Vec<String>>,
    /// Leave the user in the groups that it is in besides `groups`.
    #[serde(default)]
    pub append: bool,
    /// The keys that open the account by ssh, each a line as it stands in `~/.ssh/authorized_keys`: options if any, type, key and comment. They
    /// are texts and no names of files. Keys that are missing are added; one that is there with other options gets those that are given.
    pub public_keys: Option<Vec<String>>,
    /// Let no other keys open the account: the file becomes exactly `public_keys`, in this order, without comments of its own.
    #[serde(default)]
    pub delete_keys: bool,
    /// Make the home directory where it is missing, empty and with the mode 755. It is made at `home`, or at `/home/NAME` where that is the user's.
    #[serde(default = "yes")]
    pub ensure_home: bool,
    /// Give a new user a home directory as the host makes them, with the files of `/etc/skel`.
    #[serde(default)]
    pub create_home: bool,
    /// Create it as one of the system's own, with a number from their range. It has no bearing on a user that is there.
    #[serde(default)]
    pub system: bool,
    /// Its number; left to the host where not given. When it changes, so do the files in the home directory, and no others.
    pub uid: Option<u32>,
    /// What is said of the user, such as a name: the field also called gecos.
    pub comment: Option<String>,
    /// Refuse a number that another user has.
    #[serde(default = "yes")]
    pub unique: bool,
    /// The hash of the password, as `mkpasswd` or `openssl passwd -6` prints it, or `!` for none. It is in no argument list on the host.
    pub password: Option<String>,
}

impl Operation for User {
    const NAME: &'static str = "server.user";
    const DOC: &'static str = "Creates a user, brings a user that is there to what is asked for, or removes it.\n\n\
        Only what is given is compared and changed: it changes nothing when the user is there with all of it, or not there where `present` is \
        false. A home directory that is there keeps its owner and its mode. Groups must be there before: see `server.group`. The host needs \
        useradd(8), usermod(8) and userdel(8).\n\n\
        With `public_keys`, the folder `.ssh` in the home directory gets the mode 700 and `authorized_keys` in it the mode 600, both owned by the \
        user and the user's primary group. The home directory must be there or be made. Links in the place of the two are refused, for the user could \
        lead them anywhere.";

    fn check(&self) -> Result<(), Misuse> {
        check_name("user", &self.user)?;
        check_field("home", self.home.as_deref())?;
        check_field("shell", self.shell.as_deref())?;
        check_field("comment", self.comment.as_deref())?;
        check_field("password", self.password.as_deref())?;
        if self.home.as_ref().is_some_and(|home| !home.starts_with('/')) {
            return Err(Misuse::new("`home` is no absolute path").hint(format!("write home = \"/home/{}\"", self.user)));
        }
        for group in self.groups.iter().flatten() {
            check_name("group", group)?;
        }
        if self.append && self.groups.is_none() {
            return Err(Misuse::new("`append` says nothing without `groups`"));
        }
        if self.delete_keys && self.public_keys.is_none() {
            return Err(Misuse::new("`delete_keys` says nothing without `public_keys`").hint("public_keys = {} with it deletes all keys"));
        }
        check_keys("public_keys", self.public_keys.as_deref().unwrap_or_default())?;
        let is_hash = |text: &str| {
            let plain = text.len() == 13 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./".contains(&byte));
            plain || text.starts_with(['$', '!', '*', '_'])
        };
        match &self.password {
            Some(password) if !is_hash(password) => Err(Misuse::new("`password` is no hash of a password")
                .hint("give what `mkpasswd` or `openssl passwd -6` prints; a password itself would lock the user out")),
            _ => Ok(()),
        }
    }

    fn touches(&self) -> Resources {
        if !self.present {
            return accounts_touched().and(Resources::only([self.session()])).and(self.names_lost());
        }
        match self.uid {
            // The files in a home directory that the arguments do not tell get another owner.
            Some(_) => Resources::everything(),
            // The home directory of a user that is there may be anywhere.
            None if self.wished_keys().is_some() && self.home.is_none() => Resources::everything(),
            None => {
                let made = Resources::only([self.session(), Resource::nameless_owner()]);
                accounts_touched().and(made).and(self.home_touched(true))
            }
        }
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let hash = self.password.as_ref().map(|_| PasswordHash { user: self.user.clone() });
        let which = Which { command: "useradd".to_owned() };
        let (at, above) = (self.home_question(), self.above_home_question());
        // Asked before it is known that this is the home directory, so that one round answers all where it is.
        let guessed = self.wished_keys().map(|_| KeysFound::ask(facts, &self.home_path()));
        if !self.present {
            return self.diff_removal(facts, which);
        }
        let who = Identity {};
        let (users, groups, tool, home, above, who) = match &hash {
            // What is asked together is gathered together.
            Some(hash) => {
                let (users, groups, tool, home, above, who, _) = facts.get((&Users {}, &Groups {}, &which, &at, &above, &who, hash))?;
                (users, groups, tool, home, above, who)
            }
            None => facts.get((&Users {}, &Groups {}, &which, &at, &above, &who))?,
        };
        let home = Home { found: home, makes_parents: above == Found::Nothing };
        let current = hash.map(|hash| facts.get(&hash)).transpose()?.flatten();
        let keys = guessed.map(|guessed| self.keys_place(facts, &users, &groups, &home, guessed)).transpose()?;
        let change = match users.get(&self.user) {
            None => self.create(users, groups, &home, &who)?,
            Some(found) => {
                let found = found.clone();
                self.update(&found, users, groups, &home, current.as_deref())?
            }
        };
        if !change.is_none() && tool.is_none() {
            return Err(missing_tool("useradd"));
        }
        let change = match keys {
            Some(keys) => self.with_keys(change, &keys)?,
            None => change,
        };
        Ok(if change.is_none() { Change::none("already as wished") } else { change })
    }

    fn examples() -> Vec<Example> {
        let account = |id: u32, name: &str, groups: &[&str]| FoundUser {
            uid: Some(id),
            gid: Some(id),
            group: name.to_owned(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            comment: String::new(),
            home: format!("/home/{name}"),
            shell: "/bin/sh".to_owned(),
        };
        let group =
            |gid: u32, members: &[&str]| Group { gid: Some(gid), members: members.iter().map(|member| (*member).to_owned()).collect() };
        let users = || {
            let all = [("ann", account(1000, "ann", &["adm", "www-data"])), ("bob", account(1001, "bob", &[]))];
            all.map(|(name, user)| (name.to_owned(), user)).into_iter().collect::<BTreeMap<_, _>>()
        };
        let groups = || {
            let all =
                [("ann", group(1000, &[])), ("bob", group(1001, &[])), ("adm", group(4, &["ann"])), ("www-data", group(33, &["ann"]))];
            all.map(|(name, group)| (name.to_owned(), group)).into_iter().collect::<BTreeMap<_, _>>()
        };
        let which = || Which { command: "useradd".to_owned() };
        let there = || Found::Is(Status::foreseen(0o755, "ann", "ann", None));
        let example = |title, args: serde_json::Value, home: &str, found: Found<Status>| {
            let root =
                WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
            let example = Example::new(title, args).fact(&Users {}, users()).fact(&Groups {}, groups()).fact(&Identity {}, root);
            example
                .fact(&which(), Some("/usr/sbin/useradd".to_owned()))
                .fact(&Directory::at(home), found)
                .fact(&Directory::at(parent_of(home).expect("a folder above")), there())
        };
        let hash = || PasswordHash { user: "ann".to_owned() };
        let with_keys = |example: Example, user: &str, text: Option<&str>| {
            let folder = format!("/home/{user}/.ssh");
            let path = format!("{folder}/authorized_keys");
            let status = |mode| text.map_or(Found::Nothing, |_| Found::Is(Status::foreseen(mode, user, user, None)));
            let text = text.map_or(Found::Nothing, |text| Found::Is(text.to_owned()));
            let example = example.fact(&Directory::at(folder), status(0o700)).fact(&File::at(&path), status(0o600));
            example.fact(&Text::at(&path), text)
        };
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample deploy@ci";
        let keys = |user: &str| json!({ "user": user, "public_keys": [key] });
        let no_others = json!({ "user": "ann", "public_keys": [key], "delete_keys": true });
        vec![
            with_keys(example("Create a user whom a key lets in", keys("deploy"), "/home/deploy", Found::Nothing), "deploy", None).steps([
                "useradd -d /home/deploy -U -M -- deploy",
                "install -d -m 755 -o deploy -g deploy -- /home/deploy",
                "install -d -m 700 -o deploy -g deploy -- /home/deploy/.ssh",
                "upload /home/deploy/.ssh/authorized_keys",
            ]),
            with_keys(example("One key more", keys("ann"), "/home/ann", there()), "ann", Some("ssh-rsa AAAAB3Nz ann@home\n"))
                .steps(["upload /home/ann/.ssh/authorized_keys"]),
            with_keys(
                example("The key is there", keys("ann"), "/home/ann", there()),
                "ann",
                Some("ssh-rsa AAAAB3Nz ann@home\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIExample\n"),
            )
            .nothing("already as wished"),
            with_keys(example("No other keys", no_others, "/home/ann", there()), "ann", Some("ssh-rsa AAAAB3Nz ann@home\n"))
                .steps(["upload /home/ann/.ssh/authorized_keys"]),
            example(
                "Create a user",
                json!({ "user": "deploy", "shell": "/bin/bash", "groups": "www-data" }),
                "/home/deploy",
                Found::Nothing,
            )
            .steps([
                "useradd -d /home/deploy -s /bin/bash -G www-data -U -M -- deploy",
                "install -d -m 755 -o deploy -g deploy -- /home/deploy",
            ]),
            example(
                "Create a user of the system, with a number, and no home directory",
                json!({ "user": "app", "system": true, "uid": 600, "group": "www-data", "home": "/nonexistent", "comment": "The app" }),
                "/nonexistent",
                Found::Nothing,
            )
            .steps(["useradd -d /nonexistent -g www-data -c 'The app' -u 600 -r -M -- app"]),
            example("It is as wished", json!({ "user": "ann", "groups": ["www-data", "adm"], "uid": 1000 }), "/home/ann", there())
                .nothing("already as wished"),
            example("Other groups", json!({ "user": "ann", "groups": "adm" }), "/home/ann", there()).steps(["usermod -G adm -- ann"]),
            example("One group more", json!({ "user": "bob", "groups": "adm", "append": true }), "/home/bob", there())
                .steps(["usermod -a -G adm -- bob"]),
            example("Another number", json!({ "user": "ann", "uid": 1500 }), "/home/ann", there()).steps(["usermod -u 1500 -- ann"]),
            example("A number that is taken", json!({ "user": "ann", "uid": 1001 }), "/home/ann", there())
                .refused("the number 1001 is that of the user bob"),
            example("A password", json!({ "user": "ann", "password": "$6$salt$new" }), "/home/ann", there())
                .fact(&hash(), Some("$6$salt$old".to_owned()))
                .steps(["chpasswd -e"]),
            example("A password that may not be read", json!({ "user": "ann", "password": "$6$salt$new" }), "/home/ann", there())
                .fact(&hash(), None)
                .refused("the password of ann cannot be read"),
            example("A group that is not there", json!({ "user": "ann", "groups": ["adm", "docker"] }), "/home/ann", there())
                .refused("there is no group docker"),
            example("Remove it", json!({ "user": "ann", "present": false }), "/home/ann", there())
                .fact(&Text::at(LOGIN_DEFS), Found::Is("USERGROUPS_ENAB yes\n".to_owned()))
                .steps(["userdel -- ann"]),
            example("It is gone already", json!({ "user": "zoe", "present": false }), "/home/zoe", Found::Nothing)
                .fact(&Text::at(LOGIN_DEFS), Found::Nothing)
                .nothing("there is no user zoe"),
        ]
    }
}

/// The home directory that the arguments speak of, as it was found.
struct Home {
    found: Found<Status>,
    makes_parents: bool,
}

/// Where the keys of a user are, and how things stand there.
struct KeysPlace {
    home: String,
    group: String,
    found: KeysFound,
}

impl User {
    /// The keys that are to be seen to.
    fn wished_keys(&self) -> Option<&[String]> {
        self.public_keys.as_deref().filter(|keys| self.present && (self.delete_keys || !keys.is_empty()))
    }

    /// Finds out where the keys of the user are; `guessed` is how things stand where the arguments alone would have them.
    fn keys_place(
        &self,
        facts: &Facts<'_>,
        users: &BTreeMap<String, FoundUser>,
        groups: &BTreeMap<String, Group>,
        home: &Home,
        guessed: Result<KeysFound, DiffError>,
    ) -> Result<KeysPlace, DiffError> {
        let user = users.get(&self.user);
        let group = match (&self.group, user) {
            (Some(group), _) => self.find_group(groups, group)?,
            (None, Some(user)) => user.group.clone(),
            (None, None) => self.user.clone(),
        };
        let path = user.filter(|_| self.home.is_none()).map_or_else(|| self.home_path(), |user| normal_path(&user.home));
        let (found, there) = if path == self.home_path() {
            let made = home.found == Found::Nothing && (self.makes_home() || (user.is_none() && self.create_home));
            (guessed?, made || home.found.is().is_some())
        } else {
            let (there, found) = (facts.get(&Directory::at(&path)), KeysFound::ask(facts, &path));
            let there = there?.is().is_some();
            (found?, there)
        };
        if !there {
            let message = format!("the keys of {} have no place: the home directory {path} is not there", self.user);
            return Err(DiffError::refused_with_hint(message, format!("make it first: files.directory {{ path = \"{path}\" }}")));
        }
        Ok(KeysPlace { home: path, group, found })
    }

    /// Lets the keys open the account, after all else.
    fn with_keys(&self, change: Change, place: &KeysPlace) -> Result<Change, DiffError> {
        let Some(keys) = self.wished_keys() else { return Ok(change) };
        let wish = KeysWish { user: &self.user, group: &place.group, home: &place.home, keys, exactly: self.delete_keys };
        let (mut change, said) = wish.fulfil(change, &place.found)?;
        if !said.is_empty() {
            let reasons = [std::mem::take(&mut change.reason)].into_iter().filter(|reason| !reason.is_empty()).chain(said);
            change.reason = reasons.collect::<Vec<_>>().join(", ");
            change.touches = Some(change.touches.unwrap_or_else(Resources::none).and(keys_touched(&place.home)));
        }
        Ok(change)
    }

    /// Whether a home directory that is missing is made. There are two ways in which a user of the system is given none.
    fn makes_home(&self) -> bool {
        let path = self.home_path();
        self.ensure_home && path != "/nonexistent" && path != "/dev/null"
    }

    /// The home directory that the arguments speak of.
    fn home_path(&self) -> String {
        normal_path(self.home.as_deref().unwrap_or(&format!("/home/{}", self.user)))
    }

    fn home_question(&self) -> Directory {
        Directory::at(self.home_path())
    }

    fn above_home_question(&self) -> Directory {
        Directory::at(parent_of(&self.home_path()).unwrap_or_else(|| "/".to_owned()))
    }

    /// What making the home directory touches; with the folders above it where they have to be made too.
    fn home_touched(&self, makes_parents: bool) -> Resources {
        let own = [Resource::Tree(self.home_path()), Resource::Path(format!("/var/mail/{}", self.user))];
        let above = std::iter::successors(parent_of(&self.home_path()), |path| parent_of(path)).map(Resource::Path);
        Resources::only(own.into_iter().chain(above.filter(|_| makes_parents)))
    }

    fn remove(&self, mut users: BTreeMap<String, FoundUser>, mut groups: BTreeMap<String, Group>, settings: &Found<String>) -> Change {
        let own = users.remove(&self.user).is_some_and(|found| found.group == self.user);
        set_members(&mut groups, &self.user, &[]);
        // The group of its name goes as well where the host's setting says so and nobody else is in it (userdel(8)).
        let is_others =
            users.values().any(|user| user.group == self.user) || groups.get(&self.user).is_none_or(|group| !group.members.is_empty());
        let mut touches = accounts_touched().and(Resources::only([self.session(), Resource::owner_of(&self.user)]));
        if own && !is_others && settings.is().is_some_and(|text| has_own_groups(text)) {
            groups.remove(&self.user);
            touches = touches.and(Resources::only([Resource::group_of(&self.user)]));
        }
        let change = Change::new("remove").run(sh!("userdel -- {}", self.user));
        change.answer(&Users {}, &users).answer(&Groups {}, &groups).touching(touches)
    }

    /// The home directory is left alone, so nothing is asked about it.
    fn diff_removal(&self, facts: &Facts<'_>, which: Which) -> Result<Change, DiffError> {
        let (users, groups, tool, settings) = facts.get((&Users {}, &Groups {}, &which, &Text::at(LOGIN_DEFS)))?;
        if !users.contains_key(&self.user) {
            return Ok(Change::none(format!("there is no user {}", self.user)));
        }
        if tool.is_none() {
            return Err(missing_tool("useradd"));
        }
        Ok(self.remove(users, groups, &settings))
    }

    /// The names that files of the user do not go by any more when there is no such user.
    fn names_lost(&self) -> Resources {
        Resources::owners(&self.user, &self.user)
    }

    /// What somebody else has in a session stays.
    fn session(&self) -> Resource {
        Resource::SessionOf(self.user.clone())
    }

    fn create(
        &self,
        mut users: BTreeMap<String, FoundUser>,
        mut groups: BTreeMap<String, Group>,
        home: &Home,
        who: &WhoAsks,
    ) -> Result<Change, DiffError> {
        self.check_number(&users)?;
        let own_group = self.group.is_none() && !groups.contains_key(&self.user);
        let primary = match &self.group {
            Some(group) => self.find_group(&groups, group)?,
            None => self.user.clone(),
        };
        let members = self.wished_groups(&groups)?.unwrap_or_default();
        let path = self.home_path();

        let mut words = vec!["useradd".to_owned(), "-d".to_owned(), path.clone()];
        let mut option = |letter: &str, value: Option<String>| words.extend(value.into_iter().flat_map(|value| [letter.to_owned(), value]));
        option("-s", self.shell.clone());
        option("-g", (!own_group).then(|| primary.clone()));
        option("-G", (!members.is_empty()).then(|| members.join(",")));
        option("-c", self.comment.clone());
        option("-u", self.uid.map(|uid| uid.to_string()));
        words.extend((self.uid.is_some() && !self.unique).then(|| "-o".to_owned()));
        words.extend(self.system.then(|| "-r".to_owned()));
        words.extend(own_group.then(|| "-U".to_owned()));
        words.push(if self.create_home { "-m" } else { "-M" }.to_owned());
        words.extend(["--".to_owned(), self.user.clone()]);
        // Files that nobody owned may become the user's.
        let made = Resources::only([Resource::nameless_owner()]);
        let mut change =
            Change::new("create").run(Shell::argv(words)).touching(accounts_touched().and(made).and(self.home_touched(home.makes_parents)));

        let new = FoundUser {
            uid: self.uid,
            gid: groups.get(&primary).and_then(|group| group.gid),
            group: primary.clone(),
            groups: members.clone(),
            comment: self.comment.clone().unwrap_or_default(),
            home: path.clone(),
            shell: self.shell.clone().unwrap_or_else(|| "/bin/sh".to_owned()),
        };
        if self.create_home && home.found == Found::Nothing {
            let node = DirectoryNode { mode: None, user: Some(self.user.clone()), group: Some(primary.clone()), fresh: false };
            change = change.node(&path, Node::Directory(node));
        } else {
            change = self.with_home(change, home, &primary)?;
        }
        change = self.with_password(change);
        // sudo takes at least the bits that it takes by default (umask in sudoers(5)), and su leaves them as they are.
        let itself =
            WhoAsks { user: self.user.clone(), group: primary.clone(), uid: new.uid, gid: new.gid, umask: who.umask | 0o022, home: path };
        change = change.answer_to(Some(&self.user), &Identity {}, &itself);
        users.insert(self.user.clone(), new);
        groups.entry(primary).or_default();
        set_members(&mut groups, &self.user, &members);
        Ok(change.answer(&Users {}, &users).answer(&Groups {}, &groups))
    }

    fn update(
        &self,
        found: &FoundUser,
        mut users: BTreeMap<String, FoundUser>,
        mut groups: BTreeMap<String, Group>,
        home: &Home,
        password: Option<&str>,
    ) -> Result<Change, DiffError> {
        let mut wished = found.clone();
        let mut words: Vec<String> = Vec::new();
        let mut said: Vec<String> = Vec::new();
        let mut touches = accounts_touched().and(Resources::only([self.session()]));
        for (option, what, value, field) in [
            ("-d", "home", self.home.as_ref().map(|home| normal_path(home)), &mut wished.home),
            ("-s", "shell", self.shell.clone(), &mut wished.shell),
            ("-c", "comment", self.comment.clone(), &mut wished.comment),
        ] {
            if let Some(value) = value.filter(|value| value != field) {
                said.push(format!("{what} {field} → {value}"));
                words.extend([option.to_owned(), value.clone()]);
                *field = value;
            }
        }
        if let Some(group) = &self.group {
            let name = self.find_group(&groups, group)?;
            if name != found.group {
                said.push(format!("group {} → {name}", found.group));
                words.extend(["-g".to_owned(), name.clone()]);
                wished.gid = groups.get(&name).and_then(|group| group.gid);
                wished.group = name;
            }
        }
        if let Some(members) = self.wished_groups(&groups)? {
            let (now, all): (BTreeSet<&String>, BTreeSet<&String>) = (found.groups.iter().collect(), members.iter().collect());
            let joined: Vec<&String> = all.difference(&now).copied().collect();
            let left: Vec<&String> = if self.append { Vec::new() } else { now.difference(&all).copied().collect() };
            if !joined.is_empty() || !left.is_empty() {
                said.extend(joined.iter().map(|group| format!("joins {group}")));
                said.extend(left.iter().map(|group| format!("leaves {group}")));
                let list: Vec<String> = if self.append { joined.into_iter().cloned().collect() } else { members.clone() };
                words.extend(self.append.then(|| "-a".to_owned()));
                words.extend(["-G".to_owned(), list.join(",")]);
                wished.groups = if self.append { now.union(&all).map(|group| (*group).clone()).collect() } else { members };
            }
        }
        if let Some(uid) = self.uid.filter(|uid| found.uid != Some(*uid)) {
            self.check_number(&users)?;
            said.push(format!("number {} → {uid}", found.uid.map_or_else(|| "?".to_owned(), |old| old.to_string())));
            words.extend(["-u".to_owned(), uid.to_string()]);
            words.extend((!self.unique).then(|| "-o".to_owned()));
            wished.uid = Some(uid);
            touches = touches.and(Resources::only([Resource::Tree(found.home.clone()), Resource::Tree(wished.home.clone())]));
            touches = touches.and(Resources::only([Resource::owner_of(&self.user), Resource::nameless_owner()]));
        }
        let mut change = Change::default();
        if !words.is_empty() {
            change = change.run(Shell::argv(["usermod".to_owned()].into_iter().chain(words).chain(["--".to_owned(), self.user.clone()])));
        }
        if normal_path(&wished.home) == self.home_path() {
            let before = change.actions.len();
            change = self.with_home(change, home, &wished.group)?;
            if change.actions.len() > before {
                said.push(format!("make {}", wished.home));
                touches = touches.and(self.home_touched(home.makes_parents));
            }
        }
        if let Some(hash) = &self.password {
            let Some(now) = password else {
                return Err(DiffError::refused_with_hint(
                    format!("the password of {} cannot be read, so it is not known whether it has to change", self.user),
                    "only root may read it: use _sudo",
                ));
            };
            if now != hash {
                said.push("password".to_owned());
                change = self.with_password(change);
            }
        }
        if change.is_none() {
            return Ok(change);
        }
        change.reason = said.join(", ");
        change.touches = Some(touches);
        set_members(&mut groups, &self.user, &wished.groups);
        users.insert(self.user.clone(), wished);
        Ok(change.answer(&Users {}, &users).answer(&Groups {}, &groups))
    }

    /// Makes the home directory where it is missing and wished.
    fn with_home(&self, change: Change, home: &Home, group: &str) -> Result<Change, DiffError> {
        let path = self.home_path();
        if !self.makes_home() {
            return Ok(change);
        }
        match &home.found {
            Found::Is(_) => Ok(change),
            Found::Other => {
                Err(DiffError::refused(format!("the home directory {path} of {} cannot be made: something else is there", self.user)))
            }
            Found::Nothing => {
                let node = DirectoryNode { mode: Some(0o755), user: Some(self.user.clone()), group: Some(group.to_owned()), fresh: true };
                let make = sh!("install -d -m 755 -o {} -g {} -- {}", self.user, group, path);
                Ok(change.run(make).node(path, Node::Directory(node)))
            }
        }
    }

    /// Sets the password, which goes through standard input so that no list of processes shows it.
    fn with_password(&self, change: Change) -> Change {
        let Some(hash) = &self.password else { return change };
        let command = Command::new(sh!("chpasswd -e")).with_stdin(format!("{}:{hash}\n", self.user));
        change.then(Action::Run(command)).answer(&PasswordHash { user: self.user.clone() }, &Some(hash.clone()))
    }

    fn check_number(&self, users: &BTreeMap<String, FoundUser>) -> Result<(), DiffError> {
        let Some(uid) = self.uid.filter(|_| self.unique) else { return Ok(()) };
        match users.iter().find(|(name, user)| user.uid == Some(uid) && **name != self.user) {
            Some((other, _)) => Err(DiffError::refused_with_hint(
                format!("the number {uid} is that of the user {other}"),
                "unique = false lets two users have one number",
            )),
            None => Ok(()),
        }
    }

    /// The name of a group that is given by name or number.
    fn find_group(&self, groups: &BTreeMap<String, Group>, wanted: &str) -> Result<String, DiffError> {
        let number: Option<u32> = wanted.parse().ok();
        let found = groups.iter().find(|(name, group)| *name == wanted || (number.is_some() && group.gid == number));
        found.map(|(name, _)| name.clone()).ok_or_else(|| no_group(&[wanted]))
    }

    fn wished_groups(&self, groups: &BTreeMap<String, Group>) -> Result<Option<Vec<String>>, DiffError> {
        let Some(wished) = &self.groups else { return Ok(None) };
        let missing: Vec<&str> = wished.iter().filter(|name| !groups.contains_key(*name)).map(String::as_str).collect();
        if !missing.is_empty() {
            return Err(no_group(&missing));
        }
        Ok(Some(wished.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect()))
    }
}

/// The file of settings of useradd(8) and its like.
const LOGIN_DEFS: &str = "/etc/login.defs";

/// Whether these settings say that a user has a group of its own, which comes and goes with it.
fn has_own_groups(settings: &str) -> bool {
    let mut values = settings.lines().rev().filter_map(|line| line.trim().strip_prefix("USERGROUPS_ENAB")?.split_whitespace().next());
    values.next().is_some_and(|value| value.trim_matches('"').eq_ignore_ascii_case("yes"))
}

fn no_group(names: &[&str]) -> DiffError {
    let groups = if names.len() == 1 { "group" } else { "groups" };
    let hint = "server.group { group = … } before this operation creates it";
    DiffError::refused_with_hint(format!("there is no {groups} {}", listed(names)), hint)
}

fn set_members(groups: &mut BTreeMap<String, Group>, user: &str, wished: &[String]) {
    for (name, group) in groups {
        let (is, shall) = (group.members.iter().any(|member| member == user), wished.contains(name));
        if shall && !is {
            group.members.push(user.to_owned());
        } else if is && !shall {
            group.members.retain(|member| member != user);
        }
    }
}

fn accounts_touched() -> Resources {
    let files = ["passwd", "shadow", "group", "gshadow", "subuid", "subgid"];
    let files = files.iter().flat_map(|name| [format!("/etc/{name}"), format!("/etc/{name}-")]).map(Resource::Path);
    Resources::only(files.chain([Resource::Users]))
}

#[cfg(test)]
mod tests {
    use infra_core::change::Effect;
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully, steps_of};

    use super::*;

    fn wish(args: serde_json::Value) -> User {
        serde_json::from_value(args).expect("arguments")
    }

    #[test]
    fn what_cannot_be_meant_is_misuse() {
        for args in [
            json!({ "user": "-r" }),
            json!({ "user": "a", "home": "a" }),
            json!({ "user": "a", "comment": "x:y" }),
            json!({ "user": "a", "append": true }),
            json!({ "user": "a", "groups": ["b c"] }),
            json!({ "user": "a", "password": "secret" }),
            json!({ "user": "a", "delete_keys": true }),
            json!({ "user": "a", "public_keys": ["~/.ssh/id.pub"] }),
        ] {
            assert!(wish(args.clone()).check().is_err(), "{args}");
        }
        for password in ["$y$j9T$x$y", "!", "*", "ab01234567890"] {
            assert!(wish(json!({ "user": "a", "password": password })).check().is_ok(), "{password}");
        }
    }

    fn root() -> WhoAsks {
        WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o027, home: "/root".into() }
    }

    #[test]
    fn who_is_created_is_foretold_to_be_there() {
        let table = MadeUp::new()
            .fact(&Users {}, BTreeMap::new())
            .fact(&Groups {}, BTreeMap::from([("crew".to_owned(), Group { gid: Some(7), members: Vec::new() })]))
            .fact(&Which { command: "useradd".to_owned() }, Some("/usr/sbin/useradd".to_owned()))
            .fact(&Directory::at("/srv/ann"), Found::Nothing)
            .fact(&Directory::at("/srv"), Found::Nothing)
            .fact(&Identity {}, root());
        let (change, _) =
            diff_fully(&*erase(wish(json!({ "user": "ann", "group": "crew", "home": "/srv/ann" }))), &table).expect("a change");
        let foretold = change.effects.iter().find_map(|effect| match effect {
            Effect::Answer { fact, answer, user: Some(user), .. } => Some((fact.as_str(), user.as_str(), answer.clone())),
            _ => None,
        });
        let wanted = json!({ "user": "ann", "group": "crew", "uid": null, "gid": 7, "umask": 0o027, "home": "/srv/ann" });
        assert_eq!(foretold, Some(("server.identity", "ann", wanted)));
    }

    /// Each wish, diffed again with what it foretells, has nothing left to do.
    #[test]
    fn what_was_done_once_is_not_done_again() {
        let table = || {
            let groups = ["adm", "www-data", "old"].map(|name| (name.to_owned(), Group { gid: Some(4), members: Vec::new() }));
            MadeUp::new()
                .fact(&Identity {}, root())
                .fact(&Groups {}, groups.into_iter().collect())
                .fact(&Which { command: "useradd".to_owned() }, Some("/usr/sbin/useradd".to_owned()))
                .fact(&PasswordHash { user: "ann".to_owned() }, Some("!".to_owned()))
        };
        let found = FoundUser { uid: Some(7), group: "old".to_owned(), home: "/home/ann".to_owned(), ..FoundUser::default() };
        for users in [BTreeMap::new(), BTreeMap::from([("ann".to_owned(), found)])] {
            for args in [
                json!({ "user": "ann" }),
                json!({ "user": "ann", "shell": "/bin/bash", "group": "adm", "uid": 9, "comment": "Ann" }),
                json!({ "user": "ann", "groups": ["www-data", "adm"], "password": "$6$x$y" }),
                json!({ "user": "ann", "groups": ["adm"], "append": true, "home": "/srv/ann/" }),
            ] {
                let operation = erase(wish(args.clone()));
                let home = wish(args.clone()).home_question();
                let before = table()
                    .fact(&Users {}, users.clone())
                    .fact(&home, Found::Nothing)
                    .fact(&wish(args.clone()).above_home_question(), Found::Nothing);
                let (change, rounds) = diff_fully(&*operation, &before).expect("a change");
                assert!(!change.is_none() && rounds == 1, "{args}");
                let mut after = before.fact(&home, Found::Is(Status::foreseen(0o755, "ann", "ann", None)));
                for effect in &change.effects {
                    if let Effect::Answer { fact, question, answer, user: None } = effect {
                        after = after.json(fact, question, answer);
                    }
                }
                let (again, _) = diff_fully(&*operation, &after).expect("nothing");
                assert!(again.is_none(), "{args}: {:?}", steps_of(&again));
            }
        }
    }

    #[test]
    fn what_becomes_of_the_group_of_a_user_who_goes_is_foretold() {
        let group = |gid: u32, members: &[&str]| Group { gid: Some(gid), members: members.iter().map(|name| (*name).to_owned()).collect() };
        let user = |gid: u32, group: &str| FoundUser { gid: Some(gid), group: group.to_owned(), ..FoundUser::default() };
        for (settings, first, members, other, goes) in [
            ("# USERGROUPS_ENAB no\nUSERGROUPS_ENAB yes\n", "ann", &["ann"][..], "bob", true),
            ("USERGROUPS_ENAB\tno", "ann", &[], "bob", false),
            ("", "ann", &[], "bob", false),
            ("USERGROUPS_ENAB yes", "adm", &[], "bob", false),
            ("USERGROUPS_ENAB yes", "ann", &["bob"], "bob", false),
            ("USERGROUPS_ENAB yes", "ann", &[], "ann", false),
        ] {
            let groups = BTreeMap::from([("ann".to_owned(), group(7, members)), ("adm".to_owned(), group(4, &["ann", "bob"]))]);
            let table = MadeUp::new()
                .fact(&Users {}, BTreeMap::from([("ann".to_owned(), user(7, first)), ("bob".to_owned(), user(8, other))]))
                .fact(&Groups {}, groups)
                .fact(&Which { command: "useradd".to_owned() }, Some("/usr/sbin/useradd".to_owned()))
                .fact(&Text::at(LOGIN_DEFS), Found::Is(settings.to_owned()))
                .fact(&Directory::at("/home/ann"), Found::Nothing)
                .fact(&Directory::at("/home"), Found::Nothing);
            let (change, rounds) = diff_fully(&*erase(wish(json!({ "user": "ann", "present": false }))), &table).expect("a change");
            let foretold = change.effects.iter().find_map(|effect| match effect {
                Effect::Answer { fact, answer, .. } if fact == "server.groups" => Some(answer.clone()),
                _ => None,
            });
            let mut wanted = BTreeMap::from([("adm".to_owned(), group(4, &["bob"]))]);
            let left: Vec<&str> = members.iter().copied().filter(|name| *name != "ann").collect();
            wanted.extend((!goes).then(|| ("ann".to_owned(), group(7, &left))));
            assert_eq!((foretold, rounds), (Some(json!(wanted)), 1), "{settings} {first} {members:?} {other}");
        }
    }

    #[test]
    fn a_password_is_in_no_command() {
        let table = MadeUp::new()
            .fact(&Identity {}, root())
            .fact(&Users {}, BTreeMap::new())
            .fact(&Groups {}, BTreeMap::new())
            .fact(&Which { command: "useradd".to_owned() }, Some("/usr/sbin/useradd".to_owned()))
            .fact(&PasswordHash { user: "ann".to_owned() }, None)
            .fact(&Directory::at("/home/ann"), Found::Nothing)
            .fact(&Directory::at("/home"), Found::Nothing);
        let (change, _) = diff_fully(&*erase(wish(json!({ "user": "ann", "password": "$6$salt$hash" }))), &table).expect("a change");
        assert!(steps_of(&change).iter().all(|step| !step.contains("$6$")), "{:?}", steps_of(&change));
        let stdin = change.actions.iter().find_map(|action| match action {
            Action::Run(command) => command.stdin.clone(),
            _ => None,
        });
        assert_eq!(stdin.as_deref(), Some(b"ann:$6$salt$hash\n".as_slice()));
    }
}
