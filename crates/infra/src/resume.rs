//! `infra resume`: an earlier run taken again, with what it and the runs before it have done.

use std::io::Write;
use std::sync::Arc;

use clap::Parser;
use infra_core::diagnostic::Diagnostic;
use infra_core::earlier::Earlier;
use infra_core::event::{Event, RunKind};
use infra_core::host::HostId;
use infra_core::inventory::Inventory;
use infra_core::secret::MASK;
use infra_report::journal::{Header, Record};
use infra_report::nodeset::fold_within;

use crate::arguments::{Arguments, Options, Resume, Verb};
use crate::journal::Folder;
use crate::outcome::Trouble;
use crate::settings::Settings;

/// What a run goes on from.
pub struct Resumed {
    /// The name of the run that is taken again.
    pub run: String,
    /// What it and the runs before it have done.
    pub earlier: Arc<Earlier>,
}

/// Finds the run and what is left of it, and goes to the folder that it was started in. Where nothing is left, that is said, and there is nothing to do.
///
/// # Errors
/// [`Trouble`] where there is no such run, it cannot be gone on from, or what it was started with does not hold any more.
pub fn resolve(asked: Resume) -> Result<Option<(Settings, Resumed)>, Trouble> {
    if let Some(file) = &asked.options.plan {
        let message = "a run that is gone on with cannot be saved as a plan: what the runs before it have done is no part of one";
        return Err(Diagnostic::misuse(message).hint(format!("infra INVENTORY DEPLOY --plan {}", file.display())).into());
    }
    let folder = Folder::of_user().map_err(|error| Diagnostic::misuse(format!("there is no journal: {error}")))?;
    let run = folder.find_name(asked.run.as_deref())?;
    let chain = chain(&folder, &run)?;
    let last = chain.last().expect("a run is the last of its own chain");
    may_be_resumed(&folder, last)?;
    let mut earlier = Earlier::default();
    chain.iter().for_each(|record| earlier.add(&record.header.run, &record.state));
    let headers: Vec<&Header> = chain.iter().map(|record| &record.header).collect();
    let left = earlier.left();
    if left.is_empty() {
        say(&format!("run {run} has done all of it on all its hosts, so there is nothing to go on with"));
        if asked.options.json {
            let mut document = infra_report::Json::new(Box::new(std::io::stdout()), None);
            document.event(&Event::RunStarted { kind: RunKind::Deploy, hosts: Arc::default() });
            document.event(&Event::RunEnded);
        }
        return Ok(None);
    }
    let arguments = invocation(&headers, asked.options)?;
    let root = headers[0];
    let settings = Settings::resolve(arguments)?;
    std::env::set_current_dir(&root.folder)
        .map_err(|error| Diagnostic::misuse(format!("run {run} was started in {}, which cannot be entered: {error}", root.folder)))?;
    let done = earlier.complete();
    let who = match done.is_empty() {
        true => String::new(),
        false => format!(" with {} of {} hosts; all is done on {}", left.len(), left.len() + done.len(), fold_within(done, 200)),
    };
    let command = root.invocation.iter().map(|word| infra_core::command::quote(word)).collect::<Vec<_>>().join(" ");
    say(&format!("going on from run {run} ({command}){who}"));
    Ok(Some((settings, Resumed { run, earlier: Arc::new(earlier) })))
}

/// The records of a run and of those it goes on from, the first one first.
fn chain(folder: &Folder, run: &str) -> Result<Vec<Record>, Diagnostic> {
    let mut chain: Vec<Record> = Vec::new();
    let mut next = Some(run.to_owned());
    while let Some(name) = next {
        let read = folder.read_with_outputs(&name);
        let record = read.map_err(|error| match chain.last() {
            Some(later) => {
                Diagnostic::misuse(format!("run {} goes on from run {name}, whose journal cannot be read: {error}", later.header.run))
                    .hint("without it nobody knows what is done: run the deploy again with --limit @failed,@unreached")
            }
            None => Diagnostic::misuse(format!("the journal of run {name} cannot be read: {error}")),
        })?;
        // The walk comes to an end whatever stands in the files.
        next = record.header.resumes.clone().filter(|before| *before != name && chain.iter().all(|later| later.header.run != *before));
        chain.push(record);
    }
    chain.reverse();
    Ok(chain)
}

