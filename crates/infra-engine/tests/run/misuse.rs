//! What is refused before anything is executed, with file and line.

use infra_core::condition::Did;
use infra_core::global_arguments::GlobalArguments;
use infra_core::run_state::Bucket;
use infra_core::script::{BlockKind, OperationCall, Rolling};
use infra_core::waves::{Batch, Share};

use crate::fleet::{Fleet, With, calls, touchless};

/// Runs the calls that each host makes, and says what was written wrongly.
async fn misuse(script: impl Fn(&str) -> Vec<OperationCall> + Send + Sync + 'static) -> String {
    let fleet = Fleet::new(&["a", "b"], move |name| calls(script(name)));
    let ran = fleet.run().await;
    assert_eq!(ran.buckets(), [Bucket::NotReached; 2]);
    assert_eq!(ran.state.exit_code(), 2);
    assert_eq!(fleet.performed("a"), Vec::<String>::new());
    ran.misuse().expect("it is refused").to_string()
}

fn rolling(rolling: Rolling) -> BlockKind {
    BlockKind::Rolling(rolling)
}

#[tokio::test]
async fn hosts_must_agree_on_what_makes_an_operations_turn() {
    type Give = fn(&mut GlobalArguments);
    let table: [(&str, &str, &str, Give); 5] = [
        ("_serial", "off", "1", |globals| globals.serial = Some(Batch::one())),
        ("_max_fail", "not given", "25%", |globals| globals.max_fail = Some(Share::Percent(2500))),
        ("_parallel", "not given", "3", |globals| globals.parallel = Some(3)),
        ("_run_once", "false", "true", |globals| globals.run_once = Some(true)),
        ("_background", "false", "true", |globals| globals.background = Some(true)),
    ];
    for (argument, on_a, on_b, give) in table {
        let said = misuse(move |name| {
            let call = touchless(4, "x").inside(BlockKind::Parallel, 3);
            vec![if name == "b" { call.globals(give) } else { call }]
        });
        assert_eq!(said.await, format!("deploy.lua:4: `{argument}` is {on_a} on a and {on_b} on b: hosts must agree on it"));
    }
}

#[tokio::test]
async fn hosts_must_agree_on_the_options_of_a_block() {
    let other = [
        ("batch", "1", "2", Rolling { batch: Batch::of(vec![Share::Count(2)]), ..Rolling::default() }),
        ("max_fail", "not given", "50%", Rolling { max_fail: Some(Share::Percent(5000)), ..Rolling::default() }),
        ("pause", "0", "1.5", Rolling { pause: 1.5, ..Rolling::default() }),
    ];
    for (option, on_a, on_b, other) in other {
        let said = misuse(move |name| {
            let options = if name == "b" { other.clone() } else { Rolling::default() };
            vec![touchless(4, "x").inside(rolling(options), 3)]
        });
        assert_eq!(said.await, format!("deploy.lua:3: `{option}` of `rolling` is {on_a} on a and {on_b} on b: hosts must agree on it"));
    }
}

#[tokio::test]
async fn rolling_stands_in_no_other_block() {
    for (outer, word) in [(rolling(Rolling::default()), "rolling"), (BlockKind::Parallel, "parallel")] {
        let said = misuse(move |_| vec![touchless(4, "x").inside(outer.clone(), 2).inside(rolling(Rolling::default()), 3)]);
        assert_eq!(said.await, format!("deploy.lua:3: `rolling` cannot stand inside `{word}`"));
    }
}

#[tokio::test]
async fn background_stands_in_parallel_and_nobody_there_waits_for_it() {
    let background = |line| touchless(line, "serve").globals(|globals| globals.background = Some(true));
    let said = misuse(move |_| vec![background(4)]).await;
    assert_eq!(said, "deploy.lua:4: `_background` has a meaning inside `parallel` alone");
    let said = misuse(move |_| {
        let after = touchless(5, "load").when(0, Did::Succeed).inside(BlockKind::Parallel, 3);
        vec![background(4).inside(BlockKind::Parallel, 3), after]
    });
    let message = "it depends on an operation with `_background` of its own `parallel` block, which ends only after it";
    assert_eq!(said.await, format!("deploy.lua:5: {message}"));
}
