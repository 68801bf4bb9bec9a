//! All tenants' rules at one moment.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::record_batch::RecordBatch;
use document::{Fault, Faults};
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed, xxh3_128};

use crate::applied::{Applied, Code, Failure};
use crate::apply::{Rows, merge, run};
use crate::catalog::{Catalog, EventShape};
use crate::position::Source;
use crate::program::{self, Program};
use crate::trial::{self, Trial};
use crate::written::{self, Notes, Written};

/// The tenant of the document for all tenants without one.
const EVERYBODY: &str = "*";

/// One tenant's document, checked and compiled.
#[derive(Debug, Clone)]
pub struct TenantRules {
    tenant: String,
    program: Arc<Program>,
    canonical: String,
    trials: Arc<[Trial]>,
}

impl TenantRules {
    /// The tenant, or `*` for all those without a document of their own.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// The document without its tenant, tests, comments and layout. Equal texts do the same to equal events.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn trials(&self) -> &[Trial] {
        &self.trials
    }
}

/// Checks one document. `file` is for messages only.
///
/// # Errors
/// All faults, in the order of the document.
pub fn check(file: &str, text: &str, catalog: &Catalog) -> Result<TenantRules, Vec<Fault>> {
    let root = document::parse(file, text).map_err(|fault| vec![fault])?;
    let faults = Faults::new(file);
    let notes = Notes {
        source: Source::new(text),
        faults: &faults,
    };
    let rules = written::read(&root, &notes).map(|written| compiled(&written, catalog, &notes));
    match rules {
        Some(rules) if faults.is_empty() => Ok(rules),
        _ => Err(faults.into_vec()),
    }
}

fn compiled(written: &Written<'_>, catalog: &Catalog, notes: &Notes<'_>) -> TenantRules {
    TenantRules {
        tenant: written.tenant.clone(),
        program: Arc::new(program::compile(written, catalog, notes)),
        canonical: written.canonical(),
        trials: trial::read(written, catalog).into(),
    }
}

/// An immutable snapshot of all tenants' rules.
#[derive(Debug, Clone)]
pub struct Revision {
    /// The number that the config service gave it.
    pub number: u64,
    /// Equal documents, whatever their layout, order and file names, have equal digests.
    pub digest: u64,
    tenants: HashMap<Box<str>, usize, BuildHasherDefault<OneShot>>,
    everybody: Option<usize>,
    programs: Vec<Arc<Program>>,
    by_text: HashMap<u128, usize>,
    catalog: Arc<Catalog>,
    catalog_digest: u64,
}

impl Revision {
    /// Compiles the documents of all tenants, each a file's name (for messages) and its text. Equal texts are
    /// compiled once.
    ///
    /// # Errors
    /// All faults of all documents; also two documents for one tenant.
    pub fn compile(number: u64, documents: &[(String, String)], catalog: &Catalog) -> Result<Self, Vec<Fault>> {
        Self::compiled_from(None, number, documents, catalog)
    }

    /// Compiles the next revision; what has the same text as in this one isn't compiled again, as long as the
    /// catalog is the same.
    ///
    /// # Errors
    /// As [`Revision::compile`].
    pub fn successor(
        &self,
        number: u64,
        documents: &[(String, String)],
        catalog: &Catalog,
    ) -> Result<Self, Vec<Fault>> {
        Self::compiled_from(Some(self), number, documents, catalog)
    }

    fn compiled_from(
        before: Option<&Self>,
        number: u64,
        documents: &[(String, String)],
        catalog: &Catalog,
    ) -> Result<Self, Vec<Fault>> {
        let catalog_digest = catalog.digest();
        let mut compiler = Compiler {
            catalog,
            before: before.filter(|before| before.catalog_digest == catalog_digest),
            programs: Vec::new(),
            by_text: HashMap::new(),
            tenants: Vec::new(),
            names: HashSet::new(),
            faults: Vec::new(),
        };
        for (file, text) in documents {
            compiler.add(file, text);
        }
        let Compiler {
            programs,
            by_text,
            mut tenants,
            faults,
            ..
        } = compiler;
        if !faults.is_empty() {
            return Err(faults);
        }
        tenants.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        let everybody = tenants
            .iter()
            .find(|entry| entry.tenant == EVERYBODY)
            .map(|entry| entry.program);
        Ok(Self {
            number,
            digest: digest(&tenants),
            everybody,
            tenants: tenants
                .into_iter()
                .map(|entry| (entry.tenant.into_boxed_str(), entry.program))
                .collect(),
            programs,
            by_text,
            catalog: Arc::new(catalog.clone()),
            catalog_digest,
        })
    }

    /// Applies each row's tenant's rules. `event` is an index into the catalog's events, and `batch` has its schema.
    /// Rows of tenants without rules come out unchanged. Never fails as a whole: a row whose rules fail is a
    /// [`Failure`], and no other row notices.
    pub fn apply(&self, event: usize, batch: &RecordBatch) -> Applied {
        let Some(shape) = self.catalog.events.get(event) else {
            return refused(batch, "the catalog has no such event");
        };
        if batch.schema_ref().fields() != shape.schema.fields() {
            return refused(batch, "the batch has other columns than the catalog's event");
        }
        let Some(tenants) = batch.column(shape.tenant).as_string_opt::<i32>() else {
            return refused(batch, "the tenant's column is no text");
        };
        let mut outcomes = Vec::new();
        for (program, rows) in self.groups(event, tenants) {
            run(&self.programs[program].events[event], batch, rows, &mut outcomes);
        }
        merge(batch, shape, outcomes)
    }

