//! What layers make of a question, by table.

use std::sync::Arc;

use infra_core::Value;
use infra_core::change::Change;
use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError, erase};
use infra_core::node::{DirectoryNode, FileNode, LinkNode};
use infra_core::output::Output;
use infra_core::resources::Resource;
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;

/// The kind of what stands at a path; it cannot say what a link leads to.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct KindAt {
    path: String,
}

impl Fact for KindAt {
    const NAME: &'static str = "made.kind_at";
    const DOC: &'static str = "The kind of what stands at a path.";
    type Value = String;

    fn command(&self) -> Command {
        sh!("stat {}", self.path).into()
    }

    fn parse(&self, output: &Output) -> Result<String, ParseError> {
        Ok(output.text().into_owned())
    }

    fn rests_on(&self) -> Resources {
        Resources::path(self.path.as_str())
    }

    fn path(&self) -> Option<&str> {
        Some(&self.path)
    }

    fn foresee(&self, node: &Node) -> Option<String> {
        match node {
            Node::Absent => Some("absent".into()),
            Node::File(_) => Some("file".into()),
            Node::Directory(_) => Some("directory".into()),
            Node::Link(_) => None,
        }
    }

    fn examples() -> Vec<FactExample> {
        Vec::new()
    }
}

#[test]
fn what_is_written_through_a_link_is_unknown_by_its_real_path() {
    let to = |target: &str| Node::Link(LinkNode { target: target.to_owned(), ..LinkNode::default() });
    for (target, path, wanted) in [
        ("/a", "/l/b", "unknown: call 1"),
        ("../x/../a", "/l/b", "unknown: call 1"),
        ("/a", "/l/c", "base"),
        ("/elsewhere", "/l/b", "base"),
    ] {
        let layers = [standing(0, "/l", to(target)), touching(1, Resources::path(path))];
        assert_eq!(look("/a/b", &layers), wanted, "{target} {path}");
    }
    // The link itself leaves alone what it leads to.
    let only = layer(0, Change::new("x").touching(Resources::tree("/l")).node("/l", to("/a")));
    assert_eq!(look("/a/b", &[only]), "base");
}

/// Who owns the file at a path, by name.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct OwnerAt {
    path: String,
}

impl Fact for OwnerAt {
    const NAME: &'static str = "made.owner_at";
    const DOC: &'static str = "Who owns the file at a path.";
    type Value = String;

    fn command(&self) -> Command {
        sh!("stat {}", self.path).into()
    }

    fn parse(&self, output: &Output) -> Result<String, ParseError> {
        Ok(output.text().into_owned())
    }

    fn rests_on(&self) -> Resources {
        Resources::path(self.path.as_str())
    }

    fn answer_rests_on(&self, owner: &String) -> Resources {
        Resources::owners(owner, "root")
    }

    fn examples() -> Vec<FactExample> {
        Vec::new()
    }
}

#[test]
fn an_answer_is_unknown_once_the_names_in_it_are_touched() {
    let names = |call, name: &str| touching(call, Resources::only([Resource::owner_of(name)]));
    let question = OwnerAt { path: "/a".into() };
    let given = |call| layer(call, Change::new("x").touching(Resources::path("/a")).answer(&question, &"ann".to_owned()));
    for (owner, layers, wanted) in [
        ("ann", vec![names(0, "ben")], Some("ann")),
        ("ann", vec![names(0, "ann")], None),
        ("1001", vec![names(0, "ann"), touching(1, Resources::only([Resource::group_of("root")]))], None),
        ("1001", vec![names(0, "ann")], Some("1001")),
        ("1001", vec![touching(0, Resources::only([Resource::nameless_owner()]))], None),
        ("ben", vec![names(0, "ann"), given(1)], Some("ann")),
        ("ben", vec![given(0), names(1, "ann")], None),
        ("ben", vec![given(0), names(1, "ben")], Some("ann")),
    ] {
        let (mut store, locals, context) = (FactStore::default(), LocalFiles::default(), Context::default());
        let asked = Asked::new(erase(question.clone()), &context);
        store.keep(&asked, Ok(json!(owner)));
        for layer in &layers {
            let touches = Resources::only([Resource::owner_of(owner), Resource::group_of("root")]).overlaps(&layer.touches);
            assert_eq!(store.is_stale(&asked, &layer.touches), touches || layer.touches.overlaps(&Resources::path("/a")), "{owner}");
        }
        let store = Mutex::new(store);
        let found = View::new(&store, &locals, &layers, &context).lookup(&asked.fact);
        let known = match &found {
            Lookup::Known(value) => value.as_str(),
            _ => None,
        };
        assert_eq!(known, wanted, "{owner} {layers:?}");
    }
}

