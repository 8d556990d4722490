//! Facts about what apt(8) could install.

pub mod candidates;
pub mod last_update;
pub mod upgrades;
