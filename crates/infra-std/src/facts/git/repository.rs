//! The fact `git.repository`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::git_command::git_in;

/// What stands at a path that is, or is to be, the work tree of a repository.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Repository {
    /// The folder.
    #[schemars(extend("x-host-path" = true))]
    pub repo: String,
}

/// What stands there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An empty folder.
    Empty,
    /// A repository with a work tree.
    Repository,
    /// Anything else.
    Other,
}

/// What is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkTree {
    /// What it is.
    pub kind: Kind,
    /// The name of the folder's owner, its number where it has none; not known of one that an earlier operation of a plan will create.
    pub user: Option<String>,
    /// The name of the folder's group, likewise.
    pub group: Option<String>,
    /// The branch that it is on.
    pub branch: Option<String>,
    /// The commit that is checked out.
    pub commit: Option<String>,
    /// The address of the remote called `origin`.
    pub origin: Option<String>,
    /// The paths of files that git knows and that differ from what is checked out; what stands in submodules does not count.
    pub changed: Vec<String>,
}

impl WorkTree {
    /// Something of this kind, of which no more is known.
    pub fn of(kind: Kind) -> Self {
        Self { kind, user: None, group: None, branch: None, commit: None, origin: None, changed: Vec::new() }
    }
}

impl Fact for Repository {
    const NAME: &'static str = "git.repository";
    const DOC: &'static str = "What stands at a path that is, or is to be, the work tree of a repository: `nil` for nothing, else a table of `kind` \
                               (`repository`, `empty` or `other`), `user` and `group` of the folder, `branch`, `commit`, `origin` (the address of that \
                               remote) and `changed`, the list of files that git knows and that differ from what is checked out.";
    type Value = Option<WorkTree>;

    fn command(&self) -> Command {
        let git = git_in(&self.repo);
        // With the slash, a link to a folder is the folder.
        let folder = format!("{}/", self.repo.trim_end_matches('/'));
        sh!(
            "if [ -e {} ] || [ -L {} ]; then
  owner=$(stat -c '%U:%G:%u:%g' -- {}) || exit 1
  if [ ! -d {} ]; then echo other
  elif [ -e {}.git ]; then
    if command -v git >/dev/null 2>&1; then echo repository; else echo other; fi
  else
    entries=$(ls -A -- {}) || exit 1
    if [ -z \"$entries\" ]; then echo empty; else echo other; fi
  fi
  printf '%s\\n' \"$owner\"
  if [ -e {}.git ] && command -v git >/dev/null 2>&1; then
    {} rev-parse --git-dir >/dev/null || exit 1
    printf '%s\\n' \"$({} symbolic-ref -q HEAD)\" \"$({} rev-parse -q --verify HEAD)\" \"$({} config --get remote.origin.url)\"
    {} status --porcelain --untracked-files=no --ignore-submodules=all -z | tr '\\n\\000' '?\\n'
  fi
fi",
            self.repo,
            self.repo,
            self.repo,
            folder,
            folder,
            folder,
            folder,
            git,
            git,
            git,
            git,
            git
        )
        .into()
    }

    fn parse(&self, output: &Output) -> Result<Self::Value, ParseError> {
        let text = output.expect_success()?;
        let mut lines = text.lines();
        let Some(kind) = lines.next() else { return Ok(None) };
        let kind = match kind {
            "empty" => Kind::Empty,
            "repository" => Kind::Repository,
            "other" => Kind::Other,
            word => return Err(ParseError::new(format!("expected `empty`, `repository` or `other`, got `{word}`"))),
        };
        let mut tree = WorkTree::of(kind);
        let owner: Vec<&str> = lines.next().unwrap_or_default().split(':').collect();
        let [user, group, uid, gid] = owner.as_slice() else {
            return Err(ParseError::new(format!("expected two names and two numbers of the owner, got `{}`", owner.join(":"))));
        };
        let named = |name: &str, id: &str| Some(if name == "UNKNOWN" { id.to_owned() } else { name.to_owned() });
        (tree.user, tree.group) = (named(user, uid), named(group, gid));
        let mut next = || lines.next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned);
        tree.branch = next().and_then(|branch| branch.strip_prefix("refs/heads/").map(str::to_owned));
        tree.commit = next();
        tree.origin = next();
        // Two letters, a space and the path; what a renamed file was called before stands alone after it.
        let path = |line: &str| (line.as_bytes().get(2) == Some(&b' ')).then(|| line.get(3..)).flatten().map(str::to_owned);
        tree.changed = lines.filter_map(path).collect();
        Ok(Some(tree))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Tree(self.repo.clone()), Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { repo: "/srv/app".to_owned() };
        let digest = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12";
        let printed = format!(
            "repository\ndeploy:deploy:1000:1000\nrefs/heads/main\n{digest}\nhttps://git.example.com/app\n M src/main.c\nR  new\nold\n"
        );
        let repository = WorkTree {
            kind: Kind::Repository,
            user: Some("deploy".to_owned()),
            group: Some("deploy".to_owned()),
            branch: Some("main".to_owned()),
            commit: Some(digest.to_owned()),
            origin: Some("https://git.example.com/app".to_owned()),
            changed: vec!["src/main.c".to_owned(), "new".to_owned()],
        };
        let empty = WorkTree { user: Some("root".to_owned()), group: Some("4711".to_owned()), ..WorkTree::of(Kind::Empty) };
        vec![
            FactExample::new(&question, &printed, Some(repository)),
            FactExample::new(&question, "empty\nroot:UNKNOWN:0:4711\n", Some(empty)),
            FactExample::new(&question, "", None),
        ]
    }
}
