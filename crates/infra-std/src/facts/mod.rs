//! What can be asked of a host: `facts/<module>/<fact>.rs` is the fact `<module>.<fact>`.

pub mod files;
pub mod server;
