//! Bugs to plant, one at a time: a check that cannot fail shows nothing.

/// A way to break the protocol between the planner's decision and its effect, or in what the planner is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// A POST creates an active credential.
    PostActive,
    /// The first PUT is sent before the record is written.
    CommitBeforeRecord,
    /// A write to a resource does not ask whether it is unchanged.
    NoPrecondition,
    /// The planner waits for no settle period.
    NoSettle,
    /// A look is answered from memory.
    NoLook,
    /// A POST whose answer was lost is forgotten.
    ForgetLostPost,
    /// Nobody looks for the marker.
    IgnoreMarker,
    /// A superseded credential is deactivated before its successor is active and published.
    RetireBeforePublish,
    /// A record of a replacement leaves out what it supersedes.
    ForgetRetiring,
    /// The finalizer goes before the credential is deactivated.
    ReleaseEarly,
    /// The marker does not say whose it is.
    SharedMarker,
    /// `InPlace` sends material without recording before that it is unknown.
    InPlaceUnrecorded,
    /// A PUT that may come late is forgotten.
    ForgetLatePut,
}

impl Bug {
    /// Every one.
    pub const ALL: [Self; 13] = [
        Self::PostActive,
        Self::CommitBeforeRecord,
        Self::NoPrecondition,
        Self::NoSettle,
        Self::NoLook,
        Self::ForgetLostPost,
        Self::IgnoreMarker,
        Self::RetireBeforePublish,
        Self::ForgetRetiring,
        Self::ReleaseEarly,
        Self::SharedMarker,
        Self::InPlaceUnrecorded,
        Self::ForgetLatePut,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PostActive => "POST as active",
            Self::CommitBeforeRecord => "commit before the record",
            Self::NoPrecondition => "a write without a precondition",
            Self::NoSettle => "the settle period is not waited for",
            Self::NoLook => "a look is answered from memory",
            Self::ForgetLostPost => "a lost create is forgotten",
            Self::IgnoreMarker => "the marker is ignored",
            Self::RetireBeforePublish => "retire before publishing",
            Self::ForgetRetiring => "a replacement forgets what retires",
            Self::ReleaseEarly => "the finalizer goes early",
            Self::SharedMarker => "a marker without the uid",
            Self::InPlaceUnrecorded => "material in place is not recorded as unknown before",
            Self::ForgetLatePut => "a late update is forgotten",
        }
    }
}
