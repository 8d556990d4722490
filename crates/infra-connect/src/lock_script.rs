//! What runs on a host for its lock: shell text that every `sh` understands, with no tools but those of coreutils or busybox.
//!
//! A lock is a file `lock.N` in a folder of the user's own, where N is its epoch: the file with the highest number counts. It is made by link(2), which one of
//! many takers can do and which leaves no half of a file, whatever is killed. Who takes the lock makes the next number, so that what is compared
//! with an epoch is never compared with another taking of the same lock; the last file stays when the lock is given back, and says that it is free.
//!
//! The lease is in the host's uptime, beside its boot id, so that a changed clock and a restart do no harm. Where there is no `/proc` (a chroot, another
//! system), the host's clock has to do. A lease that ends further ahead than a lease can is one of an uptime that has begun anew: it has run out.

use infra_core::command::Shell;
use infra_core::lock::Claim;
use infra_core::sh;

/// The lock is held, and nothing else changed the host.
pub(crate) const HELD: i64 = 0;
/// The lock is held, and something may have changed the host before.
pub(crate) const MOVED: i64 = 3;
/// Another run has the lock.
pub(crate) const OTHERS: i64 = 4;
/// The lock was taken over, or is gone.
pub(crate) const LOST: i64 = 5;
/// There is no place for a lock.
pub(crate) const NO_PLACE: i64 = 6;

/// How the texts of a claim stand on the host, where each is a line.
fn line(text: &str) -> String {
    let printable: String = text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).take(200).collect();
    if printable.trim().is_empty() { "?".to_owned() } else { printable }
}

/// The lease in seconds.
fn seconds(claim: &Claim) -> u64 {
    claim.lease.as_secs().max(1)
}

