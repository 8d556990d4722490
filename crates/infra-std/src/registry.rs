//! The list of all that the standard library has. A test holds it to the files and to the alphabet.

use infra_core::registry::{FactDefinition, OperationDefinition, Registry};

use crate::facts::{files, server};
use crate::operations as op;

/// All facts, by name.
pub fn facts() -> Vec<FactDefinition> {
    vec![
        FactDefinition::of::<files::directory::Directory>(),
        FactDefinition::of::<files::file::File>(),
        FactDefinition::of::<files::find_in_file::FindInFile>(),
        FactDefinition::of::<files::hard_link::HardLink>(),
        FactDefinition::of::<files::link::Link>(),
        FactDefinition::of::<files::sha256::Sha256>(),
        FactDefinition::of::<files::text::Text>(),
        FactDefinition::of::<files::tree_drift::TreeDrift>(),
        FactDefinition::of::<server::hostname::Hostname>(),
        FactDefinition::of::<server::identity::Identity>(),
    ]
}

/// All operations, by name.
pub fn operations() -> Vec<OperationDefinition> {
    vec![
        OperationDefinition::of::<op::files::directory::Directory>(),
        OperationDefinition::of::<op::files::file::File>(),
        OperationDefinition::of::<op::files::line::Line>(),
        OperationDefinition::of::<op::files::link::Link>(),
        OperationDefinition::of::<op::files::put::Put>(),
        OperationDefinition::of::<op::files::template::Template>(),
        OperationDefinition::of::<op::server::shell::Shell>(),
    ]
}

/// The standard library as a registry.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    facts().into_iter().for_each(|fact| registry.add_fact(fact));
    operations().into_iter().for_each(|operation| registry.add_operation(operation));
    registry
}
