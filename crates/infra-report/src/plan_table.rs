//! The plan, before it is executed.

use std::collections::BTreeMap;

use infra_core::earlier::{Continuation, EarlierNote};
use infra_core::event::RunKind;
use infra_core::host::HostId;
use infra_core::plan::{BlockId, HostOutlook, Outlook, Plan, PlannedBlock, PlannedOperation};
use infra_core::run_state::RunState;
use infra_core::script::{BlockKind, Rolling};
use infra_core::waves::{Batch, Share};

use crate::diffs::{self, Bounds};
use crate::nodeset;
use crate::outcome::step;
use crate::settings::Controls;
use crate::text::{Cell, Page, Paint, Table, bare, count, cut, one_line};

/// Above this many operations those with nothing to do are only counted, unless more is asked for.
const ROWS: usize = 20;

/// So many lines of a file's diff are shown at verbosity 1.
const DIFF_LINES: usize = 40;

/// Above this many operations that no earlier run had they are only counted, unless more is asked for.
const AFRESH: usize = 10;

/// How many columns the names of hosts may take beside their number.
const NAMES: usize = 24;

/// The table of operations, the totals, and what a failure leads to. With `texts` the details show what changes in files.
pub(crate) fn render(state: &RunState, plan: &Plan, controls: &Controls, texts: bool, page: Page) -> String {
    let hosts = plan.operations.iter().flat_map(|operation| &operation.hosts).map(|one| one.host);
    let hosts = hosts.collect::<std::collections::BTreeSet<_>>().len();
    let mut text = format!("{} Plan\n", page.stage("-->"));
    if plan.operations.is_empty() {
        text.push_str("    The deploy registers no operation on any host.\n");
        return text;
    }
    let size = format!("{} on {}", count(plan.operations.len(), "operation"), count(hosts, "host"));
    let nothing = plan.is_none();
    if nothing {
        text.push_str(&format!("    {}: {size}, and all is as wished.\n", page.good("Nothing to change")));
    }
    if !nothing || page.verbosity > 0 {
        let hide = page.verbosity == 0 && plan.operations.len() > ROWS;
        let idle = |operation: &&PlannedOperation| operation.hosts.iter().all(|host| host.outlook.is_none());
        let hidden = if hide { plan.operations.iter().filter(idle).count() } else { 0 };
        let shown: Vec<_> = plan.operations.iter().filter(|operation| hidden == 0 || !idle(operation)).collect();
        text.push_str(&table(state, plan, &shown, texts, page));
        if hidden > 0 {
            text.push_str(&format!("    … and {} with nothing to do (-v shows them)\n", count(hidden, "operation")));
        }
    }
    if !nothing {
        let tally = |matching: fn(&Outlook) -> bool| {
            plan.operations.iter().flat_map(|operation| &operation.hosts).filter(|host| matching(&host.outlook)).count()
        };
        let (change, none) = (tally(Outlook::is_change), tally(Outlook::is_none));
        let depends = tally(|outlook| matches!(outlook, Outlook::Depends { on: Some(_), .. }));
        let open = tally(|outlook| matches!(outlook, Outlook::Depends { on: None, .. }));
        let parts =
            [(change, "will change"), (none, "no change"), (depends, "depending on an earlier one"), (open, "decided when the turn comes")];
        let parts: Vec<_> = parts.into_iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
        text.push_str(&format!("\n    {size}: {}.\n", parts.join(", ")));
        if state.kind == Some(RunKind::Deploy) {
            for rule in rules(state, plan, controls) {
                text.push_str(&format!("    {}\n", page.dim(&rule)));
            }
        }
    }
    text.push_str(&earlier(state, plan, page));
    if page.verbosity > 0 {
        for note in &plan.notes {
            text.push_str(&format!("    {} {}\n", page.dim("note:"), one_line(note)));
        }
    }
    text
}

/// Where the run goes on from earlier ones: what of theirs is not run again, and what they do not answer for.
fn earlier(state: &RunState, plan: &Plan, page: Page) -> String {
    let mut text = String::new();
    let new = plan.earlier.iter().filter(|note| note.what == Continuation::New).count();
    for EarlierNote { op, what, hosts } in &plan.earlier {
        let what = match what {
            Continuation::Done { run } => format!("done in run {}, not run again:", one_line(run)),
            Continuation::Indeterminate => "run again, since what came of it is not known:".to_owned(),
            Continuation::Owed { run } => format!("changed in run {}, which counts for what is left:", one_line(run)),
            Continuation::Edited => "planned afresh, since it is not what it was:".to_owned(),
            Continuation::New if new > AFRESH && page.verbosity == 0 => continue,
            Continuation::New => "planned afresh, since no earlier run had it:".to_owned(),
        };
        let names = hosts.iter().filter_map(|host| state.hosts.get(host)).map(|host| host.name.as_str());
        let hosts = nodeset::fold_within(names, 60);
        let title = one_line(&plan.operation(*op).title);
        text.push_str(&format!("    {} «{title}» on {hosts}\n", page.change(&what)));
    }
    if new > AFRESH && page.verbosity == 0 {
        let what = page.change("planned afresh, since no earlier run had them:");
        text.push_str(&format!("    {what} {} (-v names them)\n", count(new, "operation")));
    }
    text
}