    /// Which rows each program works on. Rows for which no rule is written are in none.
    fn groups(&self, event: usize, tenants: &StringArray) -> Vec<(usize, Rows)> {
        let all = Rows::All(u32::try_from(tenants.len()).unwrap_or(u32::MAX));
        let works = |program: &usize| !self.programs[*program].events[event].is_empty();
        let only_everybody = self.tenants.len() == usize::from(self.everybody.is_some());
        if only_everybody || tenants.is_empty() {
            return self
                .everybody
                .filter(works)
                .filter(|_| !tenants.is_empty())
                .map(|it| (it, all))
                .into_iter()
                .collect();
        }
        let mut groups: Vec<(usize, Vec<u32>)> = Vec::new();
        let mut group_of: Vec<Option<usize>> = vec![None; self.programs.len()];
        for (row, tenant) in (0_u32..).zip(tenants.iter()) {
            let own = tenant.and_then(|tenant| self.tenants.get(tenant)).copied();
            let Some(program) = own.or(self.everybody).filter(works) else {
                continue;
            };
            let group = *group_of[program].get_or_insert_with(|| {
                groups.push((program, Vec::new()));
                groups.len() - 1
            });
            groups[group].1.push(row);
        }
        let whole = |rows: &[u32]| rows.len() == tenants.len();
        groups
            .into_iter()
            .map(|(program, rows)| {
                (
                    program,
                    if whole(&rows) {
                        all.clone()
                    } else {
                        Rows::Some(rows.into())
                    },
                )
            })
            .collect()
    }

    /// How many different programs there are: tenants with equal texts share one.
    pub fn programs(&self) -> usize {
        self.programs.len()
    }
}

/// A caller's slip must lose nothing: every row becomes a failure.
fn refused(batch: &RecordBatch, reason: &str) -> Applied {
    let failure = |row| Failure {
        row,
        rule: Arc::from(""),
        code: Code::Internal,
        field: None,
        reason: reason.to_owned(),
    };
    Applied {
        batch: batch.clone(),
        routes: Vec::new(),
        alerts: Vec::new(),
        charges: Vec::new(),
        failures: (0..u32::try_from(batch.num_rows()).unwrap_or(u32::MAX))
            .map(failure)
            .collect(),
        dropped: Vec::new(),
    }
}

struct Entry {
    tenant: String,
    program: usize,
    canonical: String,
}

struct Compiler<'a> {
    catalog: &'a Catalog,
    before: Option<&'a Revision>,
    programs: Vec<Arc<Program>>,
    by_text: HashMap<u128, usize>,
    tenants: Vec<Entry>,
    names: HashSet<String>,
    faults: Vec<Fault>,
}

impl Compiler<'_> {
    fn add(&mut self, file: &str, text: &str) {
        let root = match document::parse(file, text) {
            Ok(root) => root,
            Err(fault) => return self.faults.push(fault),
        };
        let faults = Faults::new(file);
        let notes = Notes {
            source: Source::new(text),
            faults: &faults,
        };
        if let Some(written) = written::read(&root, &notes) {
            let canonical = written.canonical();
            if !self.names.insert(written.tenant.clone()) {
                notes.fault(
                    &written.at,
                    format!("there is another document for the tenant `{}`", written.tenant),
                );
            }
            // Tests don't run here, but one that means nothing has to be said.
            trial::read(&written, self.catalog);
            let program = self.program(&written, &canonical, &notes);
            self.tenants.push(Entry {
                tenant: written.tenant,
                program,
                canonical,
            });
        }
        self.faults.extend(faults.into_vec());
    }

    fn program(&mut self, written: &Written<'_>, canonical: &str, notes: &Notes<'_>) -> usize {
        let text = xxh3_128(canonical.as_bytes());
        let known = self.by_text.get(&text).copied();
        if let (Some(program), true) = (known, notes.faults.is_empty()) {
            return program;
        }
        let earlier = self
            .before
            .and_then(|before| Some(Arc::clone(&before.programs[*before.by_text.get(&text)?])));
        let program = earlier.unwrap_or_else(|| Arc::new(program::compile(written, self.catalog, notes)));
        self.programs.push(program);
        let index = self.programs.len() - 1;
        if notes.faults.is_empty() {
            self.by_text.insert(text, index);
        }
        index
    }
}

fn digest(sorted: &[Entry]) -> u64 {
    let mut hasher = Xxh3::new();
    for entry in sorted {
        // Lengths keep apart what would read the same when it is put together.
        for text in [&entry.tenant, &entry.canonical] {
            hasher.update(&u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    hasher.digest()
}

/// Hashes a short text at once: the standard hasher would cost more than the rest of the lookup, and the set of
/// tenants is the operator's, not an attacker's.
#[derive(Debug, Default, Clone)]
pub struct OneShot(u64);

impl Hasher for OneShot {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }
}

impl EventShape {
    /// Runs one program over a batch of this event, whoever the tenant is.
    pub(crate) fn run_alone(&self, program: &Program, event: usize, batch: &RecordBatch) -> Applied {
        let mut outcomes = Vec::new();
        run(
            &program.events[event],
            batch,
            Rows::All(u32::try_from(batch.num_rows()).unwrap_or(u32::MAX)),
            &mut outcomes,
        );
        merge(batch, self, outcomes)
    }
}
