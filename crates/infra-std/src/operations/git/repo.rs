//! The operation `git.repo`.

use infra_core::change::{Action, Change};
use infra_core::command::Shell;
use infra_core::example::Example;
use infra_core::facts::{DiffError, Facts};
use infra_core::node::{DirectoryNode, Node};
use infra_core::operation::{Misuse, Operation};
use infra_core::resources::{Resource, Resources, parent_of};
use infra_core::sh;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use crate::accounts::{check_name, yes};
use crate::facts::git::branch::Branch;
use crate::facts::git::commit::Commit;
use crate::facts::git::contains::Contains;
use crate::facts::git::remote_commit::{RemoteCommit, RemoteRef};
use crate::facts::git::repository::{Kind, Repository, WorkTree};
use crate::facts::git::submodules::Submodules;
use crate::facts::server::known_host::{Acquaintance, KnownHost};
use crate::facts::server::which::Which;
use crate::file_status::{Found, Status};
use crate::git_command::{git, git_in};
use crate::host_key::{learn_host_key, ssh_host};
use crate::packaging::listed;
use crate::placement::{check_path, parent};

/// Clones a repository, or brings a clone up to date.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub struct Repo {
    /// The address of the remote repository, as `git clone` takes it.
    pub src: String,
    /// The folder of the clone on the host.
    #[schemars(extend("x-host-path" = true))]
    pub dest: String,
    /// The branch, tag or whole commit to be on; where not given, the branch that the clone is on, and for a new one the remote's own.
    pub branch: Option<String>,
    /// Bring the branch up to what it is on the remote.
    #[serde(default = "yes")]
    pub pull: bool,
    /// Put commits that the remote does not have on top of what is pulled; without it, a branch that went its own way is refused by git.
    #[serde(default)]
    pub rebase: bool,
    /// The owner of the clone and all in it.
    pub user: Option<String>,
    /// The group of the clone and all in it.
    pub group: Option<String>,
    /// Where `src` is reached by ssh and the host has no key of its host yet: ask for the keys and add them to `~/.ssh/known_hosts` of who runs
    /// this. It is trust on first use: nothing checks that it is the right host that answers. A key that changes later is still refused.
    #[serde(default)]
    pub ssh_keyscan: bool,
    /// Check out submodules as well, and bring them to the commits that the repository wants.
    #[serde(default)]
    pub update_submodules: bool,
    /// Submodules of submodules too; it needs `update_submodules`.
    #[serde(default)]
    pub recursive_submodules: bool,
    /// How many commits of its history a new clone has; all of them where not given.
    pub depth: Option<u32>,
    /// Fetch all tags whenever something is fetched.
    #[serde(default)]
    pub fetch_tags: bool,
}

/// Where the clone shall be.
enum Target {
    /// On a branch; at this commit of the remote where it shall be pulled.
    Branch { name: String, commit: Option<String> },
    /// At a tag.
    Tag { name: String, commit: String },
    /// At a commit, given by at least seven digits of its digest.
    Commit(String),
    /// As it is.
    Left(&'static str),
}

impl Operation for Repo {
    const NAME: &'static str = "git.repo";
    const DOC: &'static str = "Clones a git repository, or brings a clone to a branch, a tag or a commit, and up to what that is on the remote.\n\n\
        It changes nothing when the clone is there already, also when it has commits on top of those of the remote. Work is never lost: where \
        files that git knows were changed on the host, or something else stands at `dest`, a change is refused. git asks for no passwords, and the \
        host key of a remote must be known on the host, or be made known by `ssh_keyscan`, which needs ssh-keygen(1) and ssh-keyscan(1) and looks for \
        the host by the name that `src` has for it. Without `pull`, a clone that is there is not compared with the remote.";

