-- From version 1 to 2, before the sums are filled. Version 1 answered from an index of all charges by meter.
DROP INDEX charges_by_meter;
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

-- Version 1 called this table `ledger`. A service of version 1 that still has the file open would go on charging, past the sums: so it
-- finds the table gone, opens the file again, and is told that it's of a newer version.
CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    cursor INTEGER NOT NULL,
    id INTEGER NOT NULL
) STRICT;
INSERT INTO head (one, cursor, id) SELECT one, cursor, id FROM ledger;
DROP TABLE ledger;
