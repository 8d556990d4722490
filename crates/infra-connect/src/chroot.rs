//! A folder of this machine as the root of a system: `chroot` as a child. Nothing is mounted: who wants `/proc` in there mounts it.

use std::sync::Arc;

use infra_core::BoxFuture;
use infra_core::connection::{ConnectError, ConnectStep};
use infra_core::host::Host;
use tokio::process::Command;

use crate::child;
use crate::reached::Reached;
use crate::settings::Settings;
use crate::spawn::{BOOT, Process, Spawn, SpawnError};

/// Where programs stand in a system whose environment nobody has set.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts `sh` below a folder.
struct Chroot {
    folder: String,
}

impl Spawn for Chroot {
    fn spawn(&self) -> BoxFuture<'_, Result<Process, SpawnError>> {
        Box::pin(async { self.start() })
    }

    fn sessions(&self) -> usize {
        16
    }

    fn address(&self) -> String {
        "127.0.0.1".to_owned()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

impl Chroot {
    fn start(&self) -> Result<Process, SpawnError> {
        let mut command = Command::new("chroot");
        command.arg(&self.folder).args(["sh", "-c", BOOT]);
        // The folders and the settings of this machine's user mean nothing in there.
        command.env_clear().envs([("PATH", PATH), ("HOME", "/root"), ("USER", "root"), ("LOGNAME", "root"), ("SHELL", "/bin/sh")]);
        let started = child::start(command).map_err(|error| SpawnError::Refused(format!("chroot cannot be started: {error}")))?;
        Ok(child::shell(started))
    }
}

/// Reaches the system below a folder.
pub(crate) async fn connect(settings: Arc<Settings>, host: &Host) -> Result<Reached, ConnectError> {
    let folder = &host.address;
    let failed = |step, message: String, hint: Option<String>| ConnectError { step, message, hint };
    match tokio::fs::metadata(folder).await {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(failed(ConnectStep::Connect, format!("{folder} is not a folder"), None)),
        Err(error) => {
            let hint = "the path counts from the root: @chroot/srv/root is /srv/root".to_owned();
            return Err(failed(ConnectStep::Connect, format!("{folder} cannot be entered: {error}"), Some(hint)));
        }
    }
    if !nix::unistd::geteuid().is_root() {
        let message = "only root may change the root folder (chroot)".to_owned();
        return Err(failed(ConnectStep::Authenticate, message, Some("run infra itself as root, as with `sudo infra …`".to_owned())));
    }
    let chroot = Arc::new(Chroot { folder: folder.clone() });
    let first = chroot.start().map_err(|error| failed(ConnectStep::Shell, error.to_string(), None))?;
    let deadline = settings.connect_deadline;
    match tokio::time::timeout(deadline, Reached::meet(settings, chroot, first)).await {
        Ok(reached) => reached.map_err(|message| {
            let hint = "a host needs sh and coreutils or busybox: is there a whole system in that folder?".to_owned();
            let missing = message.contains("No such file");
            let message = if missing { format!("there is no sh in {folder} that could be run") } else { message };
            failed(ConnectStep::Shell, message, missing.then_some(hint))
        }),
        Err(_) => {
            let message = format!("sh in {folder} did not answer within {} s", deadline.as_secs_f64());
            Err(failed(ConnectStep::Shell, message, None))
        }
    }
}