    fn check(&self) -> Result<(), Misuse> {
        check_path("dest", &self.dest)?;
        for (name, value) in [("src", &self.src), ("dest", &self.dest)] {
            if value.is_empty() || value.contains(['\n', '\0']) {
                return Err(Misuse::new(format!("`{name}` is empty or has a line break in it")));
            }
        }
        if let Some(branch) = &self.branch {
            let odd = |c: char| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c);
            if branch.is_empty() || branch.starts_with('-') || branch.contains(odd) || branch.contains("..") {
                return Err(Misuse::new(format!("`{branch}` is no branch, tag or commit")));
            }
        }
        for (what, name) in [("user", &self.user), ("group", &self.group)] {
            name.as_deref().map_or(Ok(()), |name| check_name(what, name))?;
        }
        if self.depth == Some(0) {
            return Err(Misuse::new("`depth` is a number of commits, from 1"));
        }
        if self.recursive_submodules && !self.update_submodules {
            return Err(Misuse::new("`recursive_submodules` says nothing without `update_submodules`"));
        }
        Ok(())
    }

    fn touches(&self) -> Resources {
        match self.scanned() {
            // Only the host says in which home directory its known hosts are.
            Some(_) => Resources::everything(),
            None => self.touched(true),
        }
    }

    fn diff(&self, facts: &Facts<'_>) -> Result<Change, DiffError> {
        let repository = Repository { repo: self.dest.clone() };
        let which = Which { command: "git".to_owned() };
        let submodules = Submodules { repo: self.dest.clone(), recursive: self.recursive_submodules };
        // All are asked before any answer is looked at, so that one round answers them.
        // The directory above says by which other path the clone is known.
        let found = facts.get((&repository, &which, &parent(&self.dest)));
        let stranger = self.stranger(facts);
        // How the remote is asked depends on whether its host is known.
        let remote = match &stranger {
            Ok(stranger) => self.pull.then(|| facts.get(&self.remote(self.branch.clone(), stranger.is_some()))).transpose(),
            Err(_) => Ok(None),
        };
        let local = self.branch.as_ref().map(|name| facts.get((&self.local_branch(name), &self.local(name)))).transpose();
        let stale = self.update_submodules.then(|| facts.get(&submodules)).transpose();
        let (found, git, _) = found?;
        let (stranger, remote, local, stale) = (stranger?, remote?, local?, stale?.unwrap_or_default());
        let trust = stranger.is_some();
        if git.is_none() {
            let hint = "apt.packages { packages = { \"git\" } } before this operation installs it on Debian and its kin";
            return Err(DiffError::refused_with_hint("git is not installed on this host", hint));
        }
        let change = match found {
            None => self.clone_anew(facts, remote, None, trust),
            Some(tree) => match tree.kind {
                Kind::Empty => self.clone_anew(facts, remote, Some(tree), trust),
                Kind::Other => Err(DiffError::refused_with_hint(
                    format!("{} is there and is no repository", self.dest),
                    "remove it, or choose another `dest`: what is there is not overwritten",
                )),
                Kind::Repository => {
                    let target = self.target(facts, &tree, remote.flatten(), local.clone().unwrap_or_default(), trust)?;
                    let (has_branch, has_name) = local.map_or((false, false), |(branch, name)| (branch.is_some(), name.is_some()));
                    self.update(tree, &target, has_branch, has_name, !stale.is_empty())
                }
            },
        }?;
        Ok(match stranger {
            Some((host, file)) => with_host_key(change, &host, &file),
            None => change,
        })
    }

