//! Operations on the machine, its users and its services.

pub mod shell;
