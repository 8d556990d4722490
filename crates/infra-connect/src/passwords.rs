//! Passwords of programs that change the user: where they come from, and to how many hosts an untried one goes.
//!
//! A password that no host has taken yet is sent to one host alone, and the others wait. Is it taken, they go on; is it not, they are told so, and it
//! goes nowhere again. So a wrong one counts once, and locks no account that lives on many hosts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use infra_core::privilege::{AskPassword, NobodyToAsk, Privilege, Tool};
use infra_core::secret::Secret;
use tokio::sync::OwnedMutexGuard;

use crate::privilege::{Kind, Refused, needed, wrong};

/// What became of a password.
#[derive(Clone, Debug, Default)]
enum Verdict {
    #[default]
    Untried,
    Taken,
    /// By this host.
    Rejected(String),
}

type Verdicts = Mutex<HashMap<(Tool, Secret), Arc<tokio::sync::Mutex<Verdict>>>>;

fn verdict(verdicts: &Verdicts, tool: Tool, secret: &Secret) -> Arc<tokio::sync::Mutex<Verdict>> {
    verdicts.lock().expect("nothing panics while it holds this lock").entry((tool, secret.clone())).or_default().clone()
}

/// The passwords of one run, shared by all hosts.
pub(crate) struct Passwords {
    asker: Arc<dyn AskPassword>,
    everywhere: Verdicts,
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new(Arc::new(NobodyToAsk))
    }
}

impl Passwords {
    /// Those that `asker` gives, besides those of the deploy and the inventory.
    pub(crate) fn new(asker: Arc<dyn AskPassword>) -> Self {
        Self { asker, everywhere: Verdicts::default() }
    }
}

/// The passwords of one host of the run.
pub(crate) struct HostPasswords {
    run: Arc<Passwords>,
    name: String,
    here: Verdicts,
}

/// A password that may be sent once. Dropped without a word, it counts as untried.
pub(crate) struct Attempt {
    secret: Secret,
    host: String,
    /// Held until there is a verdict.
    everywhere: Option<OwnedMutexGuard<Verdict>>,
    here: Option<OwnedMutexGuard<Verdict>>,
}

impl HostPasswords {
    /// For the host of this name.
    pub(crate) fn new(run: Arc<Passwords>, name: &str) -> Self {
        Self { run, name: name.to_owned(), here: Verdicts::default() }
    }

    /// The password for a prompt that was read.
    ///
    /// # Errors
    /// When there is none, or it was wrong elsewhere.
    pub(crate) async fn attempt(&self, privilege: &Privilege, tool: Tool) -> Result<Attempt, Refused> {
        let secret = match privilege.password_of(tool) {
            Some(secret) => secret.clone(),
            None => {
                let user = privilege.user_of(tool).unwrap_or("root");
                let why = format!("{tool} on {} asks for a password to become {user}", self.name);
                self.run.asker.password(tool, &why).await.map_err(|why| needed(privilege, tool, &why))?
            }
        };
        if secret.reveal().is_empty() || secret.reveal().contains(['\n', '\r', '\0']) {
            return Err(needed(privilege, tool, "the one that was given is empty or holds a line break"));
        }
        let here = verdict(&self.here, tool, &secret).lock_owned().await;
        match &*here {
            Verdict::Rejected(_) => return Err(wrong(tool)),
            Verdict::Taken => return Ok(Attempt { secret, host: self.name.clone(), everywhere: None, here: None }),
            Verdict::Untried => {}
        }
        let everywhere = verdict(&self.run.everywhere, tool, &secret).lock_owned().await;
        if let Verdict::Rejected(host) = &*everywhere {
            let message = format!("{tool} asks for a password, and {host} did not take the one there is; it is tried on no other host");
            return Err(Refused { kind: Kind::Wrong(tool), message });
        }
        let everywhere = Some(everywhere).filter(|verdict| matches!(**verdict, Verdict::Untried));
        Ok(Attempt { secret, host: self.name.clone(), everywhere, here: Some(here) })
    }
}

impl Attempt {
    /// The line that answers the prompt.
    pub(crate) fn line(&self) -> String {
        format!("{}\n", self.secret.reveal())
    }

    /// The text without the password, should anything have printed it.
    pub(crate) fn hide(&self, text: &str) -> String {
        text.replace(self.secret.reveal(), "(hidden)")
    }

    /// The host took it.
    pub(crate) fn taken(mut self) {
        self.decide(&Verdict::Taken);
    }

    /// The host did not. Was it the first one, no other will see it; else it is this host alone whose password is another one.
    pub(crate) fn rejected(mut self) {
        let rejected = Verdict::Rejected(self.host.clone());
        self.decide(&rejected);
    }

    fn decide(&mut self, verdict: &Verdict) {
        for held in [self.here.take(), self.everywhere.take()].into_iter().flatten() {
            let mut held = held;
            *held = verdict.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn privilege(password: &str) -> Privilege {
        let mut privilege = Privilege::sudo("root");
        privilege.sudo.as_mut().expect("sudo").password = Some(Secret::new(password));
        privilege
    }

    #[tokio::test]
    async fn an_untried_password_goes_to_one_host_and_a_rejected_one_nowhere_again() {
        let run = Arc::new(Passwords::default());
        let hosts: Vec<_> = ["a", "b", "c"].map(|name| HostPasswords::new(run.clone(), name)).into();
        let wrong = privilege("wrong-one");
        let first = hosts[0].attempt(&wrong, Tool::Sudo).await.expect("untried");
        let mut second = Box::pin(hosts[1].attempt(&wrong, Tool::Sudo));
        assert!(futures_poll(&mut second).is_none(), "the others wait");
        first.rejected();
        let refused = second.await.err().expect("rejected elsewhere");
        assert_eq!(refused.message, "sudo asks for a password, and a did not take the one there is; it is tried on no other host");
        assert_eq!(hosts[0].attempt(&wrong, Tool::Sudo).await.err().expect("rejected here").kind, Kind::Wrong(Tool::Sudo));

        // One whose verdict nobody heard is tried by the next.
        let right = privilege("right-one");
        drop(hosts[0].attempt(&right, Tool::Sudo).await.expect("untried"));
        hosts[1].attempt(&right, Tool::Sudo).await.expect("still untried").taken();
        let both = [hosts[0].attempt(&right, Tool::Sudo).await, hosts[2].attempt(&right, Tool::Sudo).await];
        let [zero, two] = both.map(|attempt| attempt.unwrap_or_else(|_| panic!("taken by b, so both may at once")));
        two.rejected();
        zero.taken();
        assert!(hosts[2].attempt(&right, Tool::Sudo).await.is_err() && hosts[0].attempt(&right, Tool::Sudo).await.is_ok());

        let nobody = hosts[0].attempt(&Privilege::sudo("db"), Tool::Sudo).await.err().expect("nobody to ask");
        assert!(nobody.message.starts_with("sudo asks for a password to become db; give it with --ask-sudo-password"), "{nobody:?}");
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
