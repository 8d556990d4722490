//! `infra disconnect`: ends connections that earlier runs have kept.

use std::io::Write;
use std::sync::Arc;

use infra_core::diagnostic::Diagnostic;
use infra_core::secret::Secrets;
use infra_core::selection;
use infra_lua::World;

use crate::arguments::{Disconnect, Options};
use crate::outcome::Trouble;
use crate::questions::Gate;
use crate::settings::{self, Settings};
use crate::wiring;
use crate::world::Controller;

/// Ends what was kept, and says whose it was.
///
/// # Errors
/// [`Trouble`] when the inventory cannot be read, or a connection cannot be ended.
pub async fn disconnect(asked: Disconnect) -> Result<u8, Trouble> {
    let wire = infra_connect::Wire::new(infra_connect::Settings::new(wiring::runtime_folder()));
    let hosts = match &asked.inventory {
        Some(inventory) => Some(hosts(inventory, &asked).await?),
        None => None,
    };
    let mut names = wire.disconnect(hosts.as_deref()).await.map_err(|error| {
        let diagnostic = Diagnostic::runtime(error.message);
        Trouble::refused(diagnostic.maybe_hint(error.hint))
    })?;
    names.sort_unstable();
    let text = match names.as_slice() {
        [] => "no connection was kept".to_owned(),
        [name] => format!("ended the connection to {name}"),
        names => format!("ended {} connections: {}", names.len(), names.join(", ")),
    };
    let _ = writeln!(std::io::stderr(), "infra: {text}");
    Ok(0)
}

async fn hosts(inventory: &str, asked: &Disconnect) -> Result<Vec<Arc<infra_core::host::Host>>, Trouble> {
    let options = Options {
        data: asked.data.clone(),
        user: asked.user.clone(),
        port: asked.port,
        key: asked.key.clone(),
        limit: asked.limit.clone(),
        exclude: asked.exclude.clone(),
        ..Options::default()
    };
    let settings: Settings = settings::of_hosts(inventory, options)?;
    let folder = std::env::current_dir().map_err(|error| Trouble::failure(format!("there is no working directory: {error}")))?;
    let world: Arc<dyn World> = Arc::new(Controller::new(folder.clone(), Secrets::default(), Gate::default()));
    let inventory = wiring::inventory(&settings, &folder, &world, false).await?;
    let hosts = selection::select(&inventory, &settings.limit, &settings.exclude)
        .map_err(|error| Diagnostic::misuse(error.message).maybe_hint(error.hint))?;
    Ok(hosts.into_iter().map(|host| inventory.by_id(host).clone()).collect())
}
