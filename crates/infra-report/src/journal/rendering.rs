//! Runs of the journal, for people and as JSON.

use std::collections::BTreeMap;

use infra_core::command::quote;
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_core::run_state::HostState;
use infra_core::{Map, Value};
use serde_json::json;

use super::moment::readable;
use super::{Record, VERSION};
use crate::text::{Page, Paint, Table, bare, one_line, time};
use crate::{json as document, nodeset, outcome, summary};

/// The runs as a table, a line each, in the order given. It ends with a newline.
pub fn render_runs(records: &[Record], width: u16, colour: bool) -> String {
    let page = Page { colour, width: usize::from(width), verbosity: 0 };
    let mut table = Table::new(&["what", ">hosts", "run", "when (UTC)", "kind", "result"]).last_gives_way();
    for record in records {
        let paint: Paint = match record.exit_code {
            // 3 tells of changes, where that was asked for.
            Some(0 | 3) => Page::good,
            None if record.at_work() => bare,
            _ => Page::bad,
        };
        table.row(vec![
            (what(record), bare),
            (record.header.hosts.len().to_string(), bare),
            (record.header.run.clone(), bare),
            (readable(record.started), bare),
            (kind(record), bare),
            (result(record), paint),
        ]);
    }
    let lines = table.lines(Page { width: page.width + 4, ..page });
    lines.iter().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect()
}

/// A run: when and what, each host's state, the failures with their last output, and what was in flight where it was cut off.
pub fn render_run(record: &Record, verbosity: u8, width: u16, colour: bool) -> String {
    let page = Page { colour, width: usize::from(width.max(48)), verbosity };
    let header = &record.header;
    let end = match record.exit_code {
        None if record.at_work() => "still at work".to_owned(),
        None => page.bad(&format!("cut off {} later", time(record.took()))),
        Some(_) => format!("took {}", time(record.took())),
    };
    let mut text = format!("{} ({}), begun {} UTC, {end}\n", page.bold(&header.run), kind(record), readable(record.started));
    text.push_str(&format!("    {}\n    in {}\n", words(&header.invocation), one_line(&header.folder)));
    if let Some(run) = &header.resumes {
        text.push_str(&format!("    going on from run {}\n", one_line(run)));
    }
    // Equal failures of an operation are shown once, with their hosts.
    let mut failures: Vec<(OpId, String, Vec<&HostState>)> = Vec::new();
    let mut places: BTreeMap<(OpId, String), usize> = BTreeMap::new();
    for host in record.state.hosts.values() {
        for reason in host.unreachable.iter().chain(host.failed.as_ref().map(|(_, message)| message)) {
            text.push_str(&format!("[{}] {}\n", one_line(&host.name), one_line(reason)));
        }
        for (op, result) in &host.results {
            let Some(failure) = outcome::failure(&result.outcome) else { continue };
            let operation = record.state.plan.as_ref().and_then(|plan| plan.operations.get(op.index()));
            let title = operation.map(|operation| format!("{}: ", one_line(&operation.title))).unwrap_or_default();
            let words = outcome::words(result, "", page);
            let said = format!("{title}{words}\n{}", outcome::block(failure, operation, true, page));
            let place = *places.entry((*op, said.clone())).or_insert(failures.len());
            match failures.get_mut(place) {
                Some((.., hosts)) => hosts.push(host),
                None => failures.push((*op, said, vec![host])),
            }
        }
    }
    failures.sort_by_key(|(op, ..)| *op);
    for (_, said, hosts) in failures {
        let names = nodeset::fold_within(hosts.iter().map(|host| host.name.as_str()), 60);
        text.push_str(&format!("[{names}] {said}"));
    }
    if verbosity > 0 {
        text.push_str(&within_calls(record, page));
    }
    if record.exit_code.is_none() {
        let (mark, why) = match record.at_work() {
            true => ("at work:".to_owned(), "the run has not come to its end yet; by now"),
            false => (page.bad("cut off:"), "the journal has no end: infra was killed"),
        };
        let so_far = if record.at_work() { format!(" {}", counts(record)) } else { String::new() };
        text.push_str(&format!("{mark} {why}{so_far}\n"));
        for flight in &record.in_flight {
            let host = record.state.hosts.get(&flight.host).map_or("?", |host| host.name.as_str());
            let operation = record.state.plan.as_ref().and_then(|plan| plan.operations.get(flight.op.index()));
            let title = operation.map(|operation| one_line(&operation.title)).unwrap_or_default();
            text.push_str(&format!("    in flight: [{}] {title}\n", one_line(host)));
        }
    }
    if record.at_work() {
        return text;
    }
    text.push_str(&summary::render(&record.state, &header.invocation, Some(&header.run), Some(record.took()), page));
    text
}

