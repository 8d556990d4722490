//! How a host is spelt: `web-01`, `admin@web-01:2222`, `[::1]:22`, `fe80::1`, `@local`, `@ssh/web-01`, `@docker/app`, `@chroot/srv/root`.

use crate::diagnostic::did_you_mean;
use crate::host::Connector;

/// What the spelling of a host says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The spelling itself: the host's name.
    pub name: String,
    /// How it is reached.
    pub connector: Connector,
    /// What the connector is given: for ssh the name without `@ssh/`, `user@`, `:port` and the brackets around an IPv6 address; for docker and podman the
    /// name of a container or an image; for chroot an absolute path.
    pub address: String,
    /// The user before the `@`.
    pub user: Option<String>,
    /// The port after the `:`.
    pub port: Option<u16>,
}

/// Why a text is not the spelling of a host.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{message}")]
pub struct AddressError {
    /// What is wrong, as a sentence fragment.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Address {
    /// Reads the spelling of one host; ranges were expanded before.
    ///
    /// # Errors
    /// [`AddressError`] when the text names no host, an unknown connector or no port between 1 and 65535.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let error = |message: String, hint: Option<&str>| AddressError { message, hint: hint.map(str::to_owned) };
        if text.is_empty() {
            return Err(error("a host's name is empty".to_owned(), None));
        }
        if let Some(c) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            let what = if c == ' ' { "a space".to_owned() } else { format!("the character {c:?}") };
            return Err(error(format!("the host's name {text:?} has {what} in it"), None));
        }
        let plain = match text.strip_prefix('@') {
            None => text,
            Some(spelt) => {
                let (connector, rest) = spelt.split_once('/').unwrap_or((spelt, ""));
                let found = Connector::ALL.into_iter().find(|one| one.name() == connector).ok_or_else(|| {
                    let hint = did_you_mean(connector, Connector::ALL.map(Connector::name)).unwrap_or_else(spellings);
                    error(format!("there is no connector `@{connector}`"), Some(&hint))
                })?;
                let write = format!("write {}", found.spelling());
                let of = |address: String| Self { name: text.to_owned(), connector: found, address, user: None, port: None };
                match found {
                    Connector::Local if spelt == connector => return Ok(of(String::new())),
                    Connector::Local => return Err(error(format!("`{text}` is no host"), Some(&write))),
                    Connector::Ssh if rest.is_empty() => return Err(error("`@ssh` needs a host".to_owned(), Some(&write))),
                    Connector::Ssh => rest,
                    Connector::Docker | Connector::Podman if rest.is_empty() => {
                        return Err(error(format!("`@{connector}` needs a container or an image"), Some(&write)));
                    }
                    // What starts with a dash would be read as an option.
                    Connector::Docker | Connector::Podman if rest.starts_with('-') => {
                        return Err(error(format!("`{rest}` is no name of a container or an image"), Some(&write)));
                    }
                    Connector::Docker | Connector::Podman => return Ok(of(rest.to_owned())),
                    Connector::Chroot => {
                        let path = rest.trim_start_matches('/');
                        if path.is_empty() {
                            let hint = "write @chroot/PATH; the path counts from the root: @chroot/srv/root is /srv/root";
                            return Err(error("`@chroot` needs a folder".to_owned(), Some(hint)));
                        }
                        return Ok(of(format!("/{path}")));
                    }
                }
            }
        };
        let (user, place) = match plain.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, plain),
        };
        let (address, port) = split_port(place).ok_or_else(|| error(format!("`{text}` has a bracket without its partner"), None))?;
        let port = match port {
            Some(port) => match port.parse::<u16>() {
                Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => Some(number),
                _ => return Err(error(format!("`{port}` in `{text}` is no port"), Some("a port is a number from 1 to 65535"))),
            },
            None => None,
        };
        // What starts with a dash would be read as an option by ssh.
        if address.is_empty() || address.starts_with('-') || address.contains(['/', '[', ']']) {
            return Err(error(format!("`{text}` is no host"), Some("write HOST, USER@HOST:PORT or [IPV6]:PORT")));
        }
        if user.is_some_and(|user| user.is_empty() || user.starts_with('-')) {
            return Err(error(format!("the user before `@` in `{text}` is no user"), Some("write USER@HOST")));
        }
        Ok(Self { name: text.to_owned(), connector: Connector::Ssh, address: address.to_owned(), user: user.map(str::to_owned), port })
    }
}

