//! `--plan FILE`, `infra show FILE` and `infra apply FILE`: plans in files.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::Parser;
use infra_core::diagnostic::Diagnostic;
use infra_core::host::HostId;
use infra_core::inventory::Inventory;
use infra_core::run_state::RunState;
use infra_core::saved_plan::{self, Basis, FORMAT, Memory, SavedHost, SavedPlan};
use infra_core::secret::{Secret, Secrets};
use infra_lua::World;
use infra_report::journal::readable;
use infra_report::nodeset::fold_within;

use crate::arguments::{Apply, Arguments, Options, Show};
use crate::outcome::Trouble;
use crate::remembered::Replaying;
use crate::settings::Settings;

/// So many operations that depend on others are named.
const NAMED: usize = 5;

/// A saved plan that is to be applied.
pub struct Saved {
    /// The plan.
    pub plan: SavedPlan,
    file: PathBuf,
    allow_depends: bool,
}

/// What a run has made that only planned.
pub struct Made<'r> {
    /// The record of the run.
    pub state: &'r RunState,
    /// All hosts there are.
    pub inventory: &'r Inventory,
    /// What the plan rests on; none where there is no plan.
    pub basis: Option<Basis>,
    /// What the scripts learned of the controller.
    pub controller: Memory,
    /// What must not stand in the file.
    pub secrets: &'r Secrets,
}

/// Prints a saved plan on standard output.
///
/// # Errors
/// [`Trouble`] when there is no such plan, or it is not whole.
pub fn show(asked: &Show) -> Result<(), Trouble> {
    let plan = read(&asked.file)?;
    let terminal = io::stdout().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none();
    let width = console::Term::stdout().size_checked().filter(|_| terminal).map_or(100, |(_, columns)| columns);
    let text = match asked.json {
        true => infra_report::saved_document(&plan, asked.diff),
        false => infra_report::render_saved(&plan, asked.verbose.min(3), asked.diff, width, colour),
    };
    // A reader that has gone away, such as `head`, has read what it wanted.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// Reads the plan and finds out how it is to be applied.
///
/// # Errors
/// [`Trouble`] when there is no such plan, it is not whole, another version made it, or options are given that were decided with it.
pub fn resolve(asked: Apply) -> Result<(Settings, Box<Saved>), Trouble> {
    let decided = [
        ("--plan", asked.options.plan.is_some()),
        ("--dry", asked.options.dry),
        ("--data", !asked.options.data.is_empty()),
        ("--sudo", asked.options.sudo),
        ("--user", asked.options.user.is_some()),
        ("--port", asked.options.port.is_some()),
        ("--key", asked.options.key.is_some()),
    ];
    if let Some((flag, _)) = decided.into_iter().find(|(_, given)| *given) {
        let hint = match flag {
            "--plan" | "--dry" => format!("infra show {} prints it", asked.file.display()),
            _ => format!("make the plan again with {flag} and --plan"),
        };
        return Err(Diagnostic::misuse(format!("apply has no {flag}: that was decided with the plan")).hint(hint).into());
    }
    let plan = read(&asked.file)?;
    let understood = Arguments::try_parse_from(&plan.invocation);
    let mut arguments =
        understood.map_err(|error| Diagnostic::misuse(format!("the command line in the plan is not understood: {error}")))?;
    // The hosts are those of the plan, and a key file was named from the folder that it was made in.
    let key = arguments.options.key.take().map(|key| Path::new(&plan.folder).join(key));
    let planned = Options { limit: Vec::new(), exclude: Vec::new(), key, ..std::mem::take(&mut arguments.options) };
    arguments.options = asked.options.or(planned);
    let settings = Settings::resolve(arguments)?;
    Ok((settings, Box::new(Saved { plan, file: asked.file, allow_depends: asked.allow_depends })))
}

fn read(file: &Path) -> Result<SavedPlan, Trouble> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Diagnostic::misuse(format!("there is no plan file {name}")).hint("infra INVENTORY DEPLOY --plan FILE writes one")
        }
        _ => Diagnostic::misuse(format!("the plan file {name} cannot be read: {error}")),
    })?;
    let read = saved_plan::read(&bytes, env!("CARGO_PKG_VERSION"));
    read.map_err(|error| {
        Trouble::refused(Diagnostic::runtime(format!("the plan file {name} is refused: {error}")).hint("make the plan again with --plan"))
    })
}

impl Saved {
    /// The controller as the plan's scripts see it.
    pub fn controller(&self, world: Arc<dyn World>) -> Replaying {
        let SavedPlan { basis, folder, controller, .. } = &self.plan;
        Replaying::new(world, basis.salt.as_str(), folder.into(), controller.clone())
    }

