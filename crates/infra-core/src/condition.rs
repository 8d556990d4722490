//! Conditions on the outcome of earlier operations, decided in the plan where they can be.

use serde::{Deserialize, Serialize};

use crate::late::FunctionId;

/// The number of an operation call on one host, from 0, in the order of its script.
pub type CallIndex = u32;

/// Which outcome of an operation a condition asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// `did_change`: it ended well and changed something.
    Change,
    /// `did_not_change`: it ended well and changed nothing.
    NotChange,
    /// `did_succeed`: it ended well.
    Succeed,
    /// `did_error`: it failed.
    Error,
}

/// A condition, as `_if` and boolean arguments take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Decided when it was written.
    Always(bool),
    /// The outcome of an earlier call on the same host.
    Outcome(CallIndex, Did),
    /// All of them hold; true where there are none.
    All(Vec<Condition>),
    /// Any of them holds; false where there are none.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// The call changed something on any of the hosts that registered it. It is open until all of them have ended it.
    AnyHost(CallIndex),
    /// What a function gives when the turn comes: open until then.
    Function(FunctionId),
}

/// What is known of a call's outcome: `None` means not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Whether it changed something.
    pub changed: Option<bool>,
    /// Whether it ended well.
    pub succeeded: Option<bool>,
    /// Whether it changed something on any host that registered it.
    pub changed_anywhere: Option<bool>,
}

impl Known {
    /// It will change something, or has: as the plan sees it, it will end well too.
    pub const CHANGED: Self = Self { changed: Some(true), succeeded: Some(true), changed_anywhere: Some(true) };
    /// There is nothing to do, or was.
    pub const UNCHANGED: Self = Self { changed: Some(false), succeeded: Some(true), changed_anywhere: None };
    /// It failed.
    pub const FAILED: Self = Self { changed: Some(false), succeeded: Some(false), changed_anywhere: None };
    /// Nothing is known yet.
    pub const OPEN: Self = Self { changed: None, succeeded: None, changed_anywhere: None };
}

impl Condition {
    /// Decides the condition with what is known of each call; `None` while it is open.
    pub fn decide(&self, known: &impl Fn(CallIndex) -> Known) -> Option<bool> {
        match self {
            Self::Always(value) => Some(*value),
            Self::Outcome(call, did) => {
                let Known { changed, succeeded, .. } = known(*call);
                match did {
                    Did::Change => changed,
                    Did::NotChange => match (changed, succeeded) {
                        (Some(true), _) | (_, Some(false)) => Some(false),
                        (Some(false), Some(true)) => Some(true),
                        _ => None,
                    },
                    Did::Succeed => succeeded,
                    Did::Error => succeeded.map(|ok| !ok),
                }
            }
            Self::Not(condition) => condition.decide(known).map(|holds| !holds),
            Self::AnyHost(call) => known(*call).changed_anywhere,
            Self::Function(_) => None,
            Self::All(list) => {
                let decided: Vec<_> = list.iter().map(|one| one.decide(known)).collect();
                if decided.contains(&Some(false)) {
                    Some(false)
                } else if decided.contains(&None) {
                    None
                } else {
                    Some(true)
                }
            }
            Self::Any(list) => {
                let decided: Vec<_> = list.iter().map(|one| one.decide(known)).collect();
                if decided.contains(&Some(true)) {
                    Some(true)
                } else if decided.contains(&None) {
                    None
                } else {
                    Some(false)
                }
            }
        }
    }

    /// The functions in it, in the order in which they stand.
    pub fn functions(&self) -> Vec<FunctionId> {
        match self {
            Self::Function(function) => vec![*function],
            Self::Not(condition) => condition.functions(),
            Self::All(list) | Self::Any(list) => list.iter().flat_map(Self::functions).collect(),
            Self::Always(_) | Self::Outcome(..) | Self::AnyHost(_) => Vec::new(),
        }
    }

