"""AddedTables: what later steps of the schema added, as their statements.

Owns the tables of files and batches, and the column of tokens in the sums of days.
"""

FILES_AND_BATCHES = (
    """
    CREATE TABLE files (
        id TEXT PRIMARY KEY,
        key_id TEXT NOT NULL REFERENCES keys (id),
        filename TEXT NOT NULL,
        purpose TEXT NOT NULL CHECK (purpose IN ('batch', 'batch_output')),
        bytes INTEGER NOT NULL CHECK (bytes >= 0),
        created_us INTEGER NOT NULL,
        expires_us INTEGER NOT NULL
    ) STRICT
    """,
    "CREATE INDEX files_key ON files (key_id, created_us, id)",
    "CREATE INDEX files_expires ON files (expires_us)",
    """
    CREATE TABLE batches (
        id TEXT PRIMARY KEY,
        key_id TEXT NOT NULL REFERENCES keys (id),
        endpoint TEXT NOT NULL,
        input_file TEXT NOT NULL,
        metadata TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ('validating', 'failed', 'in_progress', 'finalizing',
            'completed', 'expired', 'cancelling', 'cancelled')),
        created_us INTEGER NOT NULL,
        expires_us INTEGER NOT NULL,
        output_file TEXT NOT NULL,
        error_file TEXT NOT NULL,
        output_bytes INTEGER NOT NULL CHECK (output_bytes >= 0),
        error_bytes INTEGER NOT NULL CHECK (error_bytes >= 0),
        total INTEGER NOT NULL,
        completed INTEGER NOT NULL,
        failed INTEGER NOT NULL,
        errors TEXT NOT NULL,
        in_progress_us INTEGER,
        finalizing_us INTEGER,
        completed_us INTEGER,
        failed_us INTEGER,
        expired_us INTEGER,
        cancelling_us INTEGER,
        cancelled_us INTEGER
    ) STRICT
    """,
    "CREATE INDEX batches_key ON batches (key_id, created_us, id)",
    """
    CREATE INDEX batches_open ON batches (key_id)
    WHERE status IN ('validating', 'in_progress', 'finalizing', 'cancelling')
    """,
    "ALTER TABLE undelivered ADD COLUMN batch TEXT",
    "ALTER TABLE undelivered ADD COLUMN line INTEGER CHECK ((line IS NULL) = (batch IS NULL))",
    "CREATE UNIQUE INDEX undelivered_line ON undelivered (batch, line) WHERE batch IS NOT NULL",
)
"""What keys have uploaded, and what is to be computed of it; of a charge whose answer is not
written yet, the line of a batch that it is for. A line is charged once: of two such charges the
database refuses the second."""

TOKENS_OF_DAYS = (
    "ALTER TABLE usage_days ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0 CHECK (tokens >= 0)",
    """
    UPDATE usage_days SET tokens = units WHERE NOT EXISTS (
        SELECT 1 FROM prices WHERE prices.model = usage_days.model AND unit = 'document'
    )
    """,
)
"""Of what was sold by the document before, nobody knows the tokens."""
