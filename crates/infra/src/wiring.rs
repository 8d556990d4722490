//! Puts the crates together and runs what is meant.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use infra_core::diagnostic::Diagnostic;
use infra_core::event::{Event, Journal, Reporter, RunKind};
use infra_core::host::HostId;
use infra_core::inventory::Inventory;
use infra_core::registry::Registry;
use infra_core::run_state::RunState;
use infra_core::saved_plan::BasisRecord;
use infra_core::script::{FactRequest, Language};
use infra_core::secret::Secrets;
use infra_core::{inventory_builder, selection};
use infra_engine::Run;
use infra_lua::World;
use infra_report::{ExecOutput, ScreenSettings};

use crate::ad_hoc::AdHoc;
use crate::approval::Question;
use crate::earlier_hosts::{Found, Resolved, Selected, Which};
use crate::exec::{Exec, Input, Spool, What};
use crate::journal::{Folder, RunJournal};
use crate::out_folder::{Failed, OutFolder};
use crate::outcome::Trouble;
use crate::passwords::AtTerminal as Passwords;
use crate::questions::Gate;
use crate::remembered::Recording;
use crate::reporting::Reporting;
use crate::results::{Quiet, Results};
use crate::resume::Resumed;
use crate::saved_plans::{self, Saved};
use crate::settings::{Lock, Settings, Source, Task};
use crate::terminal_questions::AtTerminal;
use crate::world::Controller;
use crate::{ad_hoc, copying, earlier_hosts, interrupts};

/// Where a run comes from.
pub enum Origin {
    /// From what was typed alone.
    Typed,
    /// From an earlier run.
    Resumed(Resumed),
    /// From a saved plan.
    Saved(Box<Saved>),
}

/// Does what the settings say, and gives the exit code.
///
/// # Errors
/// [`Trouble`] when it ended before a run could begin.
pub async fn run(settings: Settings, origin: Origin) -> Result<u8, Trouble> {
    let secrets = Secrets::default();
    run_with(settings, origin, secrets.clone()).await.map_err(|trouble| trouble.masked(&secrets))
}

