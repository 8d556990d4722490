//! The list of all that the standard library has. A test holds it to the files and to the alphabet.

use infra_core::registry::{FactDefinition, OperationDefinition, Registry};

use crate::{facts as fact, operations as operation};

/// All facts, by name.
pub fn facts() -> Vec<FactDefinition> {
    vec![
        FactDefinition::of::<fact::apt::candidates::Candidates>(),
        FactDefinition::of::<fact::apt::last_update::LastUpdate>(),
        FactDefinition::of::<fact::apt::upgrades::Upgrades>(),
        FactDefinition::of::<fact::deb::architecture::Architecture>(),
        FactDefinition::of::<fact::deb::held::Held>(),
        FactDefinition::of::<fact::deb::packages::Packages>(),
        FactDefinition::of::<fact::deb::provided::Provided>(),
        FactDefinition::of::<fact::deb::remains::Remains>(),
        FactDefinition::of::<fact::files::directory::Directory>(),
        FactDefinition::of::<fact::files::file::File>(),
        FactDefinition::of::<fact::files::find_in_file::FindInFile>(),
        FactDefinition::of::<fact::files::hard_link::HardLink>(),
        FactDefinition::of::<fact::files::link::Link>(),
        FactDefinition::of::<fact::files::sha256::Sha256>(),
        FactDefinition::of::<fact::files::text::Text>(),
        FactDefinition::of::<fact::files::tree::Tree>(),
        FactDefinition::of::<fact::files::tree_drift::TreeDrift>(),
        FactDefinition::of::<fact::git::branch::Branch>(),
        FactDefinition::of::<fact::git::commit::Commit>(),
        FactDefinition::of::<fact::git::contains::Contains>(),
        FactDefinition::of::<fact::git::remote_commit::RemoteCommit>(),
        FactDefinition::of::<fact::git::repository::Repository>(),
        FactDefinition::of::<fact::git::submodules::Submodules>(),
        FactDefinition::of::<fact::server::arch::Arch>(),
        FactDefinition::of::<fact::server::groups::Groups>(),
        FactDefinition::of::<fact::server::hostname::Hostname>(),
        FactDefinition::of::<fact::server::identity::Identity>(),
        FactDefinition::of::<fact::server::kernel::Kernel>(),
        FactDefinition::of::<fact::server::known_host::KnownHost>(),
        FactDefinition::of::<fact::server::os_release::OsRelease>(),
        FactDefinition::of::<fact::server::password_hash::PasswordHash>(),
        FactDefinition::of::<fact::server::users::Users>(),
        FactDefinition::of::<fact::server::which::Which>(),
        FactDefinition::of::<fact::systemd::enabled::Enabled>(),
        FactDefinition::of::<fact::systemd::status::Status>(),
    ]
}

/// All operations, by name.
pub fn operations() -> Vec<OperationDefinition> {
    vec![
        OperationDefinition::of::<operation::apt::packages::Packages>(),
        OperationDefinition::of::<operation::apt::update::Update>(),
        OperationDefinition::of::<operation::files::directory::Directory>(),
        OperationDefinition::of::<operation::files::file::File>(),
        OperationDefinition::of::<operation::files::get::Get>(),
        OperationDefinition::of::<operation::files::line::Line>(),
        OperationDefinition::of::<operation::files::link::Link>(),
        OperationDefinition::of::<operation::files::put::Put>(),
        OperationDefinition::of::<operation::files::sync::Sync>(),
        OperationDefinition::of::<operation::files::template::Template>(),
        OperationDefinition::of::<operation::git::repo::Repo>(),
        OperationDefinition::of::<operation::server::group::Group>(),
        OperationDefinition::of::<operation::server::script::Script>(),
        OperationDefinition::of::<operation::server::service::Service>(),
        OperationDefinition::of::<operation::server::shell::Shell>(),
        OperationDefinition::of::<operation::server::user::User>(),
        OperationDefinition::of::<operation::server::wait::Wait>(),
        OperationDefinition::of::<operation::systemd::service::Service>(),
    ]
}

/// The standard library as a registry.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    facts().into_iter().for_each(|fact| registry.add_fact(fact));
    operations().into_iter().for_each(|operation| registry.add_operation(operation));
    registry
}
