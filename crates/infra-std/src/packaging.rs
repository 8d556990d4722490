//! What operations and facts about packages share.

use std::collections::BTreeSet;

use infra_core::command::Shell;
use infra_core::fact::ParseError;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;

/// How long apt and dpkg wait for another one that holds their lock, in seconds.
pub const LOCK_TIMEOUT: u32 = 600;

/// A package as dpkg-query(1) has it, whatever its state.
pub struct Package<'t> {
    /// What dpkg is to do with it: `install`, `hold`.
    pub wanted: &'t str,
    /// How far that is done: `installed`, `config-files`.
    pub state: &'t str,
    /// The name by itself.
    pub name: &'t str,
    /// The architecture; `all` where it is for each.
    pub architecture: &'t str,
    /// The version; empty where none is known.
    pub version: &'t str,
    /// The virtual packages that it provides, as deb-control(5) has them.
    pub provides: &'t str,
}

impl<'t> Package<'t> {
    fn read(line: &'t str) -> Result<Self, ParseError> {
        let fields: Vec<&str> = line.split('\t').collect();
        let [wanted, state, name, architecture, version, provides] = fields[..] else {
            return Err(ParseError::new(format!("expected the six fields of a package, got `{line}`")));
        };
        Ok(Self { wanted, state, name, architecture, version, provides })
    }

    /// The name as facts have it: with its architecture where that is not the host's own.
    pub fn name_for(&self, native: Option<&str>) -> String {
        let own = self.architecture == "all" || native.is_none_or(|native| self.architecture == native);
        if own { self.name.to_owned() } else { format!("{}:{}", self.name, self.architecture) }
    }
}

/// Prints all packages that dpkg knows; nothing where there is no dpkg. All facts about them ask for the same, so that it is read once for all of them.
pub fn dpkg_query() -> Shell {
    let format = "${db:Status-Want}\\t${db:Status-Status}\\t${Package}\\t${Architecture}\\t${Version}\\t${Provides}\\n";
    sh!("if command -v dpkg-query >/dev/null 2>&1; then dpkg-query -W -f {}; fi", format)
}

/// The packages in what [`dpkg_query`] printed.
///
/// # Errors
/// [`ParseError`] when the text is not that.
pub fn read_packages(text: &str) -> Result<Vec<Package<'_>>, ParseError> {
    text.lines().map(Package::read).collect()
}

/// The host's own architecture, which is that of dpkg itself.
pub fn native_architecture<'t>(packages: &[Package<'t>]) -> Option<&'t str> {
    packages.iter().find(|package| package.state == "installed" && package.name == "dpkg").map(|dpkg| dpkg.architecture)
}

/// Brings the package index up to date and notes when.
///
/// Unlike other locks of apt, that of the lists has no option to wait for it, so the script does. A source that cannot be read is a
/// failure:
/// by itself apt-get(8) would go on with what it has.
pub const UPDATE: &str = "waited=0
while :; do
  status=0
  { said=$(DEBIAN_FRONTEND=noninteractive apt-get -o APT::Update::Error-Mode=any update 2>&1 >&3) || status=$?; } 3>&1
  printf '%s\\n' \"$said\" >&2
  if [ $status = 0 ]; then break; fi
  case $said in *\"Could not get lock\"*) ;; *) exit $status ;; esac
  if [ $waited -ge 600 ]; then exit $status; fi
  sleep 5
  waited=$((waited + 5))
done
mkdir -p /var/lib/apt/periodic && touch /var/lib/apt/periodic/update-success-stamp";

/// [`UPDATE`] as a command.
pub fn apt_update() -> Shell {
    Shell::fill(UPDATE, &[]).expect("the text has no holes")
}

/// What bringing the package index up to date touches.
pub fn touched_by_update() -> Resources {
    Resources::only(["/var/lib/apt", "/var/cache/apt"].map(|tree| Resource::Tree(tree.to_owned())))
}

/// The words that begin a command of apt-get(8) that changes packages: it asks nothing, waits for locks, and leaves configuration files
/// that were
/// changed on the host as they are.
pub fn apt_get() -> Shell {
    let lock = format!("DPkg::Lock::Timeout={LOCK_TIMEOUT}");
    let (new, old) = ("Dpkg::Options::=--force-confdef", "Dpkg::Options::=--force-confold");
    sh!("DEBIAN_FRONTEND=noninteractive apt-get -y -o {} -o {} -o {}", lock, new, old)
}

/// What installing, upgrading and removing packages may touch: what their files and their scripts change. The homes of users are not among
/// it.
pub fn touched_by_packages() -> Resources {
    // Built by hand: what a package drops into /etc/profile.d counts from the next login on, so the session is not touched.
    let trees = ["/etc", "/usr", "/var", "/lib", "/lib64", "/bin", "/sbin", "/opt", "/srv", "/boot", "/run"];
    let trees = trees.map(|tree| Resource::Tree(tree.to_owned()));
    let spaces = [Resource::Packages, Resource::Services, Resource::Users, Resource::Kernel, Resource::Network];
    Resources::Only(trees.into_iter().chain(spaces).collect::<BTreeSet<_>>())
}

/// `a`, `a and b`, `a, b and 3 more`: names for a person, not too many.
pub fn listed<S: AsRef<str>>(names: &[S]) -> String {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    match names.as_slice() {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] if names.len() <= 6 => format!("{} and {last}", first.join(", ")),
        more => format!("{} and {} more", more[..5].join(", "), more.len() - 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_listed_for_people() {
        assert_eq!(listed::<&str>(&[]), "");
        assert_eq!(listed(&["a"]), "a");
        assert_eq!(listed(&["a", "b"]), "a and b");
        assert_eq!(listed(&["a", "b", "c", "d", "e", "f", "g", "h"]), "a, b, c, d, e and 3 more");
    }
}
