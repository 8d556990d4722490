//! Where the human output goes: line by line, or a terminal with a progress bar below the lines.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use console::measure_text_width;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};
use infra_core::host::HostId;

use crate::text::{cut, time};

/// Bars are drawn anew at most this often in a second, where they are drawn by the clock.
const REDRAWS: u8 = 20;

/// A host at work for this long is shown with its time.
const SLOW: Duration = Duration::from_secs(5);

/// A writer that a bar and the lines above it share.
type Shared = Arc<Mutex<Box<dyn Write + Send>>>;

/// Where the human output goes. An output that cannot be written to is given up in silence: there is nowhere left to say so.
pub(crate) struct Surface {
    writer: Shared,
    /// The columns of the terminal and how often bars are drawn by the clock; none where there is no terminal.
    terminal: Option<(u16, Option<Duration>)>,
    bar: Option<Bar>,
}

struct Bar {
    bar: ProgressBar,
    waiting: Arc<Mutex<Waiting>>,
}

/// The hosts that a stage still waits for.
#[derive(Default)]
struct Waiting {
    hosts: BTreeMap<HostId, (String, Option<Instant>)>,
}

impl Surface {
    pub fn new(writer: Box<dyn Write + Send>, terminal: Option<(u16, Option<Duration>)>) -> Self {
        Self { writer: Arc::new(Mutex::new(writer)), terminal, bar: None }
    }

    /// Writes whole lines, above the bar where there is one.
    pub fn write(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        let writer = &self.writer;
        let write = || {
            let mut writer = lock(writer);
            let _ = writer.write_all(text.as_bytes()).and_then(|()| writer.flush());
        };
        match &self.bar {
            Some(bar) => bar.bar.suspend(write),
            None => write(),
        }
    }

    /// Does something that writes to the same terminal by another way, with the bar out of its way.
    pub fn beside<T>(&mut self, act: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.bar.suspend(act),
            None => act(),
        }
    }

    /// A stage begins that waits for these hosts: on a terminal a bar shows how many are done, and which are not.
    pub fn begin(&mut self, title: &str, hosts: Vec<(HostId, String)>) {
        self.end();
        let Some((width, tick)) = self.terminal else { return };
        let canvas = Box::new(Canvas { writer: self.writer.clone(), width, pending: Mutex::default() });
        let target = match tick {
            Some(_) => ProgressDrawTarget::term_like_with_hz(canvas, REDRAWS),
            None => ProgressDrawTarget::term_like(canvas),
        };
        let bar = ProgressBar::with_draw_target(Some(hosts.len() as u64), target);
        let digits = hosts.len().to_string().len();
        let waiting = hosts.into_iter().map(|(id, name)| (id, (name, None))).collect();
        let waiting = Arc::new(Mutex::new(Waiting { hosts: waiting }));
        // Title, bar, numbers and names share a line: the names get what the others leave, at least a third.
        let width = usize::from(width);
        let length = if width < 60 { 8 } else { 20 };
        let title = cut(title, (width / 3).max(8));
        let room = width.saturating_sub(measure_text_width(&title) + length + 2 * digits + 11);
        let title = title.replace('{', "{{").replace('}', "}}");
        let names = waiting.clone();
        let style = ProgressStyle::with_template(&format!("    {title} [{{bar:{length}}}] {{pos}}/{{len}}  {{waiting}}"))
            .expect("the template has no braces but those of its keys")
            .progress_chars("=> ")
            .with_key("waiting", move |_: &ProgressState, out: &mut dyn fmt::Write| {
                let _ = out.write_str(&lock(&names).text(room, Instant::now()));
            });
        bar.set_style(style);
        match tick {
            Some(interval) => bar.enable_steady_tick(interval),
            None => bar.tick(),
        }
        self.bar = Some(Bar { bar, waiting });
    }

    /// A host begins to work.
    pub fn at_work(&mut self, host: HostId) {
        let Some(bar) = &self.bar else { return };
        if let Some((_, since)) = lock(&bar.waiting).hosts.get_mut(&host) {
            *since = Some(Instant::now());
        }
        bar.bar.tick();
    }

    /// A host is done with the stage.
    pub fn done(&mut self, host: HostId) {
        let Some(bar) = &self.bar else { return };
        let waited_for = lock(&bar.waiting).hosts.remove(&host).is_some();
        if waited_for {
            bar.bar.inc(1);
        }
    }

    /// The stage is over: the bar goes.
    pub fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.bar.finish_and_clear();
        }
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        self.end();
    }
}

impl Waiting {
    /// The hosts at work, the longest first, or where none is at work those that are waited for; as many as fit.
    fn text(&self, room: usize, now: Instant) -> String {
        let mut at_work: Vec<_> = self.hosts.values().filter_map(|(name, since)| Some(((*since)?, name))).collect();
        at_work.sort_by_key(|(since, _)| *since);
        let label = |(since, name): &(Instant, &String)| match now.saturating_duration_since(*since) {
            long if long >= SLOW => format!("{name} ({})", time(Duration::from_secs(long.as_secs()))),
            _ => (*name).clone(),
        };
        let total = if at_work.is_empty() { self.hosts.len() } else { at_work.len() };
        // More than these do not fit on a line.
        let names: Vec<String> = match at_work.is_empty() {
            true => self.hosts.values().take(20).map(|(name, _)| name.clone()).collect(),
            false => at_work.iter().take(20).map(label).collect(),
        };
        for shown in (1..=names.len()).rev() {
            let more = if shown < total { format!(" and {} more", total - shown) } else { String::new() };
            let text = format!("{}{more}", names[..shown].join(", "));
            if measure_text_width(&text) <= room {
                return text;
            }
        }
        String::new()
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a bar is drawn on: the shared writer, spoken to in the control sequences of ECMA-48. A frame is written at once.
struct Canvas {
    writer: Shared,
    width: u16,
    pending: Mutex<String>,
}

impl fmt::Debug for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canvas").field("width", &self.width).finish_non_exhaustive()
    }
}

impl Canvas {
    fn put(&self, text: &str) -> io::Result<()> {
        lock(&self.pending).push_str(text);
        Ok(())
    }

    fn cursor(&self, cells: usize, direction: char) -> io::Result<()> {
        if cells == 0 { Ok(()) } else { self.put(&format!("\x1b[{cells}{direction}")) }
    }
}

impl TermLike for Canvas {
    fn width(&self) -> u16 {
        self.width
    }

    fn move_cursor_up(&self, n: usize) -> io::Result<()> {
        self.cursor(n, 'A')
    }

    fn move_cursor_down(&self, n: usize) -> io::Result<()> {
        self.cursor(n, 'B')
    }

    fn move_cursor_right(&self, n: usize) -> io::Result<()> {
        self.cursor(n, 'C')
    }

    fn move_cursor_left(&self, n: usize) -> io::Result<()> {
        self.cursor(n, 'D')
    }

    fn write_line(&self, s: &str) -> io::Result<()> {
        self.put(s)?;
        self.put("\r\n")
    }

    fn write_str(&self, s: &str) -> io::Result<()> {
        self.put(s)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.put("\r\x1b[2K")
    }

    fn flush(&self) -> io::Result<()> {
        let frame = std::mem::take(&mut *lock(&self.pending));
        let mut writer = lock(&self.writer);
        writer.write_all(frame.as_bytes())?;
        writer.flush()
    }
}
