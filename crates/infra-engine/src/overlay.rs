//! The host as it will be: what earlier operations of the plan touch and make true, laid over the facts.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::Value;
use infra_core::change::Effect;
use infra_core::fact::{AnyFact, SharedFact, key_of};
use infra_core::facts::{DependsOn, FactSource, LocalLookup, Lookup};
use infra_core::global_arguments::Context;
use infra_core::node::{LinkNode, Node};
use infra_core::resources::{Aliases, Resource, Resources, is_within, link_leads_to, normal_path, parent_of};
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
    question: Value,
    /// Its path, with the links on the way to it followed.
    path: Option<String>,
    /// By the paths as spelt and as they really are.
    rests_on: Resources,
    /// As whom it is asked, where that is not who is logged in.
    user: Option<&'a str>,
}

/// What one layer makes of a question.
enum Decided<'a> {
    /// This is the answer, or why there is none.
    To(Lookup),
    /// A link stands at the path, and the question is about what it leads to.
    Link(&'a LinkNode),
}

/// A layer, with its nodes by the paths at which they really stand.
struct Placed<'a> {
    layer: &'a Layer,
    nodes: Vec<(String, &'a Node)>,
}

impl<'a> Placed<'a> {
    /// What this operation makes of the question; none where it leaves it alone.
    fn decide(&self, wanted: &Wanted<'_>, aliases: &Aliases) -> Option<Decided<'a>> {
        let unknown = || Some(Decided::To(Lookup::Unknown(self.layer.from.clone())));
        for effect in self.layer.effects.iter().rev() {
            if let Effect::Answer { fact, question, answer, user } = effect
                && fact == wanted.fact.name()
                && *question == wanted.question
                && (user.is_none() || user.as_deref() == wanted.user)
            {
                return Some(Decided::To(Lookup::Known(Arc::new(answer.clone()))));
            }
        }
        if let Some(path) = &wanted.path
            && let Some((at, node)) = self.nearest_node(path)
        {
            let standing = match node {
                node if at == path => Some(node),
                Node::Absent | Node::File(_) => Some(&Node::Absent),
                Node::Directory(directory) if directory.fresh => Some(&Node::Absent),
                // It is not known where it leads.
                Node::Link(_) => return unknown(),
                Node::Directory(_) => None,
            };
            if let Some(node) = standing {
                return match (wanted.fact.foresee(node), node) {
                    (Some(answer), _) => Some(Decided::To(Lookup::Known(Arc::new(answer)))),
                    (None, Node::Link(link)) => Some(Decided::Link(link)),
                    (None, _) => unknown(),
                };
            }
        }
        if self.layer.may_change(wanted, aliases) { unknown() } else { None }
    }

    /// The node that says most of a path: at the path itself, else at the nearest directory above it.
    fn nearest_node(&self, path: &str) -> Option<(&str, &'a Node)> {
        let mut nearest: Option<(&str, &Node)> = None;
        for (at, node) in &self.nodes {
            if is_within(path, at) && nearest.is_none_or(|(found, _)| found.len() <= at.len()) {
                nearest = Some((at, node));
            }
        }
        nearest
    }
}

impl Layer {
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
}

/// The facts as one operation sees them: the layers of the operations before it over what the host answered. It remembers what it was asked.
pub(crate) struct View<'a> {
    store: &'a Mutex<FactStore>,
    locals: &'a LocalFiles,
    layers: Vec<Placed<'a>>,
    context: &'a Context,
    aliases: Aliases,
    /// The links that layers make, by the paths under which they are known.
    made: BTreeMap<String, &'a DependsOn>,
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
    /// What is to be asked of the host in the place of a question, by what tells that one from others: the host cannot answer it yet, because a link that
    /// leads to what it is about is still to be made.
    pub(crate) instead: BTreeMap<String, SharedFact>,
}

impl<'a> View<'a> {
    pub(crate) fn new(store: &'a Mutex<FactStore>, locals: &'a LocalFiles, layers: &'a [Layer], context: &'a Context) -> Self {
        let mut aliases = store.lock().unwrap_or_else(PoisonError::into_inner).aliases().clone();
        let mut made = BTreeMap::new();
        let placed = layers.iter().map(|layer| {
            // Where a path leads is a matter of its time: a later operation may change a link on the way.
            let nodes = layer.effects.iter().filter_map(|effect| match effect {
                Effect::Node { path, node } => Some((path, node)),
                Effect::Answer { .. } => None,
            });
            let nodes = nodes.map(|(path, node)| {
                let at = aliases.real_entry(path);
                if !matches!(node, Node::Directory(_)) {
                    [path, &at].into_iter().for_each(|path| aliases.forget(path));
                }
                if let Node::Link(link) = node {
                    for path in BTreeSet::from([normal_path(path), at.clone()]) {
                        aliases.add(&path, &link_leads_to(&at, &link.target));
                        made.insert(path, &layer.from);
                    }
                }
                (at, node)
            });
            Placed { nodes: nodes.collect(), layer }
        });
        let layers = placed.collect();
        Self { store, locals, layers, context, aliases, made, seen: RefCell::default() }
    }

