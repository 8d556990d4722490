//! Single ways through the policy, in words.

use infra_core::event::{StopReason, Waves};
use infra_core::host::HostId;
use infra_core::plan::{BlockId, OpId};
use infra_core::script::{BlockKind, Rolling};
use infra_core::waves::{Batch, Share};

use super::fleets::{plain, rules};
use crate::policy::{Order, Policy, PolicyBlock, Rules};

/// Orders in a few letters: `+op/host`, `wave 1/3`, `pause`, `stop`, `.` at the end.
fn words(orders: &[Order]) -> Vec<String> {
    let word = |order: &Order| match order {
        Order::Start(op, host) => Some(format!("+{}/{}", op.0, host.0)),
        Order::EndBackground(op, host) => Some(format!("end {}/{}", op.0, host.0)),
        Order::Serve { op, host, .. } => Some(format!("={}/{}", op.0, host.0)),
        Order::BeginWave { wave, waves, .. } => Some(format!("wave {wave}/{waves}")),
        Order::Pause(_, pause) => Some(format!("pause {}", pause.as_secs())),
        Order::Stop(_) => Some("stop".to_owned()),
        Order::Finish => Some(".".to_owned()),
        Order::BeginOperation(_) | Order::EndOperation(_) => None,
    };
    orders.iter().filter_map(word).collect()
}

fn rolling(batch: Batch, max_fail: Share, pause: f64) -> PolicyBlock {
    PolicyBlock { kind: BlockKind::Rolling(Rolling { batch, max_fail: Some(max_fail), pause }), origin: 0 }
}

#[test]
fn nothing_planned_ends_at_once() {
    let mut policy = Policy::new(Vec::new(), &[], rules(0));
    assert_eq!(policy.begin(), [Order::Finish]);
    assert_eq!(policy.interrupt(), []);
}

#[test]
fn a_pause_stands_between_waves_that_changed_something() {
    let mut operation = plain(0, 7);
    operation.blocks = vec![BlockId(0)];
    let mut policy = Policy::new(vec![operation], &[rolling(Batch::one(), Share::NONE, 30.0)], rules(3));
    assert_eq!(words(&policy.begin()), ["wave 1/3", "+0/0"]);
    assert_eq!(words(&policy.ended(OpId(0), HostId(0), true, true)), ["pause 30"]);
    assert_eq!(words(&policy.resumed(BlockId(0))), ["wave 2/3", "+0/1"]);
    assert_eq!(words(&policy.ended(OpId(0), HostId(1), true, false)), ["wave 3/3", "+0/2"]);
    assert_eq!(words(&policy.ended(OpId(0), HostId(2), true, true)), ["."]);
}

#[test]
fn an_interrupt_ends_a_pause() {
    let mut operation = plain(0, 3);
    operation.blocks = vec![BlockId(0)];
    let mut policy = Policy::new(vec![operation], &[rolling(Batch::one(), Share::NONE, 30.0)], rules(2));
    policy.begin();
    policy.ended(OpId(0), HostId(0), true, true);
    assert_eq!(words(&policy.interrupt()), ["stop", "."]);
    assert_eq!(policy.resumed(BlockId(0)), []);
}

#[test]
fn the_arithmetic_of_a_failed_wave() {
    let mut first = plain(0, 15);
    first.blocks = vec![BlockId(0)];
    let second = first.clone();
    let mut operations = vec![first, second];
    operations[1].origin = 1;
    let block = rolling(Batch::of(vec![Share::Count(1), Share::Percent(10_000)]), Share::Percent(3400), 0.0);
    let mut policy = Policy::new(operations, &[block], rules(4));
    policy.begin();
    policy.ended(OpId(0), HostId(0), true, false);
    assert_eq!(words(&policy.ended(OpId(1), HostId(0), true, false)), ["wave 2/2", "+0/1", "+0/2", "+0/3"]);
    assert_eq!(policy.ended(OpId(0), HostId(1), false, false), []);
    let reason = StopReason::WaveFailed { of: Waves::Block(BlockId(0)), wave: 2, not_ok: 2, entered: 3, allowed: 1 };
    assert_eq!(policy.ended(OpId(0), HostId(2), false, false), [Order::Stop(reason)]);
    // The one that is left goes through the block to its end.
    assert_eq!(words(&policy.ended(OpId(0), HostId(3), true, false)), ["+1/3"]);
    assert_eq!(words(&policy.ended(OpId(1), HostId(3), true, false)), ["."]);
}

