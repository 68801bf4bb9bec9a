//! What a put changes, and everything that is wrong with it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use document::Fault;
use proto::config::v1::Document;
use rules::{Catalog, Revision};

use crate::meters::{self, Meters};
use crate::store::{Documents, Kept};

/// What the documents of a put ask for. `None` removes a tenant's document.
pub type Changes = BTreeMap<String, Option<Kept>>;

/// The newest revision, on top of which a put comes.
pub struct Before {
    pub documents: Documents,
    /// What they were compiled to, if that is still known.
    pub compiled: Option<Arc<Revision>>,
    /// The meters of all revisions.
    pub meters: Meters,
    pub number: u64,
}

/// A put that is right.
#[derive(Debug)]
pub struct Checked {
    /// What differs from before. Empty: the put asks for what is there already.
    pub changes: Changes,
    /// All tenants' rules afterwards, compiled as a worker will.
    pub revision: Revision,
    /// The meters of all revisions, with this one's.
    pub meters: Meters,
}

/// Checks the documents, runs the tests inside them, and compiles what all tenants together will have.
///
/// # Errors
/// All faults: of the documents that were put, or else of those that stay and no longer fit the catalog.
pub fn check(documents: Vec<Document>, before: Before, catalog: &Catalog) -> Result<Checked, Vec<Fault>> {
    let mut faults = Vec::new();
    let mut changes = Changes::new();
    for (index, document) in documents.into_iter().enumerate() {
        let file = named(&document, index);
        match one(&file, document, catalog) {
            Ok((tenant, kept)) => {
                if changes.insert(tenant.clone(), kept).is_some() {
                    faults.push(whole(
                        &file,
                        format!("tenant \"{tenant}\" has another document in this put; name it once"),
                    ));
                }
            }
            Err(found) => faults.extend(found),
        }
    }
    // The file's name is for messages: the same text under another name changes nothing.
    let text = |kept: Option<&Kept>| kept.map(|kept| kept.text.clone());
    changes.retain(|tenant, kept| text(kept.as_ref()) != text(before.documents.get(tenant)));
    let Before {
        documents: mut after,
        compiled,
        mut meters,
        number,
    } = before;
    for (tenant, kept) in &changes {
        let Some(kept) = kept else {
            after.remove(tenant);
            continue;
        };
        if let Err(found) = meters::add(&mut meters, tenant, &kept.file, &kept.text) {
            faults.extend(found);
        }
        after.insert(tenant.clone(), kept.clone());
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    let texts: Vec<(String, String)> = after.into_values().map(|kept| (kept.file, kept.text)).collect();
    let revision = match compiled {
        Some(compiled) => compiled.successor(number + 1, &texts, catalog),
        None => Revision::compile(number + 1, &texts, catalog),
    };
    Ok(Checked {
        changes,
        revision: revision?,
        meters,
    })
}

fn named(document: &Document, index: usize) -> String {
    match (document.file.as_str(), document.tenant.as_str()) {
        ("", "") => format!("documents[{index}]"),
        ("", tenant) => format!("{tenant}.yaml"),
        (file, _) => file.to_owned(),
    }
}

fn one(file: &str, document: Document, catalog: &Catalog) -> Result<(String, Option<Kept>), Vec<Fault>> {
    let Document { tenant, text, .. } = document;
    if text.is_empty() {
        if tenant.is_empty() {
            return Err(vec![whole(
                file,
                "an empty text removes a tenant's rules, but no tenant is named".to_owned(),
            )]);
        }
        return Ok((tenant, None));
    }
    let rules = rules::check(file, &text, catalog)?;
    let mut faults = Vec::new();
    if !tenant.is_empty() && tenant != rules.tenant() {
        faults.push(whole(
            file,
            format!(
                "it was put for tenant \"{tenant}\", but its text says \"{}\"",
                rules.tenant()
            ),
        ));
    }
    // Rules that fail their own tests don't do what their author means.
    for test in rules::run_tests(&rules, catalog) {
        for difference in test.differences {
            let (path, message) = (test.name.clone(), format!("the test fails: {difference}"));
            faults.push(Fault {
                file: file.to_owned(),
                line: test.line,
                column: test.column,
                path,
                message,
            });
        }
    }
    if faults.is_empty() {
        let kept = Kept {
            file: file.to_owned(),
            text,
        };
        Ok((rules.tenant().to_owned(), Some(kept)))
    } else {
        Err(faults)
    }
}

fn whole(file: &str, message: String) -> Fault {
    Fault {
        file: file.to_owned(),
        line: 0,
        column: 0,
        path: String::new(),
        message,
    }
}
