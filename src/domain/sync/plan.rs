//! Plans: what a run would do, or what the guard holds back, and the hash by which that is approved.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key::{Key, Kind};

/// What is done to something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Op {
    /// A user is created.
    Create,
    /// A user is changed.
    Update,
    /// A user is disabled.
    Disable,
    /// A user is usable again.
    Reactivate,
    /// A user gets another id of the source, and stays who it is.
    Rekey,
    /// A group is created.
    CreateGroup,
    /// A group is changed, or its members.
    UpdateGroup,
    /// A group is deleted.
    DeleteGroup,
    /// A group loses a member.
    LoseMembership,
    /// A user loses a role.
    LoseRole,
}

/// How many of each kind are shown.
const SAMPLES: usize = 20;

/// One step, as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What is done.
    pub op: Op,
    /// To whom: the id that the source gave.
    pub subject: String,
    /// What more there is to say: the other id, the group or the role.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Tells it from any other: the same steps have the same one, in whatever order they were found.
    pub hash: String,
    /// How many steps of each kind.
    pub summary: BTreeMap<Op, u64>,
    /// Some of each kind.
    pub samples: Vec<Sample>,
}

/// Collects the steps of a plan, in 16 bytes for each.
#[derive(Debug, Default)]
pub struct Planner {
    steps: Vec<Key>,
    salt: Option<i64>,
    plan: Plan,
}

impl Planner {
    /// Adds a step.
    pub fn add(&mut self, op: Op, subject: &str, detail: &str) {
        self.steps.push(Key::of(Kind::Step, [op.as_str(), subject, detail]));
        let count = self.plan.summary.entry(op).or_default();
        *count += 1;
        if *count <= SAMPLES as u64 {
            self.plan.samples.push(Sample { op, subject: subject.to_owned(), detail: detail.to_owned() });
        }
    }

    /// Makes this a part of the hash: the same steps at another time are another plan.
    pub fn salt(&mut self, since: i64) {
        self.salt = Some(since);
    }

    /// The plan.
    #[must_use]
    pub fn finish(mut self) -> Plan {
        self.steps.sort_unstable();
        self.steps.dedup();
        let mut hash = Sha256::new();
        self.salt.iter().for_each(|salt| hash.update(salt.to_le_bytes()));
        self.steps.iter().for_each(|step| hash.update(step.as_bytes()));
        let digest = hash.finalize();
        self.plan.hash = digest.iter().take(16).fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        self.plan.samples.sort_by_key(|sample| sample.op);
        self.plan
    }
}

impl Op {
    /// As users read it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Disable => "disable",
            Self::Reactivate => "reactivate",
            Self::Rekey => "rekey",
            Self::CreateGroup => "createGroup",
            Self::UpdateGroup => "updateGroup",
            Self::DeleteGroup => "deleteGroup",
            Self::LoseMembership => "loseMembership",
            Self::LoseRole => "loseRole",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(steps: &[(Op, &str, &str)]) -> Plan {
        let mut planner = Planner::default();
        for (op, subject, detail) in steps {
            planner.add(*op, subject, detail);
        }
        planner.finish()
    }

    #[test]
    fn the_same_steps_have_the_same_hash_in_whatever_order() {
        let one = plan(&[(Op::Disable, "a", ""), (Op::Disable, "b", ""), (Op::LoseRole, "a", "admin")]);
        let other = plan(&[(Op::LoseRole, "a", "admin"), (Op::Disable, "b", ""), (Op::Disable, "a", "")]);
        assert_eq!(one.hash, other.hash);
        assert_eq!(one.hash.len(), 32);
        for changed in [
            plan(&[(Op::Disable, "a", ""), (Op::Disable, "b", "")]),
            plan(&[(Op::Disable, "a", ""), (Op::Disable, "c", ""), (Op::LoseRole, "a", "admin")]),
            plan(&[(Op::Disable, "a", ""), (Op::Disable, "b", ""), (Op::LoseRole, "aa", "dmin")]),
            plan(&[]),
        ] {
            assert_ne!(one.hash, changed.hash);
        }
        let mut salted = Planner::default();
        salted.add(Op::Disable, "a", "");
        salted.salt(1);
        assert_ne!(salted.finish().hash, plan(&[(Op::Disable, "a", "")]).hash);
    }

    #[test]
    fn twenty_of_each_kind_are_shown_and_all_are_counted() {
        let mut planner = Planner::default();
        (0..100).for_each(|number| planner.add(Op::Create, &number.to_string(), ""));
        planner.add(Op::Disable, "x", "");
        let plan = planner.finish();
        assert_eq!(plan.summary, [(Op::Create, 100), (Op::Disable, 1)].into());
        assert_eq!(plan.samples.len(), 21);
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
    }
}