/// `infra_now` (boot id and uptime), `infra_top` (the epoch), `infra_look` (the file of the epoch), `infra_live` (whether its lease runs).
fn reading() -> Shell {
    sh!("t=
infra_end() { [ -z \"$t\" ] || rm -f -- \"$t\"; exit \"$1\"; }
infra_now() { b=-; n=
[ -r /proc/sys/kernel/random/boot_id ] && read -r b </proc/sys/kernel/random/boot_id
[ -r /proc/uptime ] && read -r n x </proc/uptime
n=${n%%.*}
case $n in ''|*[!0-9]*) n=$(date +%s);; esac; }
infra_top() { e=0; for f in \"$d\"/lock.*; do v=${f##*/lock.}; case $v in ''|*[!0-9]*) ;; *) [ \"$v\" -gt \"$e\" ] && e=$v;; esac; done; }
infra_look() { hb=; hu=; hl=; hs=; hk=; hr=; hh=; hw=; hc=
[ -r \"$d/lock.$e\" ] || return 1
{ IFS= read -r hb; read -r hu; read -r hl; IFS= read -r hs; IFS= read -r hk; IFS= read -r hr; IFS= read -r hh; IFS= read -r hw; IFS= read -r hc; } 2>/dev/null <\"$d/lock.$e\"
case $hl in ''|*[!0-9]*) return 1;; esac
case $hu in free) ;; ''|*[!0-9]*) return 1;; esac; [ -n \"$hc\" ]; }
infra_live() { [ \"$hu\" != free ] && [ \"$hb\" = \"$b\" ] && [ \"$hu\" -gt \"$n\" ] && [ \"$hu\" -le $((n+hl)) ]; }
infra_who() { printf '%s\\n' \"$hs\" \"$hr\" \"$hh\" \"$hw\" \"$hc\"; }
")
}

/// Where a lock may have its folder, the first that serves.
const PLACES: &str = r#""${INFRA_LOCK_FOLDER:-}" /run/lock "${TMPDIR:-}" /tmp"#;

/// Sets `d` to the folder: the first place where there is one of this user's alone, or one can be made, which it is.
fn make_place() -> Shell {
    sh!(
        "infra_place() { u=$(id -u)
for p in {}; do
case $p in /*) ;; *) continue;; esac
d=${p%/}/infra-lock-$u
mkdir -m 700 \"$d\" 2>/dev/null
[ -d \"$d\" ] && [ ! -L \"$d\" ] || continue
set -- $(LC_ALL=C ls -ldn \"$d\" 2>/dev/null)
case ${1-}:${3-} in drwx------*:\"$u\") ;; *) continue;; esac
[ -w \"$d\" ] && return 0
done; return 1; }
",
        Shell::verbatim(PLACES)
    )
}

/// Sets `d` to the folder, where there is one, for who only reads: no further than where one could be made, and without a process. Should the folder not be as
/// safe as [`make_place`] demands, what is read there is not what is found when the lock is taken, and the facts are read again.
fn find_place() -> Shell {
    sh!(
        "infra_place() { for p in {}; do
case $p in /*) ;; *) continue;; esac
for d in \"${p%/}\"/infra-lock-*; do
case ${d##*/infra-lock-} in ''|*[!0-9]*) continue;; esac
[ -d \"$d\" ] && [ ! -L \"$d\" ] && [ -O \"$d\" ] && return 0
done
[ -d \"$p\" ] && [ -w \"$p\" ] && return 1
done; return 1; }
",
        Shell::verbatim(PLACES)
    )
}

/// `infra_put WHEN` writes the temporary file: a lock that runs until then, or `free`. `infra_hold` puts it in the place of the one that is held.
fn writing(claim: &Claim, key: &str, temporary: &str) -> Shell {
    sh!(
        "umask 077
infra_put() { t=$d/{}; printf '%s\\n' \"$b\" \"$1\" {} \"$s\" {} {} {} {} {} 2>/dev/null >\"$t\"; }
infra_hold() { infra_put \"$1\" && mv -f -- \"$t\" \"$d/lock.$m\" 2>/dev/null && t=; }
",
        temporary,
        seconds(claim),
        key,
        line(&claim.run),
        line(&claim.host),
        line(&claim.user),
        line(&claim.controller)
    )
}

/// Wraps a script so that it leaves nothing in the shell around it and reads nothing of its input; its status is in `infra_k`.
fn apart(script: &Shell) -> Shell {
    sh!("( {} ) </dev/null\ninfra_k=$?\n", script)
}

/// Prints how the lock stands, without changing anything: what [`take`] compares with.
pub(crate) fn read() -> Shell {
    apart(&sh!(
        "{}{}infra_now; e=0; st=free
infra_place && infra_top
[ \"$e\" = 0 ] || { infra_look && [ \"$hu\" = free ]; } || st=held
printf '%s\\n' \"$b $e $st\"
infra_end 0",
        reading(),
        find_place()
    ))
}

/// Takes the lock, where it is free, its lease has run out, or this run has it. `seen` is what [`read`] printed when the first facts were read, empty where none
/// were: a lock that was held then may have covered a change since, so no answer here is `held`. It prints the folder and the epoch, and the name of the host through which this run had it already, or who has it.
///
/// Where another connection of this run to the same host has it, they hold it together: what that one does is known to whoever diffs for the host. Not so where
/// it may have been taken by this one before (`again`), whose answer was lost.
pub(crate) fn take(claim: &Claim, key: &str, seen: &str, again: bool, temporary: &str) -> Shell {
    let own = if again { String::new() } else { line(&claim.host) };
    apart(&sh!(
        "{}{}{}infra_place || { echo 'neither /run/lock nor a temporary folder has a place for it that is safe'; infra_end {}; }
i=0; w=0
while :; do
t=; i=$((i+1))
[ \"$i\" -le 200 ] || { echo \"it cannot be taken in $d\"; infra_end {}; }
infra_now; infra_top; o=$e; st=free
if [ \"$o\" != 0 ]; then
infra_look || { [ \"$i\" -lt 100 ] && continue; hu=free; hb=; hk=; st=over; }
if [ \"$hk\" = {} ] && [ \"$hb\" = \"$b\" ] && [ \"$hu\" != free ]; then
printf '%s\\n' \"$d\" \"$o\" \"$hh\"; [ \"$hh\" != {} ] || infra_end {}; infra_end {}
fi
if infra_live; then infra_who; infra_end {}; fi
[ \"$hu\" = free ] || st=over
fi
s=$(LC_ALL=C date -u '+%Y-%m-%d %H:%M:%S UTC')
m=$((o+1))
infra_put $((n+{})) || { echo \"it cannot be written in $d\"; infra_end {}; }
if ln -- \"$t\" \"$d/lock.$m\" 2>/dev/null; then rm -f -- \"$t\"; t=
else
[ -e \"$d/lock.$m\" ] || w=$((w+1))
rm -f -- \"$t\"
[ \"$w\" -lt 5 ] || { echo \"no hard link can be made in $d\"; infra_end {}; }
continue
fi
infra_top
if [ \"$e\" != \"$m\" ]; then rm -f -- \"$d/lock.$m\"; continue; fi
if [ \"$o\" != 0 ]; then
e=$o; infra_now
if infra_look && infra_live; then rm -f -- \"$d/lock.$m\"; continue; fi
fi
break
done
for f in \"$d\"/lock.*; do v=${f##*/lock.}; case $v in ''|*[!0-9]*) ;; *) [ \"$v\" -lt \"$m\" ] && rm -f -- \"$f\";; esac; done
find \"$d\" -name 'new.*' -mmin +60 -exec rm -f -- '{}' \\; 2>/dev/null
printf '%s\\n' \"$d\" \"$m\"
q={}
[ -z \"$q\" ] || [ \"$q\" = \"$b $o $st\" ] || infra_end {}
infra_end {}",
        reading(),
        make_place(),
        writing(claim, key, temporary),
        NO_PLACE,
        NO_PLACE,
        key,
        own,
        HELD,
        MOVED,
        OTHERS,
        seconds(claim),
        NO_PLACE,
        NO_PLACE,
        Shell::verbatim("{}"),
        seen,
        MOVED,
        HELD
    ))
}

/// The lock that is held, as [`take`] named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) folder: String,
    pub(crate) epoch: String,
}

/// Sets all that is known of a lock that is held, or ends with `otherwise` where it is held no more. Without a place it is the one that was taken right
/// before, and which nobody was told of yet.
fn held(claim: &Claim, key: &str, held: Option<&Place>, temporary: &str, otherwise: i64) -> Shell {
    let found = match held {
        Some(place) => sh!("d={}; m={}", place.folder, place.epoch),
        None => sh!("{}infra_place && infra_top; m=$e", make_place()),
    };
    sh!(
        "{}{}{}
infra_mine() { infra_top; [ \"$e\" = \"$m\" ] && infra_look && [ \"$hk\" = {} ] && [ \"$hb\" = \"$b\" ] && [ \"$hu\" != free ]; }
infra_lost() { [ \"$e\" = 0 ] || [ \"$hk\" = {} ] || infra_who; infra_end {}; }
infra_now; infra_mine || { infra_look; infra_lost; }
s=$hs
",
        reading(),
        writing(claim, key, temporary),
        found,
        key,
        key,
        otherwise
    )
}

/// Makes sure that the lock is held, and renews its lease where less than `enough` seconds of it are left. A lease that has run out is renewed where nobody
/// has taken the lock; who takes it at the same moment sees that, or is seen.
pub(crate) fn check(claim: &Claim, key: &str, place: Option<&Place>, temporary: &str, enough: u64) -> Shell {
    apart(&sh!(
        "{}[ $((hu-n)) -gt {} ] && infra_end {}
infra_hold $((n+{})) || { echo \"its lease cannot be renewed in $d\"; infra_end {}; }
infra_mine || { infra_look; infra_lost; }
infra_end {}",
        held(claim, key, place, temporary, LOST),
        enough,
        HELD,
        seconds(claim),
        NO_PLACE,
        HELD
    ))
}

/// When a lease is renewed by a step: with two thirds of it left there is time enough until the next renewal.
pub(crate) fn enough(claim: &Claim) -> u64 {
    seconds(claim) * 2 / 3
}

/// Gives the lock back.
pub(crate) fn release(claim: &Claim, key: &str, place: &Place, temporary: &str) -> Shell {
    apart(&sh!("{}infra_hold free\ninfra_end {}", held(claim, key, Some(place), temporary, HELD), HELD))
}
