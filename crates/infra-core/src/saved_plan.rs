//! Plans that outlive the run that made them: what a plan file holds.
//!
//! A plan rests on facts of the hosts, on files of the controller and on what its scripts learned there. A saved plan has the digests of all of it, salted so
//! that nobody can tell from them what a value was who does not know it, and carries what is needed to come to the same operations again: sources and other
//! small text files. What holds a secret is never carried: it stands there by its digest alone, and is read again when the plan is applied.

mod controller;
mod file;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::Value;
use crate::change::{Action, Change, Content, TextChange};
use crate::digest::sha256;
use crate::earlier::Mark;
use crate::fact::AnyFact;
use crate::global_arguments::Context;
use crate::host::HostId;
use crate::plan::{Outlook, Plan};
use crate::secret::{Secret, Secrets};
use controller::Hidden;

pub use controller::{CARRIED_LIMIT, CommandAnswer, Kept, LocalBasis, Memory, RememberedCommand, content_digest};
pub use file::{FORMAT, PlanFileError, is_plan_file, read, write};

/// Answers whose JSON is not longer than this, in bytes, stand in the file, to be shown beside the new ones.
const ANSWER_LIMIT: usize = 1000;

/// A plan as it stands in a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedPlan {
    /// The version of the file's shape.
    pub format: u32,
    /// The version of infra that made it.
    pub program: String,
    /// When it was made, in whole seconds since the beginning of 1970, UTC.
    pub made: u64,
    /// The words of the command line.
    pub invocation: Vec<String>,
    /// The absolute path of the folder that infra was started in.
    pub folder: String,
    /// The hosts, in inventory order.
    pub hosts: Vec<SavedHost>,
    /// The plan. Its hosts are places in the inventory.
    pub plan: Plan,
    /// What it rests on.
    pub basis: Basis,
    /// What the scripts learned of the controller.
    pub controller: Memory,
}

/// A host of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedHost {
    /// Its place in the inventory, by which the plan knows it.
    pub id: HostId,
    /// Its name.
    pub name: String,
}

/// What a plan rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// What goes into each digest, so that it tells nothing to who does not know the value.
    pub salt: String,
    /// The hosts by name.
    pub hosts: BTreeMap<String, HostBasis>,
    /// The facts of places by name where operations of these hosts run (`_on`), or that their scripts ask, and that are no hosts of the plan themselves.
    pub places: BTreeMap<String, Vec<FactBasis>>,
    /// The files of the controller that operations were planned from.
    pub locals: Vec<LocalBasis>,
}

/// What the plan of one host rests on, and what it comes to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostBasis {
    /// The facts, in the order of their questions.
    pub facts: Vec<FactBasis>,
    /// The names of other hosts and places whose facts it rests on as well.
    pub elsewhere: Vec<String>,
    /// The operations, in the order of the host's own script.
    pub calls: Vec<CallBasis>,
}

impl HostBasis {
    /// Whether something is to be done although the plan rests on no fact, so that nothing tells whether it was done already.
    pub fn rests_on_nothing(&self) -> bool {
        self.facts.is_empty() && self.elsewhere.is_empty() && self.calls.iter().any(|call| call.planned != Planned::NoChange)
    }
}

/// One fact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FactBasis {
    /// `module.fact`.
    pub fact: String,
    /// Its arguments.
    pub question: Value,
    /// As whom and with what environment it was asked.
    pub context: Context,
    /// The digest of the answer, or of why there was none.
    pub digest: String,
    /// The answer, where it is short and whoever reads the plan may read it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "also_null")]
    pub answer: Option<Value>,
    /// The titles of the operations that look at it; empty where only the script does.
    pub operations: Vec<String>,
}

/// One operation of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallBasis {
    /// Its title.
    pub title: String,
    /// What it is known by.
    pub mark: Mark,
    /// What the plan says of it.
    pub planned: Planned,
    /// The digest of its steps, where they are known.
    pub steps: Option<String>,
}

/// What a plan says of an operation on a host, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Planned {
    /// It will change something.
    Change,
    /// There is nothing to do.
    NoChange,
    /// It is open until its turn comes.
    Depends,
}

