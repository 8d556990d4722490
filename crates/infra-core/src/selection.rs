//! Which hosts `--limit` and `--exclude` leave: names, groups, globs, ranges, and `!` for not.

use crate::diagnostic::did_you_mean;
use crate::glob;
use crate::host::HostId;
use crate::inventory::Inventory;
use crate::nodeset;

/// A pattern that cannot be used.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct SelectionError {
    /// What is wrong, as a sentence fragment.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

/// The hosts that the patterns leave, in inventory order.
///
/// Each pattern is a comma-separated list of terms: a host's name, a group's name, `all`, a glob (`web-*`, `db-?`) or names with ranges
/// (`web-[01-20]`). A term with `!` before it takes hosts away; where `limit` has only such terms, all other hosts are meant.
///
/// # Errors
/// [`SelectionError`] when a term matches no host, or when no host is left.
pub fn select(inventory: &Inventory, limit: &[String], exclude: &[String]) -> Result<Vec<HostId>, SelectionError> {
    let terms: Vec<&str> = limit.iter().flat_map(|list| nodeset::split_list(list)).collect();
    if !limit.is_empty() && terms.is_empty() {
        return Err(SelectionError { message: "--limit is empty".to_owned(), hint: Some("leave it away to mean all hosts".to_owned()) });
    }
    if !exclude.is_empty() && exclude.iter().all(|list| nodeset::split_list(list).is_empty()) {
        return Err(SelectionError { message: "--exclude is empty".to_owned(), hint: Some("leave it away to exclude none".to_owned()) });
    }
    let mut chosen = vec![terms.iter().all(|term| term.starts_with('!')); inventory.hosts.len()];
    for term in &terms {
        let (term, keep) = match term.strip_prefix('!') {
            Some(term) => (term, false),
            None => (*term, true),
        };
        matching(inventory, "--limit", term)?.into_iter().for_each(|id| chosen[id.index()] = keep);
    }
    for term in exclude.iter().flat_map(|list| nodeset::split_list(list)) {
        let (term, take) = match term.strip_prefix('!') {
            Some(term) => (term, false),
            None => (term, true),
        };
        let found = matching(inventory, "--exclude", term)?;
        if take {
            found.into_iter().for_each(|id| chosen[id.index()] = false);
        } else {
            let kept: std::collections::BTreeSet<HostId> = found.into_iter().collect();
            inventory.hosts.iter().filter(|host| !kept.contains(&host.id)).for_each(|host| chosen[host.id.index()] = false);
        }
    }
    let selected: Vec<HostId> = inventory.hosts.iter().map(|host| host.id).filter(|id| chosen[id.index()]).collect();
    if selected.is_empty() {
        let message = if inventory.hosts.is_empty() { "the inventory has no hosts" } else { "no host is selected" };
        let hint = (!inventory.hosts.is_empty()).then(|| "--limit and --exclude together leave none".to_owned());
        return Err(SelectionError { message: message.to_owned(), hint });
    }
    Ok(selected)
}

fn matching(inventory: &Inventory, option: &str, term: &str) -> Result<Vec<HostId>, SelectionError> {
    if term == "all" {
        return Ok(inventory.hosts.iter().map(|host| host.id).collect());
    }
    if let Some(group) = inventory.group(term) {
        return Ok(group.hosts.clone());
    }
    if let Some(host) = inventory.host(term) {
        return Ok(vec![host.id]);
    }
    let found: Vec<HostId> = if nodeset::has_ranges(term) {
        let names = nodeset::expand(term).map_err(|error| SelectionError { message: format!("{option} {term}: {error}"), hint: None })?;
        let names: std::collections::HashSet<String> = names.into_iter().collect();
        inventory.hosts.iter().filter(|host| names.contains(&host.name)).map(|host| host.id).collect()
    } else if term.contains(['*', '?']) {
        inventory.hosts.iter().filter(|host| glob::matches(term, &host.name)).map(|host| host.id).collect()
    } else {
        Vec::new()
    };
    if found.is_empty() {
        let known = inventory.hosts.iter().map(|host| host.name.as_str()).chain(inventory.groups.iter().map(|group| group.name.as_str()));
        return Err(SelectionError { message: format!("{option} {term} matches no host and no group"), hint: did_you_mean(term, known) });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::host::{Connector, Host};
    use crate::inventory::Group;

    fn inventory() -> Inventory {
        let names = ["web-01", "web-02", "web-03", "db-1", "@local"];
        let host = |(at, name): (usize, &&str)| Arc::new(Host::new(HostId(at as u32), *name, Connector::Ssh, *name));
        Inventory {
            hosts: names.iter().enumerate().map(host).collect(),
            groups: vec![Group { name: "web".to_owned(), hosts: vec![HostId(0), HostId(1), HostId(2)] }],
            ..Inventory::default()
        }
    }

    fn names(limit: &[&str], exclude: &[&str]) -> Result<Vec<String>, String> {
        let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let inventory = inventory();
        select(&inventory, &owned(limit), &owned(exclude))
            .map(|ids| ids.into_iter().map(|id| inventory.by_id(id).name.clone()).collect())
            .map_err(|error| match error.hint {
                Some(hint) => format!("{} | {hint}", error.message),
                None => error.message,
            })
    }

    #[test]
    fn patterns_select_in_inventory_order() {
        for (limit, exclude, wanted) in [
            (&[][..], &[][..], &["web-01", "web-02", "web-03", "db-1", "@local"][..]),
            (&["db-1,web-01"], &[], &["web-01", "db-1"]),
            (&["web"], &["web-02"], &["web-01", "web-03"]),
            (&["web-[02-03]"], &[], &["web-02", "web-03"]),
            (&["web-*", "db-?"], &[], &["web-01", "web-02", "web-03", "db-1"]),
            (&["!web"], &[], &["db-1", "@local"]),
            (&["web,!web-02"], &[], &["web-01", "web-03"]),
            (&["all"], &["*-*"], &["@local"]),
            (&[], &["!web"], &["web-01", "web-02", "web-03"]),
        ] {
            assert_eq!(names(limit, exclude), Ok(wanted.iter().map(|name| (*name).to_owned()).collect()), "{limit:?} {exclude:?}");
        }
    }

    #[test]
    fn what_matches_nothing_is_named() {
        for (limit, exclude, wanted) in [
            (&["wbe"][..], &[][..], "--limit wbe matches no host and no group | did you mean `web`?"),
            (&[], &["x*"], "--exclude x* matches no host and no group"),
            (&["web"], &["web"], "no host is selected | --limit and --exclude together leave none"),
            (&[""], &[], "--limit is empty | leave it away to mean all hosts"),
            (&[], &[""], "--exclude is empty | leave it away to exclude none"),
        ] {
            assert_eq!(names(limit, exclude), Err(wanted.to_owned()));
        }
    }
}
