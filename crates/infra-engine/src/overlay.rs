//! The host as it will be: what earlier operations of the plan touch and make true, laid over the facts.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::Value;
use infra_core::change::Effect;
use infra_core::fact::{AnyFact, AtLink, SharedFact};
use infra_core::facts::{DependsOn, FactSource, LocalLookup, Lookup};
use infra_core::global_arguments::Context;
use infra_core::node::Node;
use infra_core::resources::{Aliases, Resource, Resources, is_within, normal_path};
use infra_core::tree::{TreeLookup, TreeQuestion};

use crate::fact_store::{Asked, FactStore};
use crate::local_files::LocalFiles;
use ways::Ways;

/// What one operation of the plan does to the facts.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// The operation.
    pub(crate) from: DependsOn,
    /// What it touches.
    pub(crate) touches: Resources,
    /// What is known of it afterwards; what it touches without an effect is unknown.
    pub(crate) effects: Vec<Effect>,
    /// What it touches by all names of its paths: every operation after it asks, and the links that are known are mostly the same.
    by_all_names: Arc<Mutex<Option<Named>>>,
}

/// What is touched by all names of the paths, with these links.
type Named = (Arc<Aliases>, Arc<Resources>);

/// A question, with what is worked out of it once for all layers.
struct Wanted<'a> {
    fact: &'a dyn AnyFact,
    question: Value,
    /// The path that it is about, without links on the way.
    place: Option<String>,
    /// Whether links on the way lead in a circle, so that nothing can be there.
    circles: bool,
    /// The operation that may turn a link on the way, which makes all else unknown.
    unsure: Option<DependsOn>,
    /// By the paths as spelt and as they really are. Where the answer can be told from that about what a link leads to, what that is does not count.
    rests_on: Resources,
    /// As whom it is asked, where that is not who is logged in.
    user: Option<&'a str>,
}

/// What an operation makes of a question.
enum Decided {
    Answer(Lookup),
    /// There is a link to this at the path: the answer is that about where it leads.
    Link(String),
}

impl Layer {
    /// What an operation touches, and what is known of that afterwards.
    pub(crate) fn new(from: DependsOn, touches: Resources, effects: Vec<Effect>) -> Self {
        Self { from, touches, effects, by_all_names: Arc::default() }
    }

    /// The same with its paths as they really are, after the operations before it: later ones may turn the links on the way.
    pub(crate) fn settled(mut self, before: &[Layer], aliases: &Arc<Aliases>) -> Self {
        let ways = Ways::new(before, aliases.clone());
        let own = self.own_paths();
        self.touches = self.without_what_links_lead_to();
        self.touches = ways.reach(&self.touches, |path| !own.contains(&normal_path(path)));
        let mut more = Vec::new();
        for effect in &mut self.effects {
            match effect {
                Effect::Node { path, .. } => *path = ways.place(path),
                Effect::Answer { fact, question, answer, user } => {
                    let Some(path) = question.get("path").and_then(Value::as_str) else { continue };
                    let place = ways.place(path);
                    if place != path {
                        let mut question = question.clone();
                        question["path"] = Value::String(place);
                        more.push(Effect::Answer { fact: fact.clone(), question, answer: answer.clone(), user: user.clone() });
                    }
                }
            }
        }
        self.effects.extend(more);
        Self::new(self.from, self.touches, self.effects)
    }

    /// The paths of which it says what will stand there. If a link stood there, it is changed or replaced itself, and what it led to is left alone.
    fn own_paths(&self) -> Vec<String> {
        let paths = self.effects.iter().filter_map(|effect| match effect {
            Effect::Node { path, .. } => Some(normal_path(path)),
            Effect::Answer { .. } => None,
        });
        paths.collect()
    }

    /// What it touches, but for what is seen below the links that it makes: that stands where they lead, and is looked up there.
    fn without_what_links_lead_to(&self) -> Resources {
        let Resources::Only(set) = &self.touches else { return Resources::Everything };
        let is_link = |path: &String| {
            self.effects.iter().any(|effect| matches!(effect, Effect::Node { path: at, node: Node::Link(_) } if normal_path(at) == *path))
        };
        Resources::Only(
            set.iter()
                .cloned()
                .map(|one| match one {
                    Resource::Tree(path) if is_link(&path) => Resource::Path(path),
                    other => other,
                })
                .collect(),
        )
    }

