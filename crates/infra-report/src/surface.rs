//! Where the human output goes: line by line, or a terminal with a progress bar below the lines.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use console::measure_text_width;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle, TermLike};
use infra_core::host::HostId;
use infra_core::plan::OpId;

use crate::text::{cut, size, time};

/// Bars are drawn anew at most this often in a second, where they are drawn by the clock.
const REDRAWS: u8 = 20;

/// A host at work for this long is shown with its time.
const SLOW: Duration = Duration::from_secs(5);

/// A writer that a bar and the lines above it share.
type Shared = Arc<Mutex<Box<dyn Write + Send>>>;

/// What a bar counts: a host of a stage, or of one of the operations that go on at the same time.
pub(crate) type Part = (Option<OpId>, HostId);

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

/// The parts of a stage that are still waited for: each host's name, and since when it is at work.
#[derive(Default)]
struct Waiting {
    hosts: BTreeMap<Part, (String, Option<Instant>)>,
    /// Of files that are written or fetched: how many bytes of how many, of the step that each host is at.
    moved: BTreeMap<Part, (u64, u64)>,
    /// The bytes of those steps that are over.
    moved_before: u64,
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
    pub fn begin(&mut self, title: &str, hosts: Vec<(Part, String)>) {
        self.end();
        let Some((width, tick)) = self.terminal else { return };
        let canvas = Box::new(Canvas { writer: self.writer.clone(), width, pending: Mutex::default() });
        let target = match tick {
            Some(_) => ProgressDrawTarget::term_like_with_hz(canvas, REDRAWS),
            None => ProgressDrawTarget::term_like(canvas),
        };
        let bar = ProgressBar::with_draw_target(Some(hosts.len() as u64), target);
        let waiting = hosts.into_iter().map(|(part, name)| (part, (name, None))).collect();
        let waiting = Arc::new(Mutex::new(Waiting { hosts: waiting, ..Waiting::default() }));
        bar.set_style(style(title, usize::from(width), bar.length().unwrap_or_default(), waiting.clone()));
        match tick {
            Some(interval) => bar.enable_steady_tick(interval),
            None => bar.tick(),
        }
        self.bar = Some(Bar { bar, waiting });
    }

    /// More is waited for beside what the bar shows already, under a title for all of it.
    pub fn more(&mut self, title: &str, hosts: Vec<(Part, String)>) {
        let (Some(bar), Some((width, _))) = (&self.bar, self.terminal) else { return };
        let length = bar.bar.length().unwrap_or_default() + hosts.len() as u64;
        lock(&bar.waiting).hosts.extend(hosts.into_iter().map(|(part, name)| (part, (name, None))));
        bar.bar.set_style(style(title, usize::from(width), length, bar.waiting.clone()));
        bar.bar.set_length(length);
        bar.bar.tick();
    }

    /// A host begins to work.
    pub fn at_work(&mut self, part: Part) {
        let Some(bar) = &self.bar else { return };
        if let Some((_, since)) = lock(&bar.waiting).hosts.get_mut(&part) {
            *since = Some(Instant::now());
        }
        bar.bar.tick();
    }

    /// A host has moved so many bytes of a file or a tree by now, of so many. With fewer than before it is at another step, or tries again.
    pub fn moved(&mut self, part: Part, bytes: u64, total: u64) {
        let Some(bar) = &self.bar else { return };
        let mut waiting = lock(&bar.waiting);
        if waiting.hosts.contains_key(&part)
            && let Some((before, _)) = waiting.moved.insert(part, (bytes, total))
            && before > bytes
        {
            waiting.moved_before += before;
        }
        drop(waiting);
        bar.bar.tick();
    }

    /// A host is done with the stage.
    pub fn done(&mut self, part: Part) {
        self.done_where(|waiting| *waiting == part);
    }

    /// An operation is over, also for hosts that it never came to.
    pub fn leave(&mut self, op: OpId) {
        self.done_where(|(waiting, _)| *waiting == Some(op));
    }