    fn examples() -> Vec<Example> {
        const A: &str = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12";
        const B: &str = "de9f2c7fd25e1b3afad3e85a0bd17d9b100db4b3";
        let (src, dest) = ("https://git.example.com/app", "/srv/app");
        let remote =
            |branch: Option<&str>| RemoteCommit { src: src.to_owned(), branch: branch.map(str::to_owned), trust_unknown_host: false };
        let on = |name: &str, tag: bool, commit: &str| Some(RemoteRef { name: name.to_owned(), tag, commit: commit.to_owned() });
        let commit = |reference: &str| Commit { repo: dest.to_owned(), reference: reference.to_owned() };
        let tree = |commit: &str| WorkTree {
            user: Some("root".to_owned()),
            group: Some("root".to_owned()),
            branch: Some("main".to_owned()),
            commit: Some(commit.to_owned()),
            origin: Some(src.to_owned()),
            ..WorkTree::of(Kind::Repository)
        };
        let example = |title, args, found: Option<WorkTree>| {
            let git = Which { command: "git".to_owned() };
            let above = Found::Is(Status::foreseen(0o755, "root", "root", None));
            let example = Example::new(title, args).fact(&Repository { repo: dest.to_owned() }, found).fact(&parent(dest), above);
            example.fact(&git, Some("/usr/bin/git".to_owned()))
        };
        let ssh_src = "git@git.example.com:app";
        let stranger = KnownHost { host: "git.example.com".to_owned(), port: None };
        let contains = |commit: &str| Contains { repo: dest.to_owned(), commit: commit.to_owned() };
        vec![
            example("Clone", json!({ "src": src, "dest": dest, "user": "deploy" }), None).fact(&remote(None), on("main", false, A)).steps(
                [
                    "GIT_TERMINAL_PROMPT=0 git -c 'safe.directory=*' clone --branch main -- https://git.example.com/app /srv/app",
                    "chown -R -h deploy -- /srv/app",
                ],
            ),
            example("It is there and up to date", json!({ "src": src, "dest": dest }), Some(tree(A)))
                .fact(&remote(None), on("main", false, A))
                .nothing("on main at 2fd4e1c67a2d"),
            example("Pull", json!({ "src": src, "dest": dest, "branch": "main" }), Some(tree(B)))
                .fact(&remote(Some("main")), on("main", false, A))
                .fact(&commit("refs/heads/main"), Some(B.to_owned()))
                .fact(&commit("main"), Some(B.to_owned()))
                .fact(&contains(A), false)
                .steps([
                    "GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0 git -c 'safe.directory=*' -c 'core.fsmonitor=false' -C /srv/app fetch origin \
                     +refs/heads/main:refs/remotes/origin/main",
                    "GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0 git -c 'safe.directory=*' -c 'core.fsmonitor=false' -C /srv/app merge --ff-only \
                     refs/remotes/origin/main",
                ]),
            example("It has commits of its own on top", json!({ "src": src, "dest": dest }), Some(tree(B)))
                .fact(&remote(None), on("main", false, A))
                .fact(&contains(A), true)
                .nothing("on main, ahead of the remote"),
            example("Go to a tag", json!({ "src": src, "dest": dest, "branch": "v1" }), Some(tree(A)))
                .fact(&remote(Some("v1")), on("v1", true, B))
                .fact(&commit("refs/heads/v1"), None)
                .fact(&commit("v1"), None)
                .steps([
                    "GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0 git -c 'safe.directory=*' -c 'core.fsmonitor=false' -C /srv/app fetch origin \
                     +refs/tags/v1:refs/tags/v1",
                    "GIT_TERMINAL_PROMPT=0 GIT_OPTIONAL_LOCKS=0 git -c 'safe.directory=*' -c 'core.fsmonitor=false' -C /srv/app checkout --detach refs/tags/v1",
                ]),
            Example::new("Learn the host key first", json!({ "src": ssh_src, "dest": dest, "ssh_keyscan": true }))
                .fact(&Repository { repo: dest.to_owned() }, None)
                .fact(&parent(dest), Found::Is(Status::foreseen(0o755, "root", "root", None)))
                .fact(&Which { command: "git".to_owned() }, Some("/usr/bin/git".to_owned()))
                .fact(&stranger, Some(Acquaintance { known: false, file: "/root/.ssh/known_hosts".to_owned() }))
                .fact(&RemoteCommit { src: ssh_src.to_owned(), branch: None, trust_unknown_host: true }, on("main", false, A))
                .steps([
                    "keys=$(ssh-keyscan -T 10 -p 22 -- git.example.com 2>/dev/null | grep -v '^#') && test -n \"$keys\" || \
                     { echo 'ssh-keyscan got no host key from git.example.com' >&2; false; } && (umask 077 && mkdir -p -- /root/.ssh && \
                     if test -s /root/.ssh/known_hosts && test -n \"$(tail -c 1 -- /root/.ssh/known_hosts)\"; then echo \
                     >>/root/.ssh/known_hosts; fi && printf '%s\\n' \"$keys\" >>/root/.ssh/known_hosts)",
                    "GIT_TERMINAL_PROMPT=0 git -c 'safe.directory=*' clone --branch main -- git@git.example.com:app /srv/app",
                ]),
            example("No pull", json!({ "src": src, "dest": dest, "pull": false }), Some(tree(B))).nothing("on main at de9f2c7fd25e"),
            example(
                "Work that would be lost",
                json!({ "src": src, "dest": dest }),
                Some(WorkTree { changed: vec!["main.c".to_owned()], ..tree(B) }),
            )
            .fact(&remote(None), on("main", false, A))
            .fact(&contains(A), false)
            .refused("main.c"),
            example("Something else is there", json!({ "src": src, "dest": dest, "pull": false }), Some(WorkTree::of(Kind::Other)))
                .refused("is no repository"),
            example("No such branch", json!({ "src": src, "dest": dest, "branch": "nosuch" }), Some(tree(A)))
                .fact(&remote(Some("nosuch")), None)
                .fact(&commit("refs/heads/nosuch"), None)
                .fact(&commit("nosuch"), None)
                .refused("has no branch or tag `nosuch`"),
        ]
    }
}

