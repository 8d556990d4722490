//! Facts about the machine and its users.

pub mod hostname;
pub mod identity;
