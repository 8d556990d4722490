//! Runs that go on from earlier ones: what is done is not done twice, and what is owed is done.

use std::collections::BTreeMap;
use std::sync::Arc;

use infra_core::condition::{Condition, Did};
use infra_core::connection::Ending;
use infra_core::earlier::{Continuation, Earlier};
use infra_core::event::Outcome;
use infra_core::host::HostId;
use infra_core::plan::OpId;
use infra_core::run_state::Bucket;
use infra_core::script::{BlockKind, OperationCall, Rolling};
use infra_core::waves::{Batch, Share};
use proptest::prelude::*;
use serde_json::json;

use crate::fleet::{Behaviour, Fleet, Line, Ran, With, call, calls, touchless, write};

/// A service that is reloaded where the call of this number changed something.
fn reloaded(line: u32, conf: u32) -> OperationCall {
    let mut restart = call(line, "made.restart", json!({ "service": "web" }));
    restart.conditions.push(("reloaded".into(), Condition::Outcome(conf, Did::Change)));
    restart
}

/// A fleet and the runs that it had.
struct Chain {
    fleet: Fleet,
    earlier: Earlier,
}

impl Chain {
    fn new(fleet: Fleet) -> Self {
        Self { fleet, earlier: Earlier::default() }
    }

    /// The next run, on the hosts that are left, and what each performed in it.
    async fn run(&mut self) -> (Ran, BTreeMap<String, Vec<String>>) {
        for name in &self.fleet.names {
            self.fleet.machines[*name].performed.lock().unwrap().clear();
        }
        let ran = self.fleet.run().await;
        let performed = self.fleet.names.iter().map(|name| ((*name).to_owned(), self.fleet.performed(name))).collect();
        self.earlier.add(&format!("run-{}", self.earlier.runs.len()), &ran.state);
        let left = self.earlier.left();
        self.fleet.names.retain(|name| left.contains(name));
        self.fleet.settings.earlier = Some(Arc::new(self.earlier.clone()));
        (ran, performed)
    }

    /// Scripts are others from now on; hosts and what they had done stay.
    fn edit(&mut self, script: impl Fn(&str) -> Vec<Line> + Send + Sync + 'static) {
        let next = Fleet::new(&self.fleet.names, script);
        let before = std::mem::replace(&mut self.fleet, next);
        (self.fleet.machines, self.fleet.settings, self.fleet.behaviours) = (before.machines, before.settings, before.behaviours);
    }

    fn mend(&mut self) {
        self.fleet.behaviours.clear();
    }
}

fn notes(ran: &Ran) -> Vec<(u32, Continuation, Vec<u32>)> {
    ran.plan().earlier.iter().map(|note| (note.op.0, note.what.clone(), note.hosts.iter().map(|host| host.0).collect())).collect()
}

fn owed(run: usize) -> Continuation {
    Continuation::Owed { run: format!("run-{run}") }
}

fn done(run: usize) -> Continuation {
    Continuation::Done { run: format!("run-{run}") }
}

#[tokio::test]
async fn a_reload_that_is_owed_is_done_and_a_command_that_is_done_is_not() {
    let script = |_: &str| calls([write(1, "/conf", "new"), touchless(2, "append"), touchless(3, "fail"), reloaded(4, 0)]);
    let mut chain = Chain::new(Fleet::new(&["a"], script).behaves("a", "fail", Behaviour::Exit(1)));
    chain.run().await;
    chain.mend();
    let (ran, performed) = chain.run().await;
    assert_eq!(performed["a"], ["fail", "reload web"]);
    assert_eq!(ran.forecast(0), ["none", "none", "change", "change"], "the plan tells the truth about it");
    assert_eq!(notes(&ran), [(0, owed(0), vec![0]), (1, done(0), vec![0])]);
    assert_eq!(ran.outcome(1, 0), Some(Outcome::Earlier { run: "run-0".into(), changed: true }));
    assert_eq!(ran.buckets(), [Bucket::Changed]);
    assert!(chain.earlier.left().is_empty());
    assert_eq!(chain.earlier.complete(), ["a"]);
}

