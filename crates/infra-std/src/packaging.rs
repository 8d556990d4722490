//! What operations and facts about packages share.

use std::collections::BTreeSet;

use infra_core::command::Shell;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;

/// How long apt and dpkg wait for another one that holds their lock, in seconds.
pub const LOCK_TIMEOUT: u32 = 600;

/// What dpkg-query(1) prints of every package in this format; nothing where there is no dpkg.
pub fn dpkg_query(format: &str) -> Shell {
    sh!("if command -v dpkg-query >/dev/null 2>&1; then dpkg-query -W -f {}; fi", format)
}

/// The name of a package as facts have it: with its architecture where that is not the host's own.
pub fn name_of(package: &str, architecture: &str, native: Option<&str>) -> String {
    let own = architecture == "all" || native.is_none_or(|native| architecture == native);
    if own { package.to_owned() } else { format!("{package}:{architecture}") }
}

/// The host's own architecture: that of dpkg itself, among lines of fields that begin with state, name and architecture.
pub fn native_architecture(text: &str) -> Option<&str> {
    let dpkg = text.lines().find_map(|line| line.strip_prefix("installed\tdpkg\t"))?;
    dpkg.split('\t').next()
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
