//! Faults of the design that a run may be told to have: a harness that cannot go red proves nothing. Each takes one
//! thing away that the protocol relies on, in the hands or in a server; the state machine itself stays as it is.

/// What is taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mutation {
    /// Nothing.
    #[default]
    None,
    /// Neither does the server refuse late inserts nor does a settler wait for the deadline.
    NoDeadline,
    /// The server takes inserts after their deadline.
    NoGuard,
    /// A settler reads back at once, although old inserts may still land.
    NoWait,
    /// The coordinator takes offsets from members of older generations.
    NoFence,
    /// A settler inserts everything again.
    NoReadBack,
    /// Committed offsets are read although a transaction is open on them.
    UnstableReads,
    /// Whoever settles feeds all rows again, not those that the rollups lack.
    BlindFeeding,
    /// The server forgets every token at once.
    NoDeduplication,
    /// Tokens are made of partition and start alone: without the end offset and the attempt.
    TokenWithoutEnd,
    /// The audit's record is written beside the transaction, not in it.
    AuditOutside,
    /// After doubt, or after its connection broke, a producer goes on with its epoch.
    KeepProducer,
    /// An insert whose outcome is unknown is sent again under its token, and its second answer believed.
    RepeatDoubt,
    /// A settler rebuilds with the rules of today.
    PresentRules,
    /// A thread that was given up while it waited for its epoch begins the transaction that it was given before.
    StaleWork,
    /// ClickHouse's clock goes back by more than `grace` while a lane still holds inserts.
    ClockBack,
    /// Billing applies a range again that it has applied already.
    ForgetfulBilling,
}

impl Mutation {
    /// All of them but [`Mutation::None`], with the names that `--mutation` takes.
    pub const ALL: [(&'static str, Mutation); 16] = [
        ("no-deadline", Mutation::NoDeadline),
        ("no-guard", Mutation::NoGuard),
        ("no-wait", Mutation::NoWait),
        ("no-fence", Mutation::NoFence),
        ("no-read-back", Mutation::NoReadBack),
        ("unstable-reads", Mutation::UnstableReads),
        ("blind-feeding", Mutation::BlindFeeding),
        ("no-deduplication", Mutation::NoDeduplication),
        ("token-without-end", Mutation::TokenWithoutEnd),
        ("audit-outside", Mutation::AuditOutside),
        ("keep-producer", Mutation::KeepProducer),
        ("repeat-doubt", Mutation::RepeatDoubt),
        ("present-rules", Mutation::PresentRules),
        ("stale-work", Mutation::StaleWork),
        ("clock-back", Mutation::ClockBack),
        ("forgetful-billing", Mutation::ForgetfulBilling),
    ];

    /// By its name.
    pub fn named(name: &str) -> Option<Mutation> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, mutation)| *mutation)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, known)| *known == self);
        found.map_or("none", |(name, _)| name)
    }
}
