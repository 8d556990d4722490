//! The operation `apt.packages`.

use std::collections::{BTreeMap, BTreeSet};

use infra_core::change::{Action, Change};
use infra_core::command::{Command, Shell};
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::Resources;
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::accounts::yes;
use crate::facts::apt::candidates::{Candidate, Candidates};
use crate::facts::apt::last_update::LastUpdate;
use crate::facts::apt::upgrades::Upgrades;
use crate::facts::deb::architecture::Architecture;
use crate::facts::deb::held::Held;
use crate::facts::deb::packages::Packages as Installed;
use crate::facts::deb::provided::Provided;
use crate::facts::deb::remains::{CONFIG_FILES, Remains};
use crate::packaging::{UPDATE, apt_get, apt_update, listed, touched_by_packages};

/// Installs, upgrades or removes packages.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Packages {
    /// The names of the packages, each perhaps with `:architecture` and with `=version`, which may end in `*`.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Whether they shall be installed.
    #[serde(default = "yes")]
    pub present: bool,
    /// Upgrade those that are installed in an older version than apt would install; ones that are held stay.
    #[serde(default)]
    pub latest: bool,
    /// Bring the package index up to date first, where packages are to be installed or looked at for a newer version.
    #[serde(default)]
    pub update: bool,
    /// How old the index may be, in seconds, and still be taken as up to date by `update`.
    pub cache_time: Option<u64>,
    /// Upgrade all packages of the host first, as `apt-get upgrade` does.
    #[serde(default)]
    pub upgrade: bool,
    /// Install what is not signed, and change what is held or essential.
    #[serde(default)]
    pub force: bool,
    /// Leave out packages that are recommended only.
    #[serde(default)]
    pub no_recommends: bool,
    /// Install an older version where it is asked for.
    #[serde(default)]
    pub allow_downgrades: bool,
    /// Remove configuration files as well, also those of packages that were removed before.
    #[serde(default)]
    pub purge: bool,
    /// More arguments of `apt-get install`, one word each.
    #[serde(default)]
    pub extra_install_args: Vec<String>,
    /// More arguments of `apt-get remove`, one word each.
    #[serde(default)]
    pub extra_uninstall_args: Vec<String>,
}

/// A name as a person gives it, in its parts.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    /// The name with its architecture, as apt takes it.
    name: &'a str,
    /// The version, perhaps with a star at its end.
    version: Option<&'a str>,
}

impl<'a> Wanted<'a> {
    fn read(text: &'a str) -> Self {
        match text.split_once('=') {
            Some((name, version)) => Self { name, version: Some(version) },
            None => Self { name: text, version: None },
        }
    }

    /// The name under which facts have it: without the host's own architecture.
    fn key(&self, native: &str) -> &'a str {
        match self.name.split_once(':') {
            Some((name, architecture)) if architecture == native || architecture == "all" => name,
            _ => self.name,
        }
    }

    fn is_met_by(&self, versions: &[String]) -> bool {
        match self.version {
            None => !versions.is_empty(),
            Some(version) => match version.strip_suffix('*') {
                Some(start) => versions.iter().any(|installed| installed.starts_with(start)),
                None => versions.iter().any(|installed| installed == version),
            },
        }
    }

    fn is_name(&self) -> bool {
        let (name, architecture) = self.name.split_once(':').unwrap_or((self.name, "any"));
        let plain = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        plain(name, "+.-_") && plain(architecture, "-") && self.version.is_none_or(|version| plain(version, ".+:~-*"))
    }
}

impl Operation for Packages {
    const NAME: &'static str = "apt.packages";
    const DOC: &'static str = "Installs packages, upgrades them, or removes them.\n\n\
        It changes nothing when they are installed, in the version that is asked for if one is, or not installed where `present` is false. A name \
        that an installed package provides counts as installed. With `latest` it changes nothing when apt would install nothing newer; with \
        `update` as well but without `cache_time`, that is not known before the index was read, so it counts as a change each time. Configuration \
        files that were changed on the host are left as they are. It cannot know which other packages come or go along.";

