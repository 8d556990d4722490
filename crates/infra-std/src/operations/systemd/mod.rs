//! Operations on units of systemd(1).

pub mod service;