impl Planned {
    /// The word for an outlook.
    pub fn of(outlook: &Outlook) -> Self {
        match outlook {
            Outlook::Change { .. } => Self::Change,
            Outlook::NoChange { .. } => Self::NoChange,
            Outlook::Depends { .. } => Self::Depends,
        }
    }

    /// The same for a person.
    pub fn words(self) -> &'static str {
        match self {
            Self::Change => "a change",
            Self::NoChange => "no change",
            Self::Depends => "open until its turn",
        }
    }
}

/// Where a run that only plans leaves what its plan rests on.
#[derive(Debug)]
pub struct BasisRecord {
    /// What goes into each digest.
    pub salt: String,
    found: Mutex<Option<Basis>>,
}

impl BasisRecord {
    /// Nothing is left yet.
    pub fn new(salt: impl Into<String>) -> Self {
        Self { salt: salt.into(), found: Mutex::default() }
    }

    /// Leaves it.
    pub fn leave(&self, basis: Basis) {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(basis);
    }

    /// Takes what was left.
    pub fn take(&self) -> Option<Basis> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The digest of a text with a salt.
pub fn salted(salt: &str, text: &str) -> String {
    sha256(format!("{salt}\n{text}").as_bytes())
}

/// A member that is there, also where it is null.
fn also_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// An answer without what is [fleeting](crate::fact::Fact::FLEETING) in it.
pub fn lasting(fact: &dyn AnyFact, mut answer: Value) -> Value {
    if let Some(members) = answer.as_object_mut() {
        fact.fleeting().iter().for_each(|name| drop(members.shift_remove(*name)));
    }
    answer
}

/// The digest of an answer to a question, or of why there is none. The order of an object's members is no part of it.
pub fn answer_digest(salt: &str, answer: &Result<Value, String>) -> String {
    let mut answer = match answer {
        Ok(value) => json!({ "answer": value }),
        Err(message) => json!({ "failed": message }),
    };
    answer.sort_all_objects();
    salted(salt, &answer.to_string())
}

/// An answer as it stands in a plan: none where it is long.
pub fn short_answer(answer: &Value) -> Option<Value> {
    (answer.to_string().len() <= ANSWER_LIMIT).then(|| answer.clone())
}

/// The digest of what a change does; none where it does nothing. What is written counts by its own digest. What a secret in it may be is not found out by
/// trying ([`Secrets::guard`]).
pub fn steps_digest(change: &Change, secrets: &Secrets) -> Option<String> {
    if change.is_none() || !change.changes {
        return None;
    }
    let steps = change.actions.iter().map(|action| match action {
        Action::Upload(upload) => {
            let written = Content::LocalFile { path: String::new(), size: upload.content.size(), sha256: upload.content.sha256() };
            json!(Action::Upload(crate::change::Upload { content: written, ..upload.clone() }))
        }
        Action::Script(script) => json!({ "script": script.content.sha256(), "args": script.args }),
        Action::Run(_) | Action::Download(_) | Action::UploadTree(_) | Action::DownloadTree(_) | Action::Controller(_) => json!(action),
    });
    let steps = Value::Array(steps.collect()).to_string();
    let inputs = change.actions.iter().filter_map(|action| match action {
        Action::Upload(upload) => Some(told_by(&upload.content)),
        Action::Script(script) => Some(told_by(&script.content)),
        Action::Run(command) | Action::Controller(command) => command.stdin.as_deref(),
        Action::Download(_) | Action::UploadTree(_) | Action::DownloadTree(_) => None,
    });
    let guard = secrets.guard(inputs.chain([steps.as_bytes()]));
    Some(sha256(format!("{guard}{steps}").as_bytes()))
}

/// The bytes of a content, or what there is of it: its digest.
fn told_by(content: &Content) -> &[u8] {
    match content {
        Content::Bytes(bytes) => bytes,
        Content::LocalFile { sha256, .. } => sha256.as_bytes(),
    }
}

/// What is different between two answers, as a sentence fragment: `mode was "644" and is "600"`.
pub fn difference(before: Option<&Value>, now: &Result<Value, String>) -> String {
    let now = match now {
        Ok(now) => now,
        Err(message) => return format!("it can no longer be read: {message}"),
    };
    match (before, now) {
        (Some(Value::Object(before)), Value::Object(now)) => {
            let names = before.keys().chain(now.keys().filter(|name| !before.contains_key(*name)));
            let of = |map: &crate::Map, name: &str| map.get(name).map_or_else(|| "nothing".to_owned(), shown);
            let changed = names.filter(|name| before.get(*name) != now.get(*name));
            let parts: Vec<String> = changed.map(|name| format!("{name} was {} and is {}", of(before, name), of(now, name))).collect();
            parts.join(", ")
        }
        (Some(before), now) => format!("it was {} and is {}", shown(before), shown(now)),
        (None, now) => format!("it is now {}", shown(now)),
    }
}

/// A value for a person, cut where it is long.
fn shown(value: &Value) -> String {
    const LIMIT: usize = 80;
    if value.is_null() {
        return "nothing".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(LIMIT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

impl SavedPlan {
    /// Takes the values of secrets out of it: the one place where that is done. A file or an output that holds one is kept by its digest alone, and what is
    /// shown of the plan has a mark in its place. `passwords` are hidden as well, also those that are too short to be [secrets](Secrets::secret).
    pub fn hide(&mut self, secrets: &Secrets, passwords: &[Secret]) {
        let passwords = passwords.iter().map(Secret::reveal).filter(|value| !value.is_empty());
        let passwords: Vec<String> = passwords.flat_map(|value| [crate::command::quote(value), value.to_owned()]).collect();
        if passwords.is_empty() && secrets.is_empty() {
            return;
        }
        let hidden = Hidden { secrets, passwords };
        let mask = |text: &mut String| hidden.mask(text);
        self.controller.hide(&self.basis.salt, &hidden);
        self.basis.locals.iter_mut().for_each(|local| local.kept.hide(&self.basis.salt, &hidden));
        self.plan = (*secrets.masked_plan(&Arc::new(std::mem::take(&mut self.plan)))).clone();
        for operation in &mut self.plan.operations {
            mask(&mut operation.title);
            operation.hosts.iter_mut().for_each(|host| mask_outlook(&mut host.outlook, &mask));
        }
        let places = self.basis.places.values_mut();
        let facts = self.basis.hosts.values_mut().flat_map(|host| {
            host.calls.iter_mut().for_each(|call| mask(&mut call.title));
            &mut host.facts
        });
        for fact in facts.chain(places.flatten()) {
            fact.operations.iter_mut().for_each(mask);
            if fact.answer.as_ref().is_some_and(|answer| holds(answer, &hidden)) {
                fact.answer = None;
            }
        }
    }

    /// The titles of the operations that are open on some of these hosts until their turn comes.
    pub fn depending<'h>(&self, hosts: impl IntoIterator<Item = &'h str>) -> Vec<&str> {
        let mut titles: Vec<&str> = Vec::new();
        for host in hosts {
            for call in self.basis.hosts.get(host).into_iter().flat_map(|host| &host.calls) {
                if call.planned == Planned::Depends && !titles.contains(&call.title.as_str()) {
                    titles.push(&call.title);
                }
            }
        }
        titles
    }
}

fn mask_outlook(outlook: &mut Outlook, mask: &impl Fn(&mut String)) {
    match outlook {
        Outlook::Change { reason, steps, texts } => {
            mask(reason);
            steps.iter_mut().for_each(mask);
            for TextChange { path, before, after, withheld } in texts {
                [path, before, after].into_iter().chain(withheld).for_each(mask);
            }
        }
        Outlook::NoChange { reason } => mask(reason),
        Outlook::Depends { on, would } => on.iter_mut().chain(would).for_each(mask),
    }
}

/// Whether some text in a value holds one.
fn holds(value: &Value, hidden: &Hidden<'_>) -> bool {
    match value {
        Value::String(text) => hidden.is_in(text),
        Value::Array(items) => items.iter().any(|item| holds(item, hidden)),
        Value::Object(map) => map.iter().any(|(key, item)| hidden.is_in(key) || holds(item, hidden)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests;