async fn run_with(settings: Settings, origin: Origin, secrets: Secrets) -> Result<u8, Trouble> {
    let (resumed, saved) = match origin {
        Origin::Typed => (None, None),
        Origin::Resumed(resumed) => (Some(resumed), None),
        Origin::Saved(saved) => (None, Some(saved)),
    };
    let started = Instant::now();
    let mut results = Results::new();
    let (interrupter, interrupts) = interrupts::count().map_err(|error| Trouble::failure(format!("signals cannot be caught: {error}")))?;
    let folder = std::env::current_dir().map_err(|error| Trouble::failure(format!("there is no working directory: {error}")))?;
    let gate = Gate::default();
    let controller = Arc::new(Controller::new(folder.clone(), secrets.clone(), gate.clone()));
    let recording = match &settings.plan {
        Some(file) => {
            saved_plans::may_be_written(file)?;
            let salt = saved_plans::salt().map_err(|error| Trouble::failure(format!("there is no chance to be had: {error}")))?;
            secrets.salt_openly(salt.as_str());
            Some(Arc::new(Recording::new(controller.clone(), salt)))
        }
        None => None,
    };
    if let Some(saved) = &saved {
        secrets.salt_openly(saved.plan.basis.salt.as_str());
    }
    let replaying = saved.as_ref().map(|saved| Arc::new(saved.controller(controller.clone())));
    if let (Some(replaying), Some(saved)) = (&replaying, &saved) {
        let mut interrupted = interrupts.clone();
        tokio::select! {
            same = replaying.check(&saved.plan.basis.locals) => same.map_err(Trouble::refused)?,
            _ = interrupted.wait_for(|times| *times > 0) => return Err(Trouble::interrupted("the plan was looked at")),
        }
    }
    let world: Arc<dyn World> = match (&recording, replaying) {
        (Some(recording), _) => recording.clone(),
        (None, Some(replaying)) => replaying,
        (None, None) => controller.clone(),
    };
    // Where the files of the deploy are named from; what a saved plan carries is not looked for.
    let sources = saved.as_ref().map_or_else(|| folder.clone(), |saved| saved.plan.folder.clone().into());
    let carried = saved.is_some();
    let registry = Arc::new(infra_std::registry());

    let mut interrupted = interrupts.clone();
    let inventory = tokio::select! {
        inventory = inventory(&settings, &sources, &world, carried) => Arc::new(inventory?),
        // There is no run yet that could end softly.
        _ = interrupted.wait_for(|times| *times > 0) => return Err(Trouble::interrupted("the inventory was read")),
    };
    secrets.learn_passwords(&inventory);
    let Selected { limit, exclude, said } =
        match earlier_hosts::resolve(&settings.limit, &settings.exclude, &inventory, hosts_of_earlier_run)? {
            Resolved::Select(selected) => selected,
            Resolved::NothingToDo(word) => {
                nothing_to_do(&settings, &word, started);
                return Ok(0);
            }
        };
    for line in said {
        let _ = writeln!(std::io::stderr(), "infra: {line}");
    }
    let hosts =
        selection::select(&inventory, &limit, &exclude).map_err(|error| Diagnostic::misuse(error.message).maybe_hint(error.hint))?;
    let hosts = match (&resumed, &saved) {
        (Some(resumed), _) => resumed.hosts_left(&inventory, hosts)?,
        (None, Some(saved)) => saved.hosts(&inventory, hosts)?,
        (None, None) => hosts,
    };
    if settings.task == Task::Hosts {
        let inventory = secrets.masked_inventory(&inventory);
        let text =
            if settings.json { infra_report::hosts_document(&inventory, &hosts) } else { infra_report::render_hosts(&inventory, &hosts) };
        // Whether it failed is asked of `results`: a reader that has gone away is no failure.
        let _ = results.write_all(text.as_bytes()).and_then(|()| results.flush());
        return if results.lost() { Err(Trouble::failure(LOST)) } else { Ok(0) };
    }

    let mut interrupted = interrupts.clone();
    let input = tokio::select! {
        input = input(&settings, &folder) => input?,
        _ = interrupted.wait_for(|times| *times > 0) => return Err(Trouble::interrupted("the standard input was read")),
    };
    let outputs = match &settings.task {
        Task::Exec(exec) => outputs(exec, &folder)?,
        _ => None,
    };
    let work = work(&settings, &sources, &registry, &inventory, &hosts, &world, (carried, input.as_ref()))?;
    let kind = match (&work, settings.dry, &settings.task) {
        (Work::Facts(..), ..) => RunKind::Fact,
        (_, _, Task::Exec(_)) => RunKind::Exec,
        (_, true, _) => RunKind::Dry,
        _ => RunKind::Deploy,
    };
    let passwords = Arc::new(Passwords::new(gate.clone(), interrupts.clone()));
    for tool in &settings.passwords {
        passwords.ask_now(*tool).await?;
    }
    let resumes = resumed.as_ref().map(|resumed| resumed.run.clone());
    // What changes nothing needs no journal.
    let journal = matches!(kind, RunKind::Deploy | RunKind::Exec).then(|| {
        let kept = Folder::of_user();
        if let (RunKind::Deploy, Ok(kept)) = (kind, &kept) {
            secrets.salt_with(kept.salt());
        }
        let journal = RunJournal::new(kept, invocation(), settings.inventory.clone(), &folder, kind, resumes, secrets.clone());
        Arc::new(journal)
    });
    let silent: Arc<AtomicBool> = Arc::default();
    // A deploy goes on when nobody reads of it any more: hosts must not be left half done, and the journal has it all.
    if matches!(kind, RunKind::Exec | RunKind::Fact) {
        let silent = silent.clone();
        results.when_gone(move || {
            silent.store(true, Ordering::SeqCst);
            interrupter.kill();
        });
    }
    let screen = Box::new(Quiet::new(silent.clone(), gate.clone(), secrets.clone()));
    let typed = saved.as_ref().map_or_else(invocation, |saved| saved.plan.invocation.clone());
    // A saved plan is not gone on with: the way on is another one, for the hosts that are left.
    let gone_on_with = journal.as_deref().filter(|_| saved.is_none());
    let mut reporters = reporters(&settings, started, screen, &results, gone_on_with, typed);
    let outputs_failed = outputs.map(|(outputs, failed)| {
        reporters.push(Box::new(outputs));
        failed
    });
    let reporting = Reporting::start(infra_report::several(reporters));
    controller.log_to(reporting.events.clone(), &inventory);
    let earlier = resumed.map(|resumed| resumed.earlier);
    let record = recording.as_ref().map(|recording| Arc::new(BasisRecord::new(recording.salt())));
    let saved = saved.map(|saved| Arc::new(saved.plan.basis));
    let lock = settings.lock.zip(journal.as_ref()).map(|(lock, journal)| claims(lock, journal));
    let engine = infra_engine::Settings { earlier, record: record.clone(), saved, lock, secrets: secrets.clone(), ..Default::default() };
    let wires =
        Wires { inventory: inventory.clone(), hosts, registry, interrupts, journal, reporting: &reporting, engine, gate, passwords };
    let state = execute(&settings, kind, work, wires).await;
    drop((world, controller));
    reporting.finish();
    if let (Some(file), Some(recording), Some(record)) = (&settings.plan, recording, record) {
        let (basis, controller) = (record.take(), recording.memory());
        let made = saved_plans::Made { state: &state, inventory: &inventory, basis, controller, secrets: &secrets };
        if let Err(why) = saved_plans::write(file, made, invocation(), &folder) {
            // Not as trouble, as below.
            let _ = writeln!(std::io::stderr(), "error: {why}");
            return Ok(1);
        }
    }
    if let Some(message) = outputs_failed.and_then(|failed| failed.message()) {
        let _ = writeln!(std::io::stderr(), "error: {message}");
        return Ok(state.exit_code().max(1));
    }
    if results.lost() && state.exit_code() == 0 {
        // Not as trouble, which would write a second document behind half of one.
        let _ = writeln!(std::io::stderr(), "error: {LOST}");
        return Ok(1);
    }
    if silent.load(Ordering::SeqCst) {
        // Where all hosts were through, nothing was cut short.
        if state.account().hosts.iter().all(|(_, bucket)| bucket.is_ok()) {
            return Ok(0);
        }
        let cut_short = if state.interrupted > 0 { ": the run was stopped, and what was in flight was killed" } else { "" };
        let _ = writeln!(std::io::stderr(), "infra: nobody reads the results any more{cut_short}");
        return Ok(1);
    }
    Ok(state.exit_code())
}

