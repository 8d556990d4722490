//! One run at a time per machine: with what a run claims a host, and what it hears where it cannot have it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// With what a run claims a host before its first change there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The name of the run, as the journal has it.
    pub run: String,
    /// Who started it.
    pub user: String,
    /// The name of the machine that it was started on.
    pub controller: String,
    /// The host's name in that run.
    pub host: String,
    /// How long the claim holds after the last sign of life, in whole seconds of the host's own uptime.
    pub lease: Duration,
}

/// Who changes a host: what another run is told. Texts come from the host, so they are printable and bounded, and nothing more can be said of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The name of the run.
    pub run: String,
    /// Who started it.
    pub user: String,
    /// The machine that it was started on.
    pub controller: String,
    /// Since when, by the host's own clock in UTC: `2026-03-01 12:30:00 UTC`.
    pub since: String,
}

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { run, user, controller, since } = self;
        write!(f, "{user} on {controller}, run {run}, since {since}")
    }
}

/// Why a step was not done: the lock of its host. Nothing was changed by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "lock")]
pub enum Locked {
    /// Another run changes the host.
    Held {
        /// Who.
        holder: Holder,
    },
    /// This run has the lock, but something may have changed the host after its facts were read: they are to be read again.
    Moved {
        /// Another host of this run which is the same machine, and through which it had the lock before.
        same_machine: Option<String>,
    },
    /// This run had the lock, but gave no sign of life until its lease had run out, and another run took it.
    TakenOver {
        /// Who; none where the lock is gone.
        holder: Option<Holder>,
    },
    /// There is no place on the host where a lock could be kept.
    Unavailable {
        /// Why, as a sentence fragment.
        reason: String,
    },
}

/// What there is to say about the lock of a host while an operation goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "news")]
pub enum LockNews {
    /// Another run changes the host; it is waited for.
    Waiting {
        /// Who.
        holder: Holder,
        /// For how long at most.
        at_most: Duration,
    },
    /// The host may have changed after its facts were read: they are read again.
    Moved,
    /// Another host of the run is the same machine.
    SameMachine {
        /// Its name.
        other: String,
    },
    /// There is no place for a lock; the run goes on without one.
    Unavailable {
        /// Why, as a sentence fragment.
        reason: String,
    },
}
