//! What the screen is told about the world, since it looks at nothing itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use infra_core::waves::Share;

/// The strategy that the command line asks for and what it makes of failures, for the lines that say so before execution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Controls {
    /// `--parallel`: so many hosts at work at once.
    pub parallel: Option<usize>,
    /// `--serial`: host by host.
    pub serial: bool,
    /// `--no-wait`: no host waits for another.
    pub no_wait: bool,
    /// `--fail-fast`.
    pub fail_fast: bool,
    /// `--fail-percent`: of all selected hosts, so many in a hundred may be not ok.
    pub fail_percent: Option<f64>,
    /// `--max-fail`: so many hosts of a wave may be not ok.
    pub max_fail: Share,
}

impl Default for Controls {
    fn default() -> Self {
        Self { parallel: None, serial: false, no_wait: false, fail_fast: false, fail_percent: None, max_fail: Share::NONE }
    }
}

/// The journal of the run, as far as the screen is concerned: what it is called, and whether it can be relied on.
#[derive(Clone, Debug)]
pub struct Journalled {
    /// The run's name in the journal.
    pub run: String,
    /// Whether all of the run stands in the journal by now.
    pub whole: Arc<AtomicBool>,
}

impl Journalled {
    /// The run's name, where the journal can be relied on.
    pub(crate) fn reliable(&self) -> Option<&str> {
        self.whole.load(Ordering::SeqCst).then_some(self.run.as_str())
    }
}

/// What becomes of the output of `exec`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecOutput {
    /// Each line as it comes, with its host before it.
    #[default]
    Lines,
    /// Equal outputs once, when all hosts have ended.
    Gathered {
        /// Whether those of fewer hosts are shown by how they differ from those of the most.
        diff: bool,
    },
    /// Somebody else takes it.
    Elsewhere,
}

/// How the screen shows a run.
#[derive(Clone, Debug)]
pub struct ScreenSettings {
    /// 0: what changed or failed, and summaries; 1: reasons, steps of the plan, unchanged hosts; 2: commands; 3: their output.
    pub verbosity: u8,
    /// Whether the differences of text files are shown, in the plan and in the run.
    pub diff: bool,
    /// What becomes of the output of `exec`.
    pub exec: ExecOutput,
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
    /// The strategy, for the lines that say what a failure leads to.
    pub controls: Controls,
    /// The journal, which the command that goes on may refer to; none where there is none.
    pub journal: Option<Journalled>,
    /// When the program was started, for the time a run took; without it no time is shown.
    pub started: Option<Instant>,
    /// How often progress bars are drawn anew while nothing happens; without it they are drawn at every event, and only then.
    pub tick: Option<Duration>,
}

impl Default for ScreenSettings {
    fn default() -> Self {
        Self {
            verbosity: 0,
            diff: false,
            exec: ExecOutput::Lines,
            terminal: false,
            results_terminal: false,
            colour: false,
            width: 100,
            invocation: Vec::new(),
            controls: Controls::default(),
            journal: None,
            started: None,
            tick: None,
        }
    }
}