impl Repo {
    fn remote(&self, branch: Option<String>, trust_unknown_host: bool) -> RemoteCommit {
        RemoteCommit { src: self.src.clone(), branch, trust_unknown_host }
    }

    /// The host whose key is to be known.
    fn scanned(&self) -> Option<KnownHost> {
        ssh_host(&self.src).filter(|_| self.ssh_keyscan)
    }

    /// The host whose key is to be made known, and the file that it goes into.
    fn stranger(&self, facts: &Facts<'_>) -> Result<Option<(KnownHost, String)>, DiffError> {
        let Some(host) = self.scanned() else { return Ok(None) };
        match facts.get(&host)? {
            Some(acquaintance) if acquaintance.known => Ok(None),
            Some(acquaintance) => Ok(Some((host, acquaintance.file))),
            None => {
                let hint = "apt.packages { packages = { \"openssh-client\" } } before this operation installs it on Debian and its kin";
                Err(DiffError::refused_with_hint("ssh-keygen is not installed on this host, and `ssh_keyscan` needs it", hint))
            }
        }
    }

    fn local(&self, name: &str) -> Commit {
        Commit { repo: self.dest.clone(), reference: name.to_owned() }
    }

    fn local_branch(&self, name: &str) -> Commit {
        self.local(&format!("refs/heads/{name}"))
    }

    /// The clone; and the folders above it, which are made where they are missing when it is cloned anew.
    fn touched(&self, with_parents: bool) -> Resources {
        let above = std::iter::successors(parent_of(&self.dest), |path| parent_of(path)).map(Resource::Path);
        Resources::only(above.filter(|_| with_parents).chain([Resource::Tree(self.dest.clone())]))
    }

    fn no_such_ref(&self, name: &str) -> DiffError {
        DiffError::refused(format!("{} has no branch or tag `{name}`", self.src))
    }