fn layer(call: u32, change: Change) -> Layer {
    let from = DependsOn { call, name: format!("call {call}") };
    Layer::new(from, change.touches.unwrap_or(Resources::Everything), change.effects)
}

fn touching(call: u32, resources: Resources) -> Layer {
    layer(call, Change::new("x").touching(resources))
}

fn standing(call: u32, path: &str, node: Node) -> Layer {
    layer(call, Change::new("x").touching(Resources::path(path)).node(path, node))
}

fn fresh(fresh: bool) -> Node {
    Node::Directory(DirectoryNode { fresh, ..DirectoryNode::default() })
}

fn file() -> Node {
    Node::File(FileNode::default())
}

fn link() -> Node {
    Node::Link(LinkNode { target: "/x".into(), ..LinkNode::default() })
}

fn base(path: &str) -> Mutex<FactStore> {
    let mut store = FactStore::default();
    let fact = erase(KindAt { path: path.to_owned() });
    store.keep(&Asked::new(fact, &Context::default()), Ok(json!("base")));
    Mutex::new(store)
}

fn look(path: &str, layers: &[Layer]) -> String {
    let (store, locals, context) = (base("/a/b"), LocalFiles::default(), Context::default());
    let mut settled: Vec<Layer> = Vec::new();
    for layer in layers {
        settled.push(layer.clone().settled(&settled, &Arc::new(Aliases::default())));
    }
    let view = View::new(&store, &locals, &settled, &context);
    match view.lookup(&erase(KindAt { path: path.to_owned() })) {
        Lookup::Known(value) => value.as_str().unwrap_or_default().to_owned(),
        Lookup::Missing => "missing".into(),
        Lookup::Unknown(on) => format!("unknown: {}", on.name),
        Lookup::Failed(message) => message,
    }
}

#[test]
fn layers_are_asked_from_the_latest_down() {
    let answer = |call, answer: &str| {
        let question = KindAt { path: "/a/b".into() };
        layer(call, Change::new("x").touching(Resources::path("/a/b")).answer(&question, &answer.to_owned()))
    };
    let table: Vec<(&str, Vec<Layer>, &str)> = vec![
        ("/a/b", vec![], "base"),
        ("/x", vec![], "missing"),
        ("/a/b", vec![standing(0, "/a/b", file())], "file"),
        ("/a/b", vec![standing(0, "/a//b/", file())], "file"),
        ("/a/b", vec![standing(0, "/a/b", link())], "unknown: call 0"),
        ("/a/b", vec![standing(0, "/a", Node::Absent)], "absent"),
        ("/a/b", vec![standing(0, "/a", file())], "absent"),
        ("/a/b", vec![standing(0, "/a", fresh(true))], "absent"),
        ("/a/b", vec![standing(0, "/a", fresh(false))], "base"),
        // Nobody has asked yet about the place where it then is.
        ("/a/b", vec![standing(0, "/a", link())], "missing"),
        ("/x/b", vec![standing(0, "/a", link())], "missing"),
        ("/c/b", vec![standing(0, "/c", Node::Link(LinkNode { target: "a".into(), ..LinkNode::default() }))], "base"),
        ("/c/b", vec![standing(0, "/c", Node::Link(LinkNode { target: "c".into(), ..LinkNode::default() }))], "absent"),
        ("/c/b", vec![standing(0, "/c", link()), touching(1, Resources::path("/c"))], "unknown: call 1"),
        ("/a/b", vec![standing(0, "/", fresh(false))], "base"),
        ("/ab", vec![standing(0, "/a", Node::Absent)], "missing"),
        // The latest word counts.
        ("/a/b", vec![standing(0, "/a/b", file()), standing(1, "/a/b", Node::Absent)], "absent"),
        ("/a/b", vec![standing(0, "/a/b", Node::Absent), standing(1, "/a/b", file())], "file"),
        ("/a/b", vec![standing(0, "/a/b", file()), standing(1, "/a", fresh(true))], "absent"),
        ("/a/b", vec![standing(0, "/a", fresh(true)), standing(1, "/a/b", file())], "file"),
        ("/a/b", vec![standing(0, "/a", fresh(true)), standing(1, "/a", fresh(false))], "absent"),
        // What is touched without a known effect is unknown, until something later says what is there.
        ("/a/b", vec![touching(0, Resources::Everything)], "unknown: call 0"),
        ("/a/b", vec![touching(0, Resources::tree("/a"))], "unknown: call 0"),
        ("/a/b", vec![touching(0, Resources::path("/a"))], "base"),
        ("/a/b", vec![touching(0, Resources::only([Resource::Users]))], "base"),
        ("/a/b", vec![touching(0, Resources::Everything), standing(1, "/a/b", file())], "file"),
        ("/a/b", vec![standing(0, "/a/b", file()), touching(1, Resources::Everything)], "unknown: call 1"),
        ("/a/b", vec![touching(0, Resources::Everything), touching(1, Resources::Everything)], "unknown: call 1"),
        ("/a/b", vec![answer(0, "answered")], "answered"),
        ("/a/b", vec![answer(0, "answered"), touching(1, Resources::none())], "answered"),
        // A relative path may be anywhere.
        ("/a/b", vec![standing(0, "b", file())], "unknown: call 0"),
    ];
    for (path, layers, expected) in table {
        assert_eq!(look(path, &layers), expected, "{path} under {layers:?}");
    }
}

