//! Writing a file whose content is known: what `files.put`, `files.template` and `files.line` share.

use std::sync::Arc;

use infra_core::Value;
use infra_core::change::{Action, Change, Content, Replaces, Upload};
use infra_core::command::Shell;
use infra_core::digest::sha256;
use infra_core::facts::{DiffError, Facts, LocalFile};
use infra_core::mode::Mode;
use infra_core::node::{FileNode, Node};
use infra_core::resources::{Resources, link_leads_to};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::facts::files::file::File;
use crate::facts::files::sha256::Sha256;
use crate::facts::files::text::Text;
use crate::facts::server::identity::{Identity, WhoAsks};
use crate::file_status::{Found, Status};
use crate::ownership::{Ownership, Permissions, Target};
use crate::placement::{Obstacle, Place, may_touch_parents, parent, place};

/// Text files up to this size, in bytes, are shown before and after.
pub const SHOWN_LIMIT: u64 = 1024 * 1024;

/// Why the content of a file above [`SHOWN_LIMIT`] is not shown.
pub const TOO_LARGE: &str = "it is larger than 1 MiB";

/// A mode, or `true` for that of the local file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeWish {
    /// This mode.
    Mode(Mode),
    /// That of the local file, if true; as if not given, if false.
    Local(bool),
}

impl ModeWish {
    /// The mode that is meant; `local` is the file that the content comes from.
    pub fn resolve(wish: Option<&Self>, local: Option<&LocalFile>) -> Option<Mode> {
        match wish {
            Some(Self::Mode(mode)) => Some(mode.clone()),
            Some(Self::Local(true)) => local.map(|file| Mode::Bits(file.mode & 0o7777)),
            Some(Self::Local(false)) | None => None,
        }
    }
}

impl<'de> Deserialize<'de> for ModeWish {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Bool(local) => Ok(Self::Local(local)),
            mode => Mode::deserialize(mode).map(Self::Mode).map_err(serde::de::Error::custom),
        }
    }
}

impl JsonSchema for ModeWish {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ModeWish".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": ["string", "integer", "boolean"], "format": "file mode" })
    }
}

/// Where a file goes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Destination<'a> {
    /// The path on the host, in the form of [`normal_path`](infra_core::resources::normal_path).
    pub path: &'a str,
    /// Its owner, group and mode.
    pub ownership: Ownership<'a>,
    /// Whether directories on the way are made.
    pub create_remote_dir: bool,
    /// What to do about something else that stands there.
    pub obstacle: Obstacle<'a>,
}

/// How things stand at a destination.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The file.
    pub file: Found<Status>,
    /// Its digest.
    pub sha256: Found<String>,
    /// The directory that it stands in.
    pub parent: Found<Status>,
    /// Who writes it.
    pub who: WhoAsks,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub struct NewContent<'c> {
    /// The content.
    pub content: Content,
    /// The same as text, where it is text.
    pub text: Option<&'c str>,
    /// Whether to show text before and after, for which the old text is asked for when the digests differ.
    pub shown: bool,
}

impl Standing {
    /// Asks how things stand at a path, all in one round.
    ///
    /// # Errors
    /// As [`Facts::get`].
    pub fn ask(facts: &Facts<'_>, path: &str) -> Result<Self, DiffError> {
        let (file, sha256, parent, who) = facts.get((&File::at(path), &Sha256::at(path), &parent(path), &Identity {}))?;
        Ok(Self { file, sha256, parent, who })
    }
}

