//! A connection to a host in memory: what commands do there, and what is seen of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use infra_core::BoxFuture;
use infra_core::change::Action;
use infra_core::connection::{Connection, Crowded, Ending, Lost, OutputSink, Perform, Question, Traffic};
use infra_core::lock::Claim;
use infra_core::output::{Output, Stream};
use tokio::sync::watch;

use crate::fleet::{Behaviour, Machine};

impl Wire {
    /// Holds back the answer to a question that is to be held back.
    async fn hold(&self, question: &str) {
        let Some(Behaviour::HoldAfter(command)) = self.behaviours.get(question) else { return };
        let after = self.machine.performed.lock().unwrap().iter().any(|one| one == command);
        if after && !std::mem::replace(&mut *self.machine.held.lock().unwrap(), true) {
            let release = self.machine.releases.lock().unwrap().entry(question.to_owned()).or_default().clone();
            self.machine.release("go");
            release.notified().await;
        }
    }
}

/// A connection to a host in memory.
pub struct Wire {
    pub killed: watch::Sender<u32>,
    pub machine: Arc<Machine>,
    pub behaviours: HashMap<String, Behaviour>,
    pub hangs_on_close: bool,
    pub keeps: Option<Result<Vec<String>, String>>,
    pub closed: AtomicBool,
}

impl Connection for Wire {
    fn gather(&self, questions: Vec<Question>) -> BoxFuture<'_, Result<Vec<Result<Output, String>>, Lost>> {
        Box::pin(async move {
            let commands: Vec<String> = questions.iter().map(|question| question.command.script.as_str().to_owned()).collect();
            self.machine.gathers.lock().unwrap().push(commands.clone());
            self.machine.contexts.lock().unwrap().extend(questions.into_iter().map(|question| (question.context, None)));
            let mut outputs = Vec::new();
            for command in commands {
                match self.behaviours.get(&command) {
                    Some(Behaviour::Exit(status)) => outputs.push(Ok(Output { status: *status, ..Output::default() })),
                    Some(Behaviour::Ending(Ending::Lost { reason, .. })) => return Err(Lost { reason: reason.clone() }),
                    Some(Behaviour::Ending(_)) => outputs.push(Err("took longer than 30 s".into())),
                    Some(Behaviour::Panic) => panic!("the wire broke"),
                    Some(Behaviour::Block | Behaviour::BlockThen(_) | Behaviour::Immortal) => std::future::pending().await,
                    Some(Behaviour::Print(..) | Behaviour::FailOnce | Behaviour::HoldAfter(_)) | None => {
                        let path = command.strip_prefix("read ").expect("facts read paths");
                        let text = self.machine.texts.lock().unwrap().get(path).cloned();
                        self.hold(&command).await;
                        outputs.push(Ok(text.map_or(Output { status: 1, ..Output::default() }, Output::of)));
                    }
                }
            }
            Ok(outputs)
        })
    }

    /// A host that behaves with [`Behaviour::Exit`] to `parallel` bears so many commands at once.
    fn prepare_for(&self, commands: usize) -> BoxFuture<'_, Result<(), Crowded>> {
        self.machine.prepared.lock().unwrap().push(commands);
        let crowded = matches!(self.behaviours.get("parallel"), Some(Behaviour::Exit(most)) if commands as i32 > *most);
        let refused = || Crowded { message: format!("{commands} are too many"), hint: Some("take fewer".into()) };
        Box::pin(std::future::ready(if crowded { Err(refused()) } else { Ok(()) }))
    }

    fn perform<'a>(&'a self, step: Perform<'a>, sink: OutputSink) -> BoxFuture<'a, Ending> {
        Box::pin(async move {
            let command = match step.action {
                Action::Run(command) => command.script.as_str().to_owned(),
                Action::Upload(upload) => format!("upload {}", upload.dest),
                Action::Script(_) => "script".to_owned(),
                Action::Download(download) => format!("download {}", download.dest),
                Action::Controller(command) => format!("on the controller: {}", command.script),
            };
            if let Some(ending) = self.machine.under_lock(step.as_of) {
                return ending;
            }
            self.machine.performed.lock().unwrap().push(command.clone());
            self.machine.contexts.lock().unwrap().push((step.context.clone(), step.timeout));
            let blocked = async {
                let release = self.machine.releases.lock().unwrap().entry(command.clone()).or_default().clone();
                let mut killed = self.killed.subscribe();
                tokio::select! {
                    () = release.notified() => Ending::Exited(0),
                    Ok(()) = killed.changed() => Ending::Killed,
                }
            };
            match self.behaviours.get(&command) {
                Some(Behaviour::Exit(code)) => Ending::Exited(*code),
                Some(Behaviour::Print(text, code)) => {
                    sink.take(Stream::Stdout, text.as_bytes());
                    Ending::Exited(*code)
                }
                Some(Behaviour::Ending(ending)) => ending.clone(),
                Some(Behaviour::Panic) => panic!("the wire broke"),
                Some(Behaviour::Block) => blocked.await,
                Some(Behaviour::BlockThen(code)) => match blocked.await {
                    Ending::Exited(_) => Ending::Exited(*code),
                    other => other,
                },
                Some(Behaviour::FailOnce) => {
                    let times = self.machine.performed.lock().unwrap().iter().filter(|one| **one == command).count();
                    Ending::Exited(i32::from(times == 1))
                }
                Some(Behaviour::Immortal) => std::future::pending().await,
                Some(Behaviour::HoldAfter(_)) | None => {
                    if let Some((path, text)) = command.strip_prefix("write ").and_then(|rest| rest.split_once(' ')) {
                        self.machine.texts.lock().unwrap().insert(path.to_owned(), text.to_owned());
                    }
                    Ending::Exited(0)
                }
            }
        })
    }

    fn claim(&self, claim: Option<Claim>) {
        self.machine.claims.lock().unwrap().push(claim);
    }

    fn moves(&self) -> u64 {
        self.machine.moves.load(Ordering::SeqCst)
    }

    fn take_lock(&self) -> BoxFuture<'_, Ending> {
        Box::pin(async { self.machine.under_lock(Some(self.moves())).unwrap_or(Ending::Exited(0)) })
    }

    fn release(&self) -> BoxFuture<'_, ()> {
        assert!(!self.closed.load(Ordering::SeqCst), "the lock is given back through a connection that stands");
        *self.machine.released.lock().unwrap() += 1;
        Box::pin(async {})
    }

    fn end(&self) -> BoxFuture<'_, ()> {
        self.kill()
    }

    fn kill(&self) -> BoxFuture<'_, ()> {
        self.machine.killed.send_modify(|times| *times += 1);
        self.killed.send_modify(|times| *times += 1);
        Box::pin(async {})
    }

    fn traffic(&self) -> Traffic {
        let (gathers, commands) = (self.machine.gathers.lock().unwrap().len() as u64, self.machine.performed.lock().unwrap().len() as u64);
        Traffic { round_trips: gathers + commands, commands }
    }

    fn keep(&self, ok: bool) -> BoxFuture<'_, Result<Vec<String>, String>> {
        self.machine.kept.lock().unwrap().push(ok);
        Box::pin(async {
            match &self.keeps {
                Some(kept) => kept.clone(),
                None => std::future::pending().await,
            }
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.closed.store(true, Ordering::SeqCst);
        *self.machine.closed.lock().unwrap() += 1;
        Box::pin(async {
            if self.hangs_on_close {
                std::future::pending::<()>().await;
            }
        })
    }
}
