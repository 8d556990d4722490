//! The bench: what tests of the other crates and of the binary stand on.
//!
//! [`facts`] has facts that are made up, to diff operations without a host; [`examples`] judges entries of the registry by their own examples.

pub mod examples;
pub mod facts;
