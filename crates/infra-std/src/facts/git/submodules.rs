//! The fact `git.submodules`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::git_command::{git_in, in_repository};

/// The submodules of a repository that are not as it wants them.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Submodules {
    /// The folder of the repository.
    #[schemars(extend("x-host-path" = true))]
    pub repo: String,
    /// Look into submodules of submodules as well.
    #[serde(default)]
    pub recursive: bool,
}

impl Fact for Submodules {
    const NAME: &'static str = "git.submodules";
    const DOC: &'static str = "The submodules of a repository that are not as it wants them, because they are not there yet or another commit is checked \
                               out: a list of paths; empty where there is no repository.";
    type Value = Vec<String>;

    fn command(&self) -> Command {
        let recursive = if self.recursive { sh!("--recursive") } else { sh!("") };
        in_repository(&self.repo, sh!("{} submodule status {}", git_in(&self.repo), recursive)).into()
    }

    fn parse(&self, output: &Output) -> Result<Vec<String>, ParseError> {
        let text = output.expect_success()?;
        // A mark, the commit, a space, the path, and for those that are there a name of the commit in parentheses.
        let path = |line: &str| {
            let (_, rest) = line.strip_prefix(['-', '+', 'U'])?.split_once(' ')?;
            let named = rest.rsplit_once(" (").filter(|_| rest.ends_with(')'));
            Some(named.map_or(rest, |(path, _)| path).to_owned())
        };
        Ok(text.lines().filter_map(path).collect())
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Tree(self.repo.clone()), Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { repo: "/srv/app".to_owned(), recursive: false };
        let printed = " 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12 lib/a (heads/main)\n-de9f2c7fd25e1b3afad3e85a0bd17d9b100db4b3 lib/b\n\
                       +de9f2c7fd25e1b3afad3e85a0bd17d9b100db4b3 lib/c d (v1-3-gde9f2c7)\n";
        vec![FactExample::new(&question, printed, vec!["lib/b".to_owned(), "lib/c d".to_owned()])]
    }
}