    fn check(&self) -> Result<(), Misuse> {
        if self.packages.is_empty() && !self.upgrade {
            return Err(Misuse::new("there is nothing to do: `packages` is empty").hint("write packages = { \"nginx\" }"));
        }
        if self.cache_time.is_some() && !self.update {
            return Err(Misuse::new("`cache_time` says nothing without `update`").hint("write update = true, cache_time = 3600"));
        }
        if !self.present && (self.latest || self.update) {
            let word = if self.latest { "latest" } else { "update" };
            return Err(Misuse::new(format!("`present = false` and `{word} = true` cannot both be")));
        }
        if self.present && self.purge {
            return Err(Misuse::new("`purge` says nothing without `present = false`"));
        }
        match self.packages.iter().find(|text| !Wanted::read(text).is_name()) {
            Some(text) => Err(Misuse::new(format!("`{text}` is no name of a package"))
                .hint("write one package by its name, with =VERSION where it shall be that one; a release goes into extra_install_args")),
            None => Ok(()),
        }
    }

    fn touches(&self) -> Resources {
        touched_by_packages()
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        // All are asked before any answer is looked at, so that one round answers them.
        let installed = facts.get((&Architecture {}, &Installed {}));
        let upgrades = self.upgrade.then(|| facts.get(&Upgrades {})).transpose();
        let age = self.cache_time.map(|_| facts.get(&LastUpdate {})).transpose();
        let newer = (self.present && self.latest).then(|| facts.get((&self.candidates(), &Held {}))).transpose();
        // apt refuses to change these, unless it is forced to.
        let versions = self.packages.iter().any(|text| Wanted::read(text).version.is_some());
        let kept = (!self.force && (versions || !self.present)).then(|| facts.get(&Held {})).transpose();
        let others = if self.present {
            facts.get(&Provided {}).map(|provided| (provided, BTreeMap::new()))
        } else {
            facts.get(&Remains {}).map(|remains| (BTreeMap::new(), remains))
        };
        let (native, installed) = installed?;
        let (upgrades, age, newer, kept, (provided, remains)) = (upgrades?, age?, newer?, kept?.unwrap_or_default(), others?);
        let Some(native) = native else {
            return Err(DiffError::refused("there is no dpkg on this host: apt.packages is for Debian and its kin"));
        };
        let upgrades = upgrades.unwrap_or_default();
        if !self.present {
            return self.remove(&native, &installed, &remains, &upgrades, &kept);
        }

        let stale = self.update && age.flatten().is_none_or(|age| self.cache_time.is_none_or(|cache_time| age > cache_time));
        let (candidates, held) = newer.unwrap_or_default();
        let mut wanted: Vec<&str> = Vec::new();
        for text in &self.packages {
            let want = Wanted::read(text);
            let key = want.key(&native);
            let versions = installed.get(key).map(Vec::as_slice).unwrap_or_default();
            let by_another = want.version.is_none() && provided.contains_key(want.name) && versions.is_empty();
            if !by_another && !want.is_met_by(versions) {
                wanted.push(text);
            } else if self.latest && want.version.is_none() && !by_another && !held.contains(key) {
                let found = candidates.get(want.name).or_else(|| candidates.get(key));
                let newer = found.is_some_and(|found| found.candidate.is_some() && found.candidate != found.installed);
                if newer || stale {
                    wanted.push(text);
                }
            }
        }
        let upgrade = self.upgrade && (stale || !upgrades.is_empty());
        if wanted.is_empty() && !upgrade {
            return Ok(Change::none(match (self.packages.is_empty(), self.latest) {
                (true, _) => "nothing to upgrade",
                (false, true) => "installed, nothing newer",
                (false, false) => "already installed",
            }));
        }
        refuse_held(wanted.iter().map(|text| Wanted::read(text)).filter(|want| installed.contains_key(want.key(&native))), &kept, &native)?;
        if !stale && !self.latest && !wanted.is_empty() {
            self.refuse_unknown(facts, &wanted, &native)?;
        }
        let mut said = Vec::new();
        let mut change = Change::default().touching(touched_by_packages());
        if stale {
            said.push("update".to_owned());
            change = change.run(apt_update());
        }
        if upgrade {
            said.push(if upgrades.is_empty() { "upgrade".to_owned() } else { upgrading(upgrades.len()) });
            change = change.then(change_packages(sh!("{} upgrade", apt_get())));
        }
        if !wanted.is_empty() {
            said.push(format!("install {}", listed(&wanted)));
            change = change.then(change_packages(sh!("{} install{} -- {}", apt_get(), self.install_options(), wanted)));
        }
        change.reason = said.join(", ");
        Ok(if stale { change.answer(&LastUpdate {}, &Some(0)) } else { change })
    }

