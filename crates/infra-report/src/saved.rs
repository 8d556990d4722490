//! A saved plan, for people and as JSON.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use infra_core::command::quote;
use infra_core::event::{Event, RunKind};
use infra_core::host::HostId;
use infra_core::run_state::RunState;
use infra_core::saved_plan::SavedPlan;

use crate::journal::readable;
use crate::settings::Controls;
use crate::text::{Page, count, one_line};
use crate::{Json, diffs, plan_table};

/// What a run would say that came to this plan and stopped there.
fn events(saved: &SavedPlan) -> [Event; 2] {
    let hosts: Vec<(HostId, String)> = saved.hosts.iter().map(|host| (host.id, host.name.clone())).collect();
    [Event::RunStarted { kind: RunKind::Dry, hosts: Arc::new(hosts) }, Event::PlanReady { plan: Arc::new(saved.plan.clone()) }]
}

/// When and of what it was made, what changes in text files where `diff` asks for it, and the table of operations. It ends with a newline.
pub fn render_saved(saved: &SavedPlan, verbosity: u8, diff: bool, width: u16, colour: bool) -> String {
    let page = Page { colour, width: usize::from(width.max(48)), verbosity };
    let mut state = RunState::default();
    events(saved).iter().for_each(|event| state.fold(event));
    let words = saved.invocation.iter().map(|word| one_line(&quote(word))).collect::<Vec<_>>().join(" ");
    let made = readable(saved.made as f64);
    let facts: usize = saved.basis.hosts.values().map(|host| host.facts.len()).sum();
    let mut text = format!("{} {} UTC by infra {}\n", page.bold("Made"), made, one_line(&saved.program));
    text.push_str(&format!("    {words}\n    in {}\n", one_line(&saved.folder)));
    let elsewhere: usize = saved.basis.places.values().map(Vec::len).sum();
    let places = saved.basis.places.keys().map(|name| one_line(name)).collect::<Vec<_>>().join(", ");
    let elsewhere = if elsewhere > 0 { format!(", and on {elsewhere} of {places}") } else { String::new() };
    let rests = format!("rests on {} of {}{elsewhere}", count(facts, "fact"), count(saved.hosts.len(), "host"));
    text.push_str(&format!("    {}\n", page.dim(&rests)));
    let name = |host: HostId| state.hosts.get(&host).map_or("?", |host| host.name.as_str());
    if diff {
        text.push_str(&diffs::of_plan(&saved.plan, name, page));
    }
    text.push_str(&plan_table::render(&state, &saved.plan, &Controls::default(), !diff, page));
    text
}

/// The document that `--dry --json` gave when the plan was made; with `diff` it has the differences of text files. It ends with a newline.
pub fn saved_document(saved: &SavedPlan, diff: bool) -> String {
    let out = Out::default();
    let writer = Box::new(out.clone());
    let mut document = if diff { Json::with_diffs(writer, None) } else { Json::new(writer, None) };
    events(saved).iter().chain([&Event::RunEnded]).for_each(|event| document.event(event));
    let bytes = out.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Bytes that are looked at when all are written.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
