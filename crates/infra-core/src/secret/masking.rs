//! Secrets in what the engine tells: events and plans. Names that other things are found by stay as they are: hosts, kinds of operations, files, marks.

use std::sync::Arc;

use super::{MASK, SECRET_KEYS, Secrets};
use crate::change::TextChange;
use crate::connection::{ConnectError, Ending};
use crate::diagnostic::Diagnostic;
use crate::event::{Event, Failure, HostResult, Outcome};
use crate::inventory::Inventory;
use crate::plan::{Outlook, Plan};
use crate::{Map, Value};

/// Why a text is not shown, as a sentence fragment.
pub const WITHHELD: &str = "it holds a secret";

impl Secrets {
    fn hide(&self, text: &mut String) {
        if let std::borrow::Cow::Owned(masked) = self.mask(text) {
            *text = masked;
        }
    }

    fn hide_in<'t>(&self, texts: impl IntoIterator<Item = &'t mut String>) {
        texts.into_iter().for_each(|text| self.hide(text));
    }

    /// Masks all texts of a value, also the keys of its maps.
    pub fn mask_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.hide(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.mask_value(item)),
            Value::Object(map) => {
                *map = std::mem::take(map)
                    .into_iter()
                    .map(|(mut key, mut item)| {
                        self.hide(&mut key);
                        self.mask_value(&mut item);
                        (key, item)
                    })
                    .collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Masks what a person reads of a diagnostic.
    pub fn mask_diagnostic(&self, diagnostic: &mut Diagnostic) {
        let Diagnostic { message, source_line, hint, .. } = diagnostic;
        self.hide_in([message].into_iter().chain(source_line).chain(hint));
    }

    /// Masks an event, so that it can be shown and kept. The content of files that hold a secret is withheld.
    pub fn mask_event(&self, event: &mut Event) {
        if self.is_empty() {
            return;
        }
        match event {
            Event::HostUnreachable { error: ConnectError { message, hint, .. }, .. } => self.hide_in([message].into_iter().chain(hint)),
            Event::HostFailed { diagnostic, .. } | Event::Misused { diagnostic, .. } => self.mask_diagnostic(diagnostic),
            Event::Log { text, .. } | Event::CommandStarted { text, .. } => self.hide(text),
            Event::PlanReady { plan } | Event::Proved { plan, .. } => *plan = self.masked_plan(plan),
            // Lines were masked as they came, before they were split; a line by itself may still hold one that came to be known after.
            Event::Output { line, .. } => {
                if let std::borrow::Cow::Owned(masked) = self.mask_bytes(line) {
                    *line = masked;
                }
            }
            Event::HostOperationEnded { result, .. } => self.mask_result(result),
            Event::TextsChanged { texts, .. } => {
                let mut masked = texts.as_ref().clone();
                masked.iter_mut().for_each(|text| self.mask_text_change(text));
                *texts = Arc::new(masked);
            }
            Event::FactAnswered { question, answer, .. } => {
                self.mask_value(question);
                match answer {
                    Ok(value) if self.holds_in(value) => {
                        let mut masked = value.as_ref().clone();
                        self.mask_value(&mut masked);
                        *value = Arc::new(masked);
                    }
                    Ok(_) => {}
                    Err(message) => self.hide(message),
                }
            }
            Event::Retrying { failure, .. } => self.mask_failure(failure),
            Event::WithinCall { title, result, .. } => {
                self.hide(title);
                self.mask_result(result);
            }
            Event::RunStarted { .. }
            | Event::Connecting
            | Event::HostConnected { .. }
            | Event::Preparing
            | Event::HostPrepared { .. }
            | Event::DetailedExitCode
            | Event::Rechecking
            | Event::PlanStands
            | Event::Declined
            | Event::Executing
            | Event::OperationStarted { .. }
            | Event::HostOperationStarted { .. }
            | Event::Proving
            | Event::Counted { .. }
            | Event::OperationEnded { .. }
            | Event::WaveStarted { .. }
            | Event::Stopped { .. }
            | Event::Interrupted { .. }
            | Event::Moved { .. }
            | Event::Lock { .. }
            | Event::RunEnded => {}
        }
    }

    /// The plan, as it can be shown and kept.
    pub fn masked_plan(&self, plan: &Arc<Plan>) -> Arc<Plan> {
        if self.is_empty() {
            return plan.clone();
        }
        let mut masked = plan.as_ref().clone();
        for operation in &mut masked.operations {
            self.hide(&mut operation.title);
            operation.hosts.iter_mut().for_each(|host| self.mask_outlook(&mut host.outlook));
        }
        self.hide_in(masked.blocks.iter_mut().map(|block| &mut block.title));
        self.hide_in(&mut masked.notes);
        Arc::new(masked)
    }

    fn mask_outlook(&self, outlook: &mut Outlook) {
        match outlook {
            Outlook::Change { reason, steps, texts } => {
                self.hide(reason);
                self.hide_in(steps);
                texts.iter_mut().for_each(|text| self.mask_text_change(text));
            }
            Outlook::NoChange { reason } => self.hide(reason),
            Outlook::Depends { on, would } => self.hide_in(on.iter_mut().chain(would)),
        }
    }

    /// Withholds the texts of a file of which either holds a secret: the other may hold an older one.
    fn mask_text_change(&self, text: &mut TextChange) {
        self.hide(&mut text.path);
        if self.holds(&text.before) || self.holds(&text.after) {
            withhold(text);
        }
        self.hide_in(&mut text.withheld);
    }

    fn mask_result(&self, result: &mut HostResult) {
        let HostResult { outcome, stdout, stderr, .. } = result;
        self.hide_in([stdout, stderr]);
        match outcome {
            Outcome::Changed { reason } | Outcome::Unchanged { reason } | Outcome::Skipped { reason } => self.hide(reason),
            Outcome::Failed { failure, .. } | Outcome::Indeterminate { failure } => self.mask_failure(failure),
            Outcome::Earlier { .. } | Outcome::Elsewhere { .. } => {}
        }
    }

    fn mask_failure(&self, failure: &mut Failure) {
        let Failure { message, hint, step, ending, last_output } = failure;
        self.hide_in([message].into_iter().chain(hint).chain(step).chain(last_output));
        if let Some(Ending::Refused(reason) | Ending::Lost { reason, .. }) = ending {
            self.hide(reason);
        }
    }

    /// A host's data as it can be shown. Passwords are hidden by their keys too: one that is too short to be found may stand there.
    pub fn masked_data(&self, data: &Map) -> Map {
        let mut masked = data.clone();
        for (key, value) in &mut masked {
            match SECRET_KEYS.contains(&key.as_str()) && !value.is_null() {
                true => *value = Value::String(MASK.to_owned()),
                false => self.mask_value(value),
            }
        }
        masked
    }

    /// The inventory as it can be shown.
    pub fn masked_inventory(&self, inventory: &Inventory) -> Inventory {
        let mut masked = inventory.clone();
        for host in &mut masked.hosts {
            let data = self.masked_data(&host.data);
            if data != host.data {
                Arc::make_mut(host).data = data;
            }
        }
        masked
    }

    /// Takes in the passwords among the data of the hosts, which are secrets however they were given.
    pub fn learn_passwords(&self, inventory: &Inventory) {
        for host in &inventory.hosts {
            for text in SECRET_KEYS.iter().filter_map(|key| host.data.get(*key)?.as_str()) {
                // What is too short to be found is hidden by its key.
                let _ = self.secret(text);
            }
        }
    }
}

/// Leaves out what a text file holds.
pub fn withhold(text: &mut TextChange) {
    if text.withheld.is_none() {
        (text.before, text.after, text.withheld) = (String::new(), String::new(), Some(WITHHELD.to_owned()));
    }
}
