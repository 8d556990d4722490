//! Operations on packages with apt(8).

pub mod packages;
pub mod update;
