//! Killing what runs on a host.

use infra_core::command::Shell;
use infra_core::sh;

/// A script that ends a process group: TERM, two seconds of patience, KILL. Its exit status is 0 when nothing of the group is left.
///
/// `cleanup` is run once the group is gone: it removes what a killed shell could not.
pub(crate) fn kill(group: u32, cleanup: &Shell) -> Shell {
    // A dead process that nobody has waited for yet counts as gone: proc_pid_stat(5) has the state, the parent and the group behind the name.
    // A group that we may not signal is still there; kill(1) only says so in words. Where sleep(1) takes no fractions, it takes seconds.
    sh!(
        "infra_kill() { LC_ALL=C kill -s \"$1\" -- -{} 2>&1; }
infra_dead() { [ -r /proc/self/stat ] || return 1
for infra_f in /proc/[0-9]*/stat; do read -r infra_l <\"$infra_f\" || continue; set -- ${infra_l##*') '}
[ \"$3\" = {} ] && [ \"$1\" != Z ] && [ \"$1\" != X ] && return 1; done 2>/dev/null; return 0; }
infra_left() { infra_e=$(infra_kill 0) && { infra_dead && return 1; return 0; }; case $infra_e in *ermitted*) return 0;; esac; return 1; }
infra_wait() { for infra_i in \"$@\"; do infra_left || return 0; sleep \"$infra_i\" 2>/dev/null || sleep 1; done; infra_left && return 1; return 0; }
infra_kill TERM >/dev/null
infra_wait 0.01 0.03 0.06 0.1 0.2 0.4 0.6 0.6 && { {}; exit 0; }
infra_kill KILL >/dev/null
infra_wait 0.01 0.03 0.06 0.1 0.2 0.4 0.6 && { {}; exit 0; }
exit 1",
        group,
        group,
        cleanup,
        cleanup
    )
}
