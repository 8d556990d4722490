//! All connectors behind one door.

use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::connection::{Connect, ConnectError, Connection};
use infra_core::host::{Connector, Host};

use crate::settings::Settings;
use crate::ssh::Ssh;

/// Reaches hosts, each by its own connector.
pub struct Wire {
    settings: Arc<Settings>,
    ssh: Arc<Ssh>,
}

impl Wire {
    /// A wire with these settings. Nothing is started or made before the first host is to be reached.
    pub fn new(settings: Settings) -> Self {
        let settings = Arc::new(settings);
        Self { ssh: Arc::new(Ssh::new(settings.clone())), settings }
    }

    async fn reach(&self, host: &Host) -> Result<Arc<dyn Connection>, ConnectError> {
        match host.connector {
            Connector::Local => Ok(Arc::new(crate::local::connect(self.settings.clone()).await?)),
            Connector::Ssh => Ok(Arc::new(self.ssh.connect(host).await?)),
        }
    }
}

impl Connect for Wire {
    fn connect<'a>(&'a self, host: &'a Arc<Host>) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        Box::pin(self.reach(host))
    }
}
