PRAGMA application_id = 1735536689;
PRAGMA user_version = 1945192888;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
) STRICT;
INSERT INTO "_sqlite_migrations" VALUES(1,'gigarouter','m001_keys_and_ledger','2026-11-26 04:16:08.157821+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'gigarouter','m002_double_entry','2026-11-26 04:16:08.172281+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'gigarouter','m003_credentials','2026-11-26 04:16:08.190275+00:00');
CREATE TABLE accounts (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('prepaid', 'unlimited', 'system')),
        key_id TEXT REFERENCES keys (id),
        posted INTEGER NOT NULL DEFAULT 0,
        held INTEGER NOT NULL DEFAULT 0 CHECK (held >= 0),
        day INTEGER NOT NULL DEFAULT 0,
        spent_today INTEGER NOT NULL DEFAULT 0 CHECK (spent_today >= 0),
        CHECK (kind <> 'prepaid' OR posted - held >= 0),
        CHECK ((kind = 'system') = (key_id IS NULL)),
        CHECK (key_id IS NULL OR key_id = id)
    ) STRICT
    ;
INSERT INTO "accounts" VALUES('issued','system',NULL,-1000000000,0,20000,0);
INSERT INTO "accounts" VALUES('revenue','system',NULL,6000000,0,20001,0);
INSERT INTO "accounts" VALUES('A','prepaid','A',994000000,0,20001,3000000);
INSERT INTO "accounts" VALUES('U','unlimited','U',0,0,0,0);
CREATE TABLE credentials (
        digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
        key_id TEXT NOT NULL REFERENCES keys (id),
        ends_us INTEGER NOT NULL
    ) STRICT
    ;
CREATE TABLE holds (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL REFERENCES accounts (id),
        amount INTEGER NOT NULL CHECK (amount = units * each),
        price INTEGER NOT NULL REFERENCES prices (version),
        tier TEXT NOT NULL CHECK (tier IN ('realtime', 'batch')),
        each INTEGER NOT NULL CHECK (each >= 0),
        units INTEGER NOT NULL CHECK (units >= 0),
        model TEXT NOT NULL,
        request_id TEXT NOT NULL,
        opened_us INTEGER NOT NULL
    ) STRICT
    ;
CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL CHECK (length(name) > 0),
        digest BLOB NOT NULL UNIQUE CHECK (length(digest) = 32),
        hint TEXT NOT NULL,
        unlimited INTEGER NOT NULL CHECK (unlimited IN (0, 1)),
        rpm INTEGER CHECK (rpm > 0),
        tpm INTEGER CHECK (tpm > 0),
        concurrency INTEGER CHECK (concurrency > 0),
        daily_budget INTEGER CHECK (daily_budget >= 0),
        models TEXT,
        created_us INTEGER NOT NULL,
        expires_us INTEGER,
        revoked_us INTEGER
    , scopes TEXT NOT NULL DEFAULT 'infer usage', forgotten_us INTEGER) STRICT
    ;
INSERT INTO "keys" VALUES('A','A',X'559AEAD08264D5795D3909718CDD05ABD49572E84FE55590EEF31A88A08FDFFD','h',0,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,'infer usage',NULL);
INSERT INTO "keys" VALUES('U','U',X'A25513C7E0F6EAA80A3337EE18081B9E2ED09E00AF8531C8F7BB2542764027E7','h',1,NULL,NULL,NULL,NULL,NULL,0,NULL,NULL,'infer usage',NULL);
CREATE TABLE prices (
        version INTEGER PRIMARY KEY,
        model TEXT NOT NULL,
        unit TEXT NOT NULL CHECK (unit IN ('token', 'document')),
        realtime INTEGER NOT NULL CHECK (realtime >= 0),
        batch INTEGER NOT NULL CHECK (batch >= 0),
        since_us INTEGER NOT NULL
    ) STRICT
    ;
INSERT INTO "prices" VALUES(1,'m','token',1000000,1000000,1728043200000000);
CREATE TABLE repeats (
        account TEXT NOT NULL REFERENCES accounts (id),
        token BLOB NOT NULL CHECK (length(token) = 32),
        fingerprint BLOB NOT NULL CHECK (length(fingerprint) = 32),
        seq INTEGER NOT NULL UNIQUE REFERENCES transfers (seq),
        until_us INTEGER NOT NULL,
        PRIMARY KEY (account, token)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "repeats" VALUES('A',X'0202020202020202020202020202020202020202020202020202020202020202',X'6666666666666666666666666666666666666666666666666666666666666666',4,1728216000000000);
CREATE TABLE transfers (
        seq INTEGER PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('grant', 'charge', 'refund', 'crash_refund')),
        debit TEXT NOT NULL REFERENCES accounts (id),
        credit TEXT NOT NULL REFERENCES accounts (id),
        amount INTEGER NOT NULL CHECK (amount >= 0),
        at_us INTEGER NOT NULL,
        hold_id INTEGER UNIQUE,
        refunds INTEGER UNIQUE REFERENCES transfers (seq),
        price INTEGER REFERENCES prices (version),
        tier TEXT CHECK (tier IN ('realtime', 'batch')),
        each INTEGER CHECK (each >= 0),
        units INTEGER CHECK (units >= 0),
        model TEXT,
        request_id TEXT,
        hash BLOB NOT NULL CHECK (length(hash) = 32),
        CHECK (debit <> credit),
        CHECK (kind <> 'grant' OR debit = 'issued'),
        CHECK (kind <> 'charge' OR credit = 'revenue'),
        CHECK (refunds IS NULL OR debit = 'revenue'),
        CHECK ((kind = 'charge') = (hold_id IS NOT NULL)),
        CHECK ((kind IN ('refund', 'crash_refund')) = (refunds IS NOT NULL)),
        CHECK (kind <> 'charge' OR
            (tier IS NOT NULL AND units IS NOT NULL AND model IS NOT NULL)),
        CHECK ((each IS NULL) = (price IS NULL)),
        CHECK (each IS NULL OR amount = units * each)
    ) STRICT
    ;
