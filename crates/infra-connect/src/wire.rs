//! All connectors behind one door.

use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::connection::{Connect, ConnectError, Connection};
use infra_core::host::{Connector, Host};

use crate::settings::Settings;

/// Reaches hosts, each by its own connector.
pub struct Wire {
    settings: Arc<Settings>,
}

impl Wire {
    /// A wire with these settings. Nothing is started or made before the first host is to be reached.
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings) }
    }

    async fn reach(&self, host: &Host) -> Result<Arc<dyn Connection>, ConnectError> {
        match host.connector {
            Connector::Local => Ok(Arc::new(crate::local::connect(self.settings.clone()).await?)),
            Connector::Ssh => Err(ConnectError {
                step: infra_core::connection::ConnectStep::Settings,
                message: "hosts over ssh cannot be reached yet".to_owned(),
                hint: None,
            }),
        }
    }
}

impl Connect for Wire {
    fn connect<'a>(&'a self, host: &'a Arc<Host>) -> BoxFuture<'a, Result<Arc<dyn Connection>, ConnectError>> {
        Box::pin(self.reach(host))
    }
}
