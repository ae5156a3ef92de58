//! What a run of the model is bounded by.

use std::fmt;

use toolzz_operator::api::{OnConflict, RotationStrategy};

use crate::bugs::Bug;

/// Bounds of the world: everything that can be counted is counted down.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// What the run is called.
    pub name: &'static str,
    /// How new material reaches a credential.
    pub strategy: RotationStrategy,
    /// What is done about a credential of the same name that nobody holds. With `Adopt` there is one, made by hand.
    pub on_conflict: OnConflict,
    /// How many resources there are (1 or 2); both want the same remote name, and hold the same material.
    pub resources: usize,
    /// How many operators are at work, without election (1 or 2).
    pub operators: usize,
    /// It begins when all is settled: every resource has its credential, and every operator has seen it.
    pub settled: bool,
    /// How often an operator is killed: its memory, its cache and its listings are lost.
    pub crashes: u8,
    /// What it had sent takes effect at any later time, as from a process that was stopped, not within the settle period.
    pub late: bool,
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
    /// How many states are generated at the most, those that are met again among them.
    pub states: usize,
    /// The bug that is planted.
    pub bug: Option<Bug>,
}

/// The settle period, in ticks: it is over after three.
pub const SETTLE: u64 = 2;

impl fmt::Display for Bounds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { strategy, on_conflict, resources, operators, settled, late, hides, lag, .. } = self;
        write!(out, "{strategy:?}, {on_conflict:?}; resources {resources}, operators {operators}, ")?;
        let Self { crashes, losses, rotations, deletions, ticks, .. } = self;
        write!(out, "crashes {crashes}, losses {losses}, rotations {rotations}, deletions {deletions}, ")?;
        write!(out, "ticks {ticks}, lag {lag}")?;
        let listings = if *hides { ", inactive ones are hidden" } else { "" };
        let late = if *late { ", what the killed one sent comes at any time" } else { "" };
        let begin = if *settled { ", begins settled" } else { "" };
        write!(out, "{late}{listings}{begin}")
    }
}

impl Bounds {
    /// One resource, one operator, and nothing goes wrong.
    const fn new(name: &'static str, strategy: RotationStrategy) -> Self {
        Self {
            name,
            strategy,
            on_conflict: OnConflict::CreateNew,
            resources: 1,
            operators: 1,
            settled: false,
            crashes: 0,
            late: false,
            losses: 0,
            rotations: 0,
            deletions: 0,
            hides: false,
            lag: 0,
            ticks: 0,
            states: 4_000_000,
            bug: None,
        }
    }

    /// Explored in any `cargo test`: each takes seconds.
    pub fn quick() -> Vec<Self> {
        use RotationStrategy::{InPlace, Replace, Repoint};
        let one = |name, strategy| Self { lag: 1, ticks: 3, ..Self::new(name, strategy) };
        vec![
            Self { losses: 1, deletions: 1, ..one("a late update and a deletion", Repoint) },
            Self { losses: 1, hides: true, ..one("a lost create where inactive ones are hidden", Repoint) },
            Self { crashes: 1, rotations: 1, ticks: 1, ..one("a crash in a repoint", Repoint) },
            Self { crashes: 1, rotations: 1, ticks: 1, ..one("a crash in a replacement", Replace) },
            Self { crashes: 1, rotations: 1, ..one("a crash in place", InPlace) },
            Self { resources: 2, lag: 0, ticks: 0, on_conflict: OnConflict::Adopt, ..one("two that adopt", Repoint) },
            Self { operators: 2, ticks: 1, ..one("two operators", Repoint) },
        ]
    }

