//! What can be wished of a host: `operations/<module>/<operation>.rs` is the operation `<module>.<operation>`.

pub mod apt;
pub mod files;
pub mod git;
pub mod server;
pub mod systemd;
