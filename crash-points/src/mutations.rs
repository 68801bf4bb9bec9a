//! What a test may take away from the protocol on the real parts, to see that somebody notices: a harness that cannot go red
//! proves nothing. Without the feature `armed` nothing is ever taken away.

use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// What is taken away, by the variable `SLUICE_MUTATION` of the program that is made to crash: `no-fence`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Mutation {
    /// Offsets are committed as if by somebody outside of the group, so that a member of an older generation is not refused; and each
    /// producer has a transactional id of its own, so that none is fenced by its successor.
    NoFence,
    /// The token of an insert is made of table, partition and start alone: without the end offset and the attempt.
    TokenWithoutEnd,
    /// The audit's record is written beside the transaction, not in it.
    AuditOutside,
    /// What is made of a range has another digest in each process, as of rules that are not pure.
    ImpureRules,
}

/// Whether this process was told to do without it.
#[cfg(feature = "armed")]
pub fn mutated(mutation: Mutation) -> bool {
    crate::armed::mutation() == Some(mutation)
}

/// Never.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub fn mutated(_: Mutation) -> bool {
    false
}