    fn examples() -> Vec<Example> {
        let installed = || {
            let all = [("bash", "5.2.15-2"), ("postfix", "3.7.11-0"), ("nginx", "1.22.1-9")];
            all.map(|(name, version)| (name.to_owned(), vec![version.to_owned()])).into_iter().collect::<BTreeMap<_, _>>()
        };
        let provided = || BTreeMap::from([("mail-transport-agent".to_owned(), vec!["postfix".to_owned()])]);
        let amd64 = || Some("amd64".to_owned());
        let debian = |title, args| {
            let held = BTreeSet::from(["postfix".to_owned()]);
            Example::new(title, args).fact(&Architecture {}, amd64()).fact(&Installed {}, installed()).fact(&Held {}, held)
        };
        let asked = |names: &[&str]| Candidates { packages: names.iter().map(|name| (*name).to_owned()).collect() };
        let known = |names: &[&str]| {
            let nothing = Candidate { installed: None, candidate: Some("1".to_owned()) };
            names.iter().map(|name| ((*name).to_owned(), nothing.clone())).collect::<BTreeMap<_, _>>()
        };
        let install = |title, args| debian(title, args).fact(&Provided {}, provided());
        let remove = |title, args| {
            let remains = BTreeMap::from([("exim4".to_owned(), CONFIG_FILES.to_owned())]);
            debian(title, args).fact(&Remains {}, remains)
        };
        let question = Candidates { packages: vec!["nginx".to_owned()] };
        let candidate = |version: &str| {
            let nginx = Candidate { installed: Some("1.22.1-9".to_owned()), candidate: Some(version.to_owned()) };
            BTreeMap::from([("nginx".to_owned(), nginx)])
        };
        vec![
            install("Install what is missing", json!({ "packages": ["bash", "git", "curl"] }))
                .fact(&asked(&["git", "curl"]), known(&["git", "curl"]))
                .steps(["DEBIAN_FRONTEND=noninteractive apt-get -y -o 'DPkg::Lock::Timeout=600' -o 'Dpkg::Options::=--force-confdef' -o \
                 'Dpkg::Options::=--force-confold' install -- git curl"]),
            install("They are installed", json!({ "packages": ["bash", "nginx:amd64", "nginx=1.22.*"] })).nothing("already installed"),
            install("Another package provides it", json!({ "packages": "mail-transport-agent" })).nothing("already installed"),
            install("Update the index first where it is too old", json!({ "packages": "git", "update": true, "cache_time": 3600 }))
                .fact(&LastUpdate {}, Some(7200))
                .steps([
                    UPDATE,
                    "DEBIAN_FRONTEND=noninteractive apt-get -y -o 'DPkg::Lock::Timeout=600' -o 'Dpkg::Options::=--force-confdef' -o \
                     'Dpkg::Options::=--force-confold' install -- git",
                ]),
            install("No update where nothing is missing", json!({ "packages": "nginx", "update": true })).nothing("already installed"),
            install("One version, and no recommended packages", json!({ "packages": "nginx=1.24.0-2", "no_recommends": true }))
                .fact(&question, candidate("1.22.1-10"))
                .steps(["DEBIAN_FRONTEND=noninteractive apt-get -y -o 'DPkg::Lock::Timeout=600' -o 'Dpkg::Options::=--force-confdef' -o \
                 'Dpkg::Options::=--force-confold' install --no-install-recommends -- 'nginx=1.24.0-2'"]),
            install("The newest version", json!({ "packages": "nginx", "latest": true }))
                .fact(&question, candidate("1.22.1-10"))
                .fact(&Held {}, Default::default())
                .steps(["DEBIAN_FRONTEND=noninteractive apt-get -y -o 'DPkg::Lock::Timeout=600' -o 'Dpkg::Options::=--force-confdef' -o \
                     'Dpkg::Options::=--force-confold' install -- nginx"]),
            install("The newest version is installed", json!({ "packages": "nginx", "latest": true }))
                .fact(&question, candidate("1.22.1-9"))
                .fact(&Held {}, Default::default())
                .nothing("nothing newer"),
            install("One that is held stays", json!({ "packages": "nginx", "latest": true }))
                .fact(&question, candidate("1.22.1-10"))
                .fact(&Held {}, ["nginx".to_owned()].into())
                .nothing("nothing newer"),
            install("A name that is misspelt", json!({ "packages": ["git", "crul"] }))
                .fact(&asked(&["git", "crul"]), known(&["git"]))
                .refused("apt knows no package crul"),
            install("Another version of one that is held", json!({ "packages": "postfix=3.8" }))
                .fact(&asked(&["postfix"]), known(&["postfix"]))
                .refused("postfix is held"),
            remove("One that is held is not removed either", json!({ "packages": "postfix", "present": false })).refused("postfix is held"),
            remove("Remove packages", json!({ "packages": ["nginx", "exim4", "git"], "present": false }))
                .steps(["DEBIAN_FRONTEND=noninteractive apt-get -y -o 'DPkg::Lock::Timeout=600' -o 'Dpkg::Options::=--force-confdef' -o \
                 'Dpkg::Options::=--force-confold' remove -- nginx"]),
            remove("Remove configuration files that were left", json!({ "packages": "exim4", "present": false, "purge": true }))
                .steps(["DEBIAN_FRONTEND=noninteractive apt-get -y -o 'DPkg::Lock::Timeout=600' -o 'Dpkg::Options::=--force-confdef' -o \
                 'Dpkg::Options::=--force-confold' purge -- exim4"]),
            remove("They are gone", json!({ "packages": ["git", "exim4"], "present": false })).nothing("not installed"),
            Example::new("A host without dpkg", json!({ "packages": "git" }))
                .fact(&Architecture {}, None)
                .fact(&Installed {}, BTreeMap::new())
                .fact(&Provided {}, BTreeMap::new())
                .refused("there is no dpkg on this host"),
        ]
    }
}

