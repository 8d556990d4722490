//! `@failed`, `@unreached`, `@RUN:failed` and `@RUN:unreached` in `--limit` and `--exclude`: the hosts of an earlier run.

use infra_core::diagnostic::Diagnostic;
use infra_core::inventory::Inventory;
use infra_core::nodeset;

/// Which hosts of a run are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Failed, indeterminate or unreachable.
    Failed,
    /// Not reached.
    Unreached,
}

/// What the journal says to a term: the run's name, and the names of the hosts.
pub struct Found {
    /// The run.
    pub run: String,
    /// The hosts that stand so.
    pub hosts: Vec<String>,
}

/// The patterns with hosts in the place of such terms.
#[derive(Debug, PartialEq)]
pub struct Selected {
    /// Patterns of `--limit`.
    pub limit: Vec<String>,
    /// Patterns of `--exclude`.
    pub exclude: Vec<String>,
    /// What a person is to know, a line each.
    pub said: Vec<String>,
}

/// What the patterns come to.
#[derive(Debug, PartialEq)]
pub enum Resolved {
    /// Patterns to select by.
    Select(Selected),
    /// No host stands so: there is nothing to do, which is well. Why, in a line.
    NothingToDo(String),
}

/// Puts hosts of earlier runs in the place of the terms that mean them; `find` asks the journal.
///
/// # Errors
/// A misuse [`Diagnostic`] where there is no such run, or all of its hosts have left the inventory.
pub fn resolve(
    limit: &[String],
    exclude: &[String],
    inventory: &Inventory,
    find: impl Fn(Option<&str>, Which) -> Result<Found, Diagnostic>,
) -> Result<Resolved, Diagnostic> {
    let mut selected = Selected { limit: Vec::new(), exclude: Vec::new(), said: Vec::new() };
    let mut nobody: Vec<String> = Vec::new();
    let mut gone: Option<Diagnostic> = None;
    for (option, patterns) in [("--limit", limit), ("--exclude", exclude)] {
        let mut out: Vec<String> = Vec::new();
        for term in patterns.iter().flat_map(|list| nodeset::split_list(list)) {
            let (not, name) = term.strip_prefix('!').map_or(("", term), |name| ("!", name));
            let Some((run, which)) = parse(name) else {
                out.push(term.to_owned());
                continue;
            };
            let found = find(run, which).map_err(|error| Diagnostic { message: format!("{option} {term}: {}", error.message), ..error })?;
            let (known, lost): (Vec<_>, Vec<_>) = found.hosts.iter().partition(|host| inventory.host(host).is_some());
            if !lost.is_empty() {
                let names = infra_report::nodeset::fold_within(lost.iter().map(|name| name.as_str()), 200);
                selected.said.push(format!("{option} {term}: not in the inventory any more: {names}"));
            }
            // What keeps hosts must keep some; what takes hosts away may take none.
            let keeps = (option == "--limit") == not.is_empty();
            if keeps && found.hosts.is_empty() {
                let state = if which == Which::Failed { "failed" } else { "was left unreached" };
                nobody.push(format!("{option} {term}: no host {state} in run {}, so there is nothing to do", found.run));
            } else if keeps && known.is_empty() {
                gone = Some(Diagnostic::misuse(format!("{option} {term}: none of its hosts is in the inventory")));
            }
            out.extend(known.into_iter().map(|host| format!("{not}{host}")));
        }
        // An option that was empty as it was typed stays so, and is refused as such.
        let empty = patterns.iter().all(|list| nodeset::split_list(list).is_empty());
        let left = if empty { patterns.to_vec() } else { out };
        match option {
            "--limit" => selected.limit = left,
            _ => selected.exclude = left,
        }
    }
    let keeps_some = selected.limit.iter().any(|term| !term.starts_with('!')) || selected.exclude.iter().any(|term| term.starts_with('!'));
    match (keeps_some, gone, nobody.first()) {
        (false, Some(gone), _) => Err(gone),
        (false, None, Some(_)) => Ok(Resolved::NothingToDo(nobody.join("\n"))),
        _ => Ok(Resolved::Select(selected)),
    }
}