#[tokio::test]
async fn who_has_had_its_answer_is_owed_nothing() {
    let script =
        |_: &str| calls([write(1, "/conf", "new"), reloaded(2, 0), touchless(3, "fail"), touchless(4, "also").when(0, Did::Change)]);
    let mut chain = Chain::new(Fleet::new(&["a"], script).behaves("a", "fail", Behaviour::Exit(1)));
    let (_, performed) = chain.run().await;
    assert_eq!(performed["a"], ["write /conf new", "reload web", "fail"]);
    chain.mend();
    let (_, performed) = chain.run().await;
    assert_eq!(performed["a"], ["fail", "also"]);
}

#[tokio::test]
async fn a_change_after_its_answer_is_owed_again() {
    let script = |_: &str| {
        let by_hand = touchless(3, "reload by hand").when(0, Did::Change);
        calls([write(1, "/conf", "new"), reloaded(2, 0), by_hand, touchless(4, "fail")])
    };
    let mut chain = Chain::new(Fleet::new(&["a"], script).behaves("a", "fail", Behaviour::Exit(1)));
    chain.run().await;
    // Someone else put the file back, so that it is written again, and then the reload fails.
    chain.fleet.machines["a"].texts.lock().unwrap().insert("/conf".into(), "old".into());
    chain.fleet = chain.fleet.behaves("a", "reload web", Behaviour::Exit(1));
    let (ran, performed) = chain.run().await;
    assert_eq!(performed["a"], ["write /conf new", "reload web"]);
    assert!(notes(&ran).is_empty(), "what rests on a new change is not done: {:?}", notes(&ran));
    chain.mend();
    let (_, performed) = chain.run().await;
    assert_eq!(performed["a"], ["reload web", "reload by hand", "fail"]);
}

#[tokio::test]
async fn what_is_not_known_counts_as_not_done_and_what_rests_on_it_is_owed() {
    let lost = || Behaviour::Ending(Ending::Lost { reason: "the connection broke".into(), begun: true });
    let script = |_: &str| calls([write(1, "/conf", "new"), touchless(2, "append"), reloaded(3, 0)]);
    let mut chain = Chain::new(Fleet::new(&["a", "b"], script).behaves("a", "write /conf new", lost()).behaves("b", "append", lost()));
    let (ran, _) = chain.run().await;
    assert_eq!(ran.buckets(), [Bucket::Indeterminate; 2]);
    chain.mend();
    // It had been written before the connection broke.
    chain.fleet.machines["a"].texts.lock().unwrap().insert("/conf".into(), "new".into());
    let (ran, performed) = chain.run().await;
    let named = [(0, Continuation::Indeterminate, vec![0]), (0, owed(0), vec![1]), (1, Continuation::Indeterminate, vec![1])];
    assert_eq!(notes(&ran), named);
    assert_eq!((&performed["a"], &performed["b"]), (&vec!["append".to_owned(), "reload web".to_owned()], &performed["a"]));
}

#[tokio::test]
async fn what_other_hosts_changed_counts_also_where_they_are_done() {
    let script = |name: &str| {
        let conf = if name == "a" { "new" } else { "old" };
        let mut calls_of = vec![write(1, "/conf", conf), touchless(2, "fail"), touchless(3, "tell").condition(Condition::AnyHost(0))];
        calls_of[1].arguments = json!({ "commands": [format!("fail on {name}")] }).as_object().unwrap().clone();
        calls(calls_of)
    };
    let mut chain = Chain::new(Fleet::new(&["a", "b"], script).text("b", "/conf", "old").behaves("b", "fail on b", Behaviour::Exit(1)));
    let (_, performed) = chain.run().await;
    assert_eq!(performed["a"], ["write /conf new", "fail on a", "tell"]);
    chain.mend();
    assert_eq!(chain.fleet.names, ["b"], "the host that is done is left out");
    let (ran, performed) = chain.run().await;
    assert_eq!(
        (ran.forecast(0), &performed["b"]),
        (vec!["none".into(), "change".into(), "change".into()], &vec!["fail on b".into(), "tell".into()])
    );
}

