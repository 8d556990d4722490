//! As whom commands run: a chain of programs that change the user, and where their passwords come from.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::secret::Secret;

/// A program that changes the user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// doas(1) of OpenBSD, or its ports.
    Doas,
    /// sudo(8).
    Sudo,
    /// su(1).
    Su,
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Doas => "doas",
            Self::Sudo => "sudo",
            Self::Su => "su",
        })
    }
}

/// The programs that change the user before a command runs. They are applied in this order: doas, then sudo, then su; with none of them it runs
/// as the user who is logged in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Privilege {
    /// Under doas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doas: Option<Doas>,
    /// Under sudo.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sudo: Option<Sudo>,
    /// Under su.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub su: Option<Su>,
}

/// A change of the user by doas.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Doas {
    /// The user that it changes to.
    pub user: String,
}

/// A change of the user by sudo.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Sudo {
    /// The user that it changes to.
    pub user: String,
    /// Through the user's login shell (`sudo -i`).
    #[serde(default)]
    pub login: bool,
    /// With the environment that there is (`sudo -E`).
    #[serde(default)]
    pub preserve_env: bool,
    /// The password, where the deploy or the inventory gives one. It is written nowhere.
    #[serde(skip)]
    pub password: Option<Secret>,
}

/// A change of the user by su.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Su {
    /// The user that it changes to.
    pub user: String,
    /// As a log-in (`su -l`).
    #[serde(default)]
    pub login: bool,
    /// The shell that su starts (`su -s`).
    #[serde(default)]
    pub shell: Option<String>,
    /// The password, where the deploy or the inventory gives one. It is written nowhere.
    #[serde(skip)]
    pub password: Option<Secret>,
}

impl Privilege {
    /// Under sudo as this user, without anything else.
    pub fn sudo(user: impl Into<String>) -> Self {
        Self { sudo: Some(Sudo { user: user.into(), login: false, preserve_env: false, password: None }), ..Self::default() }
    }

    /// Itself, where it changes the user at all.
    pub fn some(&self) -> Option<&Self> {
        (self.doas.is_some() || self.sudo.is_some() || self.su.is_some()).then_some(self)
    }

    /// The last user of the chain; none where nothing changes it.
    pub fn user(&self) -> Option<&str> {
        let su = self.su.as_ref().map(|su| su.user.as_str());
        su.or(self.sudo.as_ref().map(|sudo| sudo.user.as_str())).or(self.doas.as_ref().map(|doas| doas.user.as_str()))
    }

    /// The user that this program of the chain changes to.
    pub fn user_of(&self, tool: Tool) -> Option<&str> {
        match tool {
            Tool::Doas => self.doas.as_ref().map(|doas| doas.user.as_str()),
            Tool::Sudo => self.sudo.as_ref().map(|sudo| sudo.user.as_str()),
            Tool::Su => self.su.as_ref().map(|su| su.user.as_str()),
        }
    }

    /// The password that was given for this program of the chain.
    pub fn password_of(&self, tool: Tool) -> Option<&Secret> {
        match tool {
            Tool::Doas => None,
            Tool::Sudo => self.sudo.as_ref()?.password.as_ref(),
            Tool::Su => self.su.as_ref()?.password.as_ref(),
        }
    }
}

/// Gives the passwords that a run asks its user for. Each is asked for once per run, whatever the number of hosts.
pub trait AskPassword: Send + Sync {
    /// The password for this program. `why` says which host asks, for which user, in words for the prompt.
    ///
    /// # Errors
    /// When there is none to be had, as a sentence fragment that names the ways out.
    fn password<'a>(&'a self, tool: Tool, why: &'a str) -> BoxFuture<'a, Result<Secret, String>>;
}

/// Where nobody can be asked.
#[derive(Clone, Copy, Debug)]
pub struct NobodyToAsk;

impl AskPassword for NobodyToAsk {
    fn password<'a>(&'a self, tool: Tool, _why: &'a str) -> BoxFuture<'a, Result<Secret, String>> {
        Box::pin(std::future::ready(Err(ways_out(tool).to_owned())))
    }
}

/// What to do where a password is asked for and none is given.
pub fn ways_out(tool: Tool) -> &'static str {
    match tool {
        Tool::Sudo => {
            "give it with --ask-sudo-password at a terminal or as `_sudo_password`, allow it without one (NOPASSWD in sudoers), or log in as that user"
        }
        Tool::Su => "give it with --ask-su-password at a terminal or as `_su_password`, use `_sudo`, or log in as that user",
        Tool::Doas => "give it with --ask-doas-password at a terminal, allow it without one (nopass in doas.conf), or log in as that user",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_of_a_chain_is_written_nowhere() {
        let mut privilege = Privilege::sudo("root");
        privilege.sudo.as_mut().expect("sudo").password = Some(Secret::new("canary-of-sudo"));
        privilege.su = Some(Su { user: "db".to_owned(), login: true, shell: None, password: Some(Secret::new("canary-of-su")) });
        let written = format!("{privilege:?} {}", serde_json::to_string(&privilege).expect("data"));
        assert!(!written.contains("canary"), "{written}");
        assert_eq!((privilege.user(), privilege.user_of(Tool::Sudo)), (Some("db"), Some("root")));
        assert_eq!(privilege.password_of(Tool::Su).map(Secret::reveal), Some("canary-of-su"));
        assert_eq!((Privilege::default().some(), Privilege::default().user()), (None, None));
    }
}
