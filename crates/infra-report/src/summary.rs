//! What stands at the end of a run: the table of hosts, the totals, what stopped it, and the command that goes on from there.

use std::collections::BTreeMap;
use std::time::Duration;

use infra_core::command::quote;
use infra_core::event::{Outcome, RunKind, StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::{BlockId, Outlook};
use infra_core::run_state::{Accounting, Bucket, HostState, RunState};

use crate::outcome;
use crate::text::{Cell, Page, Paint, Table, bare, count, one_line, time};
use crate::{afterwards, nodeset};

/// Above this many hosts equal rows are folded into one, and so are equal lines.
pub(crate) const FEW: usize = 20;

/// The columns of the table: the label, and whether the column is there also when it is all zero.
const COLUMNS: [(&str, bool); 7] = [
    ("changed", true),
    ("no change", true),
    ("skipped", false),
    ("failed", true),
    ("ignored", false),
    ("unknown", false),
    ("not started", false),
];

/// The end of a run, as far as there is something to say.
pub(crate) fn render(state: &RunState, invocation: &[String], journal: Option<&str>, took: Option<Duration>, page: Page) -> String {
    let accounting = state.account();
    let mut text = String::new();
    if state.misused {
        text.push_str(&format!("{} Nothing was executed.\n", page.stage("-->")));
        return text;
    }
    if state.executing && state.kind == Some(RunKind::Deploy) {
        text.push_str(&format!("{} Results\n", page.stage("-->")));
        table(state, &accounting, page).lines(page).iter().for_each(|line| text.push_str(&format!("{line}\n")));
        text.push('\n');
    }
    if state.kind == Some(RunKind::Exec) {
        text.push_str(&exits(state, page));
    }
    text.push_str(&totals(&accounting, took, page));
    for bucket in Bucket::ALL.into_iter().filter(|bucket| !bucket.is_ok()) {
        let hosts: Vec<_> = accounting.hosts.iter().filter(|(_, found)| *found == bucket).map(|(id, _)| *id).collect();
        if !hosts.is_empty() {
            text.push_str(&format!("    {}: {}\n", page.bad(bucket.label()), names(state, &hosts)));
        }
    }
    if state.declined {
        text.push_str("    Nothing was executed: the question was answered with no.\n");
    }
    if let Some(reason) = &state.stopped {
        text.push_str(&format!("    {} {}\n", page.bad("stopped:"), stop_reason(state, reason)));
        for (block, hosts) in left_inside(state) {
            text.push_str(&format!("    {} {}: {}\n", page.bad("left inside"), waves_of(state, Waves::Block(block)), names(state, &hosts)));
        }
    }
    text.push_str(&afterwards::render(state, page));
    if let Some(command) = goes_on(state, &accounting, invocation, journal) {
        text.push_str(&format!("\n    To go on from there: {}\n", page.bold(&command)));
    }
    text
}

/// The table of hosts: a row each, or one for all that have equal rows where there are many.
fn table(state: &RunState, accounting: &Accounting, page: Page) -> Table {
    let fold = accounting.hosts.len() > FEW && page.verbosity == 0;
    let planned = planned(state);
    let mut rows: Vec<([usize; 7], Bucket, Vec<&str>)> = Vec::new();
    let mut places: BTreeMap<([usize; 7], Bucket), usize> = BTreeMap::new();
    for (id, bucket) in &accounting.hosts {
        let host = &state.hosts[id];
        let key = (tally(host, planned.get(id).copied().unwrap_or_default()), *bucket);
        let place = if fold { *places.entry(key).or_insert(rows.len()) } else { rows.len() };
        match rows.get_mut(place) {
            Some((.., names)) => names.push(&host.name),
            None => rows.push((key.0, key.1, vec![&host.name])),
        }
    }
    let shown: Vec<_> = (0..7).filter(|column| COLUMNS[*column].1 || rows.iter().any(|(tally, ..)| tally[*column] > 0)).collect();
    let mut heading = vec!["host".to_owned()];
    heading.extend(fold.then(|| ">hosts".to_owned()));
    heading.extend(shown.iter().map(|column| format!(">{}", COLUMNS[*column].0)));
    heading.push("state".to_owned());
    let mut table = Table::new(&heading.iter().map(String::as_str).collect::<Vec<_>>());
    for (tally, bucket, names) in rows {
        let mut cells: Vec<Cell> = vec![(one_line(&nodeset::fold_within(names.iter().copied(), 40)), bare)];
        cells.extend(fold.then(|| (names.len().to_string(), bare as Paint)));
        cells.extend(shown.iter().map(|column| {
            let paint: Paint = match (tally[*column], COLUMNS[*column].0) {
                (0, _) => Page::dim,
                (_, "changed" | "ignored") => Page::change,
                (_, "failed" | "unknown") => Page::bad,
                _ => bare,
            };
            (if tally[*column] == 0 { "-".to_owned() } else { tally[*column].to_string() }, paint)
        }));
        cells.push((bucket.label().to_owned(), paint(bucket)));
        table.row(cells);
    }
    table
}

/// How many operations are planned on each host.
pub(crate) fn planned(state: &RunState) -> BTreeMap<HostId, usize> {
    let mut planned = BTreeMap::new();
    for host in state.plan.iter().flat_map(|plan| &plan.operations).flat_map(|operation| &operation.hosts) {
        *planned.entry(host.host).or_default() += 1;
    }
    planned
}

fn tally(host: &HostState, planned: usize) -> [usize; 7] {
    let mut tally = [0; 7];
    for result in host.results.values() {
        tally[match &result.outcome {
            Outcome::Changed { .. } | Outcome::Elsewhere { ok: true, changed: true, .. } => 0,
            Outcome::Unchanged { .. } | Outcome::Elsewhere { ok: true, changed: false, .. } => 1,
            Outcome::Skipped { .. } | Outcome::Earlier { .. } => 2,
            Outcome::Failed { ignored: false, .. } | Outcome::Elsewhere { ok: false, .. } => 3,
            Outcome::Failed { ignored: true, .. } => 4,
            Outcome::Indeterminate { .. } => 5,
        }] += 1;
    }
    tally[6] = planned.saturating_sub(host.results.len());
    tally
}

fn paint(bucket: Bucket) -> Paint {
    match bucket {
        Bucket::Changed | Bucket::PlannedChanges => Page::change,
        Bucket::Unchanged | Bucket::PlannedNone | Bucket::Ok => Page::good,
        _ => Page::bad,
    }
}

/// `5 hosts: 4 changed, 1 unreachable (in 3.2 s)`.
fn totals(accounting: &Accounting, took: Option<Duration>, page: Page) -> String {
    let counts = accounting.counts();
    // What went well stands first, as a person asks for it.
    let (well, not): (Vec<_>, Vec<_>) = counts.into_iter().partition(|(bucket, _)| bucket.is_ok());
    let parts = well.into_iter().chain(not).map(|(bucket, number)| paint(bucket)(page, &format!("{number} {}", bucket.label())));
    let took = took.map(|took| format!(" (in {})", time(took))).unwrap_or_default();
    let hosts = page.bold(&count(accounting.hosts.len(), "host"));
    format!("{hosts}: {}{took}\n", parts.collect::<Vec<_>>().join(", "))
}

/// For `exec`: how the command ended where it did not end well, equal endings once, and which one that was where there are several.
fn exits(state: &RunState, page: Page) -> String {
    let operations = state.plan.iter().flat_map(|plan| &plan.operations);
    let several = operations.flat_map(|operation| &operation.hosts).any(|host| match &host.outlook {
        Outlook::Change { steps, .. } => steps.len() > 1,
        _ => false,
    });
    let mut endings: Vec<(String, Vec<&str>)> = Vec::new();
    for host in state.hosts.values() {
        let failed = host.results.values().find_map(|result| outcome::failure(&result.outcome));
        if let Some(failure) = failed {
            let step = failure.step.as_deref().filter(|_| several).map_or_else(String::new, |step| outcome::step(step, "    "));
            let ending = format!("{}\n{step}", page.bad(&outcome::message(failure)));
            match endings.iter_mut().find(|(known, _)| *known == ending) {
                Some((_, names)) => names.push(&host.name),
                None => endings.push((ending, vec![&host.name])),
            }
        }
    }
    endings.into_iter().map(|(ending, names)| format!("[{}] {ending}", nodeset::fold_within(names, 60))).collect()
}

/// The hosts that went into a block and did not come to its end, by block: what the block takes away from them at its beginning is not given back.
fn left_inside(state: &RunState) -> BTreeMap<BlockId, Vec<HostId>> {
    let mut found: BTreeMap<(BlockId, HostId), (bool, bool)> = BTreeMap::new();
    for operation in state.plan.iter().flat_map(|plan| &plan.operations) {
        let Some(block) = operation.blocks.first() else { continue };
        for host in &operation.hosts {
            let result = state.hosts.get(&host.host).and_then(|host| host.results.get(&operation.id));
            let (began, left) = found.entry((*block, host.host)).or_default();
            *began |= result.is_some_and(|result| !matches!(result.outcome, Outcome::Skipped { .. } | Outcome::Elsewhere { .. }));
            *left |= result.is_none();
        }
    }
    let mut inside: BTreeMap<BlockId, Vec<HostId>> = BTreeMap::new();
    for ((block, host), _) in found.into_iter().filter(|(_, (began, left))| *began && *left) {
        inside.entry(block).or_default().push(host);
    }
    inside
}

/// The names of hosts, folded; of very many the first ones and a number.
fn names(state: &RunState, hosts: &[HostId]) -> String {
    nodeset::fold_within(hosts.iter().map(|id| state.hosts[id].name.as_str()), 1000)
}

/// Which rule stopped the run, and its arithmetic.
pub(crate) fn stop_reason(state: &RunState, reason: &StopReason) -> String {
    let host = |id: &HostId| state.hosts.get(id).map_or("?", |host| host.name.as_str());
    let title = |op: &infra_core::plan::OpId| {
        let operation = state.plan.as_ref().and_then(|plan| plan.operations.get(op.index()));
        operation.map_or_else(|| "?".to_owned(), |operation| one_line(&operation.title))
    };
    match reason {
        StopReason::FailFast { host: id } => format!("{} is not ok, and --fail-fast allows no such host", host(id)),
        StopReason::WaveFailed { of, wave, not_ok, entered, allowed } => {
            let are = if *not_ok == 1 { "is" } else { "are" };
            let whose = waves_of(state, *of);
            format!("of the {} that entered wave {wave} of {whose} {not_ok} {are} not ok, and {allowed} may be", count(*entered, "host"))
        }
        StopReason::FailPercent { not_ok, selected, allowed } => {
            let are = if *not_ok == 1 { "is" } else { "are" };
            let share = 100.0 * *not_ok as f64 / (*selected).max(1) as f64;
            let share = (share * 10.0).round() / 10.0;
            format!(
                "of the {} {not_ok} {are} not ok, which is {share} %, and --fail-percent allows {allowed} %",
                count(*selected, "selected host")
            )
        }
        StopReason::RunOnceFailed { op, host: id } => format!("«{}», which runs once for all its hosts, failed on {}", title(op), host(id)),
        StopReason::Interrupted => "interrupted".to_owned(),
        StopReason::NoHostLeft => "no host is left that is ok".to_owned(),
    }
}

/// What goes in waves, in words.
pub(crate) fn waves_of(state: &RunState, of: Waves) -> String {
    let plan = state.plan.as_ref();
    let title = match of {
        Waves::Operation(op) => plan.and_then(|plan| plan.operations.get(op.index())).map(|operation| operation.title.as_str()),
        Waves::Block(block) => plan.and_then(|plan| plan.blocks.get(block.index())).map(|block| block.title.as_str()),
        Waves::Run => return "the run".to_owned(),
    };
    title.map_or_else(|| "?".to_owned(), |title| format!("«{}»", one_line(title)))
}

/// The command line that does the rest: `infra resume` where the journal of a deploy can be relied on; else the same, limited to the hosts that are not as they should be. Many of them are named by the run's
/// place in the journal, which stays right when other runs have followed.
fn goes_on(state: &RunState, accounting: &Accounting, invocation: &[String], journal: Option<&str>) -> Option<String> {
    let rest: Vec<_> = accounting.hosts.iter().filter(|(_, bucket)| !bucket.is_ok()).map(|(id, _)| state.hosts[id].name.as_str()).collect();
    let repeats = matches!(state.kind, Some(RunKind::Deploy | RunKind::Exec));
    if rest.is_empty() || !repeats || state.declined || invocation.is_empty() {
        return None;
    }
    // A saved plan is not gone on with: another one is made.
    if invocation.get(1).is_some_and(|word| word == "apply") {
        return None;
    }
    // What a deploy has done stands in its journal: from there it goes on with the rest alone.
    let done_something = state.hosts.values().any(|host| !host.results.is_empty());
    if let (Some(run), true, Some(RunKind::Deploy)) = (journal, done_something, state.kind) {
        return Some(words(&[invocation[0].clone(), "resume".to_owned(), run.to_owned()]));
    }
    // Where all hosts are left, the way on is the command that was just typed.
    if rest.len() == accounting.hosts.len() {
        return None;
    }
    let list = match journal {
        _ if rest.len() <= FEW => rest.join(","),
        None => nodeset::fold_parts(rest).join(","),
        Some(run) => {
            let unreached = accounting.count(Bucket::NotReached);
            let terms = [("failed", rest.len() > unreached), ("unreached", unreached > 0)];
            let terms = terms.into_iter().filter(|(_, any)| *any).map(|(word, _)| format!("@{run}:{word}"));
            terms.collect::<Vec<_>>().join(",")
        }
    };
    // What stands behind `--` is not ours.
    let end = invocation.iter().position(|word| word == "--").unwrap_or(invocation.len());
    let mut kept = Vec::new();
    let mut ours = invocation[..end].iter();
    while let Some(word) = ours.next() {
        if word == "--limit" {
            ours.next();
        } else if !word.starts_with("--limit=") {
            kept.push(word.clone());
        }
    }
    kept.extend(["--limit".to_owned(), list]);
    kept.extend_from_slice(&invocation[end..]);
    Some(words(&kept))
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| one_line(&quote(word))).collect::<Vec<_>>().join(" ")
}