    fn clone_anew(
        &self,
        facts: &Facts<'_>,
        remote: Option<Option<RemoteRef>>,
        empty: Option<WorkTree>,
        trust: bool,
    ) -> Result<Change, DiffError> {
        let remote = match remote {
            Some(remote) => remote,
            None => facts.get(&self.remote(self.branch.clone(), trust))?,
        };
        let digest = self.branch.as_ref().filter(|name| is_digest(name));
        let mut options: Vec<String> = Vec::new();
        if let Some(remote) = &remote {
            options.extend(self.depth.iter().flat_map(|depth| ["--depth".to_owned(), depth.to_string()]));
            options.extend(["--branch".to_owned(), remote.name.clone()]);
        } else if digest.is_some() {
            options.push("--no-checkout".to_owned());
        } else if let Some(name) = &self.branch {
            return Err(self.no_such_ref(name));
        }
        let mut change = Change::new("clone").run(sh!("{} clone {} -- {} {}", git(), options, self.src, self.dest));
        if options.is_empty() {
            // A remote without a commit: there is nothing to be on.
            change = Change::new("clone").run(sh!("{} clone -- {} {}", git(), self.src, self.dest));
        }
        if let (None, Some(digest)) = (&remote, digest) {
            change = change.run(sh!("{} checkout --detach {}", git_in(&self.dest), digest));
        }
        if self.update_submodules {
            change = change.run(self.submodule_update());
        }
        let change = self.with_owner(change).touching(self.touched(empty.is_none()));
        let node = DirectoryNode { mode: None, user: self.user.clone(), group: self.group.clone(), fresh: false };
        let change = change.node(&self.dest, Node::Directory(node));
        let tree = WorkTree {
            user: self.user.clone(),
            group: self.group.clone(),
            branch: remote.as_ref().filter(|remote| !remote.tag).map(|remote| remote.name.clone()),
            commit: remote.map(|remote| remote.commit).or_else(|| digest.cloned()),
            origin: Some(self.src.clone()),
            ..WorkTree::of(Kind::Repository)
        };
        Ok(self.with_answers(change, tree))
    }

    fn target(
        &self,
        facts: &Facts<'_>,
        tree: &WorkTree,
        remote: Option<RemoteRef>,
        known: (Option<String>, Option<String>),
        trust: bool,
    ) -> Result<Target, DiffError> {
        let Some(name) = &self.branch else {
            let Some(current) = &tree.branch else { return Ok(Target::Left("on no branch, so there is nothing to pull")) };
            if !self.pull {
                return Ok(Target::Branch { name: current.clone(), commit: None });
            }
            let remote = match remote {
                Some(remote) if remote.name == *current => Some(remote),
                _ => facts.get(&self.remote(Some(current.clone()), trust))?.filter(|remote| !remote.tag),
            };
            let remote = remote.ok_or_else(|| {
                let message = format!("{} has no branch `{current}`, which {} is on", self.src, self.dest);
                DiffError::refused_with_hint(message, "give the branch that is meant, or pull = false")
            })?;
            return self.ahead_or(facts, tree, remote);
        };
        match remote {
            Some(remote) if remote.tag => Ok(Target::Tag { name: remote.name, commit: remote.commit }),
            Some(remote) => self.ahead_or(facts, tree, remote),
            None if is_digest(name) => Ok(Target::Commit(name.clone())),
            None if self.pull => Err(self.no_such_ref(name)),
            // The remote was not asked, so what the clone itself knows decides what is meant.
            None => Ok(match known {
                _ if tree.branch.as_ref() == Some(name) => Target::Branch { name: name.clone(), commit: None },
                (Some(_), _) => Target::Branch { name: name.clone(), commit: None },
                (None, Some(commit)) => Target::Tag { name: name.clone(), commit },
                (None, None) => match facts.get(&self.remote(Some(name.clone()), trust))?.ok_or_else(|| self.no_such_ref(name))? {
                    RemoteRef { name, tag: true, commit } => Target::Tag { name, commit },
                    RemoteRef { name, commit, .. } => Target::Branch { name, commit: Some(commit) },
                },
            }),
        }
    }

    /// A branch at the remote's commit; at its own, where that was built on the remote's.
    fn ahead_or(&self, facts: &Facts<'_>, tree: &WorkTree, remote: RemoteRef) -> Result<Target, DiffError> {
        let RemoteRef { name, commit, .. } = remote;
        if tree.branch.as_ref() == Some(&name) && tree.commit.as_ref() != Some(&commit) {
            let ahead = facts.get(&Contains { repo: self.dest.clone(), commit: commit.clone() })?;
            if ahead {
                return Ok(Target::Branch { name, commit: None });
            }
        }
        Ok(Target::Branch { name, commit: Some(commit) })
    }