    /// Explored by command: minutes.
    pub fn large() -> Vec<Self> {
        use OnConflict::{Adopt, Fail};
        use RotationStrategy::{InPlace, Replace, Repoint};
        let one = |name, strategy| Self { lag: 1, ticks: 3, states: 40_000_000, ..Self::new(name, strategy) };
        let stopped = |name, strategy| Self { crashes: 1, late: true, ..one(name, strategy) };
        let two = |name, strategy| Self { operators: 2, ticks: 1, ..one(name, strategy) };
        let later = |name, strategy| Self { settled: true, ticks: 3, ..two(name, strategy) };
        let both = |bounds| Self { resources: 2, ticks: 0, lag: 0, on_conflict: Fail, ..bounds };
        vec![
            Self { losses: 2, ticks: 5, ..one("two lost creates or updates", Repoint) },
            Self { losses: 2, deletions: 1, ..one("two losses and a deletion", Repoint) },
            Self { crashes: 2, deletions: 1, ..one("two crashes and a deletion", Repoint) },
            Self { crashes: 1, losses: 1, rotations: 1, ..one("a crash, a loss, a repoint", Repoint) },
            Self { crashes: 2, rotations: 2, ticks: 1, ..one("two crashes, two repoints", Repoint) },
            Self {
                crashes: 1,
                losses: 1,
                deletions: 1,
                hides: true,
                ..one("a crash, a loss, a deletion, hidden", Repoint)
            },
            Self { losses: 1, rotations: 1, deletions: 1, ..one("a loss, a replacement, a deletion", Replace) },
            Self { crashes: 1, rotations: 1, deletions: 1, ..one("a crash, a replacement, a deletion", Replace) },
            Self { crashes: 2, rotations: 2, ticks: 1, ..one("two crashes, two replacements", Replace) },
            Self { crashes: 1, losses: 1, rotations: 2, ..one("a crash, a loss, twice in place", InPlace) },
            Self { losses: 1, rotations: 2, deletions: 1, ..one("a loss, twice in place, a deletion", InPlace) },
            Self { crashes: 1, rotations: 1, deletions: 1, ..one("a crash, in place, a deletion", InPlace) },
            Self { rotations: 2, deletions: 1, ..stopped("a stopped operator, two repoints, a deletion", Repoint) },
            Self { rotations: 1, deletions: 1, ..stopped("a stopped operator, a replacement, a deletion", Replace) },
            Self { rotations: 2, ..stopped("a stopped operator, two replacements", Replace) },
            Self { losses: 1, deletions: 1, ..two("two operators, a loss, a deletion", Repoint) },
            Self { losses: 1, hides: true, ticks: 3, ..two("two operators, a loss, hidden", Repoint) },
            Self { crashes: 2, ticks: 0, ..two("two operators, two crashes", Repoint) },
            Self { crashes: 1, rotations: 1, ticks: 0, ..two("two operators, a crash, a repoint", Repoint) },
            Self { rotations: 1, deletions: 1, ticks: 0, ..two("two operators, a replacement, a deletion", Replace) },
            Self { rotations: 1, ..two("two operators, in place", InPlace) },
            Self { losses: 1, rotations: 1, ticks: 1, ..later("two operators, later a loss, a repoint", Repoint) },
            Self { losses: 1, rotations: 1, ..later("two operators, later a loss, a replacement", Replace) },
            Self { losses: 1, rotations: 1, ..later("two operators, later a loss, in place", InPlace) },
            Self {
                crashes: 1,
                rotations: 1,
                ticks: 1,
                ..later("two operators, later a crash, a replacement", Replace)
            },
            Self { crashes: 1, rotations: 1, ..later("two operators, later a crash, in place", InPlace) },
            Self {
                rotations: 1,
                deletions: 1,
                ticks: 1,
                ..later("two operators, later a replacement, a deletion", Replace)
            },
            Self { rotations: 2, ticks: 1, ..later("two operators, later two repoints", Repoint) },
            Self { rotations: 2, ticks: 1, ..later("two operators, later two replacements", Replace) },
            Self {
                resources: 2,
                crashes: 1,
                deletions: 1,
                on_conflict: Adopt,
                ticks: 0,
                ..one("two that adopt", Repoint)
            },
            Self { resources: 2, losses: 1, on_conflict: Fail, ticks: 1, ..one("two of one name", Repoint) },
            both(two("two operators, two of one name", Repoint)),
            Self {
                losses: 1,
                rotations: 1,
                ticks: 1,
                ..both(later("two of one name, later a loss, a repoint", Repoint))
            },
            Self { crashes: 1, rotations: 1, ..both(later("two of one name, later a crash, a repoint", Repoint)) },
            Self {
                losses: 1,
                deletions: 1,
                ticks: 3,
                ..both(later("two of one name, later a loss, a deletion", Repoint))
            },
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
            Bug::NoSettle => Self { losses: 2, ..one(Repoint) },
            Bug::NoLook | Bug::ForgetLostPost => Self { losses: 1, ..one(Repoint) },
            Bug::RetireBeforePublish | Bug::ForgetRetiring => Self { rotations: 1, ..one(Replace) },
            Bug::ReleaseEarly => Self { deletions: 1, ..one(Repoint) },
            Bug::SharedMarker => Self { resources: 2, lag: 0, ticks: 0, ..one(Repoint) },
            Bug::InPlaceUnrecorded => Self { rotations: 2, crashes: 1, ..one(InPlace) },
            Bug::ForgetLatePut => Self { losses: 1, deletions: 1, ticks: 3, ..one(Repoint) },
        }
    }
}
