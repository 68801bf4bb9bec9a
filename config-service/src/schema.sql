-- A revision of all tenants' rules, once and for ever. `digest` holds the 64 bits of an unsigned number.
CREATE TABLE revisions (
    pipeline TEXT NOT NULL,
    number INTEGER NOT NULL CHECK (number > 0),
    digest INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    PRIMARY KEY (pipeline, number)
) STRICT, WITHOUT ROWID;

-- A tenant's document, in the revisions from `since` on and, when it was replaced or removed, before `until`. So a revision costs
-- what has changed in it, however many tenants there are.
CREATE TABLE documents (
    pipeline TEXT NOT NULL,
    tenant TEXT NOT NULL,
    since INTEGER NOT NULL,
    until INTEGER CHECK (until > since),
    file TEXT NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (pipeline, tenant, since)
) STRICT;

-- What every meter that was ever published counts in.
CREATE TABLE meters (
    pipeline TEXT NOT NULL,
    tenant TEXT NOT NULL,
    meter TEXT NOT NULL,
    unit TEXT NOT NULL,
    scale INTEGER NOT NULL,
    PRIMARY KEY (pipeline, tenant, meter)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER revisions_stay BEFORE UPDATE ON revisions BEGIN SELECT RAISE(ABORT, 'a revision is immutable'); END;
CREATE TRIGGER revisions_are_kept BEFORE DELETE ON revisions BEGIN SELECT RAISE(ABORT, 'a revision is immutable'); END;
CREATE TRIGGER documents_are_kept BEFORE DELETE ON documents BEGIN SELECT RAISE(ABORT, 'a revision is immutable'); END;
CREATE TRIGGER documents_stay BEFORE UPDATE ON documents
    WHEN old.until IS NOT NULL OR new.since <> old.since OR new.text <> old.text OR new.tenant <> old.tenant
    BEGIN SELECT RAISE(ABORT, 'a revision is immutable'); END;
