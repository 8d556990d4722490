//! The fact `git.contains`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::git_command::{git_in, in_repository};

/// Whether what is checked out contains a commit.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Contains {
    /// The folder of the repository.
    #[schemars(extend("x-host-path" = true))]
    pub repo: String,
    /// The commit.
    pub commit: String,
}

impl Fact for Contains {
    const NAME: &'static str = "git.contains";
    const DOC: &'static str = "Whether what is checked out in a repository is this commit or was built on it: true or false. It is false as well where the \
                               repository does not know the commit, or is none.";
    type Value = bool;

    fn command(&self) -> Command {
        let question = sh!("{} merge-base --is-ancestor {} HEAD 2>/dev/null && echo yes || :", git_in(&self.repo), self.commit);
        in_repository(&self.repo, question).into()
    }

    fn parse(&self, output: &Output) -> Result<bool, ParseError> {
        Ok(output.expect_success()?.trim() == "yes")
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Tree(self.repo.clone()), Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { repo: "/srv/app".to_owned(), commit: "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12".to_owned() };
        vec![FactExample::new(&question, "yes\n", true), FactExample::new(&question, "", false)]
    }
}
