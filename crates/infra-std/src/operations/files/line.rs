//! The operation `files.line`.

use infra_core::change::{Action, Change, Content, Replaces, Upload};
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::node::FileNode;
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resources, normal_path};
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::yes;
use crate::facts::files::directory::Directory;
use crate::facts::files::file::File;
use crate::facts::files::text::Text;
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_content::{Destination, NewContent, SHOWN_LIMIT, Standing, TOO_LARGE, digest_of, stand};
use crate::file_status::{Found, Status};
use crate::ownership::Ownership;
use crate::placement::{Obstacle, check_path, parent, set_aside};
use crate::text_edit::{Edited, LinePattern, LineWish, PatternError, edit_lines};

/// Makes sure that a line is in a file, reads as it should, or is not there.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Line {
    /// The path of the file on the host; a link to a file is followed.
    #[schemars(extend("x-host-path" = true))]
    pub path: String,
    /// The line: a regular expression that matches any part of a line unless it is anchored with `^` or `$`, and the text to append where
    /// no line matches.
    pub line: String,
    /// Whether such a line shall be there.
    #[serde(default = "yes")]
    pub present: bool,
    /// What each matching line shall read; `$1` to `$9`, `${1}` and `${name}` stand for groups that `line` has, all else for itself.
    pub replace: Option<String>,
    /// Flags of the regular expression: `i` (or `I`) ignores case.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Whether to keep the file as it was, under its name and the time, before it is changed.
    #[serde(default)]
    pub backup: bool,
    /// Whether each character of `line` stands for itself.
    #[serde(default)]
    pub escape_regex_characters: bool,
    /// For deploys that say so: `true`, which is always so here, has no effect; `false` is refused.
    pub extended_regex: Option<bool>,
    /// For deploys that say so: `true` is refused, for no shell reads the line; `false` has no effect.
    #[serde(default)]
    pub interpolate_variables: bool,
    /// Whether the last line of the file shall end with a newline, also when no line is appended.
    #[serde(default)]
    pub ensure_newline: bool,
}

impl Line {
    fn pattern(&self) -> Result<LinePattern, PatternError> {
        LinePattern::new(&self.line, self.escape_regex_characters, !self.flags.is_empty())
    }

    fn wish(&self) -> LineWish<'_> {
        match (&self.replace, self.present) {
            (_, false) => LineWish::Absent,
            (Some(replace), true) => LineWish::Replaced(replace),
            (None, true) => LineWish::Present(&self.line),
        }
    }

    fn edit(&self, text: &str) -> Result<Edited, DiffError> {
        let pattern = self.pattern().map_err(|error| DiffError::refused(error.to_string()))?;
        edit_lines(text, &pattern, self.wish(), self.ensure_newline).map_err(|error| {
            DiffError::refused_with_hint(error.to_string(), "anchor `line` so that it does not match what it was replaced with")
        })
    }
}

fn reason(edited: &Edited) -> String {
    let count = |count: usize, done: &str| match count {
        0 => None,
        1 => Some(format!("{done} 1 line")),
        many => Some(format!("{done} {many} lines")),
    };
    let parts: Vec<String> = [count(edited.appended, "append"), count(edited.replaced, "replace"), count(edited.removed, "remove")]
        .into_iter()
        .flatten()
        .collect();
    if parts.is_empty() { "end the last line".to_owned() } else { parts.join(", ") }
}

impl Operation for Line {
    const NAME: &'static str = "files.line";
    const DOC: &'static str = "Makes sure that a line is in a file, reads as it should, or with `present = false` is not there.\n\n\
        - Without `replace`: where no line matches, `line` is appended as it is spelt, on a line of its own.\n\
        - With `replace`: every line that matches is replaced as a whole. Where none matches and no line reads so already, `replace` is \
        appended, unless it refers to groups, which then \
        stand for nothing.\n\
        - With `present = false`: every line that matches is removed.\n\n\
        A line that is, as a whole, the very text of `line` matches too, whatever characters are in it. So a second run changes nothing; \
        a replacement that would be replaced by yet \
        another at the next run is refused.\n\n\
        The regular expressions are those of the `regex` crate: much like `grep -E` with `\\d`, `\\w`, `\\s`, `\\b`, without look-around, \
        whatever `extended_regex` says. No shell reads the line, so variables of the host's shell are never put in. \
        Line endings (`\\n` or `\\r\\n`) are kept, so are owner, \
        mode and a missing newline at the end, unless a line is appended. The file is read and edited as a whole (up to nearly 16 MiB of \
        UTF-8) and written only if it is still what was read. \
        A missing file is made; its directory must be there.";