    /// The condition with what its functions gave in their place.
    pub fn with_functions(&self, gave: &impl Fn(FunctionId) -> Option<bool>) -> Self {
        let all = |list: &[Self]| list.iter().map(|one| one.with_functions(gave)).collect();
        match self {
            Self::Function(function) => gave(*function).map_or_else(|| self.clone(), Self::Always),
            Self::Not(condition) => Self::Not(Box::new(condition.with_functions(gave))),
            Self::All(list) => Self::All(all(list)),
            Self::Any(list) => Self::Any(all(list)),
            Self::Always(_) | Self::Outcome(..) | Self::AnyHost(_) => self.clone(),
        }
    }

    /// The calls of whose outcome on any host it asks, in the order in which they stand.
    pub fn any_host_calls(&self) -> Vec<CallIndex> {
        match self {
            Self::AnyHost(call) => vec![*call],
            Self::Not(condition) => condition.any_host_calls(),
            Self::All(list) | Self::Any(list) => list.iter().flat_map(Self::any_host_calls).collect(),
            Self::Always(_) | Self::Outcome(..) | Self::Function(_) => Vec::new(),
        }
    }

    /// The calls that it asks about, each once, in ascending order.
    pub fn calls(&self) -> Vec<CallIndex> {
        let mut calls = Vec::new();
        self.collect(&mut calls);
        calls.sort_unstable();
        calls.dedup();
        calls
    }

    fn collect(&self, calls: &mut Vec<CallIndex>) {
        match self {
            Self::Always(_) | Self::Function(_) => {}
            Self::Outcome(call, _) | Self::AnyHost(call) => calls.push(*call),
            Self::Not(condition) => condition.collect(calls),
            Self::All(list) | Self::Any(list) => list.iter().for_each(|one| one.collect(calls)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_three_valued() {
        let known = |call| match call {
            0 => Known::CHANGED,
            1 => Known::UNCHANGED,
            2 => Known::FAILED,
            _ => Known::OPEN,
        };
        let outcome = Condition::Outcome;
        for (condition, decided) in [
            (outcome(0, Did::Change), Some(true)),
            (outcome(0, Did::NotChange), Some(false)),
            (outcome(1, Did::NotChange), Some(true)),
            (outcome(2, Did::NotChange), Some(false)),
            (outcome(2, Did::Error), Some(true)),
            (outcome(3, Did::Change), None),
            (Condition::All(vec![outcome(3, Did::Change), outcome(1, Did::Change)]), Some(false)),
            (Condition::All(vec![outcome(3, Did::Change), outcome(0, Did::Change)]), None),
            (Condition::Any(vec![outcome(3, Did::Change), outcome(0, Did::Change)]), Some(true)),
            (Condition::Any(vec![]), Some(false)),
            (Condition::Not(Box::new(outcome(0, Did::Change))), Some(false)),
            (Condition::Not(Box::new(outcome(3, Did::Change))), None),
            (Condition::AnyHost(0), Some(true)),
            (Condition::AnyHost(1), None),
            (Condition::All(vec![]), Some(true)),
        ] {
            assert_eq!(condition.decide(&known), decided, "{condition:?}");
        }
    }

    #[test]
    fn functions_are_open_until_they_were_called() {
        let open = |_| Known::OPEN;
        let not = |one| Condition::Not(Box::new(one));
        let condition = Condition::All(vec![Condition::Function(0), not(Condition::Any(vec![Condition::Function(1)]))]);
        assert_eq!(condition.decide(&open), None);
        assert_eq!(condition.functions(), [0, 1]);
        assert_eq!(condition.any_host_calls(), [0; 0]);
        assert_eq!(Condition::Any(vec![not(Condition::AnyHost(3)), condition.clone(), Condition::AnyHost(1)]).any_host_calls(), [3, 1]);
        let first = condition.with_functions(&|function| (function == 0).then_some(true));
        assert_eq!((first.decide(&open), first.functions()), (None, vec![1]));
        assert_eq!(first.with_functions(&|_| Some(false)).decide(&open), Some(true));
    }
}
