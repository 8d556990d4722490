//! How git(1) is called.

use infra_core::command::Shell;
use infra_core::sh;

/// git on a repository: it asks nobody for a password, runs no monitor of the repository's own, takes a repository of another user, for the
/// deploy names it, and writes nothing where it only reads (a `status` would write a refreshed index).
pub fn git_in(repository: &str) -> Shell {
    sh!("GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0 git -c {} -c {} -C {}", "safe.directory=*", "core.fsmonitor=false", repository)
}

/// git outside a repository.
pub fn git() -> Shell {
    sh!("GIT_TERMINAL_PROMPT=0 git -c {}", "safe.directory=*")
}

/// What stands before [`git`] so that ssh takes any key of a host that it does not know, and does not remember it. How ssh is called stays as
/// the host's own settings have it.
pub fn trusting() -> Shell {
    sh!("GIT_SSH_COMMAND=\"${GIT_SSH_COMMAND:-$(git config --get core.sshCommand || echo ssh)} -o StrictHostKeyChecking=accept-new \
         -o UserKnownHostsFile=/dev/null\" ")
}

/// Runs `script` where git is installed and `repository` is the top of a repository; prints nothing elsewhere.
pub fn in_repository(repository: &str, script: Shell) -> Shell {
    sh!("if [ -e {}/.git ] && command -v git >/dev/null 2>&1; then {}; fi", repository, script)
}
