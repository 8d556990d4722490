//! What one host answered, kept until a change touches it.

use std::collections::HashMap;
use std::sync::Arc;

use infra_core::Value;
use infra_core::fact::{Scope, SharedFact, key_of};
use infra_core::facts::Lookup;
use infra_core::global_arguments::Context;
use infra_core::output::Output;
use infra_core::resources::{Aliases, Resources};

/// The answers of one host by question, and by who asked where that matters. Failures are kept like answers.
#[derive(Debug, Default)]
pub(crate) struct FactStore {
    answers: HashMap<String, Kept>,
    aliases: Arc<Aliases>,
    /// How many requests are under way, and what was touched since the first of them began: their answers may be older than that.
    reading: usize,
    touched: Vec<Resources>,
}

/// Since when a request is under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Since(usize);

#[derive(Debug)]
struct Kept {
    asked: Asked,
    answer: Result<Arc<Value>, String>,
    rests_on: Resources,
}

/// A question and as whom it is asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) fact: SharedFact,
    pub(crate) context: Context,
}

impl Asked {
    /// The question as it is asked for an operation or script that runs in `context`: what is the same for everyone is asked as the user who is
    /// logged in.
    pub(crate) fn new(fact: SharedFact, context: &Context) -> Self {
        let context = match fact.scope() {
            Scope::Everyone => Context::default(),
            Scope::Privilege => context.for_facts(),
        };
        Self { fact, context }
    }

    /// The text that tells it from other questions.
    pub(crate) fn key(&self) -> String {
        let mut key = key_of(&*self.fact);
        if self.context != Context::default() {
            key.push('\0');
            key.push_str(&serde_json::to_string(&self.context).expect("a context is data of the JSON model"));
        }
        key
    }
}

impl FactStore {
    /// What is known of the question, as the host stood when it was read.
    pub(crate) fn lookup(&self, asked: &Asked) -> Lookup {
        match self.answers.get(&asked.key()).map(|kept| &kept.answer) {
            Some(Ok(value)) => Lookup::Known(value.clone()),
            Some(Err(message)) => Lookup::Failed(message.clone()),
            None => Lookup::Missing,
        }
    }

    /// A request begins.
    pub(crate) fn begin_reading(&mut self) -> Since {
        self.reading += 1;
        Since(self.touched.len())
    }

    /// A request that had begun is over.
    pub(crate) fn end_reading(&mut self) {
        self.reading = self.reading.saturating_sub(1);
        if self.reading == 0 {
            self.touched.clear();
        }
    }

    /// Whether something was changed since a request began that its answer to this question may not know of.
    pub(crate) fn is_outdated(&self, asked: &Asked, since: Since) -> bool {
        let rests_on = asked.fact.rests_on().with_real_paths(&self.aliases);
        self.touched.iter().skip(since.0).any(|touched| touched.with_real_paths(&self.aliases).overlaps(&rests_on))
    }

    /// Whether the question is not answered, or will not be once this was touched.
    pub(crate) fn is_stale(&self, asked: &Asked, touched: &Resources) -> bool {
        let Some(kept) = self.answers.get(&asked.key()) else { return true };
        touched.with_real_paths(&self.aliases).overlaps(&kept.rests_on.with_real_paths(&self.aliases))
    }

    /// Keeps an answer, or why there is none.
    pub(crate) fn keep(&mut self, asked: &Asked, answer: Result<Value, String>) {
        // Whether somebody can be asked at all rests on who there is, and on much else.
        let whoever = answer.is_err() && asked.context.privilege.some().is_some();
        let besides = answer.as_ref().map_or_else(|_| Resources::none(), |answer| asked.fact.answer_rests_on(answer));
        let rests_on = if whoever { Resources::everything() } else { asked.fact.rests_on().and(besides) };
        let kept = Kept { asked: asked.clone(), answer: answer.map(Arc::new), rests_on };
        self.answers.insert(asked.key(), kept);
    }

    /// Notes the links that the output of a question tells of.
    pub(crate) fn note_links(&mut self, asked: &Asked, output: &Output) {
        for (path, leads) in asked.fact.links(output) {
            Arc::make_mut(&mut self.aliases).add(&path, &leads);
        }
    }

    /// All that is known, in the order of the questions.
    pub(crate) fn all(&self) -> Vec<(Asked, Result<Value, String>)> {
        let mut all: Vec<(&String, &Kept)> = self.answers.iter().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        all.into_iter()
            .map(|(_, kept)| (kept.asked.clone(), kept.answer.as_ref().map(|value| (**value).clone()).map_err(String::clone)))
            .collect()
    }

    /// The paths that were found to lead elsewhere.
    pub(crate) fn aliases(&self) -> &Arc<Aliases> {
        &self.aliases
    }

    /// Drops what may have changed with these resources, by whatever path it was asked for.
    pub(crate) fn drop_touched(&mut self, touched: &Resources) {
        if touched.is_none() {
            return;
        }
        if self.reading > 0 {
            self.touched.push(touched.clone());
        }
        let aliases = &self.aliases;
        let touched = touched.with_real_paths(aliases);
        self.answers.retain(|_, kept| !touched.overlaps(&kept.rests_on.with_real_paths(aliases)));
    }
}
