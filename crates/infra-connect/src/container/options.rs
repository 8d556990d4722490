//! What a host's data says about its container.

use infra_core::Value;
use infra_core::host::Host;

/// The data keys of a client; see the book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// The image to start a container from, where that is not the host's address.
    pub(crate) image: Option<String>,
    /// The platform of the image.
    pub(crate) platform: Option<String>,
    /// The name under which the container is kept.
    pub(crate) keep: Option<String>,
    /// The name of an image that is made of the container.
    pub(crate) commit: Option<String>,
}

impl Options {
    /// From a host's data: the keys begin with the name of the client.
    ///
    /// # Errors
    /// When a value is not of its type, as a sentence fragment with what to write.
    pub(crate) fn of(program: &str, host: &Host) -> Result<Self, (String, Option<String>)> {
        let text = |name: &str, what: &str| {
            let key = format!("{program}_{name}");
            let hint = || Some(format!("write {key} = {what}"));
            match host.get(&key) {
                None | Some(Value::Null | Value::Bool(false)) => Ok(None),
                Some(Value::String(text))
                    if text.is_empty() || text.starts_with('-') || text.contains(|c: char| c.is_whitespace() || c.is_control()) =>
                {
                    Err((format!("`{key}` cannot be {text:?}"), hint()))
                }
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(other) => Err((format!("`{key}` takes a name, got {other}"), hint())),
            }
        };
        Ok(Self {
            image: text("image", "\"debian:12\"")?,
            platform: text("platform", "\"linux/amd64\"")?,
            keep: text("keep", "\"a-name-for-the-container\"")?,
            commit: text("commit", "\"name-of-an-image:tag\"")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use infra_core::Map;
    use infra_core::host::{Connector, HostId};

    use super::*;

    fn of(key: &str, value: Value) -> Result<Options, String> {
        let data = Map::from_iter([(key.to_owned(), value)]);
        let host = Host { data, ..Host::new(HostId(0), "@docker/app", Connector::Docker, "app") };
        Options::of("docker", &host).map_err(|(message, hint)| format!("{message} | {}", hint.unwrap_or_default()))
    }

    #[test]
    fn the_keys_are_those_of_the_client() {
        assert_eq!(of("docker_keep", "box".into()).expect("a name").keep.as_deref(), Some("box"));
        assert_eq!(of("docker_commit", "app:1".into()).expect("a name").commit.as_deref(), Some("app:1"));
        assert_eq!(of("docker_image", "debian:12".into()).expect("a name").image.as_deref(), Some("debian:12"));
        assert_eq!(of("podman_keep", "box".into()), Ok(Options::default()));
        assert_eq!(of("docker_keep", false.into()), Ok(Options::default()));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (key, value, wanted) in [
            ("docker_keep", Value::Bool(true), "`docker_keep` takes a name, got true | write docker_keep = \"a-name-for-the-container\""),
            ("docker_commit", "".into(), "`docker_commit` cannot be \"\" | write docker_commit = \"name-of-an-image:tag\""),
            (
                "docker_platform",
                "--privileged".into(),
                "`docker_platform` cannot be \"--privileged\" | write docker_platform = \"linux/amd64\"",
            ),
        ] {
            assert_eq!(of(key, value).expect_err(key), wanted);
        }
    }
}
