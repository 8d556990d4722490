//! Facts about units of systemd(1).

pub mod enabled;
pub mod status;