impl Packages {
    fn candidates(&self) -> Candidates {
        let names = self.packages.iter().map(|text| Wanted::read(text).name.to_owned());
        Candidates { packages: names.collect() }
    }

    fn remove(
        &self,
        native: &str,
        installed: &BTreeMap<String, Vec<String>>,
        remains: &BTreeMap<String, String>,
        upgrades: &BTreeMap<String, String>,
        kept: &BTreeSet<String>,
    ) -> Result<Change, DiffError> {
        let is_there = |want: &Wanted<'_>| match (installed.get(want.key(native)), remains.get(want.key(native))) {
            (Some(versions), _) => want.is_met_by(versions),
            (None, Some(state)) => want.version.is_none() && (self.purge || state != CONFIG_FILES),
            (None, None) => false,
        };
        let wanted: Vec<Wanted<'_>> = self.packages.iter().map(|text| Wanted::read(text)).filter(is_there).collect();
        let names: Vec<&str> = wanted.iter().map(|want| want.name).collect();
        let upgrade = self.upgrade && !upgrades.is_empty();
        if names.is_empty() && !upgrade {
            return Ok(Change::none("not installed"));
        }
        refuse_held(wanted.iter().copied(), kept, native)?;
        let mut said = Vec::new();
        let mut change = Change::default().touching(touched_by_packages());
        if upgrade {
            said.push(upgrading(upgrades.len()));
            change = change.then(change_packages(sh!("{} upgrade", apt_get())));
        }
        if !names.is_empty() {
            let verb = if self.purge { "purge" } else { "remove" };
            said.push(format!("{verb} {}", listed(&names)));
            let mut options: Vec<&str> = Vec::new();
            options.extend(self.force.then_some("--allow-remove-essential"));
            options.extend(self.force.then_some("--allow-change-held-packages"));
            options.extend(self.extra_uninstall_args.iter().map(String::as_str));
            change = change.then(change_packages(sh!("{} {}{} -- {}", apt_get(), verb, spaced(&options), names)));
        }
        change.reason = said.join(", ");
        Ok(change)
    }

    /// Refuses names that apt has never heard of, where its index is not read again before.
    fn refuse_unknown(&self, facts: &Facts<'_>, wanted: &[&str], native: &str) -> Result<(), DiffError> {
        let names: Vec<Wanted<'_>> = wanted.iter().map(|text| Wanted::read(text)).collect();
        let question = Candidates { packages: names.iter().map(|want| want.name.to_owned()).collect() };
        let known = match facts.get(&question) {
            Ok(known) => known,
            Err(DiffError::Missing) => return Err(DiffError::Missing),
            // An earlier operation may change the index: then apt itself will say.
            Err(_) => return Ok(()),
        };
        let is_known = |want: &Wanted<'_>| known.contains_key(want.name) || known.contains_key(want.key(native));
        let unknown: Vec<&str> = names.iter().filter(|want| !is_known(want)).map(|want| want.name).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let packages = if unknown.len() == 1 { "package" } else { "packages" };
        Err(DiffError::refused_with_hint(
            format!("apt knows no {packages} {}", listed(&unknown)),
            "is the name right? update = true reads the package index again first",
        ))
    }

    fn install_options(&self) -> Shell {
        let mut options: Vec<&str> = Vec::new();
        options.extend(self.no_recommends.then_some("--no-install-recommends"));
        options.extend((self.allow_downgrades || self.force).then_some("--allow-downgrades"));
        if self.force {
            options.extend(["--allow-unauthenticated", "--allow-remove-essential", "--allow-change-held-packages"]);
        }
        options.extend(self.extra_install_args.iter().map(String::as_str));
        spaced(&options)
    }
}