    /// What this operation makes of the question; none where it leaves it alone.
    fn decide(&self, wanted: &Wanted<'_>, aliases: &Arc<Aliases>) -> Option<Decided> {
        let unknown = || Lookup::Unknown(self.from.clone());
        let known = |answer| Lookup::Known(Arc::new(answer));
        for effect in self.effects.iter().rev() {
            if let Effect::Answer { fact, question: about, answer, user } = effect
                && fact == wanted.fact.name()
                && (user.is_none() || user.as_deref() == wanted.user)
                && (*about == wanted.question || wanted.is_about(about))
            {
                return Some(Decided::Answer(known(answer.clone())));
            }
        }
        if let Some(place) = &wanted.place
            && let Some((at, node)) = self.nearest_node(place)
        {
            let standing = match node {
                node if at == *place => Some(node),
                Node::Absent | Node::File(_) => Some(&Node::Absent),
                Node::Directory(directory) if directory.fresh => Some(&Node::Absent),
                Node::Link(_) if wanted.circles => Some(&Node::Absent),
                // What is below a link is somewhere else.
                Node::Link(_) => return Some(Decided::Answer(unknown())),
                Node::Directory(_) => None,
            };
            if let Some(node) = standing {
                return match (wanted.fact.foresee(node), node) {
                    (Some(answer), _) => Some(Decided::Answer(known(answer))),
                    (None, Node::Link(link)) => Some(Decided::Link(link.target.clone())),
                    (None, Node::File(file)) if file.same_content && wanted.fact.of_content() => None,
                    (None, _) => Some(Decided::Answer(unknown())),
                };
            }
        }
        self.may_change(wanted, aliases).then(|| Decided::Answer(unknown()))
    }

    fn may_change(&self, wanted: &Wanted<'_>, aliases: &Arc<Aliases>) -> bool {
        self.by_all_names(aliases).overlaps(&wanted.rests_on)
    }

    fn by_all_names(&self, aliases: &Arc<Aliases>) -> Arc<Resources> {
        let mut known = self.by_all_names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, named)) = &*known
            && Arc::ptr_eq(of, aliases)
        {
            return named.clone();
        }
        let own = self.own_paths();
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let named = Arc::new(self.touches.with_real_paths(&aliases.without(&own)));
        *known = Some((aliases.clone(), named.clone()));
        named
    }

    /// The node that says most of a path: at the path itself, else at the nearest directory above it.
    fn nearest_node(&self, path: &str) -> Option<(&str, &Node)> {
        let mut nearest: Option<(&str, &Node)> = None;
        for effect in &self.effects {
            let Effect::Node { path: at, node } = effect else { continue };
            if is_within(path, at) && nearest.as_ref().is_none_or(|(found, _)| found.len() <= at.len()) {
                nearest = Some((at, node));
            }
        }
        nearest
    }
}

/// The answer, unless one of these layers, which come after it, touches the names in it.
fn renamed(fact: &dyn AnyFact, answer: Lookup, layers: &[Layer]) -> Lookup {
    let Lookup::Known(value) = &answer else { return answer };
    if layers.is_empty() {
        return answer;
    }
    let names = fact.answer_rests_on(value);
    // What touches everything has been asked about the path as well; of that it may have said what will be there.
    let touches = |layer: &&Layer| matches!(layer.touches, Resources::Only(_)) && layer.touches.overlaps(&names);
    layers.iter().find(touches).map_or(answer, |layer| Lookup::Unknown(layer.from.clone()))
}

impl<'a> Wanted<'a> {
    fn new(fact: &'a dyn AnyFact, context: &'a Context, ways: &Ways<'_>) -> Self {
        let walked = fact.path().map(|path| ways.walk(path, false));
        let circles = walked == Some(None);
        let place = walked.map(|place| place.unwrap_or_else(|| normal_path(fact.path().unwrap_or_default())));
        let rests_on = fact.rests_on();
        let both = fact.at_link() == AtLink::Both;
        let (unsure, rests_on) = (ways.unsure(&rests_on, both), ways.reach(&rests_on, |_| both));
        Self { fact, question: fact.question(), place, circles, unsure, rests_on, user: context.privilege.user() }
    }

    /// Whether a question is this one but for the way in which its path is spelt.
    fn is_about(&self, about: &Value) -> bool {
        let (Value::Object(about), Value::Object(question), Some(place)) = (about, &self.question, &self.place) else { return false };
        let spelt = question.get("path").and_then(Value::as_str);
        spelt.is_some_and(|path| self.fact.path() == Some(path))
            && about.len() == question.len()
            && about.iter().all(|(name, value)| match name.as_str() {
                "path" => value.as_str().is_some_and(|path| normal_path(path) == *place),
                name => question.get(name) == Some(value),
            })
    }
}

/// The facts as one operation sees them: the layers of the operations before it over what the host answered. It remembers what it was asked.
pub(crate) struct View<'a> {
    store: &'a Mutex<FactStore>,
    locals: &'a LocalFiles,
    layers: &'a [Layer],
    context: &'a Context,
    ways: Ways<'a>,
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
    /// What is to be asked of the host, also in place of what was looked up, since a link leads elsewhere by then.
    pub(crate) missing: Vec<SharedFact>,
}

impl<'a> View<'a> {
    pub(crate) fn new(store: &'a Mutex<FactStore>, locals: &'a LocalFiles, layers: &'a [Layer], context: &'a Context) -> Self {
        let aliases = store.lock().unwrap_or_else(PoisonError::into_inner).aliases().clone();
        Self { store, locals, layers, context, ways: Ways::new(layers, aliases), seen: RefCell::default() }
    }

