-- One row; every writer reads and changes it. `cursor` is the newest charge's, `id` the newest source's or meter's.
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    cursor INTEGER NOT NULL,
    id INTEGER NOT NULL
) STRICT;
INSERT INTO head (one, cursor, id) VALUES (1, 0, 0);

-- A partition of a pipeline, and the end of what was applied of it.
CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    pipeline TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    ranges INTEGER NOT NULL,
    UNIQUE (pipeline, topic, partition)
) STRICT;

-- The newest applied ranges of each partition, to tell a repetition from a conflict.
CREATE TABLE ranges (
    source_id INTEGER NOT NULL REFERENCES sources (id),
    range_start INTEGER NOT NULL,
    range_end INTEGER NOT NULL,
    number INTEGER NOT NULL,
    digest BLOB NOT NULL CHECK (length(digest) = 16),
    charges INTEGER NOT NULL,
    PRIMARY KEY (source_id, range_start)
) STRICT, WITHOUT ROWID;

-- A tenant's meter; `key` is SHA-256 of both names.
CREATE TABLE meters (
    id INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE,
    tenant TEXT NOT NULL,
    meter TEXT NOT NULL,
    unit TEXT NOT NULL,
    scale INTEGER NOT NULL
) STRICT;

-- The ledger. `rules_revision` holds the 64 bits of an unsigned number.
CREATE TABLE charges (
    cursor INTEGER PRIMARY KEY,
    source_id INTEGER NOT NULL REFERENCES sources (id),
    source_offset INTEGER NOT NULL,
    n INTEGER NOT NULL,
    meter_id INTEGER NOT NULL REFERENCES meters (id),
    quantity INTEGER NOT NULL,
    event_time_ms INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    rule TEXT NOT NULL,
    rules_revision INTEGER NOT NULL,
    UNIQUE (source_id, source_offset, n)
) STRICT;

-- What was charged on a meter in a minute of event time (event_time_ms / 60000, rounded down), within one block of 2^20 entries of the
-- ledger (cursor >> 20). The upper and the lower 32 bits of the quantities are summed apart: a block has too few charges for either to
-- overflow. All of the charges lie between the two cursors, and a late one doesn't stretch that range past its block.
CREATE TABLE usage (
    meter_id INTEGER NOT NULL REFERENCES meters (id),
    minute INTEGER NOT NULL,
    block INTEGER NOT NULL,
    quantity_upper INTEGER NOT NULL,
    quantity_lower INTEGER NOT NULL,
    charges INTEGER NOT NULL,
    cursor_first INTEGER NOT NULL,
    cursor_last INTEGER NOT NULL,
    PRIMARY KEY (meter_id, minute, block)
) STRICT, WITHOUT ROWID;
