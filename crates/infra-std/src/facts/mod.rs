//! What can be asked of a host: `facts/<module>/<fact>.rs` is the fact `<module>.<fact>`.

pub mod apt;
pub mod deb;
pub mod files;
pub mod git;
pub mod server;
pub mod systemd;
