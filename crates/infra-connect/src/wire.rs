//! All connectors behind one door.

use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::connection::{Connect, ConnectError, Connection};
use infra_core::host::{Connector, Host};
use infra_core::privilege::AskPassword;

use crate::askpass::Person;
use crate::container::Containers;
use crate::passwords::Passwords;
use crate::settings::Settings;
use crate::ssh::Ssh;

/// Reaches hosts, each by its own connector.
pub struct Wire {
    settings: Arc<Settings>,
    ssh: Arc<Ssh>,
    containers: Containers,
    passwords: Arc<Passwords>,
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
        Self {
            ssh: Arc::new(Ssh::new(settings.clone(), person)),
            containers: Containers::new(settings.clone()),
            passwords: Arc::default(),
            settings,
        }
    }

    /// The same, asking here for the passwords of sudo, su and doas that neither the deploy nor the inventory gives. Without it, a host that wants one
    /// refuses what was to be done there.
    pub fn asking(self, asker: Arc<dyn AskPassword>) -> Self {
        Self { passwords: Arc::new(Passwords::new(asker)), ..self }
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
        let reached = match host.connector {
            Connector::Local => crate::local::connect(self.settings.clone()).await?,
            Connector::Ssh => self.ssh.connect(host).await?,
            Connector::Docker => self.containers.connect("docker", host).await?,
            Connector::Podman => self.containers.connect("podman", host).await?,
            Connector::Chroot => crate::chroot::connect(self.settings.clone(), host).await?,
        };
        Ok(Arc::new(reached.asking(&self.passwords, &host.name)))
    }
}

impl Connect for Wire {
    fn connect<'a>(&'a self, host: &'a Arc<Host>) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        Box::pin(self.reach(host))
    }
}