/// All connectors, for who spelt one that is not among them.
fn spellings() -> String {
    let [first @ .., last] = Connector::ALL.map(Connector::spelling);
    format!("the connectors are {} and {last}", first.join(", "))
}

/// The address and the port; none when a bracket lacks its partner. Two colons or more without brackets are an IPv6 address.
fn split_port(place: &str) -> Option<(&str, Option<&str>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (address, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((address, Some(port))),
            None if after.is_empty() => Some((address, None)),
            None => None,
        };
    }
    match place.split_once(':') {
        Some((address, port)) if !port.contains(':') => Some((address, Some(port))),
        _ => Some((place, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_they_are_spelt() {
        for (text, address, user, port) in [
            ("web-01", "web-01", None, None),
            ("admin@web-01:2222", "web-01", Some("admin"), Some(2222)),
            ("[::1]:22", "::1", None, Some(22)),
            ("root@[fe80::1]", "fe80::1", Some("root"), None),
            ("fe80::1", "fe80::1", None, None),
            ("::1", "::1", None, None),
            ("a@b@host", "host", Some("a@b"), None),
            ("@ssh/admin@ops:22", "ops", Some("admin"), Some(22)),
        ] {
            let read = Address::parse(text).expect(text);
            assert_eq!(read.connector, Connector::Ssh);
            assert_eq!((read.name.as_str(), read.address.as_str(), read.user.as_deref(), read.port), (text, address, user, port));
        }
        for (text, connector, address) in [
            ("@local", Connector::Local, ""),
            ("@docker/app", Connector::Docker, "app"),
            ("@docker/registry.example.com:5000/team/app:1.2", Connector::Docker, "registry.example.com:5000/team/app:1.2"),
            ("@podman/debian@sha256:0123", Connector::Podman, "debian@sha256:0123"),
            ("@chroot/srv/root", Connector::Chroot, "/srv/root"),
            ("@chroot//srv/root/", Connector::Chroot, "/srv/root/"),
        ] {
            let read = Address::parse(text).expect(text);
            assert_eq!((read.connector, read.name.as_str(), read.address.as_str()), (connector, text, address));
            assert_eq!((read.user, read.port), (None, None));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[@a-z0-9:\\[\\]/. -]{0,16}") {
            if let Ok(read) = Address::parse(&text) {
                proptest::prop_assert_eq!(&read.name, &text);
                proptest::prop_assert!(!read.address.starts_with('-'));
            }
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for (text, message) in [
            ("", "a host's name is empty"),
            ("web 01", "the host's name \"web 01\" has a space in it"),
            ("web\u{1b}", "the host's name \"web\\u{1b}\" has the character '\\u{1b}' in it"),
            ("web:port", "`port` in `web:port` is no port | a port is a number from 1 to 65535"),
            ("web:0", "`0` in `web:0` is no port | a port is a number from 1 to 65535"),
            ("web:+1", "`+1` in `web:+1` is no port | a port is a number from 1 to 65535"),
            ("web:70000", "`70000` in `web:70000` is no port | a port is a number from 1 to 65535"),
            ("-oProxyCommand=x", "`-oProxyCommand=x` is no host | write HOST, USER@HOST:PORT or [IPV6]:PORT"),
            ("-l@web", "the user before `@` in `-l@web` is no user | write USER@HOST"),
            ("[::1", "`[::1` has a bracket without its partner"),
            ("@ssh", "`@ssh` needs a host | write @ssh/HOST"),
            ("@local/x", "`@local/x` is no host | write @local"),
            ("@docker", "`@docker` needs a container or an image | write @docker/NAME"),
            ("@podman/", "`@podman` needs a container or an image | write @podman/NAME"),
            ("@docker/--privileged", "`--privileged` is no name of a container or an image | write @docker/NAME"),
            ("@chroot//", "`@chroot` needs a folder | write @chroot/PATH; the path counts from the root: @chroot/srv/root is /srv/root"),
            ("@lcoal", "there is no connector `@lcoal` | did you mean `local`?"),
            ("@dokcer/app", "there is no connector `@dokcer` | did you mean `docker`?"),
            (
                "@terraform/x",
                "there is no connector `@terraform` | the connectors are @local, @ssh/HOST, @docker/NAME, @podman/NAME and @chroot/PATH",
            ),
        ] {
            let error = Address::parse(text).expect_err(text);
            let shown = error.hint.map_or(error.message.clone(), |hint| format!("{} | {hint}", error.message));
            assert_eq!(shown, message);
        }
    }
}