/// What is done with hosts that are not ok, and who goes when where that is not as usual.
fn rules(state: &RunState, plan: &Plan, controls: &Controls) -> Vec<String> {
    let mut rules = Vec::new();
    if controls.serial {
        rules.push("Host by host: each goes through all its operations before the next begins (--serial).".to_owned());
    }
    if controls.no_wait {
        rules.push("No host waits for another between operations (--no-wait).".to_owned());
    }
    if let Some(parallel) = controls.parallel {
        rules.push(format!("At most {} at work at once (--parallel).", count(parallel, "host")));
    }
    rules.push(match controls.fail_fast {
        true => "At the first host that is not ok nothing new is started on any host (--fail-fast).".to_owned(),
        false => "A host that fails takes no further part; the others go on.".to_owned(),
    });
    if let Some(percent) = controls.fail_percent {
        let selected = state.hosts.len();
        rules.push(format!(
            "When more than {percent} % of the {} are not ok, nothing new is started (--fail-percent).",
            count(selected, "host")
        ));
    }
    let waves = plan.operations.iter().any(|operation| operation.serial.is_some())
        || plan.blocks.iter().any(|block| matches!(block.kind, BlockKind::Rolling(_)));
    if waves {
        rules.push("After a wave in which more hosts are not ok than it allows no further wave starts, and the run stops.".to_owned());
    }
    if controls.serial {
        // Each wave is one host.
        rules.push(match controls.max_fail.of(1) {
            0 => "When a host is not ok, the hosts after it are not begun, and the run stops.".to_owned(),
            _ => "A host that is not ok does not hold back those after it (--max-fail).".to_owned(),
        });
    }
    rules
}

/// A block's row: its title and how it goes through its hosts. The kind is left out where the title begins with it.
fn block_row(block: &PlannedBlock, depth: usize, page: Page) -> String {
    let (kind, mut how) = match &block.kind {
        BlockKind::Parallel => ("parallel", Vec::new()),
        BlockKind::Rolling(Rolling { batch, max_fail, pause }) => {
            let mut how = vec![waves(batch)];
            how.extend(max_fail.filter(|share| *share != Share::NONE).map(|share| format!("{share} may fail")));
            how.extend((*pause > 0.0).then(|| format!("{pause} s between them")));
            ("rolling", how)
        }
    };
    if !block.title.starts_with(kind) {
        how.insert(0, kind.to_owned());
    }
    let how = if how.is_empty() { String::new() } else { format!(" ({})", how.join(", ")) };
    let space = "  ".repeat(depth);
    let room = page.width.saturating_sub(4 + space.len() + how.len()).max(12);
    format!("    {space}{}{}\n", page.bold(&cut(&one_line(&block.title), room)), page.dim(&how))
}

/// The sizes of waves, in words.
fn waves(batch: &Batch) -> String {
    if *batch == Batch::one() { "one host at a time".to_owned() } else { format!("waves of {batch}") }
}

fn table(state: &RunState, plan: &Plan, operations: &[&PlannedOperation], texts: bool, page: Page) -> String {
    let build = |names: bool| {
        let mut table = Table::new(&["operation", "change", "no change", "depends on"]).last_gives_way();
        operations.iter().for_each(|operation| table.row(row(state, operation, names)));
        table
    };
    let with_names = build(true);
    let table = if with_names.width_with(NAMES) + 4 <= page.width { with_names } else { build(false) };
    let mut lines = table.lines(page).into_iter();
    let mut text = format!("{}\n", lines.next().unwrap_or_default());
    let mut around: &[BlockId] = &[];
    for (line, operation) in lines.zip(operations) {
        let same = around.iter().zip(&operation.blocks).take_while(|(before, now)| before == now).count();
        for (depth, block) in operation.blocks.iter().enumerate().skip(same) {
            text.push_str(&plan.blocks.get(block.index()).map(|block| block_row(block, depth, page)).unwrap_or_default());
        }
        around = &operation.blocks;
        text.push_str(&format!("{line}\n"));
        if page.verbosity > 0 {
            text.push_str(&details(state, operation, texts, page));
        }
    }
    text
}

