//! A plan of several operations: each sees the host as it stands, with what the earlier ones foretell laid over it.

use std::sync::Arc;

use infra_core::change::{Change, Effect};
use infra_core::fact::{SharedFact, key_of};
use infra_core::facts::{DependsOn, DiffError, FactSource, Facts, LocalLookup, Lookup};
use infra_core::node::Node;
use infra_core::operation::AnyOperation;
use infra_core::resources::{Resources, is_within, normal_path};

use crate::host::Host;

/// What an operation is planned to do.
#[derive(Debug)]
pub enum Planned {
    /// This.
    Change(Box<Change>),
    /// Nothing: it is refused.
    Refused,
    /// It depends on an earlier one.
    Depends,
}

/// The host with the plan laid over it.
pub struct Overlay<'h> {
    host: &'h Host,
    earlier: Vec<(Resources, Vec<Effect>)>,
}

impl<'h> Overlay<'h> {
    pub fn new(host: &'h Host) -> Self {
        Self { host, earlier: Vec::new() }
    }

    /// Plans one more operation.
    pub fn plan(&mut self, operation: &dyn AnyOperation) -> Planned {
        match operation.diff(&Facts::new(self)) {
            Ok(change) => {
                let touches = change.touches.clone().unwrap_or_else(|| operation.touches());
                self.earlier.push((touches, change.effects.clone()));
                Planned::Change(Box::new(change))
            }
            Err(DiffError::Refused { .. }) => Planned::Refused,
            Err(_) => {
                self.earlier.push((operation.touches(), Vec::new()));
                Planned::Depends
            }
        }
    }

    /// What one change foretells of a question that it touches; an outer none where it does not touch it.
    fn foretold(&self, fact: &SharedFact, touches: &Resources, effects: &[Effect]) -> Option<Lookup> {
        let path = fact.path().map(normal_path);
        // The nearest node at the path or above it says most.
        let nearest = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Node { path: at, node } => Some((normal_path(at), node)),
                Effect::Answer { .. } => None,
            })
            .filter(|(at, _)| path.as_ref().is_some_and(|path| is_within(path, at)))
            .max_by_key(|(at, _)| at.len());
        let answer = effects.iter().find_map(|effect| match effect {
            Effect::Answer { fact: name, question, answer, .. } if format!("{name} {question}") == key_of(&**fact) => Some(answer.clone()),
            _ => None,
        });
        let foreseen = answer.or_else(|| match nearest {
            Some((at, node)) if path.as_ref() == Some(&at) => fact.foresee(node),
            Some((_, Node::Absent)) => fact.foresee(&Node::Absent),
            Some((_, Node::Directory(directory))) if directory.fresh => fact.foresee(&Node::Absent),
            _ => None,
        });
        match foreseen {
            Some(answer) => Some(Lookup::Known(Arc::new(answer))),
            None if touches.overlaps(&fact.rests_on()) => Some(Lookup::Unknown(DependsOn { call: 0, name: "an earlier one".into() })),
            None => None,
        }
    }
}

impl FactSource for Overlay<'_> {
    fn lookup(&self, fact: &SharedFact) -> Lookup {
        let foretold = self.earlier.iter().rev().find_map(|(touches, effects)| self.foretold(fact, touches, effects));
        foretold.unwrap_or_else(|| self.host.lookup(fact))
    }

    fn local(&self, path: &str) -> LocalLookup {
        self.host.local(path)
    }
}
