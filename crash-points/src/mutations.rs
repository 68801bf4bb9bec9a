//! What a test may take away from the protocol on the real parts, to see that somebody notices: a harness that cannot go red
//! proves nothing. Without the feature `armed` nothing is ever taken away.

use std::fmt;
use std::str::FromStr;

/// What is taken away, by the variable `SLUICE_MUTATION` of the program that is made to crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Offsets are committed as if by somebody outside of the group, so that a member of an older generation is not refused; and each
    /// producer has a transactional id of its own, so that none is fenced by its successor.
    NoFence,
    /// The token of an insert is made of table, partition and start alone: without the end offset and the attempt.
    TokenWithoutEnd,
    /// The audit's record is written beside the transaction, not in it.
    AuditOutside,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Mutation; 3] = [Mutation::NoFence, Mutation::TokenWithoutEnd, Mutation::AuditOutside];

    /// As it is written in `SLUICE_MUTATION`.
    pub fn name(self) -> &'static str {
        match self {
            Mutation::NoFence => "no-fence",
            Mutation::TokenWithoutEnd => "token-without-end",
            Mutation::AuditOutside => "audit-outside",
        }
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(text: &str) -> Result<Mutation, String> {
        let found = Mutation::ALL.into_iter().find(|mutation| mutation.name() == text);
        found.ok_or_else(|| {
            let names = Mutation::ALL.map(Mutation::name).join(", ");
            format!("'{text}' is no mutation; there are: {names}")
        })
    }
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