impl Destination<'_> {
    /// What writing there may touch.
    pub fn may_touch(&self) -> Resources {
        let parents = if self.create_remote_dir { may_touch_parents(self.path) } else { Resources::none() };
        // A link is followed to a path that only the host knows.
        Resources::path(self.path).and(parents).and(self.obstacle.touches(self.path))
    }

    /// From how things stand to a file with this content.
    ///
    /// # Errors
    /// [`DiffError::Refused`] when something is in the way; [`DiffError::Missing`] when the old text, or directories further up, are still
    /// to be
    /// asked about.
    pub fn write(&self, facts: &Facts<'_>, standing: &Standing, new: NewContent<'_>) -> Result<Change, DiffError> {
        match &standing.file {
            Found::Is(status) if standing.sha256 == Found::Is(new.content.sha256()) => Ok(self.keep(standing, status, &new)),
            Found::Is(status) => self.replace(facts, standing, status, &new),
            Found::Nothing | Found::Other => self.create(facts, standing, &new),
        }
    }

    /// The content is right: only owner, group and mode may differ.
    fn keep(&self, standing: &Standing, status: &Status, new: &NewContent<'_>) -> Change {
        let settled = self.ownership.settle(self.path, &status.permissions(), Target::File, standing.who.umask);
        if settled.commands.is_empty() {
            return Change::none("the file is as wished");
        }
        let change = Change::new(settled.reasons.join(", ")).run(Shell::join(" && ", settled.commands));
        let node = FileNode { mtime: status.mtime, ..new.node(&settled.after) };
        stand(change, self.path, status.link_target.as_deref(), node)
    }

    fn replace(&self, facts: &Facts<'_>, standing: &Standing, status: &Status, new: &NewContent<'_>) -> Result<Change, DiffError> {
        let settled = self.ownership.settle(self.path, &status.permissions(), Target::File, standing.who.umask);
        let mut reasons = vec!["content".to_owned()];
        reasons.extend(settled.reasons.iter().cloned());
        let mode = self.ownership.mode.map(|_| settled.after.mode);
        let change = Change::new(reasons.join(", ")).then(self.upload(new, mode, Replaces::Anything));
        let change = stand(change, self.path, status.link_target.as_deref(), new.node(&settled.after));
        let small = status.size.is_none_or(|size| size <= SHOWN_LIMIT);
        let after = match new.shown_text() {
            Ok(after) if small => after,
            Ok(_) => return Ok(change.withheld(self.path, TOO_LARGE)),
            Err(why) => return Ok(why.into_iter().fold(change, |change, why| change.withheld(self.path, why))),
        };
        match facts.get(&Text::at(self.path)) {
            Ok(Found::Is(before)) => Ok(change.text(self.path, before, after)),
            Ok(_) => Ok(change),
            // What is not text is not shown; that is no reason not to write it.
            Err(DiffError::Fact { .. }) => Ok(change.withheld(self.path, "what stands there now cannot be read as UTF-8 text")),
            Err(DiffError::Unknown(_)) => Ok(change),
            Err(error) => Err(error),
        }
    }

    fn create(&self, facts: &Facts<'_>, standing: &Standing, new: &NewContent<'_>) -> Result<Change, DiffError> {
        let place = place(facts, self.path, &standing.who, &standing.parent, self.create_remote_dir, &self.ownership)?;
        let mut commands = Vec::new();
        let mut touches = Resources::path(self.path).and(place.touches());
        if standing.file == Found::Other {
            commands.push(self.obstacle.clear(self.path, "a file")?);
            touches = touches.and(self.obstacle.touches(self.path));
        }
        commands.extend(place.commands.iter().cloned());
        let fresh = place.maker.file();
        let after = self.ownership.settle(self.path, &fresh, Target::File, standing.who.umask).after;
        let mode = self.ownership.mode.map(|_| after.mode);
        let mut change = Change::new(if standing.file == Found::Other { "replace what is no file" } else { "create" });
        if !commands.is_empty() {
            change = change.run(Shell::join(" && ", commands));
        }
        change = change.then(self.upload(new, mode, Replaces::Anything));
        change = with_parents(change, &place).node(self.path, Node::File(new.node(&after))).touching(touches);
        Ok(match new.shown_text() {
            Ok(after) => change.text(self.path, "", after),
            Err(why) => why.into_iter().fold(change, |change, why| change.withheld(self.path, why)),
        })
    }

    fn upload(&self, new: &NewContent<'_>, mode: Option<u32>, replaces: Replaces) -> Action {
        Action::Upload(Upload {
            content: new.content.clone(),
            dest: self.path.to_owned(),
            mode,
            user: self.ownership.user.map(str::to_owned),
            group: self.ownership.group.map(str::to_owned),
            replaces,
        })
    }
}

impl<'c> NewContent<'c> {
    /// Text made by infra.
    pub fn of_text(text: &'c str) -> Self {
        Self { content: Content::text(text), text: Some(text), shown: true }
    }

    /// A file of the controller.
    pub fn of_local(file: &'c LocalFile) -> Self {
        let content = Content::LocalFile { path: file.path.clone(), size: file.size, sha256: file.sha256.clone() };
        Self { content, text: file.text(), shown: true }
    }

    /// The text to be shown; or why there is none, where that is to be said.
    fn shown_text(&self) -> Result<&'c str, Option<&'static str>> {
        match self.text {
            _ if !self.shown => Err(None),
            _ if self.content.size() > SHOWN_LIMIT => Err(Some(TOO_LARGE)),
            Some(text) => Ok(text),
            None => Err(Some("what it will hold is not UTF-8 text")),
        }
    }

    /// The file that holds it, with these permissions.
    pub fn node(&self, after: &Permissions) -> FileNode {
        FileNode {
            size: Some(self.content.size()),
            sha256: Some(self.content.sha256()),
            text: self.text.map(Arc::from),
            ..after.file_node()
        }
    }
}

/// Adds what will stand at the directories on the way.
pub fn with_parents(change: Change, place: &Place) -> Change {
    place.nodes().fold(change, |change, (path, node)| change.node(path, node))
}

/// Adds what will stand at a path that is written, and what that touches. Where the path is a link it stays one, and the file stands where it leads.
pub fn stand(change: Change, path: &str, link_target: Option<&str>, file: FileNode) -> Change {
    let Some(target) = link_target else {
        return change.node(path, Node::File(file)).touching(Resources::path(path));
    };
    let real = link_leads_to(path, target);
    change.touching(Resources::path(real.as_str())).node(real, Node::File(file))
}

/// The digest of a text, as the host would give it.
pub fn digest_of(text: &str) -> String {
    sha256(text.as_bytes())
}
