//! Facts about files, directories and links.

pub mod directory;
pub mod file;
pub mod find_in_file;
pub mod hard_link;
pub mod link;
pub mod sha256;
pub mod text;
pub mod tree;
pub mod tree_drift;
