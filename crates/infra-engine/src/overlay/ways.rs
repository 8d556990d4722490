//! Where paths lead, after the operations of a plan: through the links that they make, and those that the host was found to have.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use infra_core::facts::DependsOn;
use infra_core::node::Node;
use infra_core::resources::{Aliases, Resource, Resources, normal_path};

use super::Layer;

/// The layers of operations over the links that the host was found to have.
pub(super) struct Ways<'a> {
    pub(super) layers: &'a [Layer],
    pub(super) aliases: Arc<Aliases>,
    /// What was found out by now: all paths of an operation have most of their way in common.
    links: RefCell<HashMap<String, Option<String>>>,
    turned: RefCell<HashMap<String, Option<DependsOn>>>,
}

/// As many links as a kernel follows before it takes them for a circle.
pub(super) const LINKS: usize = 40;

impl<'a> Ways<'a> {
    pub(super) fn new(layers: &'a [Layer], aliases: Arc<Aliases>) -> Self {
        Self { layers, aliases, links: RefCell::default(), turned: RefCell::default() }
    }

    /// The same as the host was found, without what the operations do.
    pub(super) fn as_it_stands(&self) -> Self {
        Self::new(&[], self.aliases.clone())
    }

    /// The path without links on the way. A link at its end stays as it is; so does a path that leads in a circle.
    pub(super) fn place(&self, path: &str) -> String {
        self.walk(path, false).unwrap_or_else(|| normal_path(path))
    }

    /// The path without any link, also at its end; none where it leads in a circle.
    pub(super) fn end(&self, path: &str) -> Option<String> {
        self.walk(path, true)
    }

    /// The same resources, with their paths as they really are. What a link at the end of a path leads to is among them where `follows` says so of the path.
    pub(super) fn reach(&self, resources: &Resources, follows: impl Fn(&str) -> bool) -> Resources {
        let Resources::Only(set) = resources else { return Resources::Everything };
        let mut all = Vec::new();
        for resource in set {
            let (path, make): (&str, fn(String) -> Resource) = match resource {
                Resource::Path(path) => (path, Resource::Path),
                Resource::Tree(path) => (path, Resource::Tree),
                other => {
                    all.push(other.clone());
                    continue;
                }
            };
            all.push(make(self.place(path)));
            all.extend(self.end(path).filter(|_| follows(path)).map(make));
        }
        Resources::only(all)
    }

    /// Goes along a path through the links on the way, also through one at its end where it goes to the end; none where they lead in a circle.
    pub(super) fn walk(&self, path: &str, to_the_end: bool) -> Option<String> {
        self.walk_over(path, to_the_end, &mut |_| {})
    }

    /// The operation that may turn a link on the way to one of these paths, without its being known where to.
    pub(super) fn unsure(&self, resources: &Resources, to_the_end: bool) -> Option<DependsOn> {
        let Resources::Only(set) = resources else { return None };
        let mut found = None;
        for resource in set {
            let (Resource::Path(path) | Resource::Tree(path)) = resource else { continue };
            self.walk_over(path, to_the_end, &mut |link| {
                found = found.take().or_else(|| self.turned_by(link));
            });
        }
        found
    }

    /// The operation that may turn this link, without its being known where to.
    fn turned_by(&self, link: &str) -> Option<DependsOn> {
        if let Some(known) = self.turned.borrow().get(link) {
            return known.clone();
        }
        let link_itself = Resources::Only([Resource::Path(link.to_owned())].into());
        let after = self.layers.iter().rev().take_while(|layer| layer.nearest_node(link).is_none());
        let found = after.filter(|layer| layer.touches.overlaps(&link_itself)).last().map(|layer| layer.from.clone());
        self.turned.borrow_mut().insert(link.to_owned(), found.clone());
        found
    }

    fn walk_over(&self, path: &str, to_the_end: bool, over: &mut dyn FnMut(&str)) -> Option<String> {
        let mut left: Vec<String> = Vec::new();
        let mut at = String::new();
        let follow = |path: &str, left: &mut Vec<String>, at: &mut String| {
            if path.starts_with('/') {
                *at = "/".to_owned();
            }
            left.extend(path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(str::to_owned));
        };
        follow(path, &mut left, &mut at);
        if let (true, Some(within)) = (at.is_empty(), self.aliases.working_directory()) {
            follow(within, &mut left, &mut at);
        }
        let mut links = 0;
        while let Some(part) = left.pop() {
            if part == ".." && at.starts_with('/') {
                at.truncate(at.rfind('/').unwrap_or_default().max(1));
                continue;
            }
            let here = match at.as_str() {
                "" => part,
                "/" => format!("/{part}"),
                above => format!("{above}/{part}"),
            };
            match self.link_at(&here).filter(|_| to_the_end || !left.is_empty()) {
                Some(_) if links == LINKS => return None,
                Some(target) => {
                    links += 1;
                    over(&here);
                    follow(&target, &mut left, &mut at);
                }
                None => at = here,
            }
        }
        Some(if at.is_empty() { ".".to_owned() } else { at })
    }

    /// What the link at this place leads to; none where none is known to be there.
    fn link_at(&self, place: &str) -> Option<String> {
        if let Some(known) = self.links.borrow().get(place) {
            return known.clone();
        }
        let found = self.find_link(place);
        self.links.borrow_mut().insert(place.to_owned(), found.clone());
        found
    }

    fn find_link(&self, place: &str) -> Option<String> {
        let standing = self.layers.iter().rev().find_map(|layer| match layer.nearest_node(place)? {
            (at, node) if at == place => Some(Some(node)),
            (_, Node::Directory(directory)) if !directory.fresh => None,
            // Nothing is there.
            _ => Some(None),
        });
        match standing {
            Some(Some(Node::Link(link))) => Some(link.target.clone()),
            Some(_) => None,
            None => self.aliases.leads(place),
        }
    }
}
