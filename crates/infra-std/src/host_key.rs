//! The host keys of remote git repositories: which host an address leads to by ssh, and how its key is made known.

use infra_core::command::Shell;
use infra_core::resources::parent_of;
use infra_core::sh;

use crate::facts::server::known_host::KnownHost;

/// The host that the address of a repository leads to by ssh, as git(1) reads the address; none where git would not use ssh.
pub fn ssh_host(src: &str) -> Option<KnownHost> {
    let (authority, takes_port) = match src.split_once("://") {
        Some(("ssh" | "git+ssh" | "ssh+git", rest)) => (rest.split('/').next().unwrap_or_default(), true),
        Some(_) => return None,
        // `user@host:path`; a slash before the colon makes it a path of this host, as does no colon.
        None => {
            let from = src.find("]:").map_or(0, |at| at + 1);
            let colon = from + src[from..].find(':')?;
            let before = &src[..colon];
            if before.contains('/') {
                return None;
            }
            (before, false)
        }
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (host, port) = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        // git takes `[host:port]:path` as well; more than one colon makes it an address.
        Some((host, _)) if host.matches(':').count() == 1 => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        Some((host, after)) => (host, after.strip_prefix(':')),
        None if takes_port => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
        None => (host, None),
    };
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(port.parse().ok()?),
    };
    let odd = |c: char| !(c.is_ascii_alphanumeric() || "._-:%".contains(c));
    // What begins with a dash would be taken for an option, and what git refuses is no host.
    (!host.is_empty() && !host.starts_with('-') && !host.contains(odd)).then(|| KnownHost { host: host.to_owned(), port })
}

/// Asks a host for its keys and adds them to a file of known hosts, which is made where it is missing. Nothing is written when there is no
/// answer.
pub fn learn_host_key(host: &KnownHost, file: &str) -> Shell {
    let folder = parent_of(file).unwrap_or_else(|| "/".to_owned());
    sh!(
        "keys=$(ssh-keyscan -T 10 -p {} -- {} 2>/dev/null | grep -v '^#') && test -n \"$keys\" || { echo {} >&2; false; } && \
         (umask 077 && mkdir -p -- {} && if test -s {} && test -n \"$(tail -c 1 -- {})\"; then echo >>{}; fi && \
         printf '%s\\n' \"$keys\" >>{})",
        host.port.unwrap_or(22),
        host.host,
        format!("ssh-keyscan got no host key from {}", host.host),
        folder,
        file,
        file,
        file,
        file
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_found() {
        for (src, wanted) in [
            ("git@git.example.com:app.git", Some(("git.example.com", None))),
            ("host:path", Some(("host", None))),
            ("ssh://git@host/app", Some(("host", None))),
            ("ssh://host:2222/app", Some(("host", Some(2222)))),
            ("git+ssh://a@b@host:22/app", Some(("host", Some(22)))),
            ("ssh://git@[2001:db8::1]:2222/app", Some(("2001:db8::1", Some(2222)))),
            ("git@[2001:db8::1]:app", Some(("2001:db8::1", None))),
            ("git@[host:2222]:app", Some(("host", Some(2222)))),
            ("https://host/app", None),
            ("file:///srv/app", None),
            ("/srv/a:b", None),
            ("./a:b", None),
            ("srv/app", None),
            ("ssh://-oProxyCommand=x/app", None),
            ("-x:app", None),
            ("ssh://host:port/app", None),
            ("ssh://", None),
            ("", None),
        ] {
            let found = ssh_host(src);
            assert_eq!(found.as_ref().map(|known| (known.host.as_str(), known.port)), wanted, "{src}");
        }
    }
}