#[test]
fn of_several_nodes_in_one_layer_the_nearest_counts() {
    let both = |first: (&str, Node), second: (&str, Node)| {
        let change = Change::new("x").touching(Resources::tree("/a")).node(first.0, first.1).node(second.0, second.1);
        [layer(0, change)]
    };
    assert_eq!(look("/a/b", &both(("/a", fresh(true)), ("/a/b", file()))), "file");
    assert_eq!(look("/a/b", &both(("/a/b", file()), ("/a", fresh(true)))), "file");
    assert_eq!(look("/a/c", &both(("/a", fresh(true)), ("/a/b", file()))), "absent");
    assert_eq!(look("/a/b", &both(("/a", fresh(false)), ("/z", file()))), "unknown: call 0", "the tree is touched");
}

#[test]
fn what_was_looked_at_and_touched_is_remembered() {
    let (store, locals, context) = (base("/a/b"), LocalFiles::default(), Context::default());
    let layers = [touching(3, Resources::path("/other")), standing(5, "/a/b", file())];
    let view = View::new(&store, &locals, &layers, &context);
    view.lookup(&erase(KindAt { path: "/elsewhere".into() }));
    view.lookup(&erase(KindAt { path: "/a/b".into() }));
    assert_eq!(view.local("/src"), LocalLookup::Missing);
    let seen = view.into_seen();
    assert_eq!(seen.touched_by.map(|on| on.call), Some(5));
    assert_eq!(seen.locals.into_iter().collect::<Vec<_>>(), ["/src"]);
    assert!(!seen.local_failed);
}

#[test]
fn answers_are_kept_apart_by_who_asks_and_dropped_when_touched() {
    let sudo = Context { privilege: infra_core::privilege::Privilege::sudo("root"), ..Context::default() };
    let fact = |path: &str| erase(KindAt { path: path.to_owned() });
    let mut store = FactStore::default();
    store.keep(&Asked::new(fact("/a"), &sudo), Ok(json!("root's")));
    store.keep(&Asked::new(fact("/a"), &Context::default()), Err("not allowed".into()));
    store.keep(&Asked::new(fact("/b"), &sudo), Ok(json!("b")));
    let known = |text: &str| Lookup::Known(Arc::new(Value::from(text)));
    assert_eq!(store.lookup(&Asked::new(fact("/a"), &sudo)), known("root's"));
    assert_eq!(store.lookup(&Asked::new(fact("/a"), &Context::default())), Lookup::Failed("not allowed".into()));
    let chdir = Context { chdir: Some("/srv".into()), ..sudo.clone() };
    assert_eq!(store.lookup(&Asked::new(fact("/a"), &chdir)), known("root's"), "the directory is not inherited");

    store.drop_touched(&Resources::none());
    store.drop_touched(&Resources::path("/a"));
    assert_eq!(store.lookup(&Asked::new(fact("/a"), &sudo)), Lookup::Missing);
    assert_eq!(store.lookup(&Asked::new(fact("/a"), &Context::default())), Lookup::Missing, "failures are dropped as well");
    assert_eq!(store.lookup(&Asked::new(fact("/b"), &sudo)), known("b"));
}
