//! What can be wished of a host: `operations/<module>/<operation>.rs` is the operation `<module>.<operation>`.

pub mod files;
pub mod server;
pub mod systemd;