/// Said where results were lost.
const LOST: &str = "the results could not be written to standard output";

/// What a run is made of besides the work itself.
struct Wires<'r> {
    inventory: Arc<Inventory>,
    hosts: Vec<HostId>,
    registry: Arc<Registry>,
    interrupts: tokio::sync::watch::Receiver<u32>,
    journal: Option<Arc<RunJournal>>,
    reporting: &'r Reporting,
    /// What the engine is told besides what the settings say.
    engine: infra_engine::Settings,
    gate: Gate,
    passwords: Arc<Passwords>,
}

/// What is done on the hosts.
enum Work {
    /// Scripts that register operations.
    Operations(Arc<dyn Language>),
    /// Questions, as each host is to be asked them.
    Facts(HashMap<HostId, Vec<FactRequest>>),
}

async fn execute(settings: &Settings, kind: RunKind, work: Work, wires: Wires<'_>) -> RunState {
    let language: Arc<dyn Language> = match &work {
        Work::Operations(language) => language.clone(),
        Work::Facts(_) => Arc::new(ad_hoc::Nothing),
    };
    let mut wire = infra_connect::Settings::new(runtime_folder());
    // ssh asks its questions by starting this program again.
    wire.askpass = std::env::current_exe().ok();
    // Where the limit cannot be known, it shows when it is reached.
    wire.open_files = infra_connect::child::raise_open_files().ok();
    wire.one_command = matches!(&settings.task, Task::Exec(exec) if exec.is_one_command());
    let inventory = wires.inventory.clone();
    let run = Run {
        inventory: wires.inventory,
        hosts: wires.hosts,
        registry: wires.registry,
        language,
        connect: Arc::new(infra_connect::Wire::with_person(wire, AtTerminal::find(wires.gate)).asking(wires.passwords)),
        settings: infra_engine::Settings {
            kind,
            parallel: settings.parallel,
            serial: settings.serial,
            no_wait: settings.no_wait,
            fail_fast: settings.fail_fast,
            fail_percent: settings.fail_percent,
            max_fail: settings.max_fail,
            prove: settings.prove,
            detailed_exit_code: settings.detailed_exit_code,
            ..wires.engine
        },
        approve: Arc::new(Question {
            skip: settings.yes,
            shown: wires.reporting.plan_shown.clone(),
            interrupts: wires.interrupts.clone(),
            inventory,
            // They stand above the plan already.
            diffs: (!settings.diff).then_some(settings.verbosity),
        }),
        interrupts: wires.interrupts,
        events: wires.reporting.events.clone(),
        journal: wires.journal.map(|journal| journal as Arc<dyn Journal>),
    };
    match work {
        Work::Operations(_) => run.deploy().await,
        Work::Facts(questions) => run.facts(questions).await,
    }
}