#[tokio::test]
async fn what_ran_once_stays_done_and_serves_the_rest() {
    let rolling = || BlockKind::Rolling(Rolling { batch: Batch::of(vec![Share::Count(1)]), ..Rolling::default() });
    let script = move |_: &str| {
        let once = write(2, "/once", "1").globals(|globals| globals.run_once = Some(true)).inside(rolling(), 1);
        calls([once, touchless(3, "restart").inside(rolling(), 1), touchless(4, "after").when(0, Did::Change)])
    };
    let mut chain = Chain::new(Fleet::new(&["a", "b", "c"], script).behaves("b", "restart", Behaviour::Exit(1)));
    let (ran, _) = chain.run().await;
    assert_eq!(ran.buckets(), [Bucket::NotReached, Bucket::Failed, Bucket::NotReached]);
    chain.mend();
    let (ran, performed) = chain.run().await;
    assert_eq!(performed["a"], ["after"]);
    assert_eq!(performed["b"], ["restart", "after"]);
    assert_eq!(performed["c"], ["restart", "after"], "also who never came to it is served");
    assert_eq!(notes(&ran), [(0, done(0), vec![0, 1, 2]), (1, done(0), vec![0])]);
    let waves: Vec<Vec<u32>> = ran.waves().into_iter().map(|(_, hosts)| hosts).collect();
    assert_eq!(waves, [[0], [1], [2]]);
}

#[tokio::test]
async fn what_was_edited_is_planned_afresh_and_named() {
    let script = |text: &'static str| move |_: &str| calls([write(1, "/conf", text), touchless(2, "append"), touchless(3, "fail")]);
    let mut chain = Chain::new(Fleet::new(&["a", "b"], script("one")).behaves("b", "fail", Behaviour::Exit(1)));
    chain.fleet.unreachable = vec!["a"];
    chain.run().await;
    chain.mend();
    chain.edit(|_: &str| calls([write(1, "/conf", "two"), touchless(2, "append twice"), touchless(3, "fail"), touchless(9, "new")]));
    let (ran, performed) = chain.run().await;
    // The first host was never planned: nothing of it is afresh.
    let named = [(0, Continuation::Edited, vec![1]), (1, Continuation::Edited, vec![1]), (3, Continuation::New, vec![1])];
    assert_eq!(notes(&ran), named);
    assert_eq!(performed["b"], ["write /conf two", "append twice", "fail", "new"]);
}

#[tokio::test]
async fn what_was_changed_before_an_edit_is_owed_all_the_same() {
    let script = |_: &str| calls([write(1, "/conf", "new"), touchless(2, "fail"), reloaded(3, 0)]);
    let mut chain = Chain::new(Fleet::new(&["a"], script).behaves("a", "fail", Behaviour::Exit(1)));
    chain.run().await;
    let edited = |_: &str| {
        let conf = write(1, "/conf", "new").globals(|globals| globals.env = Some(BTreeMap::from([("LANG".into(), "C".into())])));
        calls([conf, touchless(2, "fail"), reloaded(3, 0)])
    };
    chain.edit(edited);
    let (ran, performed) = chain.run().await;
    assert_eq!(performed["a"], ["fail"]);
    assert_eq!(ran.forecast(0), ["none", "change", "change"]);
    chain.mend();
    let (_, performed) = chain.run().await;
    assert_eq!(performed["a"], ["fail", "reload web"]);
}

#[tokio::test]
async fn what_ran_once_is_not_done_once_it_is_edited() {
    let script = |command: &'static str| {
        move |_: &str| calls([touchless(1, command).globals(|globals| globals.run_once = Some(true)), touchless(2, "fail")])
    };
    let mut chain = Chain::new(Fleet::new(&["a", "b"], script("one")).behaves("b", "fail", Behaviour::Exit(1)));
    chain.run().await;
    chain.edit(script("two"));
    chain.fleet.behaviours.insert(("b".into(), "two".into()), Behaviour::Exit(1));
    let (_, performed) = chain.run().await;
    assert_eq!(performed["b"], ["two"]);
    chain.mend();
    let (_, performed) = chain.run().await;
    assert_eq!(performed["b"], ["two", "fail"], "what failed once is not taken for what was done before");
}

