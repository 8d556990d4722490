//! The screen: events in; lines, bars and JSON out.
//!
//! Everything here writes to what it is given and looks at nothing by itself: colours, width, verbosity and what is a terminal are
//! settings. The clock is read for the time that a stage has waited, and for nothing that is in a record.
//!
//! - [`screen`] shows a run to a person, line by line or on a terminal with progress bars;
//! - [`Json`] writes the record of a run as one JSON document, and [`several`] lets reporters stand side by side;
//! - [`journal`] writes down what happens so that it outlives the run, and reads it back;
//! - [`render_hosts`] and [`hosts_document`] list the hosts of an inventory;
//! - [`render_diagnostic`] shows what is wrong before a run begins;
//! - [`render_diffs`] shows what a plan changes in text files, for who asks before saying yes;
//! - [`render_saved`] and [`saved_document`] show a saved plan;
//! - [`nodeset`] folds lists of hosts.

mod afterwards;
mod diagnostics;
mod diffs;
mod gathered;
mod hosts;
pub mod journal;
mod json;
pub mod nodeset;
mod outcome;
mod plan_table;
mod saved;
mod screen;
mod settings;
mod several;
mod summary;
mod surface;
mod text;

pub use diagnostics::render_diagnostic;
pub use diffs::{holds_diffs, render_diffs};
pub use hosts::{hosts_document, render_hosts};
pub use json::{Json, VERSION, misuse_document};
pub use saved::{render_saved, saved_document};
pub use screen::screen;
pub use settings::{Controls, ExecOutput, Journalled, ScreenSettings};
pub use several::several;
