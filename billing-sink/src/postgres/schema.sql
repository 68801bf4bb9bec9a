-- One row; every writer locks it first. `cursor` is the newest charge's, `id` the newest source's or meter's.
CREATE TABLE sluice_ledger (
    one int PRIMARY KEY CHECK (one = 1),
    version int NOT NULL,
    cursor bigint NOT NULL,
    id bigint NOT NULL
);
INSERT INTO sluice_ledger (one, version, cursor, id) VALUES (1, 1, 0, 0);

-- A partition of a pipeline, and the end of what was applied of it.
CREATE TABLE sluice_sources (
    id bigint PRIMARY KEY,
    pipeline text NOT NULL,
    topic text NOT NULL,
    partition int NOT NULL,
    cursor bigint NOT NULL,
    ranges bigint NOT NULL,
    UNIQUE (pipeline, topic, partition)
);

-- The newest applied ranges of each partition, to tell a repetition from a conflict.
CREATE TABLE sluice_ranges (
    source_id bigint NOT NULL REFERENCES sluice_sources (id),
    range_start bigint NOT NULL,
    range_end bigint NOT NULL,
    number bigint NOT NULL,
    digest bytea NOT NULL CHECK (length(digest) = 16),
    charges bigint NOT NULL,
    PRIMARY KEY (source_id, range_start)
);

-- A tenant's meter; `key` is SHA-256 of both names. Texts that come from clients have NUL written as \0 and \ as \\.
CREATE TABLE sluice_meters (
    id bigint PRIMARY KEY,
    key bytea NOT NULL UNIQUE,
    tenant text NOT NULL,
    meter text NOT NULL,
    unit text NOT NULL,
    scale bigint NOT NULL
);

-- The ledger. `rules_revision` holds the 64 bits of an unsigned number.
CREATE TABLE sluice_charges (
    cursor bigint PRIMARY KEY,
    source_id bigint NOT NULL REFERENCES sluice_sources (id),
    source_offset bigint NOT NULL,
    n bigint NOT NULL,
    meter_id bigint NOT NULL REFERENCES sluice_meters (id),
    quantity bigint NOT NULL,
    event_time_ms bigint NOT NULL,
    event_id text NOT NULL,
    rule text NOT NULL,
    rules_revision bigint NOT NULL,
    UNIQUE (source_id, source_offset, n)
);
CREATE INDEX sluice_charges_by_meter ON sluice_charges (meter_id, event_time_ms) INCLUDE (quantity);