#[tokio::test]
async fn who_was_not_reached_is_served_by_what_ran_once_in_every_later_run() {
    let script = |_: &str| calls([touchless(1, "once").globals(|globals| globals.run_once = Some(true)), touchless(2, "fail")]);
    let mut chain = Chain::new(Fleet::new(&["a", "b"], script));
    chain.fleet.unreachable = vec!["b"];
    let (_, performed) = chain.run().await;
    assert_eq!(performed["a"], ["once", "fail"]);
    chain.fleet.unreachable.clear();
    chain.fleet.behaviours.insert(("b".into(), "fail".into()), Behaviour::Exit(1));
    for _ in 0..2 {
        let (ran, performed) = chain.run().await;
        assert_eq!((&performed["b"], notes(&ran)), (&vec!["fail".to_owned()], vec![(0, done(0), vec![0])]));
    }
}

#[tokio::test]
async fn turns_of_a_loop_are_told_apart() {
    let script = |_: &str| {
        calls([
            touchless(1, "x").named("first"),
            touchless(1, "x").named("second"),
            touchless(1, "x").named("second"),
            touchless(2, "fail"),
        ])
    };
    let mut chain = Chain::new(Fleet::new(&["a"], script).behaves("a", "fail", Behaviour::Exit(1)));
    chain.run().await;
    chain.mend();
    chain.edit(|_: &str| {
        let turns = [touchless(1, "x").named("second"), touchless(1, "x").named("third"), touchless(1, "x").named("second")];
        calls(turns.into_iter().chain([touchless(2, "fail")]))
    });
    let (ran, performed) = chain.run().await;
    assert_eq!(performed["a"], ["x", "fail"]);
    assert_eq!(notes(&ran).iter().filter(|(_, what, _)| *what == Continuation::New).count(), 1);
}

#[tokio::test]
async fn a_server_in_the_background_runs_as_long_as_someone_of_its_block_is_left() {
    let script = |_: &str| {
        let server = touchless(2, "serve").globals(|globals| globals.background = Some(true)).inside(BlockKind::Parallel, 1);
        calls([server, touchless(3, "load").inside(BlockKind::Parallel, 1), touchless(4, "fail")])
    };
    let serving = |fleet: Fleet| fleet.behaves("a", "serve", Behaviour::Block);
    let mut chain = Chain::new(serving(Fleet::new(&["a"], script)).behaves("a", "load", Behaviour::Exit(1)));
    chain.run().await;
    chain.mend();
    chain.fleet = serving(chain.fleet).behaves("a", "fail", Behaviour::Exit(1));
    let (_, performed) = chain.run().await;
    assert_eq!(performed["a"], ["serve", "load", "fail"]);
    chain.mend();
    let (ran, performed) = chain.run().await;
    assert_eq!(performed["a"], ["fail"], "with the others of the block it is done");
    assert_eq!(notes(&ran), [(0, done(1), vec![0]), (1, done(1), vec![0])]);
}

#[tokio::test]
async fn what_changed_nothing_is_a_check_and_checks_again() {
    let script = |_: &str| calls([call(1, "made.check", json!({ "command": "look" })), touchless(2, "fail")]);
    let mut chain = Chain::new(Fleet::new(&["a"], script).behaves("a", "fail", Behaviour::Exit(1)));
    chain.run().await;
    chain.mend();
    let (_, performed) = chain.run().await;
    assert_eq!(performed["a"], ["look", "fail"]);
}

