//! Facts about git repositories.

pub mod branch;
pub mod commit;
pub mod contains;
pub mod remote_commit;
pub mod repository;
pub mod submodules;
