//! Facts about packages as dpkg(1) knows them.

pub mod architecture;
pub mod held;
pub mod packages;
pub mod provided;
pub mod remains;
