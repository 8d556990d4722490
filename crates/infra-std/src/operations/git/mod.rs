//! Operations on git repositories.

pub mod repo;