    /// Those of the selected hosts that the plan has, where it may be applied to them.
    ///
    /// # Errors
    /// [`Trouble`] where it has none of them, or some operation depends on others and that was not allowed.
    pub fn hosts(&self, inventory: &Inventory, selected: Vec<HostId>) -> Result<Vec<HostId>, Trouble> {
        let name = |id: &HostId| inventory.by_id(*id).name.as_str();
        let has = |id: &HostId| self.plan.basis.hosts.contains_key(name(id));
        let hosts: Vec<HostId> = selected.into_iter().filter(has).collect();
        if hosts.is_empty() {
            let all = fold_within(self.plan.hosts.iter().map(|host| host.name.as_str()), 200);
            return Err(Diagnostic::misuse("none of the hosts of the saved plan is selected").hint(format!("it is for {all}")).into());
        }
        let made = readable(self.plan.made as f64);
        let command = self.plan.invocation.iter().map(|word| infra_core::command::quote(word)).collect::<Vec<_>>().join(" ");
        say(&format!("applying the plan that was made {made} UTC ({})", infra_core::output::printable(&command)));
        let depending = self.plan.depending(hosts.iter().map(name));
        let names: Vec<&str> = hosts.iter().map(name).collect();
        if depending.is_empty() {
            self.warn_of_repetition(&names);
            return Ok(hosts);
        }
        let named = depending.iter().take(NAMED).map(|title| format!("«{}»", infra_core::output::printable(title)));
        let more = depending.len().saturating_sub(NAMED);
        let named = named.chain((more > 0).then(|| format!("{more} more"))).collect::<Vec<_>>().join(", ");
        let open = format!("what these operations do is known only when their turn comes: {named}");
        if !self.allow_depends {
            let command = format!("infra apply {} --allow-depends", infra_core::command::quote(&self.file.to_string_lossy()));
            return Err(Trouble::refused(Diagnostic::runtime(format!("the saved plan is refused: {open}")).hint(command)));
        }
        self.warn_of_repetition(&names);
        say(&format!("{open} (--allow-depends)"));
        Ok(hosts)
    }
    /// Says where a second time of the same plan is not to be told from the first.
    fn warn_of_repetition(&self, hosts: &[&str]) {
        let unbound: Vec<&str> = hosts.iter().copied().filter(|host| self.plan.basis.hosts[*host].rests_on_nothing()).collect();
        if !unbound.is_empty() {
            let on = fold_within(unbound, 200);
            say(&format!(
                "the plan rests on nothing that is read from {on}, so nobody can tell whether it was applied there already: it is done again"
            ));
        }
    }
}

/// Random digits that go into the digests of a plan.
///
/// # Errors
/// When the system has none.
pub fn salt() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Whether a plan may be written to this file, before anything is connected to: a file that is something else is not written over.
///
/// # Errors
/// A misuse [`Diagnostic`].
pub fn may_be_written(file: &Path) -> Result<(), Diagnostic> {
    let name = file.display();
    let mut begin = Vec::new();
    match File::open(file).map(|file| file.take(64)).and_then(|mut file| file.read_to_end(&mut begin)) {
        Ok(_) if begin.is_empty() || saved_plan::is_plan_file(&begin) => Ok(()),
        Ok(_) => {
            Err(Diagnostic::misuse(format!("--plan {name}: the file is there and is no plan, so it is left alone"))
                .hint("name another file"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => match folder_of(file).is_dir() {
            true => Ok(()),
            false => Err(Diagnostic::misuse(format!("--plan {name}: there is no folder {}", folder_of(file).display()))),
        },
        Err(error) => Err(Diagnostic::misuse(format!("--plan {name}: {error}"))),
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes the plan that was made, for its owner alone: its diffs and the files that it carries are nobody else's business.
///
/// # Errors
/// Why it cannot be written. Where not all hosts could be planned nothing is written, which is said and no error of its own.
pub fn write(file: &Path, made: Made<'_>, invocation: Vec<String>, folder: &Path) -> Result<(), String> {
    let Made { state, inventory, basis, controller, secrets } = made;
    let not_planned: Vec<&str> =
        state.account().hosts.iter().filter(|(_, bucket)| !bucket.is_ok()).map(|(id, _)| state.hosts[id].name.as_str()).collect();
    let (Some(plan), Some(basis), true) = (&state.plan, basis, not_planned.is_empty()) else {
        let left_out = match not_planned.len() == state.hosts.len() {
            true => String::new(),
            false => format!(": it would leave out {}", fold_within(not_planned, 200)),
        };
        say(&format!("no plan is written to {}{left_out}", file.display()));
        return Ok(());
    };
    if invocation.iter().any(|word| secrets.holds(word)) {
        return Err("no plan is saved: its command line holds a secret, and a plan file has the command line; give the secret by the environment, a file or a \
                    question (secret.env, secret.file, secret.prompt)"
            .to_owned());
    }
    let made = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut saved = SavedPlan {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        made,
        invocation,
        folder: folder.to_string_lossy().into_owned(),
        hosts: state.hosts.iter().map(|(id, host)| SavedHost { id: *id, name: host.name.clone() }).collect(),
        plan: (**plan).clone(),
        basis,
        controller,
    };
    saved.hide(secrets, &passwords(inventory));
    let written = write_beside(file, saved_plan::write(&saved).as_bytes());
    written.map_err(|error| format!("the plan cannot be written to {}: {error}", file.display()))?;
    let name = infra_core::command::quote(&file.to_string_lossy());
    say(&format!("the plan is written: `infra show {name}` prints it, `infra apply {name}` does it"));
    Ok(())
}

/// The values of the data that are secrets by their names: passwords of connections and of privileges.
fn passwords(inventory: &Inventory) -> Vec<Secret> {
    let is_secret = |name: &str| name.ends_with("password") && (name.starts_with('_') || name.starts_with("ssh_"));
    let data = inventory.hosts.iter().flat_map(|host| &host.data);
    data.filter(|(name, _)| is_secret(name)).filter_map(|(_, value)| value.as_str().map(Secret::new)).collect()
}

/// Writes a file whole or not at all.
fn write_beside(file: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link is followed, so that the file that it names is replaced.
    let file = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let name = file.file_name().ok_or_else(|| io::Error::other("it names no file"))?.to_string_lossy().into_owned();
    let beside = folder_of(&file).join(format!(".{name}.{}", salt()?));
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    let written = new.write_all(bytes).and_then(|()| new.sync_all()).and_then(|()| std::fs::rename(&beside, &file));
    if written.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    written
}

fn say(line: &str) {
    let _ = writeln!(io::stderr(), "infra: {line}");
}
