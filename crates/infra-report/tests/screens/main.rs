//! Every kind of screen, driven by made-up runs.

mod answers;
mod bench;
mod deploys;
mod failures;
mod journal;
mod json;
mod locks;
mod strategies;
mod terminal;
