//! The fact `git.commit`.

use infra_core::command::Command;
use infra_core::example::FactExample;
use infra_core::fact::{Fact, ParseError};
use infra_core::output::Output;
use infra_core::resources::{Resource, Resources};
use infra_core::sh;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::git_command::{git_in, in_repository};

/// The commit that a name in a repository stands for.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Commit {
    /// The folder of the repository.
    #[schemars(extend("x-host-path" = true))]
    pub repo: String,
    /// A branch, a tag, a commit, or another revision of gitrevisions(7); what is checked out where not given.
    #[serde(rename = "ref", default = "head")]
    pub reference: String,
}

fn head() -> String {
    "HEAD".to_owned()
}

impl Fact for Commit {
    const NAME: &'static str = "git.commit";
    const DOC: &'static str =
        "The commit that a name in a repository stands for, as its whole digest; `nil` where there is no such name or no repository.";
    type Value = Option<String>;

    fn command(&self) -> Command {
        let revision = format!("{}^{{commit}}", self.reference);
        in_repository(&self.repo, sh!("{} rev-parse -q --verify --end-of-options {} 2>/dev/null || :", git_in(&self.repo), revision)).into()
    }

    fn parse(&self, output: &Output) -> Result<Option<String>, ParseError> {
        let text = output.expect_success()?;
        let digest = text.lines().map(str::trim).find(|line| line.len() >= 40 && line.bytes().all(|byte| byte.is_ascii_hexdigit()));
        Ok(digest.map(str::to_owned))
    }

    fn rests_on(&self) -> Resources {
        Resources::only([Resource::Tree(self.repo.clone()), Resource::Packages])
    }

    fn examples() -> Vec<FactExample> {
        let question = Self { repo: "/srv/app".to_owned(), reference: head() };
        let digest = "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12";
        vec![
            FactExample::new(&question, "2fd4e1c67a2d28fced849ee1bb76e7391b93eb12\n", Some(digest.to_owned())),
            FactExample::new(&question, "", None),
        ]
    }
}
