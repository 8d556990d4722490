//! The screen: events in; lines, bars and JSON out.
//!
//! Everything here writes to what it is given and looks at nothing by itself: colours, width, verbosity and what is a terminal are
//! settings. The clock is read for the time that a stage has waited, and for nothing that is in a record.
//!
//! - [`screen`] shows a run to a person, line by line or on a terminal with progress bars;
//! - [`render_diagnostic`] shows what is wrong before a run begins;
//! - [`nodeset`] folds lists of hosts.

mod diagnostics;
pub mod nodeset;
mod outcome;
mod plan_table;
mod screen;
mod settings;
mod summary;
mod surface;
mod text;

pub use diagnostics::render_diagnostic;
pub use screen::screen;
pub use settings::ScreenSettings;