    fn update(&self, tree: WorkTree, target: &Target, has_branch: bool, has_name: bool, stale: bool) -> Result<Change, DiffError> {
        let git = git_in(&self.dest);
        let mut steps: Vec<Shell> = Vec::new();
        let mut said: Vec<String> = Vec::new();
        let mut after = WorkTree { origin: Some(self.src.clone()), ..tree.clone() };
        let mut moves = false;
        if tree.origin.as_deref() != Some(&self.src) {
            said.push(format!("origin {} → {}", tree.origin.as_deref().unwrap_or("none"), self.src));
            let verb = if tree.origin.is_some() { sh!("set-url") } else { sh!("add") };
            steps.push(sh!("{} remote {} origin {}", git, verb, self.src));
        }
        let tags = if self.fetch_tags { sh!(" --tags") } else { sh!("") };
        match target {
            Target::Branch { name, commit } => {
                let switch = tree.branch.as_ref() != Some(name);
                let pull = commit.as_ref().filter(|commit| switch || tree.commit.as_ref() != Some(*commit));
                let (branch, tracking) = (format!("refs/heads/{name}"), format!("refs/remotes/origin/{name}"));
                if pull.is_some() || (switch && !has_branch) {
                    steps.push(sh!("{} fetch{} origin {}", git, tags, format!("+{branch}:{tracking}")));
                }
                if switch {
                    said.push(format!("{} → {name}", tree.branch.as_deref().unwrap_or("no branch")));
                    steps.push(match has_branch {
                        true => sh!("{} checkout {} --", git, name),
                        false => sh!("{} checkout -b {} {}", git, name, tracking),
                    });
                    after.branch = Some(name.clone());
                    // What a branch of the clone's own is at was not asked.
                    after.commit = None;
                }
                if let Some(commit) = pull {
                    if !switch || has_branch {
                        let verb = if self.rebase { sh!("rebase") } else { sh!("merge --ff-only") };
                        steps.push(sh!("{} {} {}", git, verb, tracking));
                    }
                    said.push(format!("{} → {}", short(tree.commit.as_deref()), short(Some(commit))));
                    after.commit = Some(commit.clone());
                }
                moves = switch || pull.is_some();
            }
            Target::Tag { name, commit } => {
                if tree.commit.as_ref() != Some(commit) {
                    let tag = format!("refs/tags/{name}");
                    steps.push(sh!("{} fetch{} origin {}", git, tags, format!("+{tag}:{tag}")));
                    steps.push(sh!("{} checkout --detach {}", git, tag));
                    said.push(format!("{} → tag {name}", short(tree.commit.as_deref())));
                    (after.branch, after.commit) = (None, Some(commit.clone()));
                    moves = true;
                }
            }
            Target::Commit(digest) => {
                if !tree.commit.as_ref().is_some_and(|commit| commit.starts_with(&digest.to_lowercase())) {
                    if !has_name {
                        steps.push(sh!("{} fetch --tags origin", git));
                    }
                    steps.push(sh!("{} checkout --detach {}", git, digest));
                    said.push(format!("{} → {}", short(tree.commit.as_deref()), short(Some(digest))));
                    (after.branch, after.commit) = (None, Some(digest.clone()));
                    moves = true;
                }
            }
            Target::Left(_) => {}
        }
        if moves && !tree.changed.is_empty() {
            return Err(DiffError::refused_with_hint(
                format!("{} has changes that were never committed: {}", self.dest, listed(&tree.changed)),
                format!("commit them, put them aside with `git -C {} stash`, or throw them away with `git checkout`", self.dest),
            ));
        }
        if self.update_submodules && (moves || stale) {
            said.push("submodules".to_owned());
            steps.push(self.submodule_update());
        }
        let owned = |wished: &Option<String>, found: &Option<String>| wished.is_none() || wished == found;
        let wrong_owner = !owned(&self.user, &tree.user) || !owned(&self.group, &tree.group);
        if steps.is_empty() && !wrong_owner {
            return Ok(Change::none(match (target, &tree.branch) {
                (Target::Left(why), _) => (*why).to_owned(),
                (Target::Branch { commit: None, .. }, Some(name)) if self.pull => format!("on {name}, ahead of the remote"),
                (_, Some(name)) => format!("on {name} at {}", short(tree.commit.as_deref())),
                (_, None) => format!("at {}", short(tree.commit.as_deref())),
            }));
        }
        if wrong_owner {
            said.push("owner".to_owned());
        }
        let change = steps.into_iter().fold(Change::new(said.join(", ")), Change::run);
        let change = self.with_owner(change).touching(self.touched(false));
        (after.user, after.group) = (self.user.clone().or(after.user), self.group.clone().or(after.group));
        // After a rebase the branch is at a commit that nobody has seen yet.
        let foretold = after.commit.is_some() && !(self.rebase && moves);
        Ok(if foretold { self.with_answers(change, after) } else { change })
    }

