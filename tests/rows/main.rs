//! The tables of strategies, failures, accounting and conditions, row by row, on real hosts over ssh. Overlap, order and the size of windows are read from the journal of
//! each run; commands that must be seen to run at the same time wait for each other by files.
//!
//! What is added to these tables gets its row in [`ROWS`] and its test in one of the modules.

mod accounting;
#[path = "../common/mod.rs"]
mod common;
mod conditions;
mod failures;
mod late;
mod stage;
mod strategies;
#[path = "../common/timeline.rs"]
mod timeline;

/// Each row, and the test that shows it.
const ROWS: &[(&str, &str)] = &[
    ("(no option): the barrier", "the_barrier"),
    ("--parallel N", "parallel_on_the_command_line"),
    ("_parallel = N", "parallel_of_one_operation"),
    ("_serial = true, N, share, list", "serial_operations"),
    ("--serial", "host_by_host"),
    ("--no-wait", "without_waiting"),
    ("parallel(fn); _serial in it", "parallel_blocks"),
    ("_background", "background_operations"),
    ("rolling: batch, pause", "rolling_blocks"),
    ("_run_once: fail-over, in rolling", "run_once"),
    ("_run_once that fails", "run_once_that_fails"),
    ("nesting: what is allowed", "blocks_in_blocks"),
    ("nesting: misuse", "misuse_of_blocks"),
    ("waves stop: _max_fail", "waves_stop"),
    ("waves stop: to the end of the block; max_fail", "waves_go_to_their_end"),
    ("waves stop: --serial, --max-fail", "serial_runs_stop"),
    ("failure: (default)", "the_others_go_on"),
    ("failure: --fail-fast", "fail_fast"),
    ("failure: --fail-percent", "fail_percent"),
    ("failure: _ignore_errors, _continue_on_error", "errors_that_are_ignored"),
    ("failure: _retries, _retry_delay, _retry_backoff", "retries"),
    ("failure: _timeout", "timeouts"),
    ("failure: _success_exit_codes", "success_exit_codes"),
    ("failure: what was done before", "what_was_done_before_a_failure"),
    ("failure: _retry_until", "retry_until"),
    ("accounting: places", "each_host_stands_in_one_place"),
    ("accounting: exit codes 0, 1, 2", "exit_codes"),
    ("accounting: exit code 3", "exit_code_of_changes"),
    ("accounting: exit code 130", "exit_code_of_an_interrupt"),
    ("conditions: forms", "conditions"),
    ("conditions: decided in the plan, boolean arguments", "conditions_are_decided_in_the_plan"),
    ("conditions: open ones, both ways", "open_conditions_are_diffed_both_ways"),
    ("conditions: misuse", "misuse_of_conditions"),
    ("conditions: combined, as boolean arguments", "combined_conditions_as_arguments"),
    ("conditions: any_host", "any_host_of_several"),
    ("results: functions as arguments and as _if", "functions_as_arguments"),
    ("results: call, fail, host:log", "calls"),
    ("results: too early", "results_too_early"),
    ("results: will_change", "what_will_change"),
    ("results: in a run that goes on", "functions_go_on_from_an_earlier_run"),
    ("_on: a host that is selected, one that is not, @local", "on_other_places"),
    ("_on: the hosts of a wave at one load balancer", "drained_at_the_load_balancer"),
];

#[test]
fn each_row_has_its_test_and_each_test_its_row() {
    let sources = [
        include_str!("strategies.rs"),
        include_str!("failures.rs"),
        include_str!("accounting.rs"),
        include_str!("conditions.rs"),
        include_str!("late.rs"),
    ];
    let mut tests: Vec<&str> = sources
        .iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .map(|rest| rest.split('(').next().expect("a name"))
        .collect();
    let mut named: Vec<&str> = ROWS.iter().map(|(_, test)| *test).collect();
    tests.sort_unstable();
    named.sort_unstable();
    assert_eq!(named, tests);
}
