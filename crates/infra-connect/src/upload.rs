//! Files written on a host: beside their destination, checked, then renamed over it.

use infra_core::change::{Replaces, Upload};
use infra_core::command::Shell;
use infra_core::sh;

use crate::script::{digest, receive, refuse};

/// Sets `infra_d` to the file that will be replaced (a link is followed), `infra_p` to its directory, `infra_t` to the temporary file beside it.
fn place(upload: &Upload, name: &str) -> Shell {
    // So that it has a directory and is no option.
    let dest = if upload.dest.starts_with('/') { upload.dest.clone() } else { format!("./{}", upload.dest) };
    sh!(
        "infra_d={}
if [ -L \"$infra_d\" ]; then infra_d=$(readlink -f -- \"$infra_d\" && echo x) || infra_no 'the link leads nowhere'; infra_d=${infra_d%??}; fi
infra_p=${infra_d%/*}; [ -n \"$infra_p\" ] || infra_p=/
infra_t=${infra_p%/}/{}",
        dest,
        name
    )
}

/// Removes the temporary file of an upload whose shell was killed.
pub(crate) fn cleanup(upload: &Upload, name: &str) -> Shell {
    sh!("( {}{}\nrm -f -- \"$infra_t\" ) >/dev/null 2>&1", refuse(), place(upload, name))
}

/// The script of an upload; its content is on its input. It ends with 0 when the file is in place, and says why when it is not.
pub(crate) fn script(upload: &Upload, name: &str, bounded: bool) -> Shell {
    let current = match &upload.replaces {
        Replaces::Anything => Shell::default(),
        Replaces::Digest(sha256) => sh!(
            "[ -f \"$infra_d\" ] || infra_no 'it is gone since it was read'
infra_sum <\"$infra_d\"
[ \"$infra_h\" = {} ] || infra_no 'it changed after it was read, and was left alone'
",
            sha256
        ),
    };
    sh!(
        "{}{}infra_m=$(umask); umask 077
{}
case $infra_d in */) infra_no 'a name of a file cannot end with a slash';; esac
if [ -d \"$infra_d\" ]; then infra_no 'there is a directory'; fi
if [ -e \"$infra_d\" ] && [ ! -f \"$infra_d\" ]; then infra_no 'there is something that is not a regular file'; fi
[ -d \"$infra_p\" ] || infra_no \"there is no directory $infra_p\"
{}{}sync -- \"$infra_t\" 2>/dev/null || fsync \"$infra_t\" 2>/dev/null || sync
{}mv -f -- \"$infra_t\" \"$infra_d\" </dev/null || infra_no 'it cannot be replaced'
sync -- \"$infra_p\" 2>/dev/null
exit 0",
        refuse(),
        digest(),
        place(upload, name),
        receive(&upload.content, bounded),
        ownership(upload),
        current
    )
}

/// Gives the temporary file its owner, group and mode: those asked for, else those of the file that it replaces, else what any new file gets.
fn ownership(upload: &Upload) -> Shell {
    let (user, group) = (upload.user.as_deref(), upload.group.as_deref());
    let asked = user.is_some() || group.is_some();
    let failure = if asked { "it cannot be given that owner or group" } else { "its owner and group cannot be kept" };
    let kept = |asked: Option<&str>, kept: Shell| asked.map_or(kept, |name| sh!("{}", name));
    let owner = sh!("{}:{}", kept(user, sh!("\"$infra_u\"")), kept(group, sh!("\"$infra_g\"")));
    let fresh = match (user, group) {
        (None, None) => sh!(":"),
        (Some(user), None) => sh!("chown -- {} \"$infra_t\" || infra_no {}", user, failure),
        (None, Some(group)) => sh!("chgrp -- {} \"$infra_t\" || infra_no {}", group, failure),
        (Some(user), Some(group)) => sh!("chown -- {}:{} \"$infra_t\" || infra_no {}", user, group, failure),
    };
    let (kept_mode, fresh_mode) = match upload.mode {
        Some(mode) => {
            let mode = sh!("chmod -- {} \"$infra_t\" || infra_no 'it cannot be given that mode'", format!("{mode:o}"));
            (mode.clone(), mode)
        }
        // Without a name in front, chmod(1) leaves out what the umask forbids.
        None => (
            sh!("chmod -- \"${infra_a%% *}\" \"$infra_t\" || infra_no 'its mode cannot be kept'"),
            sh!("umask \"$infra_m\"; chmod -- =rw \"$infra_t\" || infra_no 'its mode cannot be set'; umask 077"),
        ),
    };
    // The owner first: changing it takes away the set-user-ID bit.
    sh!(
        "if [ -e \"$infra_d\" ]; then
infra_a=$(stat -c '%a %u %g' -- \"$infra_d\" 2>/dev/null || stat -f '%Mp%Lp %u %g' -- \"$infra_d\") || infra_no 'its owner and mode cannot be read'
infra_g=${infra_a##* }; infra_u=${infra_a#* }; infra_u=${infra_u%% *}
chown -- {} \"$infra_t\" || infra_no {}
{}
else
{}
{}
fi
",
        owner,
        failure,
        kept_mode,
        fresh,
        fresh_mode
    )
}