/// What ended in the bodies of `call`, a line each.
fn within_calls(record: &Record, page: Page) -> String {
    let line = |host: &HostId, op: &OpId, one: &super::WithinCall| {
        let host = record.state.hosts.get(host).map_or("?", |host| host.name.as_str());
        let call = record.state.plan.as_ref().and_then(|plan| plan.operations.get(op.index()));
        let call = call.map(|operation| one_line(&operation.title)).unwrap_or_default();
        format!("[{}] {call} › {}: {}\n", one_line(host), one_line(&one.title), outcome::words(&one.result, "", page))
    };
    let of_call =
        |((host, op), all): (&(HostId, OpId), &Vec<super::WithinCall>)| all.iter().map(|one| line(host, op, one)).collect::<String>();
    record.within.iter().map(of_call).collect()
}

/// The runs as one JSON document. It ends with a newline.
pub fn runs_document(records: &[Record]) -> String {
    let runs: Vec<Value> = records
        .iter()
        .map(|record| {
            let mut value = about(record);
            let counts = record.state.account().counts();
            let mut totals = Map::from_iter([("hosts".to_owned(), json!(record.header.hosts.len()))]);
            totals.extend(counts.into_iter().map(|(bucket, number)| (document::key(bucket), json!(number))));
            value.insert("totals".into(), Value::Object(totals));
            value.insert("exit_code".into(), json!(record.exit_code));
            Value::Object(value)
        })
        .collect();
    document::text(&json!({ "version": VERSION, "runs": runs }))
}

/// A run as one JSON document: that of `--json`, without outputs and steps, and what the journal knows besides. It ends with a newline.
pub fn run_document(record: &Record) -> String {
    let mut value = about(record);
    let name = |host| record.state.hosts.get(&host).map_or("?", |host| host.name.as_str());
    let in_flight = record.in_flight.iter();
    let in_flight = in_flight.map(|one| json!({ "operation": one.op, "host": name(one.host), "since": one.since, "step": one.step }));
    value.insert("in_flight".into(), in_flight.collect());
    let Value::Object(run) = document::of_record(record) else { return document::text(&Value::Object(value)) };
    value.extend(run.into_iter().filter(|(key, _)| key != "version" && key != "kind"));
    value.insert("exit_code".into(), json!(record.exit_code));
    document::text(&Value::Object(value))
}

fn about(record: &Record) -> Map {
    let header = &record.header;
    let members = [
        ("version", json!(VERSION)),
        ("run", json!(header.run)),
        ("started", json!(record.started)),
        ("ended", json!(record.exit_code.map(|_| record.last))),
        ("cut_off", json!(record.cut_off())),
        ("at_work", json!(record.at_work())),
        ("kind", json!(header.kind)),
        ("invocation", json!(header.invocation)),
        ("resumes", json!(header.resumes)),
        ("inventory", json!(header.inventory)),
        ("folder", json!(header.folder)),
    ];
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn kind(record: &Record) -> String {
    json!(record.header.kind).as_str().unwrap_or_default().to_owned()
}

/// The command line without the program.
fn what(record: &Record) -> String {
    words(record.header.invocation.get(1..).unwrap_or_default())
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| one_line(&quote(word))).collect::<Vec<_>>().join(" ")
}

/// `3 changed, 1 failed`, and whether a proof failed; before it where the run has no end.
fn result(record: &Record) -> String {
    let end = match record.exit_code {
        None if record.at_work() => "at work: ",
        None => "cut off: ",
        Some(_) => "",
    };
    format!("{end}{}", counts(record))
}

fn counts(record: &Record) -> String {
    let counts = record.state.account().counts();
    let (well, not): (Vec<_>, Vec<_>) = counts.into_iter().partition(|(bucket, _)| bucket.is_ok());
    let mut parts: Vec<_> = well.into_iter().chain(not).map(|(bucket, number)| format!("{number} {}", bucket.label())).collect();
    if record.state.proof.as_ref().is_some_and(|proof| !proof.holds()) {
        parts.push("not proved".to_owned());
    }
    parts.join(", ")
}
