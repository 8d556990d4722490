//! What a plan says is what happens: chains of operations that were made up at random are planned, run and looked at, and planned and run again.

mod accounts;
mod chains;
mod named;
mod named_accounts;
mod world;

use std::path::Path;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use tempfile::TempDir;

use accounts::{System, a_chain};
use chains::{Given, Spelling, Wish, a_ground, a_wish, call_of, is_fulfilled, lay};
use world::{Call, Done, Look, Seen, Word, listing, run};

/// What the plans of many chains said.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    change: usize,
    nothing: usize,
    failure: usize,
    depends: usize,
    /// Operations of runs in which nothing failed, and those of them that depend: where one is refused because of what earlier ones will have done, it depends on
    /// them, and so does what comes after it.
    calm: usize,
    open: usize,
}

impl Count {
    fn add(&mut self, all: &[Done]) {
        for done in all {
            match done.planned.0 {
                Word::Change => self.change += 1,
                Word::Nothing => self.nothing += 1,
                Word::Failure => self.failure += 1,
                Word::Depends => self.depends += 1,
            }
        }
        if all.iter().all(|done| done.outcome.0 != Word::Failure) {
            self.calm += all.len();
            self.open += all.iter().filter(|done| done.planned.0 == Word::Depends).count();
        }
    }
}

/// Holds one run against its plan and against what the test itself saw.
fn check(calls: &[Call], all: &[Done]) -> Result<(), String> {
    for (place, done) in all.iter().enumerate() {
        let wrong = |what: &str| {
            let (planned, outcome) = (&done.planned, &done.outcome);
            Err(format!(
                "number {place}: {what}: planned {planned:?}, came to {outcome:?}\n  {} {}\n  before: {:#?}\n  after: {:#?}",
                calls[place].0, calls[place].1, done.before.listing, done.after.listing
            ))
        };
        let (was, is) = (done.before.fulfilled[place], done.after.fulfilled[place]);
        let touched = done.before.listing != done.after.listing;
        match (done.planned.0, done.outcome.0) {
            (Word::Depends, _) => {}
            // That chown(1) will not know the owner is not foretold; how things stand after it fails halfway is not, either.
            (Word::Change, Word::Failure) if done.before.ownerless[place] => return Ok(()),
            (planned, outcome) if planned != outcome => return wrong("the plan was wrong"),
            _ => {}
        }
        match done.outcome.0 {
            Word::Change if was => return wrong("it was as wished before"),
            Word::Change if !is => return wrong("it is not as wished after"),
            Word::Change if !touched => return wrong("it changed nothing"),
            Word::Nothing if !was => return wrong("it was not as wished"),
            Word::Nothing | Word::Failure if touched => return wrong("it changed something"),
            _ => {}
        }
    }
    Ok(())
}

/// Plans and runs a chain twice in a folder that is laid out before, and checks both.
fn hold(root: &Path, ground: &[Given], wishes: &[(Wish, Spelling)]) -> Result<Count, String> {
    lay(root, ground);
    let calls: Vec<Call> = wishes.iter().map(|wish| call_of(root.to_str().expect("UTF-8"), wish)).collect();
    let look: Look = {
        let (root, wishes) = (root.to_owned(), wishes.to_vec());
        Arc::new(move || Seen {
            listing: listing(&root),
            fulfilled: wishes.iter().map(|(wish, _)| is_fulfilled(&root, wish)).collect(),
            ownerless: vec![false; wishes.len()],
        })
    };
    hold_twice("@local", &calls, &look)
}

/// Plans and runs calls twice on a host, and checks both.
fn hold_twice(host: &str, calls: &[Call], look: &Look) -> Result<Count, String> {
    let mut count = Count::default();
    for round in ["first", "second"] {
        let all = run(host, calls, look.clone())?;
        check(calls, &all).map_err(|why| format!("{round} run: {why}\n{all:#?}"))?;
        count.add(&all);
    }
    Ok(count)
}

/// What `INFRA_EFFECTS_SEED` or `INFRA_EFFECTS_CHAINS` says, for those who want other chains than the usual ones, or more of them.
fn asked_for(name: &str, usual: u32) -> u32 {
    std::env::var(name).map_or(usual, |text| text.parse().expect("a number"))
}

/// Tries so many chains, and gives what their plans said.
fn try_chains<S: Strategy>(seed: u8, chains: u32, strategy: &S, mut hold: impl FnMut(S::Value) -> Result<Count, String>) -> Count {
    let cases = asked_for("INFRA_EFFECTS_CHAINS", chains);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 400, ..Config::default() };
    let number = asked_for("INFRA_EFFECTS_SEED", 1);
    let mut bytes = [seed; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let all = std::cell::RefCell::new(Count::default());
    let hold = std::cell::RefCell::new(&mut hold);
    let result = runner.run(strategy, |chain| {
        let count = (hold.borrow_mut())(chain).map_err(TestCaseError::fail)?;
        let mut all = all.borrow_mut();
        all.change += count.change;
        all.nothing += count.nothing;
        all.failure += count.failure;
        all.depends += count.depends;
        all.calm += count.calm;
        all.open += count.open;
        Ok(())
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, chain)) => panic!("INFRA_EFFECTS_SEED={number}: {why}\nthe chain: {chain:#?}"),
        Err(error) => panic!("INFRA_EFFECTS_SEED={number}: {error}"),
    }
    all.into_inner()
}

/// Tries chains of calls about files on this machine, each in a folder of its own.
fn try_files(seed: u8) {
    let count = try_chains(seed, 60, &(a_ground(), vec(a_wish(), 3..12)), |(ground, wishes)| {
        let folder = TempDir::new().expect("a folder");
        let root = folder.path().join("root");
        std::fs::create_dir(&root).expect("a folder");
        hold(&root, &ground, &wishes)
    });
    println!("{count:?}");
    // What is always said to depend is never wrong.
    assert!(count.change > count.depends && count.open * 50 <= count.calm, "{count:?}");
}

// Two of them, for each can have a processor of its own.
#[test]
fn files_are_as_the_plan_foretold() {
    try_files(1);
}

#[test]
fn other_files_are_as_the_plan_foretold() {
    try_files(2);
}

#[test]
fn users_and_groups_are_as_the_plan_foretold() {
    let system = System::new();
    let host = format!("@chroot{}", system.root().display());
    let count = try_chains(3, 40, &a_chain(), |(ground, wishes)| {
        system.lay(&ground);
        let calls: Vec<Call> = wishes.iter().map(accounts::call_of).collect();
        let root = system.root().to_owned();
        hold_twice(&host, &calls, &(Arc::new(move || System::look(&root, &wishes)) as Look))
    });
    println!("{count:?}");
    // Numbers that users and groups get or lose leave open whose the files are.
    assert!(count.change > 2 * count.depends && count.open * 8 <= count.calm, "{count:?}");
}
