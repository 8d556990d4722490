//! Every kind of screen, driven by made-up runs.

mod afterwards;
mod answers;
mod bench;
mod calls;
mod deploys;
mod failures;
mod journal;
mod json;
mod locks;
mod strategies;
mod terminal;
