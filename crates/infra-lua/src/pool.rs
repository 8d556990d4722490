//! Threads of their own for scripts, with a clock for each script.
//!
//! A script never runs on the threads of the asynchronous runtime. One that runs past its limit where no hook of Lua can reach it is left
//! behind with its thread, and another thread takes that one's place.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

const POISON: &str = "no one panics while holding it";

/// How long past its limit a script may take to notice before it is left behind.
const GRACE: Duration = Duration::from_secs(2);

/// The stack of a script's thread, in bytes. It is reserved, not used.
const STACK: usize = 32 * 1024 * 1024;

/// The time that one script has been running, without the time it waited for answers.
#[derive(Debug)]
pub(crate) struct Clock {
    limit: Duration,
    used: Mutex<(Duration, Option<Instant>)>,
}

impl Clock {
    pub fn new(limit: Duration) -> Self {
        Self { limit, used: Mutex::default() }
    }

    pub fn limit(&self) -> Duration {
        self.limit
    }

    pub fn used(&self) -> Duration {
        let (used, since) = *self.used.lock().expect(POISON);
        used + since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    pub fn is_over(&self) -> bool {
        self.used() > self.limit
    }

    fn start(&self) {
        self.used.lock().expect(POISON).1 = Some(Instant::now());
    }

    fn stop(&self) {
        let mut used = self.used.lock().expect(POISON);
        if let Some(since) = used.1.take() {
            used.0 += since.elapsed();
        }
    }
}

/// Why work gave nothing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// It ran past its limit and was left behind.
    Overtime,
    /// It panicked.
    Panicked,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Job, Arc<AtomicBool>)>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

/// The threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    size: usize,
}

impl Pool {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { shared: Arc::default(), size: cores.clamp(2, 32) }
    }

    /// Runs `work` on a thread of the pool, its time counted by `clock`.
    pub async fn run<T: Send + 'static>(&self, clock: &Arc<Clock>, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Lost> {
        let (started, has_started) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel::<T>();
        let left_behind = Arc::new(AtomicBool::new(false));
        let of_job = clock.clone();
        let job: Job = Box::new(move || {
            of_job.start();
            // The receivers are gone only when nobody waits any more; then there is nothing to tell.
            let _ = started.send(());
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            of_job.stop();
            if let Ok(result) = result {
                let _ = done.send(result);
            }
        });
        self.submit(job, left_behind.clone());
        if has_started.await.is_err() {
            return Err(Lost::Panicked);
        }
        let allowed = clock.limit().saturating_sub(clock.used()) + GRACE;
        match tokio::time::timeout(allowed, is_done).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(_)) => Err(Lost::Panicked),
            Err(_) => {
                left_behind.store(true, Ordering::SeqCst);
                let mut queue = self.shared.queue.lock().expect(POISON);
                queue.threads -= 1;
                if !queue.jobs.is_empty() {
                    self.spawn(&mut queue);
                }
                Err(Lost::Overtime)
            }
        }
    }

    /// Drops a value on a thread of the pool.
    pub fn drop_there<T: Send + 'static>(&self, value: T) {
        self.submit(Box::new(move || drop(value)), Arc::default());
    }

    fn submit(&self, job: Job, left_behind: Arc<AtomicBool>) {
        let mut queue = self.shared.queue.lock().expect(POISON);
        queue.jobs.push_back((job, left_behind));
        if queue.idle < queue.jobs.len() && queue.threads < self.size {
            self.spawn(&mut queue);
        }
        drop(queue);
        self.shared.ready.notify_one();
    }

    fn spawn(&self, queue: &mut Queue) {
        let shared = self.shared.clone();
        let started = std::thread::Builder::new().name("script".to_owned()).stack_size(STACK).spawn(move || work(&shared));
        if started.is_ok() {
            queue.threads += 1;
        } else if queue.threads == 0 {
            // No thread at all: without one the jobs would wait for ever, so they are dropped, and whoever waits is told.
            queue.jobs.clear();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.queue.lock().expect(POISON).closed = true;
        self.shared.ready.notify_all();
    }
}

fn work(shared: &Shared) {
    loop {
        let mut queue = shared.queue.lock().expect(POISON);
        let (job, left_behind) = loop {
            if let Some(job) = queue.jobs.pop_front() {
                break job;
            }
            if queue.closed {
                queue.threads -= 1;
                return;
            }
            queue.idle += 1;
            queue = shared.ready.wait(queue).expect(POISON);
            queue.idle -= 1;
        };
        drop(queue);
        job();
        if left_behind.load(Ordering::SeqCst) {
            // Another thread has this one's place.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_is_done_on_threads_of_their_own() {
        let pool = Pool::new();
        let clock = Arc::new(Clock::new(Duration::from_secs(30)));
        let here = std::thread::current().id();
        let there = pool.run(&clock, || std::thread::current().id()).await.expect("a thread");
        assert_ne!(here, there);
        let lost = pool.run(&clock, || -> u8 { std::panic::resume_unwind(Box::new("gone")) }).await;
        assert_eq!(lost, Err(Lost::Panicked));
        let sum: usize = {
            let mut sum = 0;
            for n in 0..100 {
                sum += pool.run(&clock, move || n).await.expect("a thread");
            }
            sum
        };
        assert_eq!(sum, 4950);
    }

    #[tokio::test]
    async fn what_does_not_end_is_left_behind() {
        let pool = Pool::new();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let clock = Arc::new(Clock::new(Duration::ZERO));
        // It ends with the test, when the sender is dropped.
        let lost = pool.run(&clock, move || released.recv().is_ok()).await;
        assert_eq!(lost, Err(Lost::Overtime));
        let clock = Arc::new(Clock::new(Duration::from_secs(30)));
        assert_eq!(pool.run(&clock, || 1).await, Ok(1));
        drop(release);
    }
}
