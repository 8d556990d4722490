//! `copy` and `fetch`: files and trees to all hosts, and from each of them into a folder of its own.

use std::path::Path;

use infra_core::diagnostic::Diagnostic;
use infra_core::registry::Registry;

use crate::ad_hoc::AdHoc;

/// The words behind `copy` or `fetch`.
#[derive(Clone, Debug, PartialEq)]
pub struct Words {
    /// What is copied. With a slash at its end, of a directory what it holds.
    pub src: String,
    /// Where it goes.
    pub dest: String,
    /// Arguments of the operation that does it, as KEY=VALUE.
    pub rest: Vec<String>,
}

impl Words {
    /// Takes the words behind `verb`.
    ///
    /// # Errors
    /// A misuse [`Diagnostic`] that says what is missing or too much.
    pub fn take(verb: &str, words: Vec<String>) -> Result<Self, Diagnostic> {
        let example = match verb {
            "copy" => "infra INVENTORY copy site/ /srv/site",
            _ => "infra INVENTORY fetch /var/log/syslog logs",
        };
        let mut words = words.into_iter();
        let (Some(src), Some(dest)) = (words.next(), words.next()) else {
            return Err(Diagnostic::misuse(format!("{verb} needs SRC and DEST")).hint(example));
        };
        if src.is_empty() || dest.is_empty() {
            return Err(Diagnostic::misuse(format!("SRC or DEST of {verb} is empty")).hint(example));
        }
        let rest: Vec<String> = words.collect();
        if let Some(word) = rest.iter().find(|word| !word.contains('=')) {
            return Err(Diagnostic::misuse(format!("{verb} takes SRC, DEST and then KEY=VALUE, got `{word}`")).hint(example));
        }
        Ok(Self { src, dest, rest })
    }

    /// Whether something may be removed, so that it is asked before.
    pub fn removes(&self) -> bool {
        self.rest.iter().any(|word| word.strip_prefix("delete=").is_some_and(|value| value != "false"))
    }

    fn gives(&self, key: &str) -> bool {
        self.rest.iter().any(|word| word.split_once('=').is_some_and(|(given, _)| given == key))
    }

    fn with(&self, own: impl IntoIterator<Item = (&'static str, String)>) -> Vec<String> {
        let own = own.into_iter().filter(|(key, _)| !self.gives(key)).map(|(key, value)| format!("{key}={value}"));
        own.chain(self.rest.iter().cloned()).collect()
    }
}

/// The last name of a path; none where it is no name of its own, such as `.` or `/`.
fn last_name(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|name| !matches!(*name, "" | "." | ".."))
}

/// A local file or directory that goes to every host.
///
/// # Errors
/// A misuse [`Diagnostic`] when it is not there, or a word is wrong.
pub fn copy(registry: &Registry, words: &Words, folder: &Path) -> Result<AdHoc, Diagnostic> {
    let local = folder.join(&words.src);
    let found = std::fs::metadata(&local).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Diagnostic::misuse(format!("there is no {} on this machine", words.src)),
        _ => Diagnostic::misuse(format!("{} on this machine cannot be read: {error}", words.src)),
    })?;
    let src = local.to_str().ok_or_else(|| Diagnostic::misuse(format!("the path {} is not UTF-8", local.display())))?.to_owned();
    let title = format!("copy {} to {}", words.src, words.dest);
    let kept = |key| (key, "true".to_owned());
    let call = if found.is_dir() {
        let dest = match last_name(&words.src) {
            Some(name) => format!("{}/{name}", words.dest),
            None => words.dest.clone(),
        };
        AdHoc::operation(registry, "files.sync", &words.with([("src", src), ("dest", dest), kept("mode"), kept("dir_mode")]), folder)
    } else {
        AdHoc::operation(registry, "files.put", &words.with([("src", src), ("dest", words.dest.clone()), kept("mode")]), folder)
    };
    Ok(call?.titled(title))
}

/// A file or a directory of each host that comes into a folder of the host's name.
///
/// # Errors
/// A misuse [`Diagnostic`] when a word is wrong.
pub fn fetch(registry: &Registry, words: &Words, folder: &Path) -> Result<AdHoc, Diagnostic> {
    let dest = folder.join(&words.dest);
    let dest = dest.to_str().ok_or_else(|| Diagnostic::misuse(format!("the path {} is not UTF-8", dest.display())))?;
    let own = [("src", words.src.clone()), ("dest", format!("{dest}/")), ("create_local_dir", "true".to_owned())];
    let call = AdHoc::operation(registry, "files.get", &words.with(own), folder)?;
    let end = if last_name(&words.src).is_some() { "/" } else { "" };
    Ok(call.titled(format!("fetch {} to {}", words.src, words.dest)).into_folders(dest.trim_end_matches('/'), end))
}

/// The name of a host as that of a folder: one name, below the folder that it is made in.
pub fn folder_of(host: &str) -> String {
    let name: String = host.chars().map(|letter| if matches!(letter, '/' | '\0') { '_' } else { letter }).collect();
    if name.is_empty() || name.bytes().all(|byte| byte == b'.') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(verb: &str, words: &[&str]) -> Result<Words, String> {
        Words::take(verb, words.iter().map(|word| (*word).to_owned()).collect()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_missing_or_too_much_is_named() {
        for (words, wanted) in [
            (&[][..], "copy needs SRC and DEST"),
            (&["a"], "copy needs SRC and DEST"),
            (&["a", ""], "SRC or DEST of copy is empty"),
            (&["a", "b", "c"], "copy takes SRC, DEST and then KEY=VALUE, got `c`"),
        ] {
            assert_eq!(take("copy", words).map(|_| ()), Err(wanted.to_owned()));
        }
        let words = take("copy", &["a=b", "c", "delete=true", "mode=600"]).expect("right words");
        assert!(words.removes() && words.gives("mode") && !words.gives("dir_mode"));
        assert_eq!(words.with([("mode", "true".into()), ("src", "x".into())]), ["src=x", "delete=true", "mode=600"]);
    }

    #[test]
    fn a_host_has_a_folder_of_its_own() {
        for (host, folder) in [("web-01", "web-01"), ("@chroot//srv/x", "@chroot__srv_x"), ("..", "_.."), (".", "_."), ("", "_")] {
            assert_eq!(folder_of(host), folder);
        }
    }

    #[test]
    fn a_slash_at_the_end_means_what_is_in_it() {
        for (path, name) in [("site", Some("site")), ("a/site", Some("site")), ("site/", None), (".", None), ("/", None), ("a/..", None)] {
            assert_eq!(last_name(path), name, "{path}");
        }
    }
}
