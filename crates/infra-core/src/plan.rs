//! What prepare produces: plain data, in the order of execution.

use serde::{Deserialize, Serialize};

use crate::change::TextChange;
use crate::condition::CallIndex;
use crate::diagnostic::Location;
use crate::earlier::{EarlierNote, Mark};
use crate::host::HostId;
use crate::operation::Idempotence;
use crate::script::BlockKind;
use crate::waves::Batch;

/// An operation's place in the plan, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpId(pub u32);

impl OpId {
    /// The place as an index into [`Plan::operations`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// All operations, in the order in which they are executed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The operations; an [`OpId`] is a place here.
    pub operations: Vec<PlannedOperation>,
    /// The `parallel` and `rolling` blocks, in the order of their first operation; a [`BlockId`] is a place here.
    pub blocks: Vec<PlannedBlock>,
    /// What was done to make an order where hosts disagreed, for people; shown at `-v`.
    pub notes: Vec<String>,
    /// What is made of earlier runs, where this one goes on from them: in the order of the operations.
    #[serde(default)]
    pub earlier: Vec<EarlierNote>,
}

/// A block's place in the plan, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BlockId(pub u32);

impl BlockId {
    /// The place as an index into [`Plan::blocks`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A `parallel` or `rolling` block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedBlock {
    /// Its place.
    pub id: BlockId,
    /// What it does.
    pub kind: BlockKind,
    /// Its title for people: its name, or its kind and place.
    pub title: String,
    /// Where it is called.
    pub location: Option<Location>,
}

/// One operation and all hosts that registered it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedOperation {
    /// Its place.
    pub id: OpId,
    /// `module.operation`.
    pub kind: String,
    /// Its title, folded where hosts give it different ones.
    pub title: String,
    /// Where it is called.
    pub location: Option<Location>,
    /// Whether a second run is the same as one.
    pub idempotence: Idempotence,
    /// The waves its hosts go in, where they do.
    pub serial: Option<Batch>,
    /// The blocks around it, outermost first: places in [`Plan::blocks`].
    pub blocks: Vec<BlockId>,
    /// On one host only.
    pub run_once: bool,
    /// The hosts, in inventory order.
    pub hosts: Vec<HostOutlook>,
}

/// What the plan says of an operation on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostOutlook {
    /// The host.
    pub host: HostId,
    /// The call in the host's own order.
    pub call: CallIndex,
    /// What will happen.
    pub outlook: Outlook,
    /// What a later run knows it by.
    #[serde(default)]
    pub mark: Mark,
}

/// What will happen: one of three.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outlook")]
pub enum Outlook {
    /// It will change something.
    Change {
        /// What, in a few words.
        reason: String,
        /// The commands and uploads, as shown to a person.
        steps: Vec<String>,
        /// Text files before and after.
        texts: Vec<TextChange>,
    },
    /// There is nothing to do.
    NoChange {
        /// Why.
        reason: String,
    },
    /// It is open until its turn comes.
    Depends {
        /// The title of the earlier operation that it depends on; none where a function of the script says what it is or whether it runs.
        on: Option<String>,
        /// What it would do as the host stands now, where that can be told.
        would: Option<String>,
    },
}

impl Outlook {
    /// Whether it will change something for certain.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::Change { .. })
    }

    /// Whether there is nothing to do for certain.
    pub fn is_none(&self) -> bool {
        matches!(self, Self::NoChange { .. })
    }
}

impl Plan {
    /// The operation at this place.
    ///
    /// # Panics
    /// When the place is of another plan.
    pub fn operation(&self, id: OpId) -> &PlannedOperation {
        &self.operations[id.index()]
    }

    /// Whether every operation on every host has nothing to do for certain.
    pub fn is_none(&self) -> bool {
        self.operations.iter().flat_map(|operation| &operation.hosts).all(|host| host.outlook.is_none())
    }
}

/// One title for an operation that hosts name differently: what they share at both ends, and a star between.
pub fn fold_titles<'t>(titles: impl IntoIterator<Item = &'t str>) -> String {
    let mut all: Vec<&str> = titles.into_iter().collect();
    all.dedup();
    let Some((first, rest)) = all.split_first() else { return String::new() };
    if rest.iter().all(|title| title == first) {
        return (*first).to_owned();
    }
    let common = |mut a: usize, other: &str, reverse: bool| {
        let same = if reverse {
            first.chars().rev().zip(other.chars().rev()).take_while(|(x, y)| x == y).count()
        } else {
            first.chars().zip(other.chars()).take_while(|(x, y)| x == y).count()
        };
        a = a.min(same);
        a
    };
    let length = all.iter().map(|title| title.chars().count()).min().unwrap_or_default();
    let head = rest.iter().fold(length, |head, title| common(head, title, false));
    let tail = rest.iter().fold(length - head, |tail, title| common(tail, title, true));
    let chars: Vec<char> = first.chars().collect();
    let start: String = chars[..head].iter().collect();
    let end: String = chars[chars.len() - tail..].iter().collect();
    format!("{start}*{end}")
}

#[cfg(test)]
mod tests {
    use super::fold_titles;

    #[test]
    fn titles_are_folded() {
        assert_eq!(fold_titles(["Install", "Install"]), "Install");
        assert_eq!(fold_titles(["Key of web-01 there", "Key of web-02 there"]), "Key of web-0* there");
        assert_eq!(fold_titles(["a", "b"]), "*");
        assert_eq!(fold_titles(["aa", "aaa"]), "aa*");
        assert_eq!(fold_titles([]), "");
    }
}