    fn check(&self) -> Result<(), Misuse> {
        check_path("path", &self.path)?;
        for (name, text) in [("line", Some(&self.line)), ("replace", self.replace.as_ref())] {
            if text.is_some_and(|text| text.contains(['\n', '\r'])) {
                return Err(Misuse::new(format!("`{name}` is more than one line")).hint("call files.line once for each line"));
            }
        }
        if self.line.is_empty() {
            return Err(Misuse::new("`line` is empty, which would match every line").hint("write ^$ for empty lines"));
        }
        if self.replace.is_some() && !self.present {
            return Err(Misuse::new("`replace` and `present = false` exclude each other").hint("leave one of them out"));
        }
        if let Some(flag) = self.flags.iter().find(|flag| !matches!(flag.as_str(), "i" | "I")) {
            return Err(Misuse::new(format!("there is no flag `{flag}`"))
                .hint("the one flag is \"i\"; whole lines are replaced, so \"g\" has no meaning"));
        }
        if self.extended_regex == Some(false) {
            return Err(Misuse::new("`extended_regex = false` asks for basic regular expressions, which there are none of")
                .hint("write `line` as an extended one and leave the argument out, or give escape_regex_characters = true"));
        }
        if self.interpolate_variables {
            return Err(Misuse::new("`interpolate_variables = true` has no meaning: no shell reads the line, so no variable is put in")
                .hint(
                    "put the value itself into `line` or `replace` in the deploy; what only the host knows is asked of a fact, such as \
                 server.identity for its home",
                ));
        }
        let anchored = self.line.starts_with('^') || (self.line.ends_with('$') && !self.line.ends_with("\\$"));
        if self.present && self.replace.is_none() && anchored && !self.escape_regex_characters {
            return Err(Misuse::new("`line` is anchored, so it is no text that could be appended")
                .hint("give `replace` with the line as it shall read, or escape_regex_characters = true"));
        }
        self.pattern()
            .map(|_| ())
            .map_err(|error| Misuse::new(error.to_string()).hint("escape_regex_characters = true takes each character for itself"))
    }

    fn touches(&self) -> Resources {
        Resources::path(&self.path)
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let path = &normal_path(&self.path);
        let (text, file, above, who) = facts.get((&Text::at(path), &File::at(path), &parent(path), &Identity {}))?;
        let (Found::Is(before), Found::Is(status)) = (&text, &file) else {
            if text == Found::Other || file == Found::Other {
                return Err(DiffError::refused(format!("{path} exists and is not a file")));
            }
            let edited = self.edit("")?;
            if edited.text.is_empty() {
                return Ok(Change::none("there is no file, and so no such line"));
            }
            let obstacle = Obstacle { force: false, backup: true, backup_dir: None };
            let destination = Destination { path, ownership: Ownership::default(), create_remote_dir: false, obstacle };
            let standing = Standing { file, sha256: Found::Nothing, parent: above, who };
            return destination.write(facts, &standing, NewContent::of_text(&edited.text));
        };
        let edited = self.edit(before)?;
        if edited.text == *before {
            return Ok(Change::none(match self.wish() {
                LineWish::Present(_) => "the line is there",
                LineWish::Replaced(_) => "the line reads as wished",
                LineWish::Absent => "there is no such line",
            }));
        }
        let mut change = Change::new(reason(&edited));
        if self.backup {
            change = change.run(set_aside(sh!("cp -p"), path, path));
        }
        let node = FileNode {
            size: Some(edited.text.len() as u64),
            sha256: Some(digest_of(&edited.text)),
            text: Some(edited.text.as_str().into()),
            ..status.permissions().file_node()
        };
        let change = change.then(Action::Upload(Upload {
            content: Content::text(&edited.text),
            dest: path.clone(),
            mode: None,
            user: None,
            group: None,
            replaces: Replaces::Digest(digest_of(before)),
        }));
        let change = stand(change, path, status.link_target.as_deref(), node);
        let small = before.len().max(edited.text.len()) as u64 <= SHOWN_LIMIT;
        Ok(if small { change.text(path, before.as_str(), edited.text.as_str()) } else { change.withheld(path, TOO_LARGE) })
    }

