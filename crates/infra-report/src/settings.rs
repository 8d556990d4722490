//! What the screen is told about the world, since it looks at nothing itself.

use std::time::{Duration, Instant};

/// How the screen shows a run.
#[derive(Clone, Debug)]
pub struct ScreenSettings {
    /// 0: what changed or failed, and summaries; 1: reasons, steps of the plan, unchanged hosts; 2: commands; 3: their output.
    pub verbosity: u8,
    /// Whether the human output goes to a terminal, so that progress bars can be drawn.
    pub terminal: bool,
    /// Whether the results go to a terminal, so that control characters in them are escaped; elsewhere their bytes are left alone.
    pub results_terminal: bool,
    /// Whether the human output is coloured.
    pub colour: bool,
    /// How many columns the human output has; fewer than 48 are taken as 48.
    pub width: u16,
    /// The words of the command line, the program's name first: what the command that goes on from a stopped run is made of.
    pub invocation: Vec<String>,
    /// Whether `--fail-fast` is given, for the line that says what a failure leads to.
    pub fail_fast: bool,
    /// When the program was started, for the time a run took; without it no time is shown.
    pub started: Option<Instant>,
    /// How often progress bars are drawn anew while nothing happens; without it they are drawn at every event, and only then.
    pub tick: Option<Duration>,
}

impl Default for ScreenSettings {
    fn default() -> Self {
        Self {
            verbosity: 0,
            terminal: false,
            results_terminal: false,
            colour: false,
            width: 100,
            invocation: Vec::new(),
            fail_fast: false,
            started: None,
            tick: None,
        }
    }
}
