//! What a meter counts in, once and for ever.
//!
//! A ledger pins a meter's unit and scale by its first charge, and answers a charge in another unit with a conflict, which stops the
//! whole partition: every tenant's billing, because of one tenant's edit. So it is refused here, where only its author is stopped.

use std::collections::BTreeMap;

use document::{Fault, Faults, Item};

/// The tenant of the document for all tenants without one.
const EVERYBODY: &str = "*";

/// Unit and scale of each meter that was ever published, by tenant and name.
pub type Meters = BTreeMap<(String, String), Unit>;

/// What a meter counts in: 10^-scale units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub unit: String,
    pub scale: u32,
}

/// Adds the meters of a tenant's document, which has no faults otherwise, to `known`.
///
/// # Errors
/// The meters that count in something else than before.
pub fn add(known: &mut Meters, tenant: &str, file: &str, text: &str) -> Result<(), Vec<Fault>> {
    let root = document::parse(file, text).map_err(|fault| vec![fault])?;
    let faults = Faults::new(file);
    let meters = Item::root(&root, &faults)
        .map()
        .and_then(|reader| reader.optional("meters")?.entries());
    for (name, item) in meters.unwrap_or_default() {
        let Some(unit) = unit(&item) else { continue };
        // Events of a tenant without a document are charged by everybody's, so the two must not differ either, now or later.
        let other = known.iter().find(|((whose, meter), other)| {
            meter == name && **other != unit && (whose == tenant || whose == EVERYBODY || tenant == EVERYBODY)
        });
        match other {
            Some(((whose, _), Unit { unit, scale })) => item.fault(format!(
                "the meter \"{name}\" of tenant \"{whose}\" counts in \"{unit}\" with scale {scale} for ever, because a ledger \
                 can't add up two units; give this one another name"
            )),
            None => {
                known.insert((tenant.to_owned(), name.to_owned()), unit);
            }
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.into_vec())
    }
}

fn unit(item: &Item<'_>) -> Option<Unit> {
    let reader = item.map()?;
    let unit = reader.required("unit")?.text()?.to_owned();
    let scale = match reader.optional("scale") {
        Some(scale) => scale.integer(0..=u32::MAX)?,
        None => 0,
    };
    Some(Unit { unit, scale })
}