    fn submodule_update(&self) -> Shell {
        let recursive = if self.recursive_submodules { sh!(" --recursive") } else { sh!("") };
        sh!("{} submodule update --init{}", git_in(&self.dest), recursive)
    }

    fn with_owner(&self, change: Change) -> Change {
        let owner = match (&self.user, &self.group) {
            (None, None) => return change,
            (Some(user), None) => user.clone(),
            (user, Some(group)) => format!("{}:{group}", user.as_deref().unwrap_or_default()),
        };
        // Links themselves, never what they lead to: a link in the repository may lead anywhere.
        change.run(sh!("chown -R -h {} -- {}", owner, self.dest))
    }

    fn with_answers(&self, mut change: Change, tree: WorkTree) -> Change {
        let head = self.local("HEAD");
        if tree.commit.as_ref().is_some_and(|commit| is_digest(commit) && commit.len() >= 40) {
            change = change.answer(&head, &tree.commit);
        }
        change = change.answer(&Branch { repo: self.dest.clone() }, &tree.branch);
        if let Some(name) = &self.branch {
            change = change.answer(&self.local(name), &tree.commit);
            let branch = tree.commit.clone().filter(|_| tree.branch.as_ref() == Some(name));
            change = change.answer(&self.local_branch(name), &branch);
        }
        if self.update_submodules {
            let submodules = Submodules { repo: self.dest.clone(), recursive: self.recursive_submodules };
            change = change.answer(&submodules, &Vec::new());
        }
        change.answer(&Repository { repo: self.dest.clone() }, &Some(tree))
    }
}

/// Before all else, makes the key of a host known.
fn with_host_key(mut change: Change, host: &KnownHost, file: &str) -> Change {
    let said = format!("host key of {}", host.host);
    change.reason = if change.is_none() { said } else { format!("{said}, {}", change.reason) };
    change.actions.insert(0, Action::Run(learn_host_key(host, file).into()));
    let paths = [Some(file.to_owned()), parent_of(file)].into_iter().flatten().map(Resource::Path);
    change.touches = change.touches.map(|touches| touches.and(Resources::only(paths)));
    change.answer(host, &Some(Acquaintance { known: true, file: file.to_owned() }))
}

/// Whether a text is the digest of a commit, or the beginning of one that is long enough to be meant as such.
fn is_digest(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The beginning of a digest, for people.
fn short(commit: Option<&str>) -> String {
    commit.map_or_else(|| "nothing".to_owned(), |commit| commit.chars().take(12).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_meant_is_misuse() {
        for more in [
            json!({ "branch": "--upload-pack=x" }),
            json!({ "branch": "a b" }),
            json!({ "branch": "a..b" }),
            json!({ "depth": 0 }),
            json!({ "recursive_submodules": true }),
            json!({ "user": "a:b" }),
            json!({ "src": "" }),
            json!({ "dest": "~/app" }),
        ] {
            let mut args = json!({ "src": "https://git.example.com/app", "dest": "/srv/app" });
            args.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
            let repo: Repo = serde_json::from_value(args.clone()).expect("arguments");
            assert!(repo.check().is_err(), "{args}");
        }
    }

    #[test]
    fn digests_are_told_from_names() {
        assert!(is_digest("2fd4e1c"));
        assert!(!is_digest("2fd4e1"));
        assert!(!is_digest("feature"));
    }
}
