//! Whole runs over a made-up fleet: hosts in memory, scripts as lists, and a check of the order of events in every run.

mod call_bodies;
mod execution;
mod failures;
mod fleet;
mod functions;
mod grammar;
mod interrupts;
mod keeping;
mod late_values;
mod library;
mod locks;
mod misuse;
mod places;
mod planning;
mod resuming;
mod retries;
mod second_look;
mod secrets;
mod strategies;
mod wire;
