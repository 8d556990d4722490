//! Sessions of the command line, kept as snapshots: see `tests/command_line/`.

#[test]
fn sessions() {
    let cases = trycmd::TestCases::new();
    cases.case("../../tests/command_line/*.trycmd");
    cases.register_bin("infra", std::path::Path::new(env!("CARGO_BIN_EXE_infra")));
    cases.run();
}