/// The folder for sockets of this user.
pub fn runtime_folder() -> PathBuf {
    infra_connect::settings::runtime_folder(std::env::var_os("XDG_RUNTIME_DIR").as_deref().map(Path::new))
}

/// What this run tells another one that wants the same machine.
fn claims(lock: Lock, journal: &RunJournal) -> infra_engine::LockSettings {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten();
    let user = user.map_or_else(|| nix::unistd::getuid().to_string(), |user| user.name);
    let controller = nix::unistd::gethostname().map_or_else(|_| "?".to_owned(), |name| name.to_string_lossy().into_owned());
    let Lock { wait, required, lease } = lock;
    infra_engine::LockSettings { run: journal.run.clone(), user, controller, lease, wait, required }
}

/// The hosts that an earlier run left so, as its journal tells.
fn hosts_of_earlier_run(run: Option<&str>, which: Which) -> Result<Found, Diagnostic> {
    let folder = Folder::of_user().map_err(|error| Diagnostic::misuse(format!("there is no journal: {error}")))?;
    let record = folder.find(run)?;
    let hosts = match which {
        Which::Failed => record.failed(),
        Which::Unreached => record.unreached(),
    };
    let hosts = hosts.into_iter().map(str::to_owned).collect();
    Ok(Found { run: record.header.run, hosts })
}

/// Says that no host is meant, also to a program that waits for a document.
fn nothing_to_do(settings: &Settings, word: &str, started: Instant) {
    let _ = writeln!(std::io::stderr(), "infra: {word}");
    let kind = match settings.task {
        Task::Deploy(_) | Task::Operation(..) | Task::Copy(_) | Task::Fetch(_) if settings.dry => RunKind::Dry,
        Task::Deploy(_) | Task::Operation(..) | Task::Copy(_) | Task::Fetch(_) => RunKind::Deploy,
        Task::Exec(_) => RunKind::Exec,
        Task::Fact(..) => RunKind::Fact,
        Task::Hosts => {
            let _ = settings.json.then(|| std::io::stdout().write_all(b"{}\n"));
            return;
        }
    };
    if settings.json {
        let mut document = infra_report::Json::new(Box::new(std::io::stdout()), Some(started));
        document.event(&Event::RunStarted { kind, hosts: Arc::default() });
        document.event(&Event::RunEnded);
    } else if kind == RunKind::Fact {
        let _ = std::io::stdout().write_all(b"{}\n");
    }
}

