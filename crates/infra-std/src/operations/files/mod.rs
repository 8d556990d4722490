//! Operations on files, directories and links.

pub mod directory;
pub mod file;
pub mod get;
pub mod line;
pub mod link;
pub mod put;
pub mod sync;
pub mod template;

/// The default of arguments that are true unless said otherwise.
pub(crate) fn yes() -> bool {
    true
}