#[test]
fn host_by_host_runs_all_operations_of_a_host() {
    let operations = vec![plain(0, 3), plain(1, 3)];
    let mut policy = Policy::new(operations, &[], Rules { serial: true, ..rules(2) });
    assert_eq!(words(&policy.begin()), ["wave 1/2", "+0/0"]);
    assert_eq!(words(&policy.ended(OpId(0), HostId(0), true, false)), ["+1/0"]);
    assert_eq!(words(&policy.ended(OpId(1), HostId(0), true, false)), ["wave 2/2", "+0/1"]);
}

#[test]
fn background_is_ended_with_the_last_of_the_block_on_all_hosts() {
    let mut operations = vec![plain(0, 3), plain(1, 3), plain(2, 3)];
    for operation in &mut operations[..2] {
        operation.blocks = vec![BlockId(0)];
    }
    operations[0].background = true;
    let mut policy = Policy::new(operations, &[PolicyBlock { kind: BlockKind::Parallel, origin: 0 }], rules(2));
    assert_eq!(words(&policy.begin()), ["+0/0", "+0/1", "+1/0", "+1/1"]);
    assert_eq!(words(&policy.ended(OpId(1), HostId(1), true, false)), Vec::<String>::new());
    assert_eq!(words(&policy.ended(OpId(1), HostId(0), true, false)), ["end 0/0", "end 0/1"]);
    assert_eq!(words(&policy.ended(OpId(0), HostId(1), true, true)), Vec::<String>::new());
    assert_eq!(words(&policy.ended(OpId(0), HostId(0), true, true)), ["+2/0", "+2/1"]);
}

/// Servers on hosts 0 and 1, load on 2 and 3, and one operation after the block for all.
fn servers_and_load() -> Vec<crate::policy::PolicyOperation> {
    let mut operations = vec![plain(0, 3), plain(1, 12), plain(2, 15)];
    for operation in &mut operations[..2] {
        operation.blocks = vec![BlockId(0)];
    }
    operations[0].background = true;
    operations
}

#[test]
fn servers_are_ended_when_the_load_of_other_hosts_has_ended() {
    let block = PolicyBlock { kind: BlockKind::Parallel, origin: 0 };
    for no_wait in [false, true] {
        let mut policy = Policy::new(servers_and_load(), std::slice::from_ref(&block), Rules { no_wait, ..rules(4) });
        assert_eq!(words(&policy.begin()), ["+0/0", "+0/1", "+1/2", "+1/3"]);
        // One that fails is not waited for any longer.
        assert_eq!(words(&policy.ended(OpId(1), HostId(2), false, false)), Vec::<String>::new());
        let next: &[&str] = if no_wait { &["+2/3", "end 0/0", "end 0/1"] } else { &["end 0/0", "end 0/1"] };
        assert_eq!(words(&policy.ended(OpId(1), HostId(3), true, false)), next);
    }
}

#[test]
fn servers_take_no_place_in_the_window() {
    let block = PolicyBlock { kind: BlockKind::Parallel, origin: 0 };
    let mut policy = Policy::new(servers_and_load(), &[block], Rules { parallel: Some(1), ..rules(4) });
    assert_eq!(words(&policy.begin()), ["+0/0", "+0/1", "+1/2"]);
    assert_eq!(words(&policy.ended(OpId(1), HostId(2), true, false)), ["+1/3"]);
    assert_eq!(words(&policy.ended(OpId(1), HostId(3), true, false)), ["end 0/0", "end 0/1"]);
}

