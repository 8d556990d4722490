//! Facts and operations on files for real: three shells, the tools of GNU and of busybox, folders of the tests' own.

mod host;
mod overlay;
mod plans;
mod shells;
mod wishes;
