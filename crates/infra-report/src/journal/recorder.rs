//! Writing a journal, event by event.

use std::io::{self, Write};
use std::time::Duration;

use infra_core::event::{Event, Outcome, RunKind};
use infra_core::run_state::RunState;

use super::{Entry, Header, Line, seconds};

/// What a journal is written on.
pub trait Paper: Write + Send {
    /// Waits until all that was written would survive a failure of the machine.
    ///
    /// # Errors
    /// When that cannot be had.
    fn sync(&mut self) -> io::Result<()>;
}

/// Gives the paper, when the run begins to execute.
pub type Open = Box<dyn FnOnce() -> io::Result<Box<dyn Paper>> + Send>;

/// Writes the journal of one run. A run that ends before it executes anything leaves none: what came of the run before it stays the last that is known.
pub struct Recorder {
    header: Header,
    open: Option<Open>,
    paper: Option<Box<dyn Paper>>,
    /// What waits for the run to execute.
    held: Vec<u8>,
    /// The beginning, which is written when the run begins to execute: when it happened, and the header.
    beginning: Option<(Duration, Header)>,
    /// How a word of the command line is written down.
    words_as: WordsAs,
    state: RunState,
    /// Whether something happened on a host since the last time it was synced.
    at_stake: bool,
}

/// How a word of the command line is written down.
pub type WordsAs = Box<dyn Fn(&str) -> String + Send>;

impl Recorder {
    /// The journal of the run that `header` tells of; its kind and hosts are taken from the run itself.
    pub fn new(header: Header, open: Open) -> Self {
        Self {
            header,
            open: Some(open),
            paper: None,
            held: Vec::new(),
            beginning: None,
            words_as: Box::new(str::to_owned),
            state: RunState::default(),
            at_stake: false,
        }
    }

    /// With the words of the command line written down as `words_as` gives them when the run begins to execute.
    pub fn with_words_as(self, words_as: WordsAs) -> Self {
        Self { words_as, ..self }
    }

    /// Whether the journal has been begun.
    pub fn begun(&self) -> bool {
        self.paper.is_some()
    }

    /// Writes the event down. It is synced when an operation ends that did something on a host, and when the run does.
    ///
    /// # Errors
    /// When the journal cannot be opened, written or synced; then it is to be given up, since it would have a hole.
    pub fn record(&mut self, event: &Event, since_1970: Duration) -> io::Result<()> {
        match event {
            // The outputs would be held as often as there are results.
            Event::HostOperationEnded { op, host, result } => {
                self.state.fold(&Event::HostOperationEnded { op: *op, host: *host, result: Box::new(result.without_output()) });
            }
            event => self.state.fold(event),
        }
        let entry = match event {
            Event::RunStarted { kind, hosts } => {
                self.beginning = Some((since_1970, Header { kind: *kind, hosts: hosts.as_ref().clone(), ..self.header.clone() }));
                None
            }
            Event::RunEnded => Some(Entry::RunEnded { hosts: self.state.account().hosts, exit_code: self.state.exit_code() }),
            // Nobody goes on from an `exec`, and the outputs of a whole fleet are much.
            Event::HostOperationEnded { op, host, result } if self.state.kind != Some(RunKind::Deploy) => {
                let result = Box::new(result.without_output());
                Entry::of(&Event::HostOperationEnded { op: *op, host: *host, result })
            }
            event => Entry::of(event),
        };
        let Some(entry) = entry else { return Ok(()) };
        let line = line(since_1970, entry)?;
        if matches!(event, Event::Executing)
            && let Some(open) = self.open.take()
        {
            let mut paper = open()?;
            if let Some((at, mut header)) = self.beginning.take() {
                header.invocation = header.invocation.iter().map(|word| (self.words_as)(word)).collect();
                self.held.splice(0..0, self::line(at, Entry::RunStarted(header))?);
            }
            paper.write_all(&std::mem::take(&mut self.held))?;
            self.paper = Some(paper);
        }
        match &mut self.paper {
            Some(paper) => {
                // One write for each line, so that a line is whole or the last.
                paper.write_all(&line)?;
                // A failure of the machine may take along that there was nothing to do.
                self.at_stake |= match event {
                    Event::CommandStarted { .. } => true,
                    Event::HostOperationEnded { result, .. } => {
                        !matches!(result.outcome, Outcome::Unchanged { .. } | Outcome::Skipped { .. })
                    }
                    _ => false,
                };
                if matches!(event, Event::RunEnded) || (self.at_stake && matches!(event, Event::OperationEnded { .. })) {
                    paper.sync()?;
                    self.at_stake = false;
                }
            }
            None if self.open.is_some() => self.held.extend_from_slice(&line),
            None => {}
        }
        Ok(())
    }
}

/// An entry as a line of the journal.
fn line(since_1970: Duration, entry: Entry) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line { at: seconds(since_1970), entry }).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}