#[test]
fn host_by_host_and_in_waves_a_server_has_the_load_of_its_own_wave() {
    let block = PolicyBlock { kind: BlockKind::Parallel, origin: 0 };
    let mut policy = Policy::new(servers_and_load(), std::slice::from_ref(&block), Rules { serial: true, ..rules(4) });
    // There is no load on its host.
    assert_eq!(words(&policy.begin()), ["wave 1/4", "+0/0", "end 0/0"]);
    let mut operations = servers_and_load();
    for operation in &mut operations {
        operation.hosts = plain(0, 3).hosts;
        operation.blocks.insert(0, BlockId(1));
    }
    let waves = PolicyBlock { origin: 1, ..rolling(Batch::one(), Share::NONE, 0.0) };
    let mut policy = Policy::new(operations, &[block, waves], rules(2));
    assert_eq!(words(&policy.begin()), ["wave 1/2", "+0/0", "+1/0"]);
    assert_eq!(words(&policy.ended(OpId(1), HostId(0), true, false)), ["end 0/0"]);
}

#[test]
fn a_server_does_not_wait_for_a_host_that_waits_for_its_own() {
    // Without barriers: the first host comes to the `_run_once` after the block, the second one before it.
    let mut operations = vec![plain(0, 2), plain(1, 1), plain(2, 2), plain(0, 1)];
    for operation in &mut operations[1..3] {
        operation.blocks = vec![BlockId(0)];
    }
    operations[1].background = true;
    operations[0].run_once = true;
    operations[3].run_once = true;
    let block = PolicyBlock { kind: BlockKind::Parallel, origin: 0 };
    let mut policy = Policy::new(operations, &[block], Rules { no_wait: true, ..rules(2) });
    assert_eq!(words(&policy.begin()), ["+1/0", "end 1/0"]);
    assert_eq!(words(&policy.ended(OpId(1), HostId(0), true, false)), ["+3/0"]);
    assert_eq!(words(&policy.ended(OpId(3), HostId(0), true, false)), ["=0/1", "+2/1"]);
}

#[test]
fn fail_percent_counts_who_was_not_ok_before() {
    let mut policy = Policy::new(vec![plain(0, 7), plain(1, 7)], &[], Rules { fail_percent: Some(40.0), not_ok: 1, ..rules(4) });
    policy.begin();
    let reason = StopReason::FailPercent { not_ok: 2, selected: 4, allowed: 40.0 };
    assert_eq!(policy.ended(OpId(0), HostId(1), false, false), [Order::Stop(reason)]);
}

#[test]
fn what_runs_in_the_background_alone_keeps_nobody_from_the_window() {
    // The second host may not load before the first has; its server must not take the only place meanwhile.
    let mut operations = vec![plain(0, 3), plain(1, 2), plain(2, 3)];
    for operation in &mut operations {
        operation.blocks = vec![BlockId(0)];
    }
    operations[0].background = true;
    operations[2].serial = Some(Batch::one());
    let block = PolicyBlock { kind: BlockKind::Parallel, origin: 0 };
    let mut policy = Policy::new(operations, &[block], Rules { parallel: Some(1), no_wait: true, ..rules(2) });
    assert_eq!(words(&policy.begin()), ["+1/1", "wave 1/2", "+0/1"]);
    assert_eq!(words(&policy.ended(OpId(1), HostId(1), true, false)), ["+2/0", "+0/0"]);
    assert_eq!(words(&policy.ended(OpId(2), HostId(0), true, false)), ["wave 2/2", "+2/1"]);
    assert_eq!(words(&policy.ended(OpId(2), HostId(1), true, false)), ["end 0/0", "end 0/1"]);
    assert_eq!(words(&policy.ended(OpId(0), HostId(0), true, false)), Vec::<String>::new());
    assert_eq!(words(&policy.ended(OpId(0), HostId(1), true, false)), ["."]);
}
