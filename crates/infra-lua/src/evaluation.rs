//! What is known of one evaluation: one host's run through the deploy files, or one reading of an inventory file.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use infra_core::Map;
use infra_core::condition::{CallIndex, Condition};
use infra_core::diagnostic::{Diagnostic, Fault, Location};
use infra_core::global_arguments::GlobalArguments;
use infra_core::host::{Host, HostId};
use infra_core::inventory::Inventory;
use infra_core::late::{FunctionId, Place};
use infra_core::registry::Registry;
use infra_core::script::{self, Answer, FactRequest, OperationCall};
use infra_core::template::InventoryScope;

use mlua::Lua;

use crate::errors::{is_misuse, raise};
use crate::late::{LeftBehind, Running};
use crate::once::OnceStore;
use crate::performing::Pending;
use crate::pool::{Clock, Pool};
use crate::requests::{Reply, Request};
use crate::source::{Source, Sources};
use crate::world::{self, World};

/// What a script may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory of one host's script, in bytes.
    pub memory: usize,
    /// How long one host's script may run, without the time that it waits for answers.
    pub running_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: 256 * 1024 * 1024, running_time: Duration::from_secs(30) }
    }
}

/// What all evaluations of a run share.
pub(crate) struct House {
    pub world: Arc<dyn World>,
    pub sources: Sources,
    pub registry: Arc<Registry>,
    pub inventory: Arc<Inventory>,
    /// The same as templates see it.
    pub inventory_scope: InventoryScope,
    /// The hosts by name: [`Inventory::host`] looks at each.
    pub by_name: HashMap<String, HostId>,
    pub files: Vec<Arc<Source>>,
    pub limits: Limits,
    pub pool: Pool,
    pub once: OnceStore,
}

/// A block that is open around the line that runs.
#[derive(Clone, Default)]
pub(crate) struct Block {
    /// The name of a `deploy` block.
    pub name: Option<String>,
    pub globals: GlobalArguments,
    pub when: Vec<Condition>,
    /// What a `parallel` or `rolling` block does.
    pub strategy: Option<script::Block>,
    /// `_retry_until` of the operations inside.
    pub until: Option<FunctionId>,
    /// `_on` of the operations inside.
    pub on: Option<Place>,
}

/// A condition that the script read off a handle.
pub(crate) struct Reading {
    pub name: &'static str,
    pub chain: Vec<Location>,
    pub used: bool,
    /// There for as long as the script, or a function that it left behind, can reach the condition.
    pub alive: Weak<()>,
}

/// An operation that the script called.
pub(crate) struct Made {
    pub title: String,
    pub place: Option<Location>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Calls that the engine has not been given yet.
    pub calls: Vec<OperationCall>,
    /// All calls by their numbers.
    pub made: Vec<Made>,
    /// The functions that are left behind, by their numbers.
    pub left_behind: Vec<LeftBehind>,
    /// The function of them that runs; none while the script itself does.
    pub running: Option<Running>,
    /// The operation that is to be run before the body of `call` goes on.
    pub pending: Option<Pending>,
    pub blocks: Vec<Block>,
    /// The `config` of the files that are open, outermost first.
    pub config: Vec<GlobalArguments>,
    pub deploy: u32,
    pub deploy_folder: PathBuf,
    pub asked: Vec<FactRequest>,
    /// The names of the facts that were asked for last.
    pub asked_names: Vec<String>,
    pub request: Option<Request>,
    pub reply: Option<Reply>,
    pub readings: Vec<Reading>,
    /// The chains of those that resumed the script's own coroutines.
    pub resumers: Vec<Vec<Location>>,
    /// Data that the script set.
    pub data: Map,
    /// How often each call that runs once was made by this host.
    pub counts: HashMap<String, u32>,
    /// How often each `parallel` and `rolling` block was entered by this host.
    pub turns: HashMap<String, u32>,
    /// The `rolling` block around each call that has one.
    pub rolling_of: HashMap<CallIndex, script::Block>,
    /// How many bodies of `once` are open.
    pub once: u32,
    pub open_files: u32,
    /// The first misuse, or the first `fail`: kept here because a `pcall` can swallow the error.
    pub misuse: Option<Box<Diagnostic>>,
    /// What ended the script.
    pub failure: Option<Box<Diagnostic>>,
    /// What files of data gave back, by their place among the files.
    pub file_data: Vec<(usize, Map)>,
    /// The groups of an inventory file.
    pub groups: Vec<(String, Location)>,
    /// The names of globals that are infra's own.
    pub own_globals: Vec<String>,
}