    fn done_where(&mut self, done: impl Fn(&Part) -> bool) {
        let Some(bar) = &self.bar else { return };
        let mut waiting = lock(&bar.waiting);
        let before = waiting.hosts.len();
        waiting.hosts.retain(|part, _| !done(part));
        let Waiting { hosts, moved, moved_before } = &mut *waiting;
        moved.retain(|part, (_, total)| {
            let stays = hosts.contains_key(part);
            *moved_before += if stays { 0 } else { *total };
            stays
        });
        let number = before - waiting.hosts.len();
        // The bar asks for the names while it is drawn.
        drop(waiting);
        if number > 0 {
            bar.bar.inc(number as u64);
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
        let Some(moved) = self.moved() else { return self.names(room, now) };
        let left = room.saturating_sub(measure_text_width(&moved) + 2);
        match self.names(left, now) {
            names if names.is_empty() => cut(&moved, room),
            names => format!("{moved}; {names}"),
        }
    }

    /// How much of the files was moved, over all hosts.
    fn moved(&self) -> Option<String> {
        let sum = |of: fn(&(u64, u64)) -> u64| self.moved.values().map(of).sum::<u64>() + self.moved_before;
        let (bytes, total) = (sum(|(bytes, _)| *bytes), sum(|(_, total)| *total));
        (total > 0).then(|| format!("{} of {}", size(bytes), size(total)))
    }

    fn names(&self, room: usize, now: Instant) -> String {
        let parts = self.hosts.iter().filter_map(|(part, (name, since))| Some(((*since)?, name, part.1, self.moved.get(part))));
        let mut at_work: Vec<_> = parts.collect();
        at_work.sort_by_key(|(since, ..)| *since);
        // A host that is at work on several operations is named once.
        let mut named = BTreeSet::new();
        at_work.retain(|(_, _, host, _)| named.insert(*host));
        let mut idle: Vec<_> = self.hosts.iter().map(|((_, host), (name, _))| (*host, name)).collect();
        idle.sort_unstable();
        idle.dedup();
        let label = |(since, name, _, moved): &(Instant, &String, HostId, Option<&(u64, u64)>)| {
            let share = moved.and_then(|(bytes, total)| (bytes * 100).checked_div(*total)).map(|share| format!("{share} %"));
            let long = now.saturating_duration_since(*since);
            let long = (long >= SLOW).then(|| time(Duration::from_secs(long.as_secs())));
            match (share, long) {
                (None, None) => (*name).clone(),
                (share, long) => format!("{name} ({})", share.into_iter().chain(long).collect::<Vec<_>>().join(", ")),
            }
        };
        let total = if at_work.is_empty() { idle.len() } else { at_work.len() };
        // More than these do not fit on a line.
        let names: Vec<String> = match at_work.is_empty() {
            true => idle.iter().take(20).map(|(_, name)| (*name).clone()).collect(),
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

/// How a bar looks: title, bar, numbers and names share a line; the names get what the others leave, at least a third.
fn style(title: &str, width: usize, hosts: u64, waiting: Arc<Mutex<Waiting>>) -> ProgressStyle {
    let digits = hosts.to_string().len();
    let length = if width < 60 { 8 } else { 20 };
    let title = cut(title, (width / 3).max(8));
    let room = width.saturating_sub(measure_text_width(&title) + length + 2 * digits + 11);
    let title = title.replace('{', "{{").replace('}', "}}");
    ProgressStyle::with_template(&format!("    {title} [{{bar:{length}}}] {{pos}}/{{len}}  {{waiting}}"))
        .expect("the template has no braces but those of its keys")
        .progress_chars("=> ")
        .with_key("waiting", move |_: &ProgressState, out: &mut dyn fmt::Write| {
            let _ = out.write_str(&lock(&waiting).text(room, Instant::now()));
        })
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
