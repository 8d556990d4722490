//! Whole runs over a made-up fleet: hosts in memory, scripts as lists, and a check of the order of events in every run.

mod execution;
mod failures;
mod fleet;
mod grammar;
mod interrupts;
mod library;
mod locks;
mod misuse;
mod planning;
mod retries;
mod strategies;