impl State {
    /// The `parallel` and `rolling` blocks that are open, outermost first.
    pub fn strategies(&self) -> impl Iterator<Item = &script::Block> {
        self.blocks.iter().filter_map(|block| block.strategy.as_ref())
    }

    /// The `rolling` block that is open.
    pub fn rolling(&self) -> Option<&script::Block> {
        self.strategies().find(|block| matches!(block.kind, script::BlockKind::Rolling(_)))
    }
}

/// One host's run through the deploy files, or one reading of an inventory file.
pub(crate) struct Evaluation {
    pub house: Arc<House>,
    /// None while an inventory is read.
    pub host: Option<Arc<Host>>,
    /// How long it has been running.
    pub clock: Arc<Clock>,
    state: Mutex<State>,
}

impl Evaluation {
    pub fn new(house: Arc<House>, host: Option<Arc<Host>>) -> Arc<Self> {
        let clock = Arc::new(Clock::new(house.limits.running_time));
        Arc::new(Self { house, host, clock, state: Mutex::default() })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding it")
    }

    /// The calls that led to the line that runs, outermost first.
    pub fn chain(&self, lua: &Lua) -> Vec<Location> {
        let mut chain: Vec<Location> = Vec::new();
        let mut level = 0;
        while level < 10_000 {
            let frame = lua.inspect_stack(level, |frame| {
                let source = frame.source().source.map(|source| source.into_owned()).unwrap_or_default();
                let line = frame.current_line().and_then(|line| u32::try_from(line).ok()).unwrap_or(0);
                (source, line, frame.is_tail_call())
            });
            let Some((source, line, is_tail_call)) = frame else { break };
            if let Some(file) = source.strip_prefix('@') {
                chain.push(Location { file: file.to_owned(), line });
            }
            if is_tail_call && !source.starts_with("=[C]") {
                chain.push(Location { file: "?".to_owned(), line: 0 });
            }
            level += 1;
        }
        chain.reverse();
        let state = self.state();
        let mut whole: Vec<Location> = state.resumers.last().cloned().unwrap_or_default();
        whole.append(&mut chain);
        whole
    }

    /// A diagnostic at the line that runs.
    pub fn at_line(&self, lua: &Lua, diagnostic: Diagnostic) -> Diagnostic {
        let chain = self.chain(lua);
        self.at_chain(chain, diagnostic)
    }

    /// A diagnostic at the end of this chain.
    pub fn at_chain(&self, chain: Vec<Location>, mut diagnostic: Diagnostic) -> Diagnostic {
        if diagnostic.location.is_none() {
            diagnostic.location = chain.iter().rev().find(|location| location.file != "?").cloned();
            diagnostic.source_line = diagnostic.location.as_ref().and_then(|location| self.house.sources.line(location));
        }
        diagnostic.chain = chain;
        diagnostic
    }

    /// An error for Lua at the line that runs. A misuse is kept, whatever the script does with the error.
    pub fn raise(&self, lua: &Lua, diagnostic: Diagnostic) -> mlua::Error {
        let diagnostic = self.at_line(lua, diagnostic);
        self.keep(&diagnostic);
        raise(diagnostic)
    }

    /// Keeps a misuse, and what `fail` says.
    pub fn keep(&self, diagnostic: &Diagnostic) {
        if is_misuse(diagnostic) || diagnostic.fault == Fault::Host {
            self.state().misuse.get_or_insert_with(|| Box::new(diagnostic.clone()));
        }
    }

