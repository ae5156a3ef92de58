//! What a run of the model is bounded by.

use toolzz_operator::api::RotationStrategy;

use crate::bugs::Bug;

/// Bounds of the world: everything that can be counted is counted down.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What the run is called.
    pub name: &'static str,
    /// How new material reaches a credential.
    pub strategy: RotationStrategy,
    /// How many resources there are (1 or 2); both want the same remote name, and hold the same material.
    pub resources: usize,
    /// How many operators are at work, without election (1 or 2).
    pub operators: usize,
    /// How often an operator is killed: its memory, its cache and its listings are lost.
    pub crashes: u8,
    /// How many POSTs and PUTs are given up without an answer. What was sent takes effect within the settle period, or never.
    pub losses: u8,
    /// How often the material of a resource changes: A, B, A.
    pub rotations: u8,
    /// How many resources are deleted.
    pub deletions: u8,
    /// Listings hide inactive credentials.
    pub hides: bool,
    /// For how many ticks a cache may lag behind the API server.
    pub lag: u64,
    /// How many ticks pass, apart from those that somebody waits for.
    pub ticks: u8,
    /// Of how many states one is checked for whether it settles when nothing more goes wrong.
    pub settling: u64,
    /// The bug that is planted.
    pub bug: Option<Bug>,
}

/// The settle period, in ticks.
pub const SETTLE: u64 = 2;

impl Bounds {
    /// One resource, one operator, and nothing goes wrong.
    const fn new(name: &'static str, strategy: RotationStrategy) -> Self {
        Self {
            name,
            strategy,
            resources: 1,
            operators: 1,
            crashes: 0,
            losses: 0,
            rotations: 0,
            deletions: 0,
            hides: false,
            lag: 0,
            ticks: 0,
            settling: 1,
            bug: None,
        }
    }

    /// Explored in any `cargo test`: each takes seconds.
    pub fn quick() -> Vec<Self> {
        use RotationStrategy::{InPlace, Replace, Repoint};
        let one = |name, strategy| Self { crashes: 1, lag: 1, ticks: 1, settling: 16, ..Self::new(name, strategy) };
        vec![
            Self { losses: 1, deletions: 1, ..one("create and delete", Repoint) },
            Self { rotations: 1, ..one("repoint", Repoint) },
            Self { rotations: 1, ..one("replace", Replace) },
            Self { rotations: 2, ..one("in place", InPlace) },
            Self { losses: 1, hides: true, ..one("inactive ones are hidden", Repoint) },
            Self { resources: 2, crashes: 0, lag: 0, ..one("two resources of one name", Repoint) },
            Self { operators: 2, crashes: 0, losses: 1, ..one("two operators", Repoint) },
        ]
    }

    /// Explored by command: minutes.
    pub fn large() -> Vec<Self> {
        use RotationStrategy::{InPlace, Replace, Repoint};
        let one = |name, strategy| Self {
            crashes: 2,
            losses: 2,
            rotations: 2,
            deletions: 1,
            lag: 1,
            ticks: 3,
            settling: 16,
            ..Self::new(name, strategy)
        };
        let two = |name, strategy| Self {
            crashes: 1,
            losses: 1,
            rotations: 1,
            ticks: 2,
            settling: 64,
            ..one(name, strategy)
        };
        vec![
            one("repoint, two crashes, two losses, two rotations, a deletion", Repoint),
            one("replace, the same", Replace),
            one("in place, the same", InPlace),
            Self { hides: true, ..one("repoint, the same, inactive ones hidden", Repoint) },
            Self { operators: 2, losses: 0, ..two("two operators, repoint", Repoint) },
            Self { operators: 2, crashes: 0, losses: 0, ..two("two operators, replace", Replace) },
            Self { operators: 2, crashes: 0, losses: 0, ..two("two operators, in place", InPlace) },
            Self { resources: 2, ..two("two resources of one name, repoint", Repoint) },
            Self { resources: 2, losses: 0, ..two("two resources of one name, replace", Replace) },
        ]
    }

    /// Small bounds in which this bug shows.
    pub fn of_bug(bug: Bug) -> Self {
        use RotationStrategy::{InPlace, Replace, Repoint};
        let one = |strategy| Self { lag: 1, ticks: 2, bug: Some(bug), ..Self::new(bug.name(), strategy) };
        match bug {
            Bug::PostActive | Bug::CommitBeforeRecord => one(Repoint),
            Bug::IgnoreMarker => Self { crashes: 1, ..one(Repoint) },
            Bug::NoPrecondition => Self { operators: 2, ticks: 1, ..one(Repoint) },
            Bug::NoSettle => Self { losses: 2, deletions: 1, ..one(Repoint) },
            Bug::NoLook | Bug::ForgetLostPost => Self { losses: 1, ..one(Repoint) },
            Bug::RetireBeforePublish => Self { rotations: 1, ..one(Replace) },
            Bug::ForgetRetiring => Self { rotations: 1, ..one(Replace) },
            Bug::ReleaseEarly => Self { deletions: 1, ..one(Repoint) },
            Bug::SharedMarker => Self { resources: 2, lag: 0, ticks: 0, ..one(Repoint) },
            Bug::InPlaceUnrecorded => Self { rotations: 2, crashes: 1, ..one(InPlace) },
            Bug::ForgetLatePut => Self { losses: 1, deletions: 1, ..one(Repoint) },
        }
    }
}