/// Reads the inventory that is meant.
///
/// # Errors
/// [`Trouble`] when it is not there or not right.
pub async fn inventory(settings: &Settings, folder: &Path, world: &Arc<dyn World>, carried: bool) -> Result<Inventory, Trouble> {
    match &settings.source {
        Source::Names(list) => Ok(inventory_builder::from_host_list(list, settings.overrides.clone())?),
        Source::File(path) => {
            if !carried {
                readable("inventory", path, folder)?;
            }
            Ok(infra_lua::load_inventory(path, world.clone(), settings.overrides.clone()).await?)
        }
    }
}

fn work(
    settings: &Settings,
    folder: &Path,
    registry: &Arc<Registry>,
    inventory: &Arc<Inventory>,
    hosts: &[HostId],
    world: &Arc<dyn World>,
    (carried, input): (bool, Option<&Read>),
) -> Result<Work, Trouble> {
    Ok(match &settings.task {
        Task::Deploy(files) => {
            for file in files.iter().filter(|_| !carried) {
                readable("deploy file", file, folder)?;
            }
            let deploy = infra_lua::Deploy::load(files, inventory.clone(), registry.clone(), world.clone(), infra_lua::Limits::default())?;
            Work::Operations(Arc::new(deploy))
        }
        Task::Exec(exec) => {
            if let What::Script(path, _) = &exec.what {
                readable("script", path, folder)?;
            }
            Work::Operations(Arc::new(AdHoc::exec(registry, exec, input.map(Read::path).as_deref(), folder)))
        }
        Task::Operation(kind, words) => Work::Operations(Arc::new(AdHoc::operation(registry, kind, words, folder)?)),
        Task::Copy(words) => Work::Operations(Arc::new(copying::copy(registry, words, folder)?)),
        Task::Fetch(words) => Work::Operations(Arc::new(copying::fetch(registry, words, folder)?)),
        Task::Fact(name, words) => {
            let question = ad_hoc::Question::read(registry, name, words)?;
            let requests = hosts.iter().map(|host| Ok((*host, vec![question.of(inventory.by_id(*host))?])));
            Work::Facts(requests.collect::<Result<_, Diagnostic>>()?)
        }
        Task::Hosts => unreachable!("the hosts are listed before there is any work"),
    })
}

/// What commands read.
enum Read {
    File(PathBuf),
    Spooled(Spool),
}

impl Read {
    fn path(&self) -> PathBuf {
        match self {
            Self::File(path) => path.clone(),
            Self::Spooled(spool) => spool.path(),
        }
    }
}

/// What the commands of `exec` read, where they read something: a file as it is, and what can be read only once after it was read.
async fn input(settings: &Settings, folder: &Path) -> Result<Option<Read>, Trouble> {
    let Task::Exec(exec) = &settings.task else { return Ok(None) };
    let spooled = match &exec.stdin {
        None => return Ok(None),
        Some(Input::Own) => {
            if std::io::stdin().is_terminal() {
                let _ = writeln!(std::io::stderr(), "infra: reading what the hosts are to read, to its end (Ctrl-D)");
            }
            match std::io::stdin().as_fd().try_clone_to_owned() {
                Ok(own) => Spool::of(tokio::fs::File::from_std(own.into())).await,
                Err(error) => Err(error),
            }
        }
        Some(Input::File(path)) => {
            let full = folder.join(path);
            if std::fs::metadata(&full).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
                match tokio::fs::File::open(&full).await {
                    Ok(file) => Spool::of(file).await,
                    Err(error) => Err(error),
                }
            } else {
                readable("input", path, folder)?;
                return Ok(Some(Read::File(full)));
            }
        }
    };
    let spool = spooled.map_err(|error| Trouble::failure(format!("what the hosts are to read cannot be kept for them: {error}")))?;
    Ok(Some(Read::Spooled(spool)))
}

