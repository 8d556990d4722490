//! Facts about the machine and its users.

pub mod arch;
pub mod groups;
pub mod hostname;
pub mod identity;
pub mod kernel;
pub mod known_host;
pub mod os_release;
pub mod password_hash;
pub mod users;
pub mod which;