/// Refuses to change packages that are held at their version, as apt does.
fn refuse_held<'a>(wanted: impl Iterator<Item = Wanted<'a>>, kept: &BTreeSet<String>, native: &str) -> Result<(), DiffError> {
    let held: Vec<&str> = wanted.filter(|want| kept.contains(want.key(native))).map(|want| want.name).collect();
    if held.is_empty() {
        return Ok(());
    }
    let are = if held.len() == 1 { "is" } else { "are" };
    let hint = format!("`apt-mark unhold {}` on the host lets go, force = true changes it all the same", held.join(" "));
    Err(DiffError::refused_with_hint(format!("{} {are} held at the version that is installed", listed(&held)), hint))
}

/// `upgrade 1 package`: for a person.
fn upgrading(count: usize) -> String {
    format!("upgrade {count} package{}", if count == 1 { "" } else { "s" })
}

/// Each word with a space before it, so that none of them is no space.
fn spaced(words: &[&str]) -> Shell {
    Shell::join("", words.iter().map(|word| sh!(" {}", word)))
}

/// A step that starts and stops services as packages do.
fn change_packages(script: Shell) -> Action {
    Action::Run(Command::new(script).leaving_processes())
}

#[cfg(test)]
mod tests {
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully, steps_of};

    use super::*;

    fn wish(args: serde_json::Value) -> Packages {
        serde_json::from_value(args).expect("arguments")
    }

    #[test]
    fn what_cannot_be_meant_is_misuse() {
        for args in [
            json!({}),
            json!({ "packages": ["nginx php"] }),
            json!({ "packages": ["nginx/bookworm-backports"] }),
            json!({ "packages": ["--reinstall"] }),
            json!({ "packages": ["nginx="] }),
            json!({ "packages": ["nginx"], "cache_time": 60 }),
            json!({ "packages": ["nginx"], "present": false, "latest": true }),
            json!({ "packages": ["nginx"], "purge": true }),
        ] {
            assert!(wish(args.clone()).check().is_err(), "{args}");
        }
        for name in ["g++", "libc6:i386", "nginx=1:1.22.1~rc1-9+deb12u1", "python3.11", "nginx=1.22.*"] {
            assert!(wish(json!({ "packages": [name] })).check().is_ok(), "{name}");
        }
    }

    fn table() -> MadeUp {
        let installed = ["bash", "libc6:i386"].map(|name| (name.to_owned(), vec!["1".to_owned()]));
        MadeUp::new()
            .fact(&Architecture {}, Some("amd64".to_owned()))
            .fact(&Installed {}, installed.into_iter().collect())
            .fact(&Provided {}, BTreeMap::new())
            .fact(&Upgrades {}, BTreeMap::from([("bash".to_owned(), "2".to_owned())]))
    }

    /// The same, where apt knows this package.
    fn known(name: &str) -> MadeUp {
        let candidate = Candidate { installed: None, candidate: Some("1".to_owned()) };
        table().fact(&Candidates { packages: vec![name.to_owned()] }, BTreeMap::from([(name.to_owned(), candidate)]))
    }

    #[test]
    fn what_apt_may_not_change_is_refused_unless_it_is_forced() {
        let table = known("bash").fact(&Held {}, BTreeSet::from(["bash".to_owned()]));
        for args in [json!({ "packages": ["bash=2"] }), json!({ "packages": ["bash"], "present": false })] {
            let table = table.clone().fact(&Remains {}, BTreeMap::new());
            let error = diff_fully(&*erase(wish(args.clone())), &table).expect_err("it is held");
            assert_eq!(error.to_string(), "bash is held at the version that is installed", "{args}");
            let mut forced = args.clone();
            forced["force"] = json!(true);
            assert_eq!(diff_fully(&*erase(wish(forced)), &table).expect("a change").0.actions.len(), 1, "{args}");
        }
        assert!(diff_fully(&*erase(wish(json!({ "packages": ["bash=1"] }))), &table).expect("nothing").0.is_none());
    }

    #[test]
    fn a_foreign_package_is_not_the_hosts_own() {
        for (name, steps) in [("libc6", 1), ("libc6:i386", 0), ("libc6:amd64", 1), ("bash:amd64", 0), ("bash:i386", 1)] {
            let (change, rounds) = diff_fully(&*erase(wish(json!({ "packages": [name] }))), &known(name)).expect("a change");
            // What is not installed is looked up in the index.
            assert_eq!((change.actions.len(), rounds), (steps, 1 + steps), "{name}");
        }
    }

    #[test]
    fn an_upgrade_comes_before_what_is_installed() {
        let (change, _) = diff_fully(&*erase(wish(json!({ "packages": ["git"], "upgrade": true }))), &known("git")).expect("a change");
        let steps = steps_of(&change);
        assert!(steps.len() == 2 && steps[0].ends_with(" upgrade") && steps[1].ends_with(" install -- git"), "{steps:?}");
        let nothing = table().fact(&Upgrades {}, BTreeMap::new());
        assert!(diff_fully(&*erase(wish(json!({ "packages": ["bash"], "upgrade": true }))), &nothing).expect("nothing").0.is_none());
    }

    #[test]
    fn what_is_new_in_a_stale_index_is_not_known() {
        let operation = erase(wish(json!({ "packages": ["bash"], "latest": true, "update": true, "cache_time": 60 })));
        let same = Candidate { installed: Some("1".to_owned()), candidate: Some("1".to_owned()) };
        let question = Candidates { packages: vec!["bash".to_owned()] };
        let table = table().fact(&question, BTreeMap::from([("bash".to_owned(), same)])).fact(&Held {}, Default::default());
        for (age, steps) in [(Some(59), 0), (Some(61), 2), (None, 2)] {
            let (change, _) = diff_fully(&*operation, &table.clone().fact(&LastUpdate {}, age)).expect("a change");
            assert_eq!(change.actions.len(), steps, "{age:?}");
        }
    }
}