fn row(state: &RunState, operation: &PlannedOperation, with_names: bool) -> Vec<Cell> {
    let of =
        |matching: fn(&Outlook) -> bool| -> Vec<&HostOutlook> { operation.hosts.iter().filter(|host| matching(&host.outlook)).collect() };
    // The names tell something only where the hosts of an operation differ.
    let cell = |hosts: &[&HostOutlook]| {
        if hosts.is_empty() {
            return "-".to_owned();
        }
        let names = nodeset::fold(hosts.iter().map(|host| name(state, host.host)));
        let telling = with_names && hosts.len() < operation.hosts.len() && console::measure_text_width(&names) <= NAMES;
        if telling { format!("{} {names}", hosts.len()) } else { hosts.len().to_string() }
    };
    let depends = of(|outlook| matches!(outlook, Outlook::Depends { .. }));
    let mut on: Vec<Option<&str>> = depends
        .iter()
        .filter_map(|host| match &host.outlook {
            Outlook::Depends { on, .. } => Some(on.as_deref()),
            _ => None,
        })
        .collect();
    on.dedup();
    let on = match on.as_slice() {
        [] => String::new(),
        [Some(one)] => format!(" on «{}»", one_line(one)),
        [None] => ", decided in its turn".to_owned(),
        [Some(first), ..] => format!(" on «{}» and others", one_line(first)),
        [None, ..] => ", decided in its turn, and others".to_owned(),
    };
    let painted = |text: String, paint: Paint| if text == "-" { (text, Page::dim as Paint) } else { (text, paint) };
    let (change, none) = (cell(&of(Outlook::is_change)), cell(&of(Outlook::is_none)));
    let depends = format!("{}{on}", cell(&depends));
    let title = format!("{}{}", "  ".repeat(operation.blocks.len()), one_line(&operation.title));
    vec![(title, bare), painted(change, Page::change), painted(none, Page::good), painted(depends, Page::open)]
}

fn name(state: &RunState, host: HostId) -> &str {
    state.hosts.get(&host).map_or("?", |host| host.name.as_str())
}

/// What stands below an operation's row: its place, and for each outlook its hosts, its reason and its steps.
fn details(state: &RunState, operation: &PlannedOperation, with_texts: bool, page: Page) -> String {
    let mut about: Vec<String> = vec![operation.kind.clone()];
    about.extend(operation.location.as_ref().map(|location| one_line(&location.to_string())));
    about.extend(operation.serial.as_ref().map(waves));
    about.extend(operation.run_once.then(|| "on one host only".to_owned()));
    let mut text = format!("        {}\n", page.dim(&about.join(", ")));
    // Equal outlooks are shown once, in the order of the first host of each.
    let mut order: Vec<(&Outlook, Vec<HostId>)> = Vec::new();
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for host in &operation.hosts {
        let key = serde_json::to_string(&host.outlook).expect("an outlook is data of the JSON model");
        let place = *places.entry(key).or_insert(order.len());
        match order.get_mut(place) {
            Some((_, hosts)) => hosts.push(host.host),
            None => order.push((&host.outlook, vec![host.host])),
        }
    }
    for (outlook, hosts) in order {
        let names = nodeset::fold_within(hosts.iter().map(|host| name(state, *host)), page.width.saturating_sub(30).max(24));
        let (what, reason) = match outlook {
            Outlook::Change { reason, .. } => (page.change("change"), one_line(reason)),
            Outlook::NoChange { reason } => (page.good("no change"), one_line(reason)),
            Outlook::Depends { on, would } => {
                let would = would.as_ref().map(|would| format!(" (as the host stands now: {})", one_line(would))).unwrap_or_default();
                match on {
                    Some(on) => (page.open("depends"), format!("on «{}»{would}", one_line(on))),
                    None => (page.open("open"), format!("decided by the script when its turn comes{would}")),
                }
            }
        };
        let reason = if reason.is_empty() { reason } else { format!(": {reason}") };
        text.push_str(&format!("        [{names}] {what}{reason}\n"));
        if let Outlook::Change { steps, texts, .. } = outlook {
            steps.iter().for_each(|one| text.push_str(&step(one, "            ")));
            for change in texts.iter().filter(|_| with_texts) {
                text.push_str(&diffs::inline(change, &mut Bounds::of_file(page.verbosity, DIFF_LINES), "            ", page));
            }
        }
    }
    text
}
