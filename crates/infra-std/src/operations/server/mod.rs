//! Operations on the machine, its users and its services.

pub mod group;
pub mod script;
pub mod service;
pub mod shell;
pub mod user;
pub mod wait;
