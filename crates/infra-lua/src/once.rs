//! What runs once per run for all hosts: `local_command` and `once`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use infra_core::Value;
use tokio::sync::watch;

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kept {
    /// The standard output of a command, without the newlines at its end.
    Output(Arc<Vec<u8>>),
    /// What a function gave back.
    Data(Arc<Value>),
}

/// What came of it, or why nothing.
pub(crate) type Outcome = Result<Kept, String>;

/// Whose turn it is.
pub(crate) enum Turn {
    /// Whoever asked has to do it and to tell the others.
    Mine(Teller),
    /// It was done.
    Done(Outcome),
}

/// Tells the others. Dropped untold, it tells them that nothing came of it.
pub(crate) struct Teller(watch::Sender<Option<Outcome>>);

impl Teller {
    pub fn tell(self, outcome: Outcome) {
        self.0.send_replace(Some(outcome));
    }
}

/// What was done once, by the place and the arguments of the call.
#[derive(Default)]
pub(crate) struct OnceStore(Mutex<HashMap<String, watch::Receiver<Option<Outcome>>>>);

impl OnceStore {
    /// Whether this has to be done, or what came of it. Waits for whoever is doing it.
    pub async fn turn(&self, key: &str) -> Turn {
        let mut receiver = {
            let mut slots = self.0.lock().expect("no one panics while holding it");
            match slots.get(key) {
                Some(receiver) => receiver.clone(),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    slots.insert(key.to_owned(), receiver);
                    return Turn::Mine(Teller(sender));
                }
            }
        };
        let told = receiver.wait_for(Option::is_some).await.ok().and_then(|told| told.clone());
        Turn::Done(told.unwrap_or_else(|| Err("the host on which it ran did not come to its end".to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_does_it_and_all_are_told() {
        let store = OnceStore::default();
        let Turn::Mine(teller) = store.turn("a").await else { panic!("the first") };
        let told = Ok(Kept::Output(Arc::new(b"x".to_vec())));
        let (other, ()) = tokio::join!(store.turn("a"), async { teller.tell(told.clone()) });
        assert!(matches!(other, Turn::Done(outcome) if outcome == told));
        let Turn::Mine(dropped) = store.turn("b").await else { panic!("the first") };
        drop(dropped);
        assert!(matches!(store.turn("b").await, Turn::Done(Err(_))));
    }
}