    /// Something written wrongly, at the line that runs.
    pub fn misuse(&self, lua: &Lua, message: impl Into<String>) -> mlua::Error {
        self.raise(lua, Diagnostic::misuse(message))
    }

    /// Something written wrongly, at the line that runs, with what to do about it.
    pub fn misuse_with(&self, lua: &Lua, message: impl Into<String>, hint: impl Into<String>) -> mlua::Error {
        self.raise(lua, Diagnostic::misuse(message).hint(hint))
    }

    /// A failure of this host's script, at the line that runs.
    pub fn fail(&self, lua: &Lua, message: impl Into<String>) -> mlua::Error {
        self.raise(lua, Diagnostic::runtime(message))
    }

    /// The absolute path of a file of the controller: beside the calling file, then beside the deploy file. An error is the places looked at.
    pub fn find(&self, lua: &Lua, path: &str) -> Result<PathBuf, Vec<String>> {
        let chain = self.chain(lua);
        self.find_from(&chain, &[path.to_owned()])
    }

    /// The absolute path of a file that is to be written, seen from the folder of the deploy file.
    pub fn beside_deploy(&self, path: &str) -> PathBuf {
        let folder = self.state().deploy_folder.clone();
        world::absolute(&*self.house.world, &folder.join(path))
    }

    /// The first of these spellings that is there, seen from the end of a chain.
    pub fn find_from(&self, chain: &[Location], spellings: &[String]) -> Result<PathBuf, Vec<String>> {
        let world = &*self.house.world;
        let mut folders: Vec<PathBuf> = Vec::new();
        let caller = chain.iter().rev().find(|location| location.file != "?");
        if let Some(path) = caller.and_then(|caller| self.house.sources.path(&caller.file)) {
            folders.push(path.parent().unwrap_or(Path::new("/")).to_owned());
        }
        let deploy = self.state().deploy_folder.clone();
        if !deploy.as_os_str().is_empty() && !folders.contains(&deploy) {
            folders.push(deploy);
        }
        let mut places = Vec::new();
        for folder in &folders {
            for spelling in spellings {
                let place = world::normalise(&folder.join(spelling));
                if world.exists(&place) {
                    return Ok(place);
                }
                let shown = world::display(world, &place);
                if !places.contains(&shown) {
                    places.push(shown);
                }
            }
        }
        Err(places)
    }

    /// The host's data as this script sees it.
    pub fn data(&self) -> Map {
        let mut data = self.host.as_ref().map(|host| host.data.clone()).unwrap_or_default();
        data.extend(self.state().data.clone());
        data
    }

    /// Notes what the script is about to wait for; nothing stands for the facts that were asked.
    pub fn set_request(&self, request: Option<Request>) {
        self.state().request = request;
    }

    /// What the script waits for.
    pub fn take_request(&self) -> Option<Request> {
        let mut state = self.state();
        if let Some(request) = state.request.take() {
            return Some(request);
        }
        let asked = std::mem::take(&mut state.asked);
        state.asked_names = asked.iter().map(|request| request.fact.name().to_owned()).collect();
        (!asked.is_empty()).then_some(Request::Facts(asked))
    }

    /// What the script was given.
    pub fn take_reply(&self) -> Option<Reply> {
        self.state().reply.take()
    }

    /// The names of the facts that were asked for, and the answers.
    pub fn take_answers(&self) -> (Vec<String>, Vec<Answer>) {
        let mut state = self.state();
        let names = std::mem::take(&mut state.asked_names);
        match state.reply.take() {
            Some(Reply::Answers(answers)) => (names, answers),
            _ => (names, Vec::new()),
        }
    }

    /// What tells a call that runs once per run from others: the calls that led to it, what it says, and how often this host made it.
    pub fn once_key(&self, lua: &Lua, what: &str) -> String {
        let chain: Vec<String> = self.chain(lua).iter().map(ToString::to_string).collect();
        let place = format!("{} {what}", chain.join(" > "));
        let mut state = self.state();
        let count = state.counts.entry(place.clone()).or_insert(0);
        *count += 1;
        format!("{place} #{count}")
    }
}