/// Where outputs are written, where they are.
fn outputs(exec: &Exec, folder: &Path) -> Result<Option<(OutFolder, Failed)>, Diagnostic> {
    let Some(path) = &exec.out_dir else { return Ok(None) };
    let made = OutFolder::create(folder.join(path));
    made.map(Some).map_err(|error| {
        let why = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "it is there and is no folder".to_owned(),
            _ => format!("the folder cannot be made: {error}"),
        };
        Diagnostic::misuse(format!("--out-dir {}: {why}", path.display()))
    })
}

/// Whether there is such a file, before anything is made of it: the nearest right name is one of its neighbours.
fn readable(what: &str, path: &Path, folder: &Path) -> Result<(), Diagnostic> {
    let full = folder.join(path);
    match std::fs::metadata(&full) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => Err(Diagnostic::misuse(format!("the {what} {} is not a file", path.display()))),
        Err(error) => {
            let missing = error.kind() == std::io::ErrorKind::NotFound;
            let why = if missing { "does not exist".to_owned() } else { format!("cannot be read: {error}") };
            let hint = missing.then(|| neighbour(&full, path)).flatten();
            Err(Diagnostic::misuse(format!("the {what} {} {why}", path.display())).maybe_hint(hint))
        }
    }
}

fn neighbour(full: &Path, typed: &Path) -> Option<String> {
    let names: Vec<String> = std::fs::read_dir(full.parent()?)
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".lua"))
        .collect();
    let nearest = infra_core::diagnostic::nearest(full.file_name()?.to_str()?, names.iter().map(String::as_str))?;
    Some(format!("did you mean `{}`?", typed.with_file_name(nearest).display()))
}

fn reporters(
    settings: &Settings,
    started: Instant,
    screen_writer: Box<dyn Write + Send>,
    out: &Results,
    journal: Option<&RunJournal>,
    invocation: Vec<String>,
) -> Vec<Box<dyn Reporter>> {
    let terminal = std::io::stderr().is_terminal();
    let size = console::Term::stderr().size_checked();
    let screen = ScreenSettings {
        verbosity: settings.verbosity,
        diff: settings.diff,
        exec: match &settings.task {
            Task::Exec(exec) if exec.gather => ExecOutput::Gathered { diff: settings.diff },
            Task::Exec(exec) if exec.out_dir.is_some() => ExecOutput::Elsewhere,
            _ => ExecOutput::Lines,
        },
        terminal,
        results_terminal: std::io::stdout().is_terminal(),
        colour: terminal && std::env::var_os("NO_COLOR").is_none(),
        width: size.map_or(100, |(_, columns)| columns),
        invocation,
        controls: infra_report::Controls {
            parallel: settings.parallel,
            serial: settings.serial,
            no_wait: settings.no_wait,
            fail_fast: settings.fail_fast,
            fail_percent: settings.fail_percent,
            max_fail: settings.max_fail,
        },
        journal: journal.map(|journal| infra_report::Journalled { run: journal.run.clone(), whole: journal.whole.clone() }),
        started: Some(started),
        tick: Some(Duration::from_millis(200)),
    };
    // With --json the results are in the document; the screen shows the run all the same.
    let results: Box<dyn Write + Send> = if settings.json { Box::new(std::io::sink()) } else { Box::new(out.clone()) };
    let mut all = vec![infra_report::screen(screen, screen_writer, results)];
    if settings.json {
        let out = Box::new(out.clone());
        all.push(match settings.diff {
            true => infra_report::Json::with_diffs(out, Some(started)),
            false => infra_report::Json::new(out, Some(started)),
        });
    }
    all
}

/// The words of the command line, with the program under its name alone.
fn invocation() -> Vec<String> {
    let mut words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    if let Some(program) = words.first_mut()
        && let Some(name) = Path::new(&*program).file_name()
    {
        *program = name.to_string_lossy().into_owned();
    }
    words
}
