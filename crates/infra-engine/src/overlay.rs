//! The host as it will be: what earlier operations of the plan touch and make true, laid over the facts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::change::Effect;
use infra_core::fact::{AnyFact, SharedFact};
use infra_core::facts::{DependsOn, FactSource, LocalLookup, Lookup};
use infra_core::global_arguments::Context;
use infra_core::node::Node;
use infra_core::resources::{Aliases, Resources, is_within, link_leads_to, normal_path};
use infra_core::tree::{TreeLookup, TreeQuestion};

use crate::fact_store::{Asked, FactStore};
use crate::local_files::LocalFiles;

/// What one operation of the plan does to the facts.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// The operation.
    pub(crate) from: DependsOn,
    /// What it touches.
    pub(crate) touches: Resources,
    /// What is known of it afterwards; what it touches without an effect is unknown.
    pub(crate) effects: Vec<Effect>,
}

/// A question, with what is worked out of it once for all layers.
struct Wanted<'a> {
    fact: &'a dyn AnyFact,
    path: Option<String>,
    /// By the paths as spelt and as they really are.
    rests_on: Resources,
}

impl Layer {
    /// What this operation makes of the question; none where it leaves it alone.
    fn decide(&self, wanted: &Wanted<'_>, aliases: &Aliases) -> Option<Lookup> {
        let unknown = || Some(Lookup::Unknown(self.from.clone()));
        for effect in self.effects.iter().rev() {
            if let Effect::Answer { fact, question, answer } = effect
                && fact == wanted.fact.name()
                && *question == wanted.fact.question()
            {
                return Some(Lookup::Known(Arc::new(answer.clone())));
            }
        }
        if let Some(path) = &wanted.path
            && let Some((at, node)) = self.nearest_node(path)
        {
            let standing = match node {
                node if at == *path => Some(node),
                Node::Absent | Node::File(_) => Some(&Node::Absent),
                Node::Directory(directory) if directory.fresh => Some(&Node::Absent),
                // What is below a link is somewhere else, and only the host knows where.
                Node::Link(_) => return unknown(),
                Node::Directory(_) => None,
            };
            if let Some(node) = standing {
                return wanted.fact.foresee(node).map(|answer| Lookup::Known(Arc::new(answer))).or_else(unknown);
            }
        }
        if self.may_change(wanted, aliases) { unknown() } else { None }
    }

    fn may_change(&self, wanted: &Wanted<'_>, aliases: &Aliases) -> bool {
        if aliases.is_empty() {
            return self.touches.overlaps(&wanted.rests_on);
        }
        // A link that is made, changed or removed leaves alone what it leads to.
        let own: Vec<&str> = self
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Node { path, node: Node::Link(_) | Node::Absent } => Some(path.as_str()),
                _ => None,
            })
            .collect();
        self.touches.with_real_paths(&aliases.without(&own)).overlaps(&wanted.rests_on)
    }

    /// The node that says most of a path: at the path itself, else at the nearest directory above it.
    fn nearest_node(&self, path: &str) -> Option<(String, &Node)> {
        let mut nearest: Option<(String, &Node)> = None;
        for effect in &self.effects {
            let Effect::Node { path: at, node } = effect else { continue };
            let at = normal_path(at);
            if is_within(path, &at) && nearest.as_ref().is_none_or(|(found, _)| found.len() <= at.len()) {
                nearest = Some((at, node));
            }
        }
        nearest
    }
}

/// The facts as one operation sees them: the layers of the operations before it over what the host answered. It remembers what it was asked.
pub(crate) struct View<'a> {
    store: &'a Mutex<FactStore>,
    locals: &'a LocalFiles,
    layers: &'a [Layer],
    context: &'a Context,
    aliases: Aliases,
    seen: RefCell<Seen>,
}

/// What a diff looked at.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The first earlier operation that touches something it looked at.
    pub(crate) touched_by: Option<DependsOn>,
    /// What was asked, also where the layers had the answer.
    pub(crate) asked: Vec<Asked>,
    /// The files of the controller.
    pub(crate) locals: BTreeSet<String>,
    /// The trees of the controller.
    pub(crate) trees: BTreeSet<TreeQuestion>,
    /// Whether one of them could not be read.
    pub(crate) local_failed: bool,
}

impl<'a> View<'a> {
    pub(crate) fn new(store: &'a Mutex<FactStore>, locals: &'a LocalFiles, layers: &'a [Layer], context: &'a Context) -> Self {
        let mut aliases = store.lock().unwrap_or_else(PoisonError::into_inner).aliases().clone();
        let effects = layers.iter().flat_map(|layer| &layer.effects);
        for (path, target) in effects.filter_map(|effect| match effect {
            Effect::Node { path, node: Node::Link(link) } => Some((path, &link.target)),
            _ => None,
        }) {
            aliases.add(path, &link_leads_to(path, target));
        }
        Self { store, locals, layers, context, aliases, seen: RefCell::default() }
    }

    /// What was looked at.
    pub(crate) fn into_seen(self) -> Seen {
        self.seen.into_inner()
    }
}

impl FactSource for View<'_> {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        let wanted = Wanted { fact: &**fact, path: fact.path().map(normal_path), rests_on: fact.rests_on().with_real_paths(&self.aliases) };
        let asked = Asked::new(fact.clone(), self.context);
        self.seen.borrow_mut().asked.push(asked.clone());
        if self.seen.borrow().touched_by.is_none()
            && let Some(layer) = self.layers.iter().find(|layer| layer.may_change(&wanted, &self.aliases))
        {
            self.seen.borrow_mut().touched_by = Some(layer.from.clone());
        }
        if let Some(decided) = self.layers.iter().rev().find_map(|layer| layer.decide(&wanted, &self.aliases)) {
            return decided;
        }
        self.store.lock().unwrap_or_else(PoisonError::into_inner).lookup(&asked)
    }

    fn local(&self, path: &str) -> LocalLookup {
        let found = self.locals.lookup(path);
        let mut seen = self.seen.borrow_mut();
        seen.locals.insert(path.to_owned());
        seen.local_failed |= matches!(found, LocalLookup::Failed(_) | LocalLookup::Absent);
        found
    }

    fn local_tree(&self, question: &TreeQuestion) -> TreeLookup {
        let found = self.locals.trees.lookup(question);
        let mut seen = self.seen.borrow_mut();
        seen.locals.insert(question.path.clone());
        seen.trees.insert(question.clone());
        seen.local_failed |= matches!(found, TreeLookup::Failed(_) | TreeLookup::Absent);
        found
    }

    fn local_if_there(&self, path: &str) -> LocalLookup {
        let found = self.locals.lookup(path);
        let mut seen = self.seen.borrow_mut();
        seen.locals.insert(path.to_owned());
        seen.local_failed |= matches!(found, LocalLookup::Failed(_));
        found
    }
}

#[cfg(test)]
mod tests;