    /// What was looked at.
    pub(crate) fn into_seen(self) -> Seen {
        self.seen.into_inner()
    }

    fn find(&self, fact: &SharedFact) -> Lookup {
        if self.layers.is_empty() {
            return self.stored(fact);
        }
        let path = fact.path().map(normal_path);
        let wanted = Wanted {
            fact: &**fact,
            question: fact.question(),
            path: path.as_deref().map(|path| self.aliases.real_entry(path)),
            rests_on: fact.rests_on().with_real_paths(&self.aliases),
            user: self.context.privilege.user(),
        };
        let touching = |layer: &&Placed<'_>| layer.layer.may_change(&wanted, &self.aliases);
        self.touched(self.layers.iter().find(touching));
        match self.layers.iter().rev().find_map(|layer| Some((layer, layer.decide(&wanted, &self.aliases)?))) {
            Some((_, Decided::To(answer))) => answer,
            Some((layer, Decided::Link(link))) => self.through(fact, link, &layer.layer.from),
            None => self.of_host(fact, path.as_deref()),
        }
    }

    /// Notes that something was looked at which this layer touches, where it is the first.
    fn touched(&self, by: Option<&Placed<'_>>) {
        let mut seen = self.seen.borrow_mut();
        if let (None, Some(layer)) = (&seen.touched_by, by) {
            seen.touched_by = Some(layer.layer.from.clone());
        }
    }

    /// The answer to a question about a path where an earlier operation puts a link.
    fn through(&self, fact: &SharedFact, link: &LinkNode, from: &DependsOn) -> Lookup {
        let unknown = || Lookup::Unknown(from.clone());
        let Some(other) = fact.path().and_then(|path| self.elsewhere(fact, path)) else { return unknown() };
        match self.find(&other) {
            Lookup::Known(answer) => fact.through(link, &answer).map_or_else(unknown, |answer| Lookup::Known(Arc::new(answer))),
            Lookup::Missing => self.ask_instead(fact, other),
            answer => answer,
        }
    }

    /// The same question about where a path leads in the end, where that is known.
    fn elsewhere(&self, fact: &SharedFact, path: &str) -> Option<SharedFact> {
        let real = self.aliases.real(path)?;
        // Links in a circle lead nowhere, and where one leads that goes up from a relative path only the host knows.
        let leads = self.aliases.real(&real).is_none() && !real.split('/').any(|part| part == "..");
        if leads { fact.about(&real) } else { None }
    }

    /// What the host answered to a question that no earlier operation decides.
    fn of_host(&self, fact: &SharedFact, path: Option<&str>) -> Lookup {
        // What stands behind a link that is still to be made is asked about by its real path.
        let above = path.and_then(parent_of).unwrap_or_default();
        let made = self.aliases.way(&above).find_map(|(link, _)| self.made.get(link));
        if let (Some(from), Some(path)) = (made, path) {
            let real = fact.about(&self.aliases.real_entry(path)).filter(|_| self.elsewhere(fact, &above).is_some());
            let Some(other) = real else { return Lookup::Unknown((*from).clone()) };
            return match self.stored(&other) {
                Lookup::Missing => self.ask_instead(fact, other),
                answer => answer,
            };
        }
        self.stored(fact)
    }

    fn ask_instead(&self, fact: &SharedFact, other: SharedFact) -> Lookup {
        self.seen.borrow_mut().instead.insert(key_of(&**fact), other);
        Lookup::Missing
    }

    fn stored(&self, fact: &SharedFact) -> Lookup {
        let asked = Asked::new(fact.clone(), self.context);
        let answer = self.store.lock().unwrap_or_else(PoisonError::into_inner).lookup(&asked);
        if matches!(answer, Lookup::Failed(_)) && asked.context.privilege.some().is_some() {
            // It may be that there is no such user yet, or none who may become it.
            let grants = privilege_rests_on();
            self.touched(self.layers.iter().find(|layer| layer.layer.touches.overlaps(&grants)));
        }
        answer
    }
}

/// What decides whether somebody can become somebody else.
fn privilege_rests_on() -> Resources {
    let files = ["/etc/sudoers", "/etc/doas.conf", "/etc/login.defs"].map(|path| Resource::Path(path.to_owned()));
    let folders = [Resource::Tree("/etc/sudoers.d".to_owned()), Resource::Users, Resource::Session, Resource::Packages];
    Resources::only(files.into_iter().chain(folders))
}

impl FactSource for View<'_> {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        self.seen.borrow_mut().asked.push(Asked::new(fact.clone(), self.context));
        self.find(fact)
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
