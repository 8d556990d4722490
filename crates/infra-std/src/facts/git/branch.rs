//! The fact `git.branch`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::git_command::{git_in, in_repository};

/// The branch that a repository is on.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Branch {
    /// The folder of the repository.
    #[schemars(extend("x-host-path" = true))]
    pub repo: String,
}

impl Fact for Branch {
    const NAME: &'static str = "git.branch";
    const DOC: &'static str = "The name of the branch that a repository is on, whatever tags there are; `nil` where it is on none (a tag or a commit is \
                               checked out), and where there is no repository.";
    type Value = Option<String>;

    fn command(&self) -> Command {
        in_repository(&self.repo, sh!("{} symbolic-ref -q HEAD || :", git_in(&self.repo))).into()
    }

    fn parse(&self, output: &Output) -> Result<Option<String>, ParseError> {
        let text = output.expect_success()?;
        Ok(text.trim().strip_prefix("refs/heads/").map(str::to_owned))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Tree(self.repo.clone()), Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { repo: "/srv/app".to_owned() };
        vec![FactExample::new(&question, "refs/heads/feature/x\n", Some("feature/x".to_owned())), FactExample::new(&question, "", None)]
    }
}