    /// What is known of a question, with the layers over it. `links` is how many links were followed to come to it.
    fn look(&self, fact: &SharedFact, links: usize) -> Lookup {
        let ways = &self.ways;
        let wanted = Wanted::new(&**fact, self.context, ways);
        if let Some(from) = wanted.unsure {
            return Lookup::Unknown(from);
        }
        let decided = |(place, layer): (usize, &Layer)| layer.decide(&wanted, &self.ways.aliases).map(|decided| (place, decided));
        match self.layers.iter().enumerate().rev().find_map(decided) {
            Some((place, Decided::Answer(answer))) => return renamed(&**fact, answer, &self.layers[place + 1..]),
            Some((place, Decided::Link(target))) => {
                let layer = &self.layers[place];
                return self.look_behind(fact, &target, links).unwrap_or_else(|| Lookup::Unknown(layer.from.clone()));
            }
            None => {}
        }
        let as_it_stands = ways.as_it_stands();
        let Some(place) = &wanted.place else {
            let is_turned = ways.reach(&fact.rests_on(), |_| true) != as_it_stands.reach(&fact.rests_on(), |_| true);
            return if is_turned { self.turned(&wanted) } else { self.ask(fact) };
        };
        // The host followed the link when it answered: what is there by now may be another thing.
        if let Some(target) = self.ways.aliases.leads(place)
            && let Some(end) = ways.end(place)
            && let Some(there) = fact.at_path(&end)
            && let wanted_there = Wanted::new(&*there, self.context, ways)
            && self.layers.iter().any(|layer| layer.may_change(&wanted_there, &self.ways.aliases))
            && let Some(answer) = self.look_behind(fact, &target, links)
        {
            return answer;
        }
        if fact.path().is_some_and(|path| as_it_stands.place(path) == *place) {
            return self.ask(fact);
        }
        // A link was turned: the host has never been asked about the path as it will be.
        let Some(there) = fact.at_path(place) else { return self.turned(&wanted) };
        self.ask(&there)
    }

    /// What is known of a question about a path where a link to `target` stands; none where the fact cannot be told from what it leads to.
    fn look_behind(&self, fact: &SharedFact, target: &str, links: usize) -> Option<Lookup> {
        if fact.at_link() != AtLink::Behind {
            return None;
        }
        let ways = &self.ways;
        let behind = match ways.end(fact.path()?) {
            Some(end) if links < ways::LINKS => self.look(&fact.at_path(&end)?, links + 1),
            // It leads in a circle, which is nowhere.
            _ => Lookup::Known(Arc::new(fact.foresee(&Node::Absent)?)),
        };
        match behind {
            Lookup::Known(behind) => fact.foresee_link(target, &behind).map(|answer| Lookup::Known(Arc::new(answer))),
            other => Some(other),
        }
    }

    /// What the host answered. What it was not asked yet is noted: it may be another question than the one that is looked up.
    fn ask(&self, fact: &SharedFact) -> Lookup {
        let asked = Asked::new(fact.clone(), self.context);
        let answer = self.store.lock().unwrap_or_else(PoisonError::into_inner).lookup(&asked);
        if answer == Lookup::Missing {
            self.seen.borrow_mut().missing.push(fact.clone());
        }
        renamed(&**fact, answer, self.layers)
    }

    /// That the operation which turned a link is what the answer depends on.
    fn turned(&self, wanted: &Wanted<'_>) -> Lookup {
        let turns =
            |layer: &&Layer| layer.effects.iter().any(|effect| matches!(effect, Effect::Node { node: Node::Link(_) | Node::Absent, .. }));
        let last = self.layers.iter().rev().find(turns).or_else(|| self.layers.last());
        last.map_or_else(|| Lookup::Failed(format!("nothing is known of {:?}", wanted.place)), |layer| Lookup::Unknown(layer.from.clone()))
    }

    /// What was looked at.
    pub(crate) fn into_seen(self) -> Seen {
        self.seen.into_inner()
    }
}

impl FactSource for View<'_> {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        self.seen.borrow_mut().asked.push(Asked::new(fact.clone(), self.context));
        if self.layers.is_empty() {
            return self.ask(fact);
        }
        let ways = &self.ways;
        let wanted = Wanted {
            rests_on: ways.reach(&fact.rests_on(), |_| fact.at_link() != AtLink::Itself),
            ..Wanted::new(&**fact, self.context, ways)
        };
        if self.seen.borrow().touched_by.is_none()
            && let Some(from) = wanted
                .unsure
                .clone()
                .or_else(|| self.layers.iter().find(|layer| layer.may_change(&wanted, &self.ways.aliases)).map(|layer| layer.from.clone()))
        {
            self.seen.borrow_mut().touched_by = Some(from);
        }
        self.look(fact, 0)
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

mod ways;

#[cfg(test)]
mod tests;