fn may_be_resumed(folder: &Folder, record: &Record) -> Result<(), Diagnostic> {
    let run = &record.header.run;
    if record.header.kind == RunKind::Exec {
        return Err(Diagnostic::misuse(format!("run {run} was an `exec`: it has no plan that could be gone on with"))
            .hint(format!("`--limit @{run}:failed` runs a command on the hosts where it failed; `infra runs` lists the others")));
    }
    if folder.is_alive(run) {
        return Err(Diagnostic::misuse(format!("run {run} has not ended: its process is still at work"))
            .hint("wait for its end, or interrupt it with Ctrl-C"));
    }
    // Who went on from this run has done more than it knows of.
    let names = folder.names().map_err(|error| Diagnostic::misuse(format!("the journal cannot be read: {error}")))?;
    match names.iter().filter_map(|name| folder.header(name).ok()).find(|header| header.resumes.as_ref() == Some(run)) {
        Some(later) => Err(Diagnostic::misuse(format!("run {run} was gone on with already, in run {}", later.run))
            .hint(format!("infra resume {}", later.run))),
        None => Ok(()),
    }
}

/// The command line of the first run with the options of those that went on from it, and of this one, over it.
fn invocation(headers: &[&Header], options: Options) -> Result<Arguments, Diagnostic> {
    let parse = |header: &Header| {
        if header.invocation.iter().any(|word| word.contains(MASK)) {
            let message = format!("the command line of run {} held a secret, which no journal keeps", header.run);
            return Err(Diagnostic::misuse(message).hint(
                "run the deploy again with --limit @failed,@unreached; what is secret is better taken by secret.env, secret.file or secret.prompt",
            ));
        }
        Arguments::try_parse_from(&header.invocation).map_err(|error| {
            let text = error.to_string();
            let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            Diagnostic::misuse(format!("the command line of run {} is not understood any more: {why}", header.run))
        })
    };
    let (root, resumes) = headers.split_first().expect("a run is the last of its own chain");
    let mut arguments = parse(root)?;
    if let Some(Verb::Apply(apply)) = &arguments.verb {
        return Err(Diagnostic::misuse(format!(
            "run {} applied the saved plan {}, which is not gone on with",
            root.run,
            apply.file.display()
        ))
        .hint("make another plan with --plan: it has what is left to do"));
    }
    for header in resumes {
        if let Some(Verb::Resume(resume)) = parse(header)?.verb {
            arguments.options = resume.options.or(arguments.options);
        }
    }
    // A key file that is named here is looked for here, not in the folder of the run.
    let key = options.key.clone().map(|key| std::env::current_dir().map_or(key.clone(), |here| here.join(&key)));
    arguments.options = Options { key, ..options }.or(arguments.options);
    Ok(arguments)
}

impl Resumed {
    /// Those of the selected hosts on which something is left.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] where none is.
    pub fn hosts_left(&self, inventory: &Inventory, selected: Vec<HostId>) -> Result<Vec<HostId>, Diagnostic> {
        let left = self.earlier.left();
        let gone: Vec<&str> = left.iter().copied().filter(|name| inventory.host(name).is_none()).collect();
        if !gone.is_empty() {
            say(&format!("not in the inventory any more: {}", fold_within(gone, 200)));
        }
        let hosts: Vec<HostId> = selected.into_iter().filter(|id| left.contains(&inventory.by_id(*id).name.as_str())).collect();
        if hosts.is_empty() {
            return Err(Diagnostic::misuse(format!("none of the hosts that run {} left is selected", self.run))
                .hint(format!("something is left to do on {}", fold_within(left, 200))));
        }
        Ok(hosts)
    }
}

fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "infra: {line}");
}
