-- An additive change: a constant default, so that no row is rewritten and the release before goes on working. The rows
-- that are there have the default, so nothing reads them to prove the constraint.
ALTER TABLE tb_ticket
    ADD COLUMN priority text NOT NULL DEFAULT 'normal',
    ADD COLUMN due_at timestamptz,
    ADD CONSTRAINT tb_ticket_priority_check CHECK (priority IN ('normal', 'high')) NOT VALID;