/// The run and which of its hosts, where a term means those; connectors are other words after an `@`.
fn parse(term: &str) -> Option<(Option<&str>, Which)> {
    let term = term.strip_prefix('@')?;
    let which = |word: &str| match word {
        "failed" => Some(Which::Failed),
        "unreached" => Some(Which::Unreached),
        _ => None,
    };
    match term.rsplit_once(':') {
        None => Some((None, which(term)?)),
        // Names of connectors with a slash, such as @ssh/HOST:PORT, are not ours.
        Some((run, word)) if !run.contains('/') => Some((Some(run), which(word)?)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "20261121T001530-ab12";

    /// Five hosts, of which b and @local failed in the last run and c was not reached; in the named run z failed and none was left unreached.
    fn resolved(limit: &[&str], exclude: &[&str]) -> Result<Resolved, String> {
        let inventory = infra_core::inventory_builder::from_host_list("a,b,c,d,@local", infra_core::Map::new()).expect("hosts");
        let find = |run: Option<&str>, which| {
            let hosts: &[&str] = match (run, which) {
                (None, Which::Failed) => &["b", "@local", "gone"],
                (None, Which::Unreached) => &["c"],
                (Some(RUN), Which::Failed) => &["z"],
                (Some(RUN), Which::Unreached) => &[],
                _ => return Err(Diagnostic::misuse("there is no such run")),
            };
            Ok(Found { run: run.unwrap_or("last").to_owned(), hosts: hosts.iter().map(|host| (*host).to_owned()).collect() })
        };
        let own = |terms: &[&str]| terms.iter().map(|term| (*term).to_owned()).collect::<Vec<_>>();
        resolve(&own(limit), &own(exclude), &inventory, find).map_err(|error| error.message)
    }

    fn selected(limit: &[&str], exclude: &[&str]) -> (Vec<String>, Vec<String>, usize) {
        match resolved(limit, exclude) {
            Ok(Resolved::Select(Selected { limit, exclude, said })) => (limit, exclude, said.len()),
            other => panic!("{other:?}"),
        }
    }

    fn own(limit: &[&str], exclude: &[&str], said: usize) -> (Vec<String>, Vec<String>, usize) {
        let own = |terms: &[&str]| terms.iter().map(|term| (*term).to_owned()).collect();
        (own(limit), own(exclude), said)
    }

    #[test]
    fn hosts_stand_in_the_place_of_their_terms() {
        assert_eq!(selected(&["@failed"], &[]), own(&["b", "@local"], &[], 1));
        assert_eq!(selected(&["d,@unreached", "@failed"], &["@local"]), own(&["d", "c", "b", "@local"], &["@local"], 1));
        assert_eq!(selected(&["!@failed"], &[]), own(&["!b", "!@local"], &[], 1));
        assert_eq!(selected(&[], &["@unreached"]), own(&[], &["c"], 0));
        assert_eq!(selected(&[], &["!@unreached"]), own(&[], &["!c"], 0));
    }

    #[test]
    fn other_terms_are_left_alone() {
        let words = ["@local", "@ssh/failed", "@ssh/h:22", "@ssh/x:failed", "web-[01-02]", "failed", "!@local"];
        assert_eq!(selected(&words, &[]), own(&words, &[], 0));
        assert_eq!(selected(&[], &[]), own(&[], &[], 0));
        assert_eq!(selected(&[""], &[]), own(&[""], &[], 0));
    }

    #[test]
    fn nobody_is_nothing_to_do() {
        let term = format!("@{RUN}:unreached");
        let word = format!("--limit {term}: no host was left unreached in run {RUN}, so there is nothing to do");
        assert_eq!(resolved(&[&term], &[]), Ok(Resolved::NothingToDo(word)));
        assert!(matches!(resolved(&[], &[&format!("!{term}")]), Ok(Resolved::NothingToDo(_))));
        // Beside others, and where hosts are taken away, it means nobody.
        assert_eq!(selected(&[&format!("a,{term}")], &[&term]), own(&["a"], &[], 0));
        assert_eq!(selected(&[&format!("!{term}")], &[]), own(&[], &[], 0));
    }

    #[test]
    fn runs_and_hosts_that_are_not_there_are_named() {
        assert_eq!(resolved(&["@last:failed"], &[]), Err("--limit @last:failed: there is no such run".to_owned()));
        let term = format!("@{RUN}:failed");
        assert_eq!(resolved(&[&term], &[]), Err(format!("--limit {term}: none of its hosts is in the inventory")));
        assert_eq!(selected(&["a"], &[&term]), own(&["a"], &[], 1));
    }
}
