//! Killing what runs on a host.

use infra_core::command::Shell;
use infra_core::sh;

/// A script that ends a process group: TERM, two seconds of patience, KILL. Its exit status is 0 when nothing of the group is left.
///
/// `cleanup` is run once the group is gone: it removes what a killed shell could not.
pub(crate) fn kill(group: u32, cleanup: &Shell) -> Shell {
    // A group that we may not signal is still there; kill(1) only says so in words. Where sleep(1) takes no fractions, it takes seconds.
    sh!(
        "infra_kill() { LC_ALL=C kill -s \"$1\" -- -{} 2>&1; }
infra_left() { infra_e=$(infra_kill 0) && return 0; case $infra_e in *ermitted*) return 0;; esac; return 1; }
infra_wait() { for infra_i in \"$@\"; do infra_left || return 0; sleep \"$infra_i\" 2>/dev/null || sleep 1; done; infra_left && return 1; return 0; }
infra_kill TERM >/dev/null
infra_wait 0.01 0.03 0.06 0.1 0.2 0.4 0.6 0.6 && { {}; exit 0; }
infra_kill KILL >/dev/null
infra_wait 0.01 0.03 0.06 0.1 0.2 0.4 0.6 && { {}; exit 0; }
exit 1",
        group,
        cleanup,
        cleanup
    )
}
