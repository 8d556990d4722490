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

    fn through(&self, link: &LinkNode, answer: String) -> Option<String> {
        Some(format!("{answer} through {}", link.target))
    }

    fn examples() -> Vec<FactExample> {
        Vec::new()
    }
}

#[test]
fn what_is_written_through_a_link_is_unknown_by_its_real_path() {
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

fn layer(call: u32, change: Change) -> Layer {
    let from = DependsOn { call, name: format!("call {call}") };
    Layer { from, touches: change.touches.unwrap_or(Resources::Everything), effects: change.effects }
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
    to("/else/where")
}

fn to(target: &str) -> Node {
    Node::Link(LinkNode { target: target.to_owned(), ..LinkNode::default() })
}

fn base(path: &str) -> Mutex<FactStore> {
    let mut store = FactStore::default();
    let fact = erase(KindAt { path: path.to_owned() });
    store.keep(&Asked::new(fact, &Context::default()), Ok(json!("base")));
    Mutex::new(store)
}

fn look(path: &str, layers: &[Layer]) -> String {
    let (store, locals, context) = (base("/a/b"), LocalFiles::default(), Context::default());
    let view = View::new(&store, &locals, layers, &context);
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
        // What a link leads to is asked about where it is.
        ("/a/b", vec![standing(0, "/a/b", link())], "missing"),
        ("/a/b", vec![standing(0, "/a", Node::Absent)], "absent"),
        ("/a/b", vec![standing(0, "/a", file())], "absent"),
        ("/a/b", vec![standing(0, "/a", fresh(true))], "absent"),
        ("/a/b", vec![standing(0, "/a", fresh(false))], "base"),
        ("/a/b", vec![standing(0, "/a", link())], "missing"),
        ("/l", vec![standing(0, "/l", to("a/b"))], "base through a/b"),
        ("/l/b", vec![standing(0, "/l", to("/a"))], "base"),
        ("/l/b", vec![standing(0, "/l", to("/m")), standing(1, "/m", to("a"))], "base"),
        ("/l/b", vec![standing(0, "/l", to("/m")), standing(1, "/m", to("/l"))], "unknown: call 0"),
        ("l/b", vec![standing(0, "l", to("../a"))], "unknown: call 0"),
        // What is written through it is found by either path, also when the link leads elsewhere later.
        ("/l/c", vec![standing(0, "/l", to("/a")), standing(1, "/a/c", file())], "file"),
        ("/a/c", vec![standing(0, "/l", to("/a")), standing(1, "/l/c", file())], "file"),
        ("/a/c", vec![standing(0, "/l", to("/a")), standing(1, "/l/c", file()), standing(2, "/l", to("/z"))], "file"),
        ("/l/c", vec![standing(0, "/l", to("/a")), standing(1, "/l/c", file()), standing(2, "/l", to("/z"))], "unknown: call 1"),
        ("/l/c", vec![standing(0, "/l", to("/a")), standing(1, "/l/c", file()), standing(2, "/l", Node::Absent)], "absent"),
        ("/a/c", vec![standing(0, "/l", to("/a")), standing(1, "/l/c", file()), standing(2, "/l", Node::Absent)], "file"),
        ("/l/c", vec![standing(0, "/a", fresh(true)), standing(1, "/l", to("/a"))], "absent"),
        ("/l", vec![standing(0, "/l", to("/a")), standing(1, "/l", fresh(true))], "directory"),
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
fn what_cannot_be_asked_yet_is_asked_elsewhere() {
    let (store, locals, context) = (base("/a/b"), LocalFiles::default(), Context::default());
    let layers = [standing(0, "/l", to("/x"))];
    let view = View::new(&store, &locals, &layers, &context);
    for path in ["/l", "/l/c"] {
        assert_eq!(view.lookup(&erase(KindAt { path: path.into() })), Lookup::Missing);
    }
    let instead: Vec<_> = view.into_seen().instead.into_values().map(|fact| fact.path().map(str::to_owned)).collect();
    assert_eq!(instead, [Some("/x".to_owned()), Some("/x/c".to_owned())]);
}

#[test]
fn who_is_created_can_be_asked_for() {
    let (mut store, locals) = (FactStore::default(), LocalFiles::default());
    let ann = Context { privilege: infra_core::privilege::Privilege::sudo("ann"), ..Context::default() };
    let fact = erase(KindAt { path: "/a".into() });
    store.keep(&Asked::new(fact.clone(), &ann), Err("there is no ann".into()));
    let question = KindAt { path: "/a".into() };
    let change = Change::new("x").touching(Resources::only([Resource::Users])).answer_to(Some("ann"), &question, &"ann's".to_owned());
    let store = Mutex::new(store);
    let look = |layers: &[Layer], context: &Context| {
        let view = View::new(&store, &locals, layers, context);
        let answer = view.lookup(&fact);
        (answer, view.into_seen().touched_by.map(|on| on.call))
    };
    let layers = [layer(4, change)];
    assert_eq!(look(&layers, &ann), (Lookup::Known(Arc::new(json!("ann's"))), None));
    assert_eq!(look(&layers, &Context::default()).0, Lookup::Missing, "it is said to nobody else");
    // Where nothing is said, the failure is put down to who makes the users.
    let failed = Lookup::Failed("there is no ann".into());
    assert_eq!(look(&[touching(4, Resources::only([Resource::Users]))], &ann), (failed.clone(), Some(4)));
    assert_eq!(look(&[touching(4, Resources::path("/b"))], &ann), (failed, None));
    // In execute she is asked again as soon as something has changed.
    let mut store = store.into_inner().expect("nobody else has it");
    store.drop_touched(&Resources::only([Resource::Users]));
    assert_eq!(store.lookup(&Asked::new(fact, &ann)), Lookup::Missing);
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
