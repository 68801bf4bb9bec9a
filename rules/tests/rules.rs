//! What rules do, seen from outside: documents in, columns and effects out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "rules/shop.rs"]
mod shop;
#[path = "rules/applying.rs"]
mod applying;
#[path = "rules/actions.rs"]
mod actions;
#[path = "rules/failures.rs"]
mod failures;
#[path = "rules/faults.rs"]
mod faults;
#[path = "rules/revisions.rs"]
mod revisions;
#[path = "rules/documents.rs"]
mod documents;
#[path = "rules/properties.rs"]
mod properties;