    fn examples() -> Vec<Example> {
        let root = WhoAsks { user: "root".into(), group: "root".into(), uid: Some(0), gid: Some(0), umask: 0o022, home: "/root".into() };
        let path = "/etc/ssh/sshd_config";
        let base = |title, args, text: Found<String>| {
            let file = text.clone().map(|text| Status::foreseen(0o600, "root", "root", Some(text.len() as u64)));
            Example::new(title, args)
                .fact(&Text::at(path), text)
                .fact(&File::at(path), file)
                .fact(&Directory::at("/etc/ssh"), Found::Is(Status::foreseen(0o755, "root", "root", None)))
                .fact(&Identity {}, root.clone())
        };
        let text = |text: &str| Found::Is(text.to_owned());
        let upload = "upload /etc/ssh/sshd_config";
        let port = json!({ "path": path, "line": "^#?Port ", "replace": "Port 2222" });
        vec![
            base("Append a line", json!({ "path": path, "line": "UsePAM yes" }), text("Port 22\n")).steps([upload]),
            base("Leave a line that is there", json!({ "path": path, "line": "UsePAM yes" }), text("UsePAM yes\n"))
                .nothing("the line is there"),
            base("Replace a line", port.clone(), text("#Port 22\n")).steps([upload]),
            base(
                "Replace a line with an extended regular expression",
                json!({ "path": path, "line": "^#?Port (22|2022)$", "replace": "Port 2222", "extended_regex": true }),
                text("Port 2022\n"),
            )
            .steps([upload]),
            base("Leave a line that reads so", port, text("Port 2222\n")).nothing("reads as wished"),
            base("Remove lines", json!({ "path": path, "line": "^X11", "present": false }), text("X11Forwarding yes\n")).steps([upload]),
            base("Nothing to remove", json!({ "path": path, "line": "^X11", "present": false }), Found::Nothing).nothing("no such line"),
            base("Make the file", json!({ "path": path, "line": "UsePAM yes" }), Found::Nothing).steps([upload]),
            base("Keep the file as it was", json!({ "path": path, "line": "UsePAM yes", "backup": true }), text(""))
                .steps(["kept=/etc/ssh/sshd_config.$(date +%Y%m%d%H%M%S) && while test -e \"$kept\" || test -L \"$kept\"; do kept=$kept~; done && cp -p -- /etc/ssh/sshd_config \"$kept\"", upload]),
            base(
                "Refuse a replacement without end",
                json!({ "path": path, "line": "^Port (.*)", "replace": "Port 1$1" }),
                text("Port 2\n"),
            )
            .refused("never settles"),
            base("Refuse a directory", json!({ "path": path, "line": "x" }), Found::Other).refused("is not a file"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use infra_core::operation::erase;
    use infra_test::facts::{MadeUp, diff_fully};

    use super::*;

    fn line(args: infra_core::Value) -> Line {
        serde_json::from_value(args).expect("arguments")
    }

    #[test]
    fn what_was_read_is_what_is_replaced() {
        let who = WhoAsks { user: "me".into(), group: "us".into(), uid: Some(7), gid: Some(8), umask: 0o027, home: "/".into() };
        let table = MadeUp::new()
            .fact(&Text::at("/d/f"), Found::Is("a\r\nb".into()))
            .fact(&File::at("/d/f"), Found::Is(Status::foreseen(0o640, "you", "them", Some(4))))
            .fact(&Directory::at("/d"), Found::Is(Status::foreseen(0o755, "root", "root", None)))
            .fact(&Identity {}, who);
        let (change, rounds) = diff_fully(&*erase(line(json!({ "path": "/d/f", "line": "c" }))), &table).expect("a change");
        let Action::Upload(upload) = &change.actions[0] else { panic!("an upload: {change:?}") };
        assert_eq!((rounds, upload.content.clone()), (1, Content::text("a\r\nb\r\nc\r\n")));
        assert_eq!((upload.mode, upload.replaces.clone()), (None, Replaces::Digest(digest_of("a\r\nb"))));
        assert_eq!(change.reason, "append 1 line");
    }

    #[test]
    fn a_missing_directory_is_refused() {
        let who = WhoAsks { user: "me".into(), group: "us".into(), uid: Some(7), gid: Some(8), umask: 0o027, home: "/".into() };
        let table = MadeUp::new()
            .fact(&Text::at("/d/f"), Found::Nothing)
            .fact(&File::at("/d/f"), Found::Nothing)
            .fact(&Directory::at("/d"), Found::Nothing)
            .fact(&Identity {}, who);
        let error = diff_fully(&*erase(line(json!({ "path": "/d/f", "line": "c" }))), &table).expect_err("no directory");
        assert_eq!(error.to_string(), "the directory /d does not exist");
    }

    #[test]
    fn misuse_is_named() {
        for args in [
            json!({ "path": "/a", "line": "" }),
            json!({ "path": "/a", "line": "a\nb" }),
            json!({ "path": "/a", "line": "a", "replace": "b\n" }),
            json!({ "path": "/a", "line": "a", "replace": "b", "present": false }),
            json!({ "path": "/a", "line": "a", "flags": ["g"] }),
            json!({ "path": "/a", "line": "^a$" }),
            json!({ "path": "/a", "line": "a(" }),
            json!({ "path": "/a", "line": "a", "extended_regex": false }),
            json!({ "path": "/a", "line": "a", "interpolate_variables": true }),
        ] {
            assert!(line(args.clone()).check().is_err(), "{args}");
        }
        for args in [
            json!({ "path": "/a", "line": "^a$", "replace": "a" }),
            json!({ "path": "/a", "line": "^a$", "present": false }),
            json!({ "path": "/a", "line": "^a$(", "escape_regex_characters": true }),
            json!({ "path": "/a", "line": "cost \\$", "flags": ["I"] }),
            json!({ "path": "/a", "line": "a", "extended_regex": true, "interpolate_variables": false }),
        ] {
            assert_eq!(line(args.clone()).check(), Ok(()), "{args}");
        }
    }
}
