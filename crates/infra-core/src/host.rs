//! A machine to manage.

use serde::{Deserialize, Serialize};

use crate::{Map, Value};

/// A host's place in the inventory, from 0. Everything that names a host between crates uses this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HostId(pub u32);

impl HostId {
    /// The place as an index of a list in inventory order.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a host is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Connector {
    /// This machine: `sh` as a child process.
    Local,
    /// The user's own ssh.
    Ssh,
    /// A container of the user's own docker: one that runs, or one that is started from an image.
    Docker,
    /// The same with the user's own podman.
    Podman,
    /// A folder of this machine that is the root of a system.
    Chroot,
}

impl Connector {
    /// All connectors there are.
    pub const ALL: [Self; 5] = [Self::Local, Self::Ssh, Self::Docker, Self::Podman, Self::Chroot];

    /// The name that stands behind the `@`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Ssh => "ssh",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Chroot => "chroot",
        }
    }

    /// How a host of it is spelt.
    pub fn spelling(self) -> &'static str {
        match self {
            Self::Local => "@local",
            Self::Ssh => "@ssh/HOST",
            Self::Docker => "@docker/NAME",
            Self::Podman => "@podman/NAME",
            Self::Chroot => "@chroot/PATH",
        }
    }
}

/// A machine to manage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its place in the inventory.
    pub id: HostId,
    /// Its name as the user wrote it (`web-01`, `@local`).
    pub name: String,
    /// How it is reached.
    pub connector: Connector,
    /// What the connector is given: for ssh the name without `@ssh/`, `user@` and `:port`; for docker and podman a container or an image; for chroot an
    /// absolute path.
    pub address: String,
    /// The groups it is in, in the inventory's order; never `all`.
    pub groups: Vec<String>,
    /// Its data as all of the inventory and the command line say, the first match of semantics.md section 7 having won.
    pub data: Map,
}

impl Host {
    /// A host in no group and without data.
    pub fn new(id: HostId, name: impl Into<String>, connector: Connector, address: impl Into<String>) -> Self {
        Self { id, name: name.into(), connector, address: address.into(), groups: Vec::new(), data: Map::new() }
    }

    /// A value of its data.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.data.get(key)
    }

    /// A text of its data.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}
