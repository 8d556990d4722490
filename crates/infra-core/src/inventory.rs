//! The hosts there are, their groups and their data.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::host::{Host, HostId};

/// All hosts, in the order in which the inventory names them, and all groups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// The hosts; a host's [`HostId`] is its place here.
    pub hosts: Vec<Arc<Host>>,
    /// The groups, in the inventory's order.
    pub groups: Vec<Group>,
    /// Whether it was read from a file, so that a group it does not name is a mistake.
    pub from_file: bool,
    /// Every key that some host or group has data for.
    pub data_keys: BTreeSet<String>,
}

/// A named list of hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its hosts, in inventory order.
    pub hosts: Vec<HostId>,
}

impl Inventory {
    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&Arc<Host>> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The host at this place.
    ///
    /// # Panics
    /// When the place is of another inventory.
    pub fn by_id(&self, id: HostId) -> &Arc<Host> {
        &self.hosts[id.index()]
    }

    /// The group of this name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}