INSERT INTO "transfers" VALUES(1,'grant','issued','A',1000000000,1728043200000000,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,X'ACC54DBF007FC8261B45E8308C54B95A417609D63FFBC028AD853060AED33ACA');
INSERT INTO "transfers" VALUES(2,'charge','A','revenue',3000000,1728043200000000,1,NULL,1,'realtime',1000000,3,'m','req',X'CFD4E6FA7A2B7CE0EA1198F9961F05A7BB70CE0716F88FF795D7081E4B1019B8');
INSERT INTO "transfers" VALUES(3,'charge','A','revenue',3000000,1728043200000000,2,NULL,1,'realtime',1000000,3,'m','req',X'6613439A6AA500A8E82586FD9645EB5D341E2B7C95FA77F46ADE88469661FE44');
INSERT INTO "transfers" VALUES(4,'charge','A','revenue',3000000,1728129600000000,3,NULL,1,'realtime',1000000,3,'m','req',X'E1B23E78FDB674A74834D15EAEBF8F02A0743A9582347A2130ECAA6D94B1F801');
INSERT INTO "transfers" VALUES(5,'refund','revenue','A',3000000,1728129600000000,NULL,3,NULL,NULL,NULL,NULL,NULL,NULL,X'1CB161BC8B8747BA9C60DEE331BECA72F772F62B0445715494B33078FF003DE0');
CREATE TABLE undelivered (
        seq INTEGER PRIMARY KEY REFERENCES transfers (seq)
    ) STRICT
    ;
CREATE TABLE usage_days (
        day INTEGER NOT NULL,
        account TEXT NOT NULL REFERENCES accounts (id),
        model TEXT NOT NULL,
        tier TEXT NOT NULL,
        calls INTEGER NOT NULL,
        units INTEGER NOT NULL,
        amount INTEGER NOT NULL,
        refunds INTEGER NOT NULL DEFAULT 0,
        refunded INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (day, account, model, tier),
        CHECK (0 <= refunds AND refunds <= calls AND 0 <= refunded AND refunded <= amount)
    ) STRICT, WITHOUT ROWID
    ;
INSERT INTO "usage_days" VALUES(20000,'A','m','realtime',2,6,6000000,1,3000000);
INSERT INTO "usage_days" VALUES(20001,'A','m','realtime',1,3,3000000,0,0);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX prices_model ON prices (model, version);
CREATE INDEX transfers_debit ON transfers (debit, seq);
CREATE INDEX repeats_until ON repeats (until_us);
CREATE TRIGGER transfers_never_change BEFORE UPDATE ON transfers
    WHEN NEW.request_id IS NOT NULL OR NEW.seq IS NOT OLD.seq OR NEW.kind IS NOT OLD.kind
        OR NEW.debit IS NOT OLD.debit OR NEW.credit IS NOT OLD.credit
        OR NEW.amount IS NOT OLD.amount OR NEW.at_us IS NOT OLD.at_us
        OR NEW.hold_id IS NOT OLD.hold_id OR NEW.refunds IS NOT OLD.refunds
        OR NEW.price IS NOT OLD.price OR NEW.tier IS NOT OLD.tier OR NEW.each IS NOT OLD.each
        OR NEW.units IS NOT OLD.units OR NEW.model IS NOT OLD.model OR NEW.hash IS NOT OLD.hash
    BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END;
CREATE TRIGGER transfers_never_go BEFORE DELETE ON transfers
    BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END;
CREATE TRIGGER prices_never_change BEFORE UPDATE ON prices
    BEGIN SELECT RAISE(ABORT, 'prices are immutable'); END;
CREATE TRIGGER prices_never_go BEFORE DELETE ON prices
    BEGIN SELECT RAISE(ABORT, 'prices are immutable'); END;
CREATE TRIGGER holds_never_change BEFORE UPDATE ON holds
    BEGIN SELECT RAISE(ABORT, 'a hold resolves, it does not change'); END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('holds',3);
COMMIT;
