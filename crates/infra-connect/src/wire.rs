//! All connectors behind one door.

use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::connection::{Connect, ConnectError, Connection};
use infra_core::host::{Connector, Host};

use crate::askpass::Person;
use crate::container::Containers;
use crate::settings::Settings;
use crate::ssh::Ssh;

/// Reaches hosts, each by its own connector.
pub struct Wire {
    settings: Arc<Settings>,
    ssh: Arc<Ssh>,
    containers: Containers,
}

impl Wire {
    /// A wire with these settings. Nothing is started or made before the first host is to be reached.
    pub fn new(settings: Settings) -> Self {
        Self::with_person(settings, None)
    }

    /// The same, with somebody who answers what ssh asks: passphrases, passwords, whether an unknown host is the right one. It needs
    /// [`Settings::askpass`].
    pub fn with_person(settings: Settings, person: Option<Arc<dyn Person>>) -> Self {
        let settings = Arc::new(settings);
        Self { ssh: Arc::new(Ssh::new(settings.clone(), person)), containers: Containers::new(settings.clone()), settings }
    }

    /// Ends connections that earlier runs have kept (`ssh_persist`): those of these hosts, or all of this user's. Gives the names of the hosts whose
    /// connection was ended; what dead ones left is removed without a word.
    ///
    /// # Errors
    /// When ssh does not accept the configuration of a host, or another run has been connecting to one for longer than a connect may take.
    pub async fn disconnect(&self, hosts: Option<&[Arc<Host>]>) -> Result<Vec<String>, ConnectError> {
        self.ssh.disconnect(hosts).await
    }

    async fn reach(&self, host: &Host) -> Result<Arc<dyn Connection>, ConnectError> {
        match host.connector {
            Connector::Local => Ok(Arc::new(crate::local::connect(self.settings.clone()).await?)),
            Connector::Ssh => Ok(Arc::new(self.ssh.connect(host).await?)),
            Connector::Docker => Ok(Arc::new(self.containers.connect("docker", host).await?)),
            Connector::Podman => Ok(Arc::new(self.containers.connect("podman", host).await?)),
            Connector::Chroot => Ok(Arc::new(crate::chroot::connect(self.settings.clone(), host).await?)),
        }
    }
}

impl Connect for Wire {
    fn connect<'a>(&'a self, host: &'a Arc<Host>) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        Box::pin(self.reach(host))
    }
}