#[tokio::test]
async fn results_of_earlier_runs_keep_what_they_printed() {
    let script = |_: &str| calls([touchless(1, "token"), touchless(2, "fail")]);
    let fleet = Fleet::new(&["a"], script).behaves("a", "token", Behaviour::Print("s3same\n", 0));
    let mut chain = Chain::new(fleet.behaves("a", "fail", Behaviour::Exit(1)));
    chain.run().await;
    chain.mend();
    let (ran, _) = chain.run().await;
    let result = &ran.state.hosts[&HostId(0)].results[&OpId(0)];
    assert_eq!((result.stdout.as_str(), result.exit_code, result.steps_done), ("s3same\n", Some(0), 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever fails in whatever run: gone on with until nothing is left, each command was done once on each host, and none was left out.
    #[test]
    fn in_the_end_everything_was_done_once(failing in prop::collection::vec((0usize..3, 0usize..5, any::<bool>()), 0..6), rolled in any::<bool>()) {
        const HOSTS: [&str; 3] = ["a", "b", "c"];
        const COMMANDS: [&str; 5] = ["0", "1", "2", "3", "4"];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let script = move |_: &str| {
                let kind = || BlockKind::Rolling(Rolling::default());
                calls((1..).zip(COMMANDS).map(|(line, command)| {
                    let one = touchless(line + 1, command);
                    if rolled && (2..5).contains(&line) { one.inside(kind(), 1) } else { one }
                }))
            };
            let mut chain = Chain::new(Fleet::new(&HOSTS, script));
            let mut well: BTreeMap<(String, String), usize> = BTreeMap::new();
            let mut failing = failing.into_iter();
            for _ in 0..8 {
                chain.mend();
                if let Some((host, command, lost)) = failing.next() {
                    let how = if lost { Behaviour::Ending(Ending::Killed) } else { Behaviour::Exit(1) };
                    chain.fleet.behaviours.insert((HOSTS[host].into(), COMMANDS[command].into()), how);
                }
                let broken = chain.fleet.behaviours.clone();
                let (_, performed) = chain.run().await;
                for (host, commands) in performed {
                    for command in commands {
                        if !broken.contains_key(&(host.clone(), command.clone())) {
                            *well.entry((host.clone(), command)).or_default() += 1;
                        }
                    }
                }
                if chain.earlier.left().is_empty() {
                    break;
                }
            }
            assert!(chain.earlier.left().is_empty(), "a run in which nothing fails comes to the end");
            assert_eq!(well.len(), HOSTS.len() * COMMANDS.len());
            assert!(well.values().all(|times| *times == 1), "{well:?}");
        });
    }

    /// Whatever fails, is lost or is put back by others in between: after the last change of the configuration there was a reload, and none without a change.
    #[test]
    fn in_the_end_no_reload_is_owed(failing in prop::collection::vec((0usize..5, any::<bool>(), any::<bool>()), 0..6)) {
        const COMMANDS: [&str; 5] = ["write /conf new", "before", "reload web", "by hand", "after"];
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let script = |_: &str| {
                let by_hand = touchless(4, "by hand").when(0, Did::Change);
                calls([write(1, "/conf", "new"), touchless(2, "before"), reloaded(3, 0), by_hand, touchless(5, "after")])
            };
            let mut chain = Chain::new(Fleet::new(&["a"], script));
            // What ended well, over all runs; a change that may have been is one.
            let mut well: Vec<String> = Vec::new();
            let mut failing = failing.into_iter();
            for _ in 0..8 {
                chain.mend();
                let mut broken = None;
                if let Some((command, lost, put_back)) = failing.next() {
                    let how = if lost { Behaviour::Ending(Ending::Killed) } else { Behaviour::Exit(1) };
                    broken = Some((COMMANDS[command], lost));
                    chain.fleet.behaviours.insert(("a".into(), COMMANDS[command].into()), how);
                    if put_back {
                        chain.fleet.machines["a"].texts.lock().unwrap().insert("/conf".into(), "old".into());
                    }
                }
                let (_, performed) = chain.run().await;
                for command in performed["a"].iter() {
                    let is_broken = broken.filter(|(broken, _)| broken == command);
                    if is_broken.is_none_or(|(broken, lost)| lost && broken == COMMANDS[0]) {
                        well.push(command.clone());
                    }
                }
                if chain.earlier.left().is_empty() {
                    break;
                }
            }
            assert!(chain.earlier.left().is_empty());
            let last = |command: &str| well.iter().rposition(|one| one == command);
            let times = |command: &str| well.iter().filter(|one| *one == command).count();
            for answer in ["reload web", "by hand"] {
                assert!(last(answer) > last(COMMANDS[0]), "{answer}: {well:?}");
                assert!(times(answer) <= times(COMMANDS[0]), "{answer}: {well:?}");
            }
        });
    }
}
